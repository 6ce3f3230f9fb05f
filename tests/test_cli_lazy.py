"""Nothing is unpacked before it is needed: a layer has a folder when a RUN, or the content of many files, asks."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import Layerbuild, add_member
from traces import assert_whole

ROWS = "root:x:0:0::/:/bin/sh\\napp:x:1234:99::/:/bin/sh\\n"
LOOKUPS = """\
FROM base
COPY file /lib/link/below/
COPY --chown=app file /etc/link
COPY --chown=app:web file /etc/new/
WORKDIR /etc/made
LABEL a=b
"""


def with_base(layerbuild: Layerbuild, context: Path) -> Layerbuild:
    """A store that ``base`` was imported into: links, accounts and a root of its own."""
    made, base = layerbuild.root.parent / "made.tar", layerbuild.root.parent / "base.tar"
    layerbuild.build(
        context / "base",
        "FROM busybox\nRUN mkdir -p /real /etc /lib && ln -s ../real /lib/link && ln -s /nowhere /etc/link && "
        f"printf '{ROWS}' > /etc/passwd && echo 'web:x:77:' > /etc/group\n",
        *("-o", f"type=tar,dest={made}"),
    )
    with tarfile.open(made) as tree, tarfile.open(base, "w") as out:
        add_member(out, "./", tarfile.DIRTYPE, mode=0o711)
        for member in tree:
            out.addfile(member, tree.extractfile(member) if member.isreg() else None)
    other = replace(layerbuild, root=layerbuild.root.parent / "other")
    other("import", "--tag", "base", base)
    assert folders(other, "base") == [""]
    return other


def folders(layerbuild: Layerbuild, image: str) -> list[str]:
    return [layer["folder"] for layer in layerbuild.layers(image)]


def test_a_build_without_a_run_unpacks_nothing(layerbuild: Layerbuild, context: Path) -> None:
    (context / "app").mkdir()
    (context / "app" / "file").write_text("content")
    layerbuild = with_base(layerbuild, context)
    layerbuild.build(context / "app", LOOKUPS, "-t", "app", "-o", "type=oci,dest=/dev/null")
    assert folders(layerbuild, "app")[0] == ""
    assert "(not unpacked)" in layerbuild("layers", "app")
    names = [layer["diff_id"] for layer in layerbuild.layers("app")]
    # The same as on a base that is unpacked, and the same that a RUN sees.
    layerbuild.build(context / "run", "FROM base\nRUN true > /made\n")
    assert "" not in folders(layerbuild, "base")
    layerbuild.build(context / "app", LOOKUPS, "-t", "again", "--no-cache")
    assert [layer["diff_id"] for layer in layerbuild.layers("again")] == names
    shown = layerbuild("run", "app", "stat", "-c", "%n %a %u:%g", "/", "/real/below/file", "/nowhere", "/etc/new/file")
    assert shown.splitlines() == [
        "/ 711 0:0",
        "/real/below/file 644 0:0",
        "/nowhere 644 1234:99",
        "/etc/new/file 644 1234:77",
    ]
    assert_whole(layerbuild.root)


def test_one_small_file_of_an_image_unpacks_nothing(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild = with_base(layerbuild, context)
    layerbuild.build(context / "app", "FROM scratch\nCOPY --from=base /etc/passwd /\n", "-t", "app")
    assert folders(layerbuild, "base") == [""]
    assert layerbuild.names("app") == ["passwd"]
    layerbuild.build(context / "app", "FROM scratch\nCOPY --from=base /etc /etc/\n", "-t", "app")
    assert "etc/passwd" in layerbuild.names("app") and folders(layerbuild, "base")[-1] != ""
    layerbuild.build(context / "app", "FROM base\nCOPY --from=app /etc/passwd /copied\nRUN cat /copied\n")


@pytest.mark.parametrize("size", [1 << 18, (1 << 18) + 1, 1 << 20, (1 << 20) + 1])
def test_a_file_of_any_size_of_an_image_that_has_no_folder(rooted: Layerbuild, context: Path, size: int) -> None:
    with tarfile.open(context / "base.tar", "w") as tar:
        add_member(tar, "file", content=b"x" * size)
    rooted("import", "--tag", "sized", context / "base.tar")
    rooted.build(context / "app", "FROM scratch\nCOPY --from=sized /file /\n", "-t", "app")
    assert rooted.names("app") == ["file"] and rooted.layers("app")[-1]["tar_size"] > size
    assert (folders(rooted, "sized") == [""]) is (size <= 1 << 20)


@pytest.mark.parametrize("source", ["src", "src/a*"], ids=["a folder", "files"])
def test_the_same_files_on_another_base_are_not_read_again(
    rooted: Layerbuild, context: Path, program: Callable[[str], str], source: str
) -> None:
    (context / "src").mkdir()
    for name in ("a1", "a2"):
        (context / "src" / name).write_text(name)
    os.link(context / "src/a1", context / "src/a3")
    copy = f"COPY --chown=1:2 {source} /there/new/\n"
    time.sleep(2.1)  # a younger file might change once more and bear the same time
    first = rooted.build(context, f"FROM busybox\n{copy}", "-t", "first")
    assert "cached" not in first
    rooted.build(context, f"FROM busybox\nRUN mkdir /elsewhere\n{copy}", "-t", "second", "--no-cache")
    (context / "Dockerfile").write_text(f"FROM busybox\nENV A=b\nWORKDIR /beside\n{copy}RUN cat /there/new/a3\n")
    log = context.parent / f"{context.name}.trace"  # what is read of a context is opened by openat2(2)
    traced = [
        program("strace"),
        "-f",
        "-e",
        "trace=openat2",
        "-o",
        log,
        *rooted.command("build", "-t", "third", context),
    ]
    subprocess.run(traced, check=True, env=rooted.environment(), capture_output=True)
    opened = log.read_text()
    log.unlink()
    assert not [name for name in ("a1", "a2", "a3") if f'{name}"' in opened]
    names = [[layer["diff_id"] for layer in rooted.layers(name)] for name in ("first", "second", "third")]
    assert names[0][-1] == names[1][-1] == names[2][-1]
    # Where what is below makes it another layer, it is made.
    rooted.build(context, f"FROM busybox\nRUN mkdir -p /there/new && chmod 700 /there\n{copy}", "-t", "other")
    assert rooted.layers("other")[-1]["diff_id"] != names[0][-1]
    assert_whole(rooted.root)
