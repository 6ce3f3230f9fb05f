"""Blobs: whole or absent."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.digest import BlobDigest
from layerbuild.errors import DigestMismatch, MachineError, NotFoundError, SpaceError
from layerbuild.store.space import disk_errors, used_bytes
from layerbuild.store.store import Store


def test_what_was_added_is_read(store: Store) -> None:
    digest = store.blobs.add(b"hello")
    assert digest == BlobDigest.of(b"hello")
    assert store.blobs.has(digest)
    assert (store.blobs.size(digest), store.blobs.read(digest)) == (5, b"hello")
    assert store.blobs.path(digest) == store.root / "blobs" / "sha256" / digest.hex
    assert list(store.temporary.iterdir()) == []


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_pieces_make_the_same_blob_as_the_whole(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    with Store.open(tmp_path_factory.mktemp("pieces") / "store") as store, store.blobs.writer() as writer:
        for piece in pieces:
            writer.write(piece)
        assert writer.tell() == len(b"".join(pieces))
        assert writer.commit() == (BlobDigest.of(b"".join(pieces)), len(b"".join(pieces)))


def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.blobs.writer() as writer:
        writer.write(b"half")
        raise RuntimeError
    assert list(store.temporary.iterdir()) == []
    assert list(store.blobs.digests()) == []


def test_a_wrong_blob_is_refused_and_gone(store: Store) -> None:
    with pytest.raises(DigestMismatch), store.blobs.writer() as writer:
        writer.write(b"something else")
        writer.commit(BlobDigest.of(b"something"))
    assert list(store.temporary.iterdir()) == []
    assert list(store.blobs.digests()) == []


def test_a_damaged_blob_is_noticed_when_read(store: Store) -> None:
    digest = store.blobs.add(b"hello")
    store.blobs.path(digest).write_bytes(b"jello")
    with pytest.raises(DigestMismatch):
        store.blobs.read(digest)


def test_an_absent_blob_is_not_found(store: Store) -> None:
    absent = BlobDigest.of(b"absent")
    for ask in (store.blobs.size, store.blobs.read, store.blobs.open):
        with pytest.raises(NotFoundError, match=absent):
            ask(absent)


def test_adopting_replaces_a_truncated_blob(store: Store) -> None:
    digest = store.blobs.add(b"hello")
    store.blobs.path(digest).write_bytes(b"he")
    store.blobs.add(b"hello")
    assert store.blobs.read(digest) == b"hello"


def test_a_write_that_the_kernel_refuses_in_the_middle_leaves_nothing(store: Store) -> None:
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    store.lease()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        with pytest.raises(OSError) as refused, store.blobs.writer() as writer:
            writer.write(b"x" * (1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert refused.value.errno == errno.EFBIG
    assert list(store.temporary.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_is_a_space_error(number: int) -> None:
    with pytest.raises(SpaceError, match="/store/x") as caught, disk_errors(Path("/store")):
        raise OSError(number, "No room", "/store/x")
    assert "prune" in caught.value.hint
    assert "df" in caught.value.hint


def test_not_writable_is_a_machine_error_and_others_pass() -> None:
    with pytest.raises(MachineError) as caught, disk_errors(Path("/store")):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert "--root" in caught.value.hint
    with pytest.raises(IsADirectoryError), disk_errors(Path("/store")):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")


def test_used_bytes_counts_hard_links_once(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    before = used_bytes(tmp_path)
    (folder / "x").write_bytes(b"x" * 100_000)
    alone = used_bytes(tmp_path) - before
    assert 100_000 <= alone <= 120_000
    (folder / "y").hardlink_to(folder / "x")
    assert used_bytes(tmp_path) - before == alone
    assert used_bytes(tmp_path / "absent") == 0


def test_a_blob_goes_to_a_file_a_pipe_or_whatever_takes_bytes(store: Store, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    digest = store.blobs.add(data)
    memory = io.BytesIO()
    with store.blobs.sending() as sending:
        sending.send(digest, memory)
        assert memory.getvalue() == data
        for mode in ("wb", "ab"):
            path = tmp_path / mode
            with path.open(mode) as file:
                file.write(b"before ")
                sending.send(digest, file)
                file.write(b" after")
            assert path.read_bytes() == b"before " + data + b" after"
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=(tmp_path / "piped").open("wb")) as cat:
            assert cat.stdin is not None
            sending.send(digest, cat.stdin)  # type: ignore[arg-type]
        assert (tmp_path / "piped").read_bytes() == data
        with pytest.raises(NotFoundError), (tmp_path / "none").open("wb") as file:
            sending.send(BlobDigest.of(b"none"), file)


def test_many_blobs_go_to_one_file_in_order(store: Store, tmp_path: Path) -> None:
    """More than are verified at once."""
    pieces = [bytes([number]) * 100_000 for number in range(40)]
    with (tmp_path / "file").open("wb") as file, store.blobs.sending() as sending:
        for piece in pieces:
            sending.send(store.blobs.add(piece), file)
        assert sum(thread.name == "blob-check" for thread in threading.enumerate()) <= len(os.sched_getaffinity(0))
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert not [thread for thread in threading.enumerate() if thread.name == "blob-check"]


@pytest.mark.parametrize("after", [0, 40], ids=["the last", "followed by others"])
def test_a_damaged_blob_is_found_out(store: Store, tmp_path: Path, after: int) -> None:
    damaged = store.blobs.add(b"content")
    store.blobs.path(damaged).write_bytes(b"CONTENT")
    with pytest.raises(DigestMismatch), store.blobs.sending() as sending:
        sending.send(damaged, io.BytesIO())
    with pytest.raises(DigestMismatch), (tmp_path / "file").open("wb") as file, store.blobs.sending() as sending:
        sending.send(damaged, file)
        for number in range(after):
            sending.send(store.blobs.add(b"%d" % number), file)


def test_what_goes_wrong_in_the_block_is_what_is_told(store: Store, tmp_path: Path) -> None:
    damaged = store.blobs.add(b"content")
    store.blobs.path(damaged).write_bytes(b"CONTENT")
    with pytest.raises(KeyError), (tmp_path / "file").open("wb") as file, store.blobs.sending() as sending:
        sending.send(damaged, file)
        raise KeyError


@pytest.mark.root
@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system")
def test_a_copy_shares_its_blocks_where_the_file_system_can(tmp_path: Path) -> None:
    image, place = tmp_path / "image", tmp_path / "place"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        with Store.open(place / "store") as store:
            digest = store.blobs.add(os.urandom(64 << 20))
            with (place / "copy").open("xb") as file, store.blobs.sending() as sending:
                sending.send(digest, file)
            assert (place / "copy").read_bytes() == store.blobs.path(digest).read_bytes()
        os.sync()
        extents = subprocess.run(["filefrag", "-v", place / "copy"], capture_output=True, text=True, check=True).stdout
        assert "shared" in extents
    finally:
        subprocess.run(["umount", "-l", place], check=True)
