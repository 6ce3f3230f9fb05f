"""Contexts and archives that mean harm, or change while they are read: as root and as a user."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import USER, Layerbuild, add_member
from traces import assert_whole

from layerbuild.build.context import ContextTree
from layerbuild.errors import SourceError
from layerbuild.recipe.ignore import IgnoreRules

pytestmark = pytest.mark.machine

TOKEN = "canary-of-the-machine"


@pytest.fixture
def outside(context: Path) -> Iterator[Path]:
    """A folder beside the context, with a file that no image may have."""
    folder = context.with_name(f"{context.name}-outside")
    folder.mkdir()
    (folder / "canary").write_text(TOKEN)
    yield folder
    assert sorted(path.name for path in folder.iterdir()) == ["canary"]
    assert (folder / "canary").read_text() == TOKEN
    (folder / "canary").unlink()
    folder.rmdir()


def assert_nothing_from_outside(layerbuild: Layerbuild) -> None:
    files = [path for path in layerbuild.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [str(path) for path in files if TOKEN.encode() in path.read_bytes()] == []


# -- contexts ----------------------------------------------------------------------------------------------------------


def test_links_that_lead_out_of_the_context(layerbuild: Layerbuild, context: Path, outside: Path) -> None:
    (context / "file").symlink_to(outside / "canary")
    (context / "folder").symlink_to(outside)
    (context / "up").symlink_to("../" * 30 + str(outside)[1:])
    layerbuild.build(context, "FROM busybox\nCOPY . /all/\n", "-t", "links")
    assert layerbuild("run", "links", "readlink", "/all/file") == f"{outside}/canary\n"
    for line in ("COPY folder/canary /stolen", "RUN --mount=type=bind,source=up,target=/m ls /m"):
        (context / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
        assert "Dockerfile:2" in layerbuild.run("build", context, code=1).stderr
    assert_nothing_from_outside(layerbuild)


def test_special_files(layerbuild: Layerbuild, context: Path) -> None:
    """A socket is copied as an empty file, as in BuildKit; a fifo as a fifo, and nobody waits for its other end."""
    os.mkfifo(context / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(context / "socket"))
        recipe = (
            "FROM busybox\nCOPY fifo socket /copied/\nRUN cd /copied; test -p fifo; test -f socket; test ! -s socket\n"
        )
        layerbuild.build(context, recipe, "-t", "special")
    assert layerbuild.names("special") == ["copied/", "copied/fifo", "copied/socket"]


def test_pipes_in_the_place_of_what_the_builder_reads(layerbuild: Layerbuild, context: Path) -> None:
    """Nobody waits for their other end, in a folder and in a context that came from elsewhere."""
    (context / "Dockerfile").write_text("FROM busybox\n")
    os.mkfifo(context / ".dockerignore")
    tar = archive(("Dockerfile", tarfile.REGTYPE, "", b"FROM busybox\n"), (".dockerignore", tarfile.FIFOTYPE, "", b""))
    for said in (layerbuild.run("build", context, code=1), layerbuild.run("build", "-", stdin=tar, code=1)):
        assert ".dockerignore': it is a pipe" in said.stderr
    (context / ".dockerignore").unlink()
    (context / "Dockerfile").unlink()
    os.mkfifo(context / "Dockerfile")
    assert "Dockerfile is a pipe" in layerbuild.run("build", context, code=3).stderr
    only = archive(("Dockerfile", tarfile.FIFOTYPE, "", b""))
    assert "no recipe" in layerbuild.run("build", "-", stdin=only, code=3).stderr


def test_names_that_are_no_text(layerbuild: Layerbuild, context: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", b"tab\t", b"-rf", b"a b", b"*", b"\\", "ä".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(context) + b"/" + name)).write_bytes(name)
    said = layerbuild.build(context, "FROM busybox\nCOPY . /all\nRUN cd /all; cat ./* > /joined\n", "-t", "names")
    digest = layerbuild.layers("names")[1]["digest"]
    with tarfile.open(layerbuild.root / "blobs/sha256" / digest.partition(":")[2]) as tar:
        found = {os.fsencode(member.name).removeprefix(b"all/") for member in tar}
    assert set(names) <= found
    assert "Traceback" not in said
    assert "cached" in layerbuild.build(context, None)
    listed = layerbuild.json("context", context)
    assert len(listed) == len(names) + 1 if isinstance(listed, list) else listed


@contextmanager
def meanwhile(change: Callable[[], None]) -> Iterator[None]:
    """``change``, again and again, as long as the context lasts."""
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            change()
            over.wait(0.001)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_folder_that_becomes_a_link_while_it_is_read(layerbuild: Layerbuild, context: Path, outside: Path) -> None:
    plain, link = context / "plain", context / "link"
    plain.mkdir()
    (plain / "canary").write_text("of the context")
    link.symlink_to(outside)
    (context / "Dockerfile").write_text("FROM busybox\nCOPY d/canary /\n")
    plain.rename(context / "d")

    def swap() -> None:
        (context / "d").rename(plain)
        link.rename(context / "d")
        (context / "d").rename(link)
        plain.rename(context / "d")

    with meanwhile(swap):
        for _ in range(3):
            build = layerbuild.start("build", "-q", "--no-cache", context, stdout=-1, stderr=-1)
            said = build.communicate()[1]
            assert build.returncode in (0, 1), said
            assert b"Traceback" not in said
    assert_nothing_from_outside(layerbuild)
    assert_whole(layerbuild.root)


def test_a_file_that_changes_while_it_is_read(rooted: Layerbuild, context: Path) -> None:
    """The image has one of its contents, whole, or the build says that the file has changed."""
    contents = [letter * 3_000_000 for letter in (b"a", b"b")]
    (context / "file").write_bytes(contents[0])
    (context / "Dockerfile").write_text("FROM busybox\nCOPY file /\n")
    turn = iter(range(10**9))

    def rewrite() -> None:
        with open(context / "file", "r+b") as file:
            file.write(contents[next(turn) % 2])

    with meanwhile(rewrite):
        for _ in range(3):
            build = rooted.start("build", "-t", "x", "--no-cache", context, stdout=-1, stderr=-1)
            said = build.communicate()[1].decode()
            assert build.returncode == 0 or "changed while" in said, said
            if build.returncode == 0:
                assert rooted.run("run", "x", "cat", "/file").stdout.encode() in contents
    assert_whole(rooted.root)


# -- archives ----------------------------------------------------------------------------------------------------------


def archive(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """A tar of members: name, kind, where it leads to, content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, content in members:
            add_member(tar, name, kind, link=link, content=content)
    return file.getvalue()


