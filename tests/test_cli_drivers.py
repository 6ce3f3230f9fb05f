"""Every driver does the same: one suite over the table, as root and as an ordinary user. A row of the table needs no
code here."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from places import fresh
from stores import Templates
from support import USER, Layerbuild, compile_setter, missing

from layerbuild.build.drivers.table import RUNGS

pytestmark = pytest.mark.forked

# All that a step can do to a tree. ``scratch`` has none of the mount points; /app is made by the sandbox.
RECIPE = r"""
FROM busybox AS base
RUN mkdir -p /d/sub /gone/deep /op/in && echo 1 > /d/a && ln /d/a /d/b && ln -s a /d/link && echo 2 > /d/sub/c
RUN echo x > /gone/deep/x && echo y > /op/y && echo z > /op/in/z && mkfifo /d/fifo && touch /d/s && chmod 4711 /d/s
COPY --chmod=600 file /copied/file
FROM base
WORKDIR /app/deep
RUN pwd > where && rm -r /gone && rm -r /op && mkdir /op && echo new > /op/new && chmod 700 /d/sub
RUN echo more >> /d/sub/c && rm /etc/group && rm -r /home && echo file > /home
RUN touch -d '1975-05-05 05:05:05' /d/sub/old && cp /d/a /d/a2 && mv /d/a2 /d/a && ln -sf /nowhere /d/broken
RUN mv /d/sub /moved && ln /moved/c /again && rm /d/link && mkdir /d/link && echo in > /d/link/in && touch /tmp /d
RUN cat /copied/file > /dev/null && chmod 600 /copied/file
RUN --mount=type=tmpfs,target=/mnt/here/it touch /mnt/here/it/x && echo done > /done
RUN --mount=type=bind,from=base,source=/d,target=/theirs,rw rm /theirs/a && mkdir /etc/new
RUN mkdir /root/x && rmdir /root/x && touch /bin && : > /d/fresh
RUN chmod 755 /moved && chmod 1777 /op && rm /done
"""


def drivers() -> list[str]:
    return [rung.name for rung in RUNGS]


@pytest.fixture(params=[f"{who}-{name}" for name in drivers() for who in ("root", "user")])
def driven(request: pytest.FixtureRequest, templates: Templates, context: Path) -> Iterator[Layerbuild]:
    """The command line with that driver, as root or as an ordinary user, on a file system that it works on."""
    who, _, name = request.param.partition("-")
    if os.geteuid() != 0 and who == "root":
        missing("not run as root")
    folder = context.with_name(f"{context.name}-store")
    with prepared(request, name, templates.copy(who, folder)) as layerbuild:
        yield replace(layerbuild, env={**layerbuild.env, "LAYERBUILD_DRIVER": name})
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def prepared(request: pytest.FixtureRequest, name: str, layerbuild: Layerbuild) -> Iterator[Layerbuild]:
    """``layerbuild`` where the driver can work: with a /dev/fuse that everybody may open, say."""
    if name == "fuse-overlayfs":
        request.getfixturevalue("program")(name)
        if layerbuild.rootless and layerbuild.prefix:
            node = layerbuild.root.parent / "fuse"
            show = f"mknod -m 666 {node} c 10 229; mount --bind {node} /dev/fuse"
            *words, script, zero = layerbuild.prefix
            layerbuild = replace(layerbuild, prefix=(*words, f"{show} && {script}", zero))
    if name != "btrfs":
        yield layerbuild
        return
    request.getfixturevalue("program")("mkfs.btrfs")
    folder = layerbuild.root.parent
    (folder / "disk").mkdir()
    with mounted_btrfs(folder / "image", folder / "disk"):
        os.chown(folder / "disk", *((USER, USER) if layerbuild.rootless else (0, 0)))
        subprocess.run(["cp", "-a", layerbuild.root, folder / "disk/store"], check=True)
        yield replace(layerbuild, root=folder / "disk/store")


@contextmanager
def mounted_btrfs(image: Path, target: Path) -> Iterator[None]:
    """A new file system of that kind, in a file."""
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", "-m", "single", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", target], check=True)
        image.unlink()


@pytest.fixture(scope="module")
def expected(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The diff IDs that root makes with the kernel's overlay."""
    if os.geteuid() != 0:
        missing("not run as root")
    folder = fresh("drivers")
    layerbuild = templates.copy("root", folder / "root")
    (folder / "context").mkdir()
    (folder / "context/file").write_text("content")
    layerbuild.build(folder / "context", RECIPE, "-t", "it")
    yield [layer["diff_id"] for layer in layerbuild.layers("it")]
    shutil.rmtree(folder)


def test_the_layers_are_the_same(driven: Layerbuild, context: Path, expected: list[str]) -> None:
    (context / "file").write_text("content")
    said = driven.build(context, RECIPE, "-t", "it")
    assert [layer["diff_id"] for layer in driven.layers("it")] == expected, said
    assert driven("run", "it", "cat", "/app/deep/where", "/op/new", "/home") == "/app/deep\nnew\nfile\n"
    assert driven.json("df")
    driven("prune", "--all", "--force")


