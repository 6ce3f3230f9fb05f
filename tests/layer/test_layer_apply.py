"""Unpacking: what archives say, what they may not do, and what the index says afterwards."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from layer_trees import applied, described, entries, index_of

from layerbuild.digest import DiffID
from layerbuild.errors import FormatError
from layerbuild.layer.apply import apply
from layerbuild.layer.entry import Entry, Kind, RootMetadata, entry_of
from layerbuild.layer.index import Index
from layerbuild.layer.whiteout import is_opaque, is_whiteout

D, F, S, L, C = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
Member = tuple[str, bytes, str]  # name, type, content or target


def packed(*members: Member, mtime: int = 7) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.mode = kind, mtime, 0o755 if kind == D else 0o644
            info.uid, info.gid = os.getuid(), os.getgid()
            if kind == F:
                info.size = len(text)
            elif kind == C:
                info.devmajor, info.devminor = map(int, text.split(":"))
            else:
                info.linkname = text
            tar.addfile(info, io.BytesIO(text.encode()))
    return sink.getvalue()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the one unpacked into; nothing may have touched it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("alive")
    before = described(tmp_path / "outside")
    yield folder
    assert described(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("in")) == ["outside"]


def escapes(outside: str) -> list[tuple[Member, ...]]:
    return [
        (("../outside/file", F, "dead"),),
        (("/../../outside/file", F, "dead"),),
        ((f"{outside}/file", F, "dead"),),
        (("l", S, outside), ("l/file", F, "dead")),
        (("l", S, "../outside"), ("l/file", F, "dead"), ("l/new", F, "dead")),
        (("a", S, "b"), ("b", S, "../../outside"), ("a/file", F, "dead")),
        (("l", S, f"{outside}/file"), ("l", F, "dead")),
        (("l", S, outside), ("l/", D, "")),
        (("l", S, outside), ("l/.wh.file", F, "")),
        (("l", S, outside), ("l/.wh..wh..opq", F, "")),
        (("d", D, ""), ("d/s", S, "../.."), ("d/s/outside/file", F, "dead")),
        (("d", D, ""), ("d", S, outside), ("d/file", F, "dead")),
    ]


@pytest.mark.parametrize("number", range(12))
def test_no_name_and_no_link_leads_outside(tmp_path: Path, canary: Path, number: int) -> None:
    applied(packed(*escapes(str(canary))[number]), tmp_path / "in")


@pytest.mark.parametrize(
    "members",
    [
        (("h", L, "../outside/file"), ("h", F, "dead")),
        (("l", S, "../outside"), ("h", L, "l/file")),
        (("d", D, ""), ("h", L, "d")),
        (("h", L, "missing"),),
        (("zero", C, "0:0"),),
        (("loop", S, "loop"), ("loop/x", F, "")),
        (("empty", S, ""),),
        ((".wh.", F, ""),),
        (("d/.wh..", F, ""),),
        (("d/.wh...", F, ""),),
        ((".wh.d/", D, ""), (".wh.d/x", F, "")),
        (("x" * 300, F, ""),),
    ],
)
def test_what_no_layer_may_hold_is_refused(tmp_path: Path, canary: Path, members: tuple[Member, ...]) -> None:
    with pytest.raises(FormatError, match="layer"):
        applied(packed(*members), tmp_path / "in")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("a/b/c", F, "x")], {b"a": "directory", b"a/b": "directory", b"a/b/c": "file"}),
        ([("etc", D, ""), ("l", S, "/etc"), ("l/f", F, "x")], {b"etc": "directory", b"etc/f": "file", b"l": "symlink"}),
        ([("l", S, "new"), ("l/f", F, "x")], {b"l": "symlink", b"new": "directory", b"new/f": "file"}),
        ([("f", F, "1"), ("f", F, "22")], {b"f": "file"}),
        ([("d/x", F, "1"), ("d", F, "22")], {b"d": "file"}),
        ([("f", F, "1"), ("f", D, ""), ("f/x", F, "")], {b"f": "directory", b"f/x": "file"}),
        ([("l", S, "x"), ("l", D, ""), ("l/x", F, "")], {b"l": "directory", b"l/x": "file"}),
        ([("d", D, ""), (".wh.d", F, ""), ("d/x", F, "")], {b"d": "directory*", b"d/x": "file"}),
        ([(".wh.d", F, ""), ("d/x", F, "")], {b"d": "directory*", b"d/x": "file"}),
        ([("f", F, "x"), (".wh.f", F, "")], {b"f": "file"}),
        ([(".wh.f", F, ""), ("f", F, "x")], {b"f": "file"}),
        ([("d/.wh.f", F, "")], {b"d": "directory", b"d/f": "whiteout"}),
        ([("d/x", F, ""), ("d/.wh..wh..opq", F, "")], {b"d": "directory*", b"d/x": "file"}),
        ([("gone", S, "/nowhere"), ("gone/.wh.x", F, "")], {b"gone": "symlink"}),
        ([("no/../.wh.etc", F, "")], {b"etc": "whiteout"}),
        ([(".wh..wh.plnk/1", F, ""), (".wh..wh.aufs", F, ""), ("x", F, "")], {b"x": "file"}),
    ],
)  # fmt: skip
def test_index_and_folder_say_the_same(tmp_path: Path, members: list[Member], expected: dict[bytes, str]) -> None:
    applied(packed(*members), tmp_path / "in")
    assert entries(tmp_path / "in.index") == expected
    for path, kind in expected.items():
        full = os.fsencode(tmp_path / "in") + b"/" + path
        found = os.lstat(full)
        assert is_whiteout(found) == (kind == "whiteout")
        assert stat.S_ISDIR(found.st_mode) == kind.startswith("directory")
        assert stat.S_ISLNK(found.st_mode) == (kind == "symlink")
        assert not kind.startswith("directory") or is_opaque(full) == kind.endswith("*")
    assert len(list((tmp_path / "in").rglob("*"))) == len(expected)
    apply(io.BytesIO(packed(*members)), None, index=tmp_path / "alone.index")
    assert entries(tmp_path / "alone.index") == expected


def test_content_times_and_digests(tmp_path: Path) -> None:
    big = "0123456789" * 100_000
    tar = packed(("./", D, ""), ("d/", D, ""), ("d/f", F, "text"), ("d/big", F, big), ("d/h", L, "d/f"), mtime=1234)
    done = applied(tar, tmp_path / "in")
    assert done.diff_id == DiffID.of(tar)
    assert done.tar_size == len(tar)
    assert (tmp_path / "in/d/big").read_text() == big
    assert (tmp_path / "in/d/h").samefile(tmp_path / "in/d/f")
    for path in (tmp_path / "in", tmp_path / "in/d", tmp_path / "in/d/f"):
        assert path.stat().st_mtime_ns == 1234 * 10**9
    with Index.open(index_of(tmp_path / "in")) as index:
        assert index.lookup(b"d/f") == Entry(
            b"d/f", Kind.FILE, 0o644, os.getuid(), os.getgid(), 4, 1234, digest=DiffID.of(b"text").hex
        )
        link = index.lookup(b"d/h")
        assert link is not None and (link.target, link.digest, link.size) == (b"d/f", "", 0)


def test_a_link_outlives_the_file_it_was_made_of(tmp_path: Path) -> None:
    applied(packed(("f", F, "old"), ("g", L, "f"), ("h", L, "f"), ("f", F, "newer")), tmp_path / "in")
    assert (tmp_path / "in/g").read_text() == (tmp_path / "in/h").read_text() == "old"
    with Index.open(tmp_path / "in.index") as index:
        found = {entry.path: (entry.kind, entry.target, entry.digest) for entry in index}
    assert found == {
        b"f": (Kind.FILE, b"", DiffID.of(b"newer").hex),
        b"g": (Kind.FILE, b"", DiffID.of(b"old").hex),
        b"h": (Kind.HARDLINK, b"g", ""),
    }


def test_in_a_plain_archive_whiteout_names_are_names(tmp_path: Path) -> None:
    applied(packed(("d/.wh.x", F, "1"), (".wh..wh..opq", F, "2")), tmp_path / "in", layered=False)
    assert (tmp_path / "in/d/.wh.x").read_text() == "1"
    assert set(entries(tmp_path / "in.index")) == {b"d", b"d/.wh.x", b".wh..wh..opq"}


def test_overlay_marks_in_an_archive_mean_nothing(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        info = tarfile.TarInfo("d")
        info.type = D
        for name in ("trusted.overlay.opaque", "user.overlay.opaque", "user.overlay.redirect", "user.kept"):
            info.pax_headers[f"SCHILY.xattr.{name}"] = "y"
        tar.addfile(info)
    applied(sink.getvalue(), tmp_path / "in")
    assert os.listxattr(tmp_path / "in/d") == ["user.kept"]


def test_the_root_gets_what_it_is_given_and_missing_parents_look_like_those_below(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir(mode=0o700)
    below = Entry(b"tmp", Kind.DIRECTORY, 0o1777, os.getuid(), os.getgid(), mtime=55)
    apply(
        io.BytesIO(packed(("tmp/x", F, ""))),
        folder,
        index=tmp_path / "in.index",
        root=RootMetadata(0o711, os.getuid(), os.getgid(), 99 * 10**9),
        below=lambda path: below if path == b"tmp" else None,
    )
    assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_mtime) == (0o711, 99)
    assert (stat.S_IMODE((folder / "tmp").stat().st_mode), (folder / "tmp").stat().st_mtime) == (0o1777, 55)


BELOW = {
    b"etc": Entry(b"etc", Kind.DIRECTORY, 0o755, os.getuid(), os.getgid(), mtime=55),
    b"link": Entry(b"link", Kind.SYMLINK, 0o777, target=b"/etc"),
    b"dead": Entry(b"dead", Kind.SYMLINK, 0o777, target=b"/nothing"),
    b"etc/deeper": Entry(b"etc/deeper", Kind.SYMLINK, 0o777, target=b"../../etc"),
}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("link/f", F, "x")], {b"etc": "directory", b"etc/f": "file"}),
        ([("link/deeper/f", F, "x")], {b"etc": "directory", b"etc/f": "file"}),
        ([("link/.wh.passwd", F, "")], {b"etc": "directory", b"etc/passwd": "whiteout"}),
        ([("dead/.wh.passwd", F, "")], {}),
        ([("dead/f", F, "x")], {b"nothing": "directory", b"nothing/f": "file"}),
        ([("link", D, ""), ("link/f", F, "x")], {b"link": "directory", b"link/f": "file"}),
        ([(".wh.link", F, ""), ("link/f", F, "x")], {b"link": "directory*", b"link/f": "file"}),
        (
            [("etc", D, ""), ("etc/.wh..wh..opq", F, ""), ("etc/deeper/f", F, "x")],
            {b"etc": "directory*", b"etc/deeper": "directory", b"etc/deeper/f": "file"},
        ),
    ],
)
def test_a_link_of_the_layers_below_leads_on(tmp_path: Path, members: list[Member], expected: dict[bytes, str]) -> None:
    """Facts U1, U4 and U5: as in the merged tree, unless this layer hides the link."""
    (tmp_path / "in").mkdir()
    folder, index = tmp_path / "in", tmp_path / "in.index"
    apply(io.BytesIO(packed(*members)), folder, index=index, user_xattr=os.geteuid() != 0, below=BELOW.get)
    assert entries(tmp_path / "in.index") == expected


def test_a_hard_link_to_a_file_below_copies_it_up(tmp_path: Path) -> None:
    """As in an overlay mount: the file that both names share is this layer's own."""
    folder, index = tmp_path / "in", tmp_path / "in.index"
    file = Entry(b"etc/passwd", Kind.FILE, 0o640, os.getuid(), os.getgid(), size=4, mtime=55, digest="d1")
    shown = {**BELOW, file.path: file, b"etc/old": Entry(b"etc/old", Kind.SYMLINK, 0o777, target=b"passwd")}
    members = [
        ("srv/one", L, "/etc/passwd"),
        ("two", L, "link/passwd"),
        ("three", L, "etc/old"),
        ("etc/passwd", F, "new"),
    ]

    def unpack(*members: Member) -> None:
        folder.mkdir()
        apply(
            io.BytesIO(packed(*members)),
            folder,
            index=index,
            user_xattr=os.geteuid() != 0,
            below=shown.get,
            opened=lambda path: io.BytesIO(b"text") if path == file.path else io.BytesIO(),
        )

    unpack(*members)
    assert {path: (folder / path).read_text() for path in ("srv/one", "two", "etc/passwd")} == {
        "srv/one": "text",
        "two": "text",
        "etc/passwd": "new",
    }
    assert os.path.samefile(folder / "srv/one", folder / "two") and os.readlink(folder / "three") == "passwd"
    assert (stat.S_IMODE((folder / "two").stat().st_mode), (folder / "two").stat().st_mtime) == (0o640, 55)
    assert entries(index)[b"etc/passwd"] == "file" and entries(index)[b"etc/old"] == "symlink"
    for refused in ([(".wh.etc", F, ""), ("x", L, "etc/passwd")], [("x", L, "etc")], [("x", L, "etc/none")]):
        shutil.rmtree(folder)
        with pytest.raises(FormatError, match="is a hard link to"):
            unpack(*refused)