def hostile(outside: str) -> dict[str, bytes]:
    file, link, hard = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    up = "../" * 30
    huge = tarfile.TarInfo("huge")
    huge.size = 1 << 60
    return {
        "absolute": archive((f"{outside}/new", file, "", b"x")),
        "dots": archive((f"{up}{outside[1:]}/new", file, "", b"x")),
        "write through a link": archive(("l", link, outside, b""), ("l/new", file, "", b"x")),
        "write through a link up": archive(("l", link, up + outside[1:], b""), ("l/new", file, "", b"x")),
        "write into a linked file": archive(("l", link, f"{outside}/canary", b""), ("l", file, "", b"x")),
        "hard link outside": archive(("h", hard, f"{outside}/canary", b""), ("h", file, "", b"x")),
        "hard link by dots": archive(("h", hard, f"{up}{outside[1:]}/canary", b"")),
        "hard link through a link": archive(("l", link, outside, b""), ("h", hard, "l/canary", b"")),
        "chmod through a link": archive(("l", link, outside, b""), ("l/", tarfile.DIRTYPE, "", b"")),
        "huge": huge.tobuf(tarfile.GNU_FORMAT),
        "sparse": sparse(),
        "device": archive(("disk", tarfile.BLKTYPE, "", b"")),
    }