def test_a_failed_step_can_be_entered(driven: Layerbuild, context: Path) -> None:
    recipe = (
        "FROM busybox\nRUN rm -r /home && mkdir /home /new && echo here > /home/x && ln -s /etc /new/link && false\n"
    )
    said = driven.build(context, recipe, code=1)
    workspace = said.partition(" shell ")[2].split()[0]
    assert driven("shell", workspace, "cat", "/home/x") == "here\n"
    driven("shell", workspace, "sh", "-c", "echo more >> /home/x; rm /etc/group; mkdir /home/y")
    assert (
        driven("shell", workspace, "sh", "-c", "cat /home/x; ls /home; ls /etc/group || true") == "here\nmore\nx\ny\n"
    )


def test_a_container_starts_from_the_image_each_time(driven: Layerbuild) -> None:
    assert driven("run", "busybox", "sh", "-c", "echo 1 > /x; rm -r /home; ls /x") == "/x\n"
    assert driven("run", "busybox", "sh", "-c", "ls /x || ls -d /home") == "/home\n"


def test_a_step_that_changes_nothing_makes_no_layer(driven: Layerbuild, context: Path) -> None:
    driven.build(context, "FROM busybox\nRUN touch /tmp/x && rm /tmp/x && cat /etc/passwd >> /dev/null\n", "-t", "it")
    assert len(driven.layers("it")) == 1


def test_names_of_one_file(driven: Layerbuild, context: Path) -> None:
    """Written to under one name, a file of the kernel's overlay parts with its others, and so do the copies; with
    fuse-overlayfs, as on a disk, all of them show what was written."""
    recipe = "FROM busybox\nRUN mkdir /d /e && echo 1 > /d/a && ln /d/a /d/b && ln /d/a /e/c\nRUN echo 2 >> /d/b\n"
    driven.build(context, recipe + "RUN cat /d/a /d/b /e/c > /seen\nCMD cat /seen", "-t", "it")
    apart = driven.env["LAYERBUILD_DRIVER"] != "fuse-overlayfs"
    assert driven("run", "it").split() == (["1", "1", "2", "1"] if apart else ["1", "2"] * 3)
    assert driven.names("it", 2) == (["d/", "d/b"] if apart else ["d/", "d/a", "d/b", "e/", "e/c"])


def test_owners_are_the_same(driven: Layerbuild, context: Path) -> None:
    """Also where they are noted, and of what can bear no mark."""
    recipe = "FROM busybox\nRUN touch /f && chown 5:6 /f && ln -s f /l && chown -h 7:8 /l && mkfifo /p && chown 9 /p"
    recipe += "\nRUN chown 1 /f && mv /l /m && chown -h 2:3 /m && mknod /c c 1 3"
    recipe += "\nUSER 7:8\nRUN echo x > /tmp/x && id -u >> /tmp/x"
    driven.build(context, recipe, "-t", "it")
    archive = driven.root.parent / "it.tar"
    driven.build(context, None, "-o", f"type=tar,dest={archive}")
    with tarfile.open(archive) as tar:
        found = {name: (tar.getmember(name).uid, tar.getmember(name).gid) for name in ("f", "m", "p", "c", "tmp/x")}
    assert found == {"f": (1, 6), "m": (2, 3), "p": (9, 0), "c": (0, 0), "tmp/x": (7, 8)}
    assert driven("run", "it", "cat", "/tmp/x") == "x\n7\n"


