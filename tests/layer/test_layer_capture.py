"""Capturing: the same bytes each time, each file read once, failures that reach the caller; and a folder beside it."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest
from layer_trees import EPOCH, applied, captured, described

from layerbuild.digest import BlobDigest, DiffID
from layerbuild.errors import BuildError, SpaceError
from layerbuild.layer.capture import LayerWriter, capture
from layerbuild.layer.changes import seal
from layerbuild.layer.codecs import GZIP, NONE, WRITTEN, Codec
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import Index
from layerbuild.layer.tree import remove_tree
from layerbuild.store.space import used_bytes

ME = {"uid": os.getuid(), "gid": os.getgid()}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "dir1").mkdir(parents=True)
    (folder / "dir1-1").mkdir()
    (folder / "dir1/x").write_bytes(os.urandom(3_000_000))
    (folder / "dir1/empty").touch()
    (folder / "dir1-1/é").write_text("text")
    os.link(folder / "dir1/x", folder / "dir1-1/again")
    (folder / "dir1/s").symlink_to("n" * 200)
    seal(folder, (), epoch=EPOCH)
    return folder


@pytest.mark.parametrize("codec", WRITTEN.values(), ids=lambda codec: codec.name)
def test_every_codec_gives_the_same_diff_id_and_true_digests(tmp_path: Path, tree: Path, codec: Codec) -> None:
    told: list[int] = []
    with LayerWriter(tmp_path / "blob", tmp_path / "index", codec=codec, tell=told.append) as writer:
        done = capture(tree, writer)
    assert len(told) >= 2 and told == sorted(told) and told[-1] == done.tar_size
    blob = (tmp_path / "blob").read_bytes()
    tar = codec.decompressor(io.BytesIO(blob)).read()
    assert (done.digest, done.size) == (BlobDigest.of(blob), len(blob))
    assert (done.diff_id, done.tar_size) == (DiffID.of(tar), len(tar))
    assert done.diff_id == captured(tree, tmp_path).diff_id
    assert done.entries == 7


def test_order_links_and_end(tmp_path: Path, tree: Path) -> None:
    captured(tree, tmp_path)
    data = (tmp_path / "layer.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        "dir1", "dir1/empty", "dir1/s", "dir1/x", "dir1-1", "dir1-1/again", "dir1-1/é",
    ]  # fmt: skip
    assert (members[5].islnk(), members[5].linkname, members[5].size) == (True, "dir1/x", 0)
    assert {member.mtime for member in members} == {EPOCH}
    assert data.endswith(bytes(1024)) and not data.endswith(bytes(1024 + 512))


def test_the_index_knows_the_content(tmp_path: Path, tree: Path) -> None:
    captured(tree, tmp_path)
    with Index.open(tmp_path / "layer.index") as index:
        found = index.lookup(b"dir1/x")
    assert found is not None
    assert found.digest == hashlib.sha256((tree / "dir1/x").read_bytes()).hexdigest()


def test_owners_can_be_told_from_outside(tmp_path: Path, tree: Path) -> None:
    with LayerWriter(tmp_path / "blob", tmp_path / "index", codec=NONE) as writer:
        capture(tree, writer, owner=lambda path, found: (len(path), 9))
    with Index.open(tmp_path / "index") as index:
        assert {(entry.uid, entry.gid) for entry in index} == {(len(entry.path), 9) for entry in index}


@pytest.mark.parametrize("size", [10, 5_000_000])
@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, size: int, difference: int) -> None:
    entry = Entry(b"f", Kind.FILE, 0o644, size=size)
    content = bytes(size + difference)
    with (
        pytest.raises(BuildError, match="/f changed while it was read"),
        LayerWriter(tmp_path / "blob", tmp_path / "index", codec=GZIP) as writer,
    ):
        writer.add(entry, content if size < 100 else io.BytesIO(content))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("layer-")]
    assert not (tmp_path / "index").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
def test_a_full_disk_reaches_the_caller(tmp_path: Path) -> None:
    class Full:
        def write(self, data: bytes, /) -> int:
            return os.write(descriptor, data)

        def close(self) -> None:
            pass

    descriptor = os.open("/dev/full", os.O_WRONLY)
    codec = Codec("none", "", b"", 0, range(1), lambda sink, level: Full(), NONE.decompressor)
    try:
        with (
            pytest.raises(SpaceError, match="no space"),
            LayerWriter(tmp_path / "blob", tmp_path / "index", codec=codec) as writer,
        ):
            for number in range(40):
                writer.add(Entry(b"%02d" % number, Kind.FILE, size=1 << 20), bytes(1 << 20))
            writer.finish()
    finally:
        os.close(descriptor)


def test_a_folder_written_beside_the_tar_is_the_one_unpacked_from_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with LayerWriter(tmp_path / "blob", tmp_path / "index", codec=NONE, folder=folder) as writer:
        writer.add(Entry(b"app", Kind.DIRECTORY, 0o2750, mtime=5, **ME))
        writer.add(Entry(b"app/big", Kind.FILE, 0o4755, size=3_000_000, mtime=6, **ME), io.BytesIO(b"x" * 3_000_000))
        writer.add(Entry(b"app/small", Kind.FILE, 0o600, size=2, mtime=7, mtime_ns=5, **ME), b"ab")
        writer.add(Entry(b"app/t", Kind.HARDLINK, 0o600, mtime=7, target=b"app/small", **ME))
        writer.add(Entry(b"app/z", Kind.SYMLINK, 0o777, target=b"/nowhere", mtime=8, **ME))
        writer.add(Entry(b"gone", Kind.WHITEOUT))
        done = writer.finish()
    again = applied((tmp_path / "blob").read_bytes(), tmp_path / "again")
    assert again.diff_id == done.diff_id
    assert described(folder) == described(tmp_path / "again")
    assert captured(folder, tmp_path).diff_id == done.diff_id
    index = (tmp_path / "index").read_bytes()
    assert index == (tmp_path / "again.index").read_bytes() == (tmp_path / "layer.index").read_bytes()


class Changing(io.FileIO):
    """A file that is written to, in place and behind its reader's back, when its second piece is read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            with open(self.name, "r+b") as file:
                file.write(b"y")
        return super().read(size) or b""