def sparse() -> bytes:
    """A file of a petabyte, all of it a hole: PAX sparse format 0.1."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("sparse")
        member.pax_headers = {"GNU.sparse.size": str(1 << 50), "GNU.sparse.numblocks": "0", "GNU.sparse.map": ""}
        tar.addfile(member)
    return file.getvalue()


SAFE = ("absolute", "dots", "write through a link", "write through a link up", "write into a linked file")
SAFE = (*SAFE, "chmod through a link", "device")


# These are tried as root file systems, the others by ADD; both are unpacked by one function (tests/layer).
_BY_IMPORT = {"dots": 0, "hard link outside": 1, "hard link by dots": 1, "sparse": 102}


def test_archives_that_mean_harm(layerbuild: Layerbuild, context: Path, outside: Path) -> None:
    """Each is refused with its place, or unpacked with nothing outside: by ADD, and as a root file system."""
    archives = hostile(str(outside))
    for number, name in enumerate(archives):
        (context / f"{number}.tar").write_bytes(archives[name])
    safe = [f"ADD {number}.tar /in{number}/\n" for number, name in enumerate(archives) if name in SAFE]
    layerbuild.build(context, "FROM busybox\n" + "".join(safe))
    for number, name in enumerate(archives):
        if name not in SAFE and name not in _BY_IMPORT:
            (context / "Dockerfile").write_text(f"FROM busybox\nADD {number}.tar /in/\n")
            code = 102 if name in ("huge", "sparse") else 1
            refused = layerbuild.run("build", "--no-cache", context, code=code)
            assert "Dockerfile:2" in refused.stderr
            assert "Traceback" not in refused.stderr
    for name, code in _BY_IMPORT.items():
        layerbuild.run("import", "--tag", "hostile", "-", stdin=archives[name], code=code)
    assert_nothing_from_outside(layerbuild)
    layerbuild("prune")  # what a failed import has left belongs to nobody
    assert_whole(layerbuild.root)


# -- what a file says of itself ----------------------------------------------------------------------------------------


def test_a_file_of_a_context_stands_for_nothing_else(layerbuild: Layerbuild, context: Path) -> None:
    """The notes of the store (a device, an owner) on files from outside: in a context, a named one, an archive, and the
    folder of a root file system."""
    folder = context / "rootfs"
    folder.mkdir()
    for name, mark, value in (("disk", "device", b"b 8:0"), ("gone", "device", b"c 0:0"), ("owned", "owner", b"7:7")):
        (folder / name).touch()
        os.setxattr(folder / name, f"user.layerbuild.{mark}", value)
        os.chown(folder / name, USER if os.geteuid() == 0 and layerbuild.rootless else -1, -1)
    with tarfile.open(context / "all.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("disk")
        member.pax_headers = {"SCHILY.xattr.user.layerbuild.device": "b 8:0"}
        tar.addfile(member)
    look = "stat -c '%F %u' /a/* /b/* /c/* && ! find /a /b /c -type b | grep ."
    recipe = f"FROM busybox\nCOPY rootfs /a/\nCOPY --from=named / /b/\nADD all.tar /c/\nRUN {look}\n"
    said = layerbuild.build(context, recipe, "--build-context", f"named={folder}", "-t", "it")
    assert said.count("| regular empty file 0") == 7
    layerbuild("import", "--tag", "folder", folder)
    (digest,) = [layer["digest"] for layer in layerbuild.layers("folder")]
    with tarfile.open(layerbuild.root / "blobs/sha256" / digest.partition(":")[2]) as tar:
        assert {(member.name, member.type, member.uid == 7) for member in tar} == {
            (name, tarfile.REGTYPE, False) for name in ("disk", "gone", "owned")
        }


@pytest.mark.root
def test_a_folder_becomes_a_link_while_it_is_looked_at(tmp_path: Path) -> None:
    """Names, links and attributes of another folder are no more to be seen than its files, nor is it mounted; the
    moment is the one in which that is easiest: a folder above has been looked at."""
    outside, inside = tmp_path / "outside/d", tmp_path / "context/a/d"
    for folder in (outside, inside):
        folder.mkdir(parents=True)
    (outside / "canary").symlink_to(TOKEN)
    (inside / "file").touch()
    tree = ContextTree(tmp_path / "context", IgnoreRules())
    (a,) = tree.children(b"")
    (d,) = tree.children(a.path)
    held = tree.as_it_is(d)
    (tmp_path / "context/a").rename(tmp_path / "context/b")
    (tmp_path / "context/a").symlink_to(outside.parent)
    ways: tuple[Callable[[], object], ...] = (
        lambda: list(tree.children(d.path)),
        lambda: tree.look(b"a/d/canary"),
        lambda: tree.state(d, lambda data: seen.append(data)),
        lambda: tree.as_it_is(d),
    )
    seen: list[bytes] = []
    for way in ways:
        with pytest.raises(SourceError, match="changed while it was read"):
            way()
    assert b"canary" not in b"".join(seen)
    assert held is not None
    assert os.listdir(f"/proc/self/fd/{held}") == ["file"]
    os.close(held)