def test_deep_and_many_folders(tmp_path: Path) -> None:
    deep = "/".join("d" * 200)
    many = [(f"m{number}/{number}", F, str(number)) for number in range(300)]
    applied(packed((deep + "/f", F, "x"), *many, *many), tmp_path / "in")
    assert (tmp_path / "in" / deep / "f").read_text() == "x"
    assert (tmp_path / "in/m299/299").read_text() == "299"


def test_in_a_user_namespace_the_index_keeps_what_the_kernel_refuses(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, kind in (("f", F), ("null", C), ("again", L), (".wh.gone", F), ("d", D), ("d/.wh..wh..opq", F)):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.devmajor, info.devminor = kind, 1000, 42, 1, 3
            info.linkname = "null" if kind == L else ""
            tar.addfile(info)
    (tmp_path / "tar").write_bytes(sink.getvalue())
    (tmp_path / "in").mkdir()
    script = """
import sys
from pathlib import Path
from layerbuild.layer.apply import apply
tmp = Path(sys.argv[1])
with (tmp / "tar").open("rb") as tar:
    apply(tar, tmp / "in", index=tmp / "in.index", user_xattr=True)
"""
    in_namespace = ["unshare", "--user", "--map-root-user", sys.executable, "-c", script, tmp_path]
    done = subprocess.run(in_namespace, capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.returncode == 0, done.stderr
    assert entries(tmp_path / "in.index") == {
        b"again": "hardlink",
        b"d": "directory*",
        b"f": "file",
        b"gone": "whiteout",
        b"null": "character",
    }
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["again", "d", "f", "gone", "null"]
    assert os.getxattr(tmp_path / "in/d", "user.overlay.opaque") == b"y"
    assert (tmp_path / "in/f").stat().st_uid == os.getuid()
    with Index.open(tmp_path / "in.index") as index:
        found = index.lookup(b"null")
        assert found is not None and (found.uid, found.gid, found.device) == (1000, 42, (1, 3))
        # What stands in for it on the disk says the same, and so does the owner of the file.
        for name in (b"null", b"f"):
            source = os.fsencode(tmp_path / "in") + b"/" + name
            stands_in = entry_of(name, os.lstat(source), source=source)
            assert replace(stands_in, digest="") == replace(index.lookup(name), digest="")


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"uid": 1 << 32}, "more than 32 bits"),
        ({"gid": 1 << 40}, "more than 32 bits"),
        ({"type": tarfile.BLKTYPE, "devmajor": 1 << 33}, "more than 32 bits"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 1 << 40}, "more than 32 bits"),
        ({"name": "d/" * 3000 + "x"}, "is a path of 6001 bytes"),
    ],
)
def test_what_no_kernel_can_hold_is_refused(tmp_path: Path, odd: dict[str, object], says: str) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("x")
        for name, value in odd.items():
            setattr(member, name, value)
        tar.addfile(member)
    with pytest.raises(FormatError, match=says):
        applied(sink.getvalue(), tmp_path / "in")