def test_overlays_marks_set_by_a_command(driven: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    """They hide nothing, are in no layer, and no build fails for them; whether the file system takes them or not. Nor
    do those by which a file stands for something else make a device of it, or a whiteout."""
    compile_setter(program("gcc"), context / "mark")
    names = ("overlay.opaque", "overlay.redirect", "fuseoverlayfs.opaque", "layerbuild.opaque")
    marks = "; ".join(f"mark /d user.{name} y" for name in names)
    recipe = "FROM busybox\nCOPY mark /bin/\nRUN mkdir -p /d/low && touch /d/low/x /f\n"
    recipe += f"RUN {marks}; touch /d/new; mark /d/new user.overlay.whiteout y; mark /f user.overlay.metacopy y\n"
    recipe += "USER 7\nRUN cd /tmp; touch a b; mark a user.layerbuild.device 'c 1:3'; chmod 700 a; mkdir f; \\\n"
    recipe += "  mark b user.layerbuild.device 'c 0:0'; chmod 0 b; mark f user.layerbuild.owner 0:0; chmod 4755 f\n"
    driven.build(context, recipe, "-t", "it")
    assert driven.names("it", -2) == ["d/", "d/new"]
    with tarfile.open(driven.root / "blobs/sha256" / driven.layers("it")[-1]["digest"].partition(":")[2]) as tar:
        assert [(member.name, member.type, member.uid) for member in tar if member.name != "tmp"] == [
            ("tmp/a", tarfile.REGTYPE, 7),
            ("tmp/b", tarfile.REGTYPE, 7),
            ("tmp/f", tarfile.DIRTYPE, 7),
        ]
    assert driven("run", "it", "find", "/d", "/f", "-type", "f") in ("/d/low/x\n/d/new\n/f\n", "/d/new\n/d/low/x\n/f\n")


def test_the_owner_of_a_link_of_a_lower_layer(driven: Layerbuild, context: Path) -> None:
    """A difference that is told: with one id it is noted by a number that fuse-overlayfs changes."""
    recipe = "FROM busybox\nRUN ln -s x /l && chown -h 7:8 /l\nRUN stat -c 'seen %u:%g' /l; touch /new\n"
    said = driven.build(context, recipe, "-t", "it")
    unknown = driven.rootless and driven.env["LAYERBUILD_DRIVER"] == "fuse-overlayfs"
    assert f"| seen {'0:0' if unknown else '7:8'}\n" in said
    with tarfile.open(driven.root / "blobs/sha256" / driven.layers("it")[1]["digest"].partition(":")[2]) as tar:
        assert (tar.getmember("l").uid, tar.getmember("l").gid) == (7, 8)


SET_IDS = """
FROM busybox
RUN mkdir -p /d/in /e /gone && chown 0:8 /d /d/in && chmod 2775 /d /d/in && cp /bin/busybox /s && chown 5:6 /s && \\
 chmod 6755 /s && ln /s /t && cp /bin/busybox /gone/u && chmod 4755 /gone/u && cp -p /gone/u /kept && \\
 cp -p /gone/u /v && cp -p /gone/u /w && chmod 2755 /gone
RUN echo x > /d/in/f && ln /kept /e/again && mkdir /e/new && rm -r /gone && mkdir /gone && ls -l /gone
RUN chmod u-s /v && chmod g-s /d && mv /w /moved
"""


def test_set_id_bits_are_the_same(driven: Layerbuild, context: Path) -> None:
    """Of what is written into, linked, changed and removed. fuse-overlayfs would lose them by itself."""
    driven.build(context, SET_IDS, "-t", "it")
    layers = []
    for layer in driven.layers("it")[2:]:
        with tarfile.open(driven.root / "blobs/sha256" / layer["digest"].partition(":")[2]) as tar:
            layers.append({member.name: (f"{member.mode:o}", member.uid, member.gid) for member in tar})
    assert layers[0].pop("gone")[0] == "755"
    assert layers[0] == {
        "d": ("2775", 0, 8),
        "d/in": ("2775", 0, 8),
        "d/in/f": ("644", 0, 8),
        "e": ("755", 0, 0),
        "e/again": ("4755", 0, 0),
        "e/new": ("755", 0, 0),
        "gone/.wh.u": ("0", 0, 0),
        "kept": ("4755", 0, 0),
    }
    assert layers[1] == {
        ".wh.w": ("0", 0, 0),
        "d": ("775", 0, 8),
        "moved": ("4755", 0, 0),
        "v": ("755", 0, 0),
    }


def test_a_folder_in_one_that_hands_its_group_down(driven: Layerbuild, context: Path) -> None:
    """A difference that is told: fuse-overlayfs hands it down to files alone."""
    recipe = "FROM busybox\nRUN mkdir /d && chown 0:8 /d && chmod 2775 /d && touch /d/f && mkdir /d/new\n"
    driven.build(context, recipe, "-t", "it")
    with tarfile.open(driven.root / "blobs/sha256" / driven.layers("it")[-1]["digest"].partition(":")[2]) as tar:
        made = {member.name: (f"{member.mode:o}", member.gid) for member in tar}
    assert made["d/f"] == ("644", 8)
    if driven.env["LAYERBUILD_DRIVER"] == "fuse-overlayfs":
        assert made["d/new"] in {("755", 0), ("755", 8), ("2755", 8)}
    else:
        assert made["d/new"] == ("2755", 8)


def test_a_copy_shares_the_blocks_of_large_files(
    rooted: Layerbuild, context: Path, program: Callable[[str], str], tmp_path: Path
) -> None:
    program("mkfs.btrfs")
    (tmp_path / "disk").mkdir()
    with mounted_btrfs(tmp_path / "image", tmp_path / "disk"):
        disk, size = tmp_path / "disk", 64 << 20
        (disk / "context").mkdir()
        (disk / "context/large").write_bytes(os.urandom(size))
        time.sleep(2.1)  # what changed just now is copied byte by byte
        layerbuild = replace(rooted, root=disk / "store")
        layerbuild.build(disk / "context", "FROM scratch\nCOPY large /\n", "-t", "it")
        os.sync()
        found = os.statvfs(disk)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        assert 2 * size < used < 3 * size  # the file and the blob, not the folder too
        (layer,) = layerbuild.layers("it")
        assert filecmp.cmp(Path(layer["folder"]) / "large", disk / "context/large", shallow=False)
