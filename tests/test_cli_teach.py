"""`build --teach`: what it says of each step is so, and what it prints can be pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Layerbuild

RECIPE = """\
FROM busybox
LABEL a=b
COPY f /d/f
RUN chmod 600 /d/f && echo secret > /key
RUN rm /key && rm -r /d && mkdir /d && echo x > /d/x && echo y > /d/f
RUN true
"""


@pytest.fixture
def told(layerbuild: Layerbuild, context: Path) -> str:
    (context / "f").write_text("hi\n")
    said = layerbuild.build(context, RECIPE, "--teach", "-t", "taught")
    return "\n".join(line.strip() for line in said.splitlines())


def test_what_each_step_does(told: str) -> None:
    label, copy, change, delete, nothing = re.split(r"^(?=[1-5]/5  (?!layer|no layer))", told, flags=re.MULTILINE)[1:]
    assert "Only the image's configuration changes (a label: configuration)" in label
    assert "nothing is mounted" in copy and "entries:\nd/\nd/f\n" in copy
    assert "d/f   copied up: the file below stays as it was, and is hidden" in change
    assert "key   new" in change and "d   there below as well: the two are merged" in change
    assert "d   opaque: nothing of the folder below shows through" in delete
    assert re.search(r"^c\S+ 0,0  key   a whiteout: the name below is deleted$", delete, re.MULTILINE)
    assert "d/f   new" in delete and "d/x   new" in delete
    assert "entries:\nd/\nd/f\nd/x\n.wh.key\n" in delete
    assert "The upper folder is empty" in nothing and "no layer" in nothing


def test_the_lines_compute_what_they_say(
    told: str, layerbuild: Layerbuild, tmp_path: Path, program: Callable[[str], str]
) -> None:
    lines = re.findall(r"^(.+)  # (digest|diff ID|chain ID) ([0-9a-f]{64})$", told, re.MULTILINE)
    assert [name for _, name, _ in lines] == ["digest", "diff ID", "chain ID"] * 3
    for name in ("sh", "sha256sum", "gzip"):  # a machine that has busybox and nothing else
        (tmp_path / name).symlink_to(program("busybox"))
    for shell, path in (("sh", os.environ["PATH"]), (str(tmp_path / "sh"), str(tmp_path))):
        for line, _, wanted in lines:
            printed = subprocess.run(
                [shell, "-c", line], env={"PATH": path}, capture_output=True, text=True, check=True
            ).stdout
            assert printed.split()[0] == wanted
    made = layerbuild.layers("taught")[1:]
    assert [wanted for _, name, wanted in lines if name == "chain ID"] == [
        layer["chain_id"].partition(":")[2] for layer in made
    ]


@pytest.mark.root
def test_the_mount_can_be_pasted(rooted: Layerbuild, context: Path) -> None:
    (context / "f").write_text("hi\n")
    told = rooted.build(context, RECIPE, "--teach")
    mounts = re.findall(r"^ +(cd .* && mount -t overlay .*)$", told, re.MULTILINE)
    merged = re.findall(r"^ +merged +(\S+)$", told, re.MULTILINE)
    assert len(mounts) == len(merged) == 3
    script = f"{mounts[1]} && ls {merged[1]}/d"
    listed = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["f", "x"]
    assert not os.listdir(merged[1])


@pytest.mark.root
def test_the_mount_can_be_pasted_again(rooted: Layerbuild, context: Path) -> None:
    """A volatile mount leaves a mark that forbids the next one: the line that takes it away is printed too."""
    told = rooted.build(context, "FROM busybox\nRUN echo > /f\n", "--teach")
    (mount,) = re.findall(r"^ +(cd .* && mount -t overlay .*)$", told, re.MULTILINE)
    (again,) = re.findall(r"^ +(\(cd .*/work && rm -r work/incompat\))$", told, re.MULTILINE)
    (merged,) = re.findall(r"^ +merged +(\S+)$", told, re.MULTILINE)
    script = f"set -e; for time in 1 2; do {mount}; ls {merged}/f; umount {merged}; {again}; done"
    listed = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert listed.split() == [f"{merged}/f"] * 2


def test_the_mount_can_be_pasted_by_whoever_builds(layerbuild: Layerbuild, context: Path) -> None:
    told = layerbuild.build(context, "FROM busybox\nRUN echo hi > /f\n", "--teach")
    line = r"^ +by\n((?: +unshare .*\n)?) +(cd .* && mount -t overlay .*)$"
    ((enter, mount),) = re.findall(line, told, re.MULTILINE)
    (merged,) = re.findall(r"^ +merged +(\S+)$", told, re.MULTILINE)
    assert bool(enter) == layerbuild.rootless
    script = f"{enter.strip() or 'unshare --mount'} sh -c {shlex.quote(f'{mount} && cat {merged}/f')}"
    command = [*layerbuild.prefix, "sh", "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "hi\n"


def test_another_driver_mounts_nothing(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo > /f\n")
    told = rooted.run("--driver", "copy", "build", "--teach", context).stderr
    assert "The driver copy shows them as one tree." in told and "mount -t overlay" not in told
    assert re.search(r"^ +-\S+  f   new$", told, re.MULTILINE)


def test_what_the_cache_knows(rooted: Layerbuild, context: Path) -> None:
    (context / "f").write_text("hi\n")
    rooted.build(context, RECIPE)
    assert rooted.build(context, RECIPE, "--teach").count("what that one") == 4