def large_file(path: Path) -> int:
    """An old file with a hole in it; its size."""
    with path.open("wb") as file:
        file.write(os.urandom(1_500_000))
        file.truncate(4 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"x" * 1234)
    time.sleep(2.1)  # who changed just now might change once more and bear the same time
    return path.stat().st_size


def test_the_kernel_copies_what_was_read_of_a_large_file(tmp_path: Path) -> None:
    size = large_file(tmp_path / "file")
    entry = Entry(b"file", Kind.FILE, 0o640, size=size, mtime=5, **ME)
    (tmp_path / "folder").mkdir()
    with (
        LayerWriter(tmp_path / "blob", tmp_path / "index", codec=NONE, folder=tmp_path / "folder") as writer,
        (tmp_path / "file").open("rb", buffering=0) as file,
    ):
        digest = writer.add(entry, file)
        done = writer.finish()
    content = (tmp_path / "file").read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "folder/file").read_bytes() == content
    assert (tmp_path / "folder/file").stat().st_blocks * 512 < size - (1 << 20)
    assert captured(tmp_path / "folder", tmp_path).diff_id == done.diff_id


def test_a_large_file_that_changes_in_place_is_noticed(tmp_path: Path) -> None:
    size = large_file(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(BuildError, match="/file changed while it was read"),
        LayerWriter(tmp_path / "blob", tmp_path / "index", codec=NONE, folder=tmp_path / "folder") as writer,
        Changing(str(tmp_path / "file")) as file,
    ):
        writer.add(Entry(b"file", Kind.FILE, size=size), file)


def test_remove_tree_copes_with_closed_folders(tmp_path: Path) -> None:
    deep = tmp_path / "tree" / "/".join("d" * 300)
    deep.mkdir(parents=True)
    (deep / "f").touch()
    (tmp_path / "tree/d").chmod(0)
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "outside")
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]


def test_remove_tree_copes_with_folders_to_which_no_path_leads(tmp_path: Path) -> None:
    """As `mkdir d; cd d`, again and again, makes them."""
    (tmp_path / "tree").mkdir()
    folder = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=folder)
        inner = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(os.open("file", os.O_CREAT, dir_fd=inner))
        os.close(folder)
        folder = inner
    os.close(folder)
    assert used_bytes(tmp_path / "tree") > 0
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
