"""A diff folder that a process beside writes: the same folder, failures that reach the caller, and no process left."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from layer_trees import captured, described

from layerbuild.errors import FormatError, LayerbuildError, MachineError
from layerbuild.layer import folderwriter
from layerbuild.layer.capture import LayerWriter
from layerbuild.layer.codecs import NONE
from layerbuild.layer.entry import Entry, Kind, RootMetadata
from layerbuild.layer.folderwriter import FolderWriter

ME = {"uid": os.getuid(), "gid": os.getgid()}
FILES = 600  # more than two batches


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is started for the first entry, however few cores this machine has."""
    monkeypatch.setattr(folderwriter, "_FEW", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def children() -> set[int]:
    """The processes that this one has started."""
    found = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in found for pid in file.read_text().split()}


def entries() -> Iterator[tuple[Entry, bytes]]:
    """Every kind that an ordinary user can make, in a layer's order; one file is a large one."""
    yield Entry(b"app", Kind.DIRECTORY, 0o2750, mtime=5, **ME), b""
    yield Entry(b"app/big", Kind.FILE, 0o4755, size=3_000_000, mtime=6, **ME), b"x" * 3_000_000
    yield Entry(b"app/empty", Kind.FILE, 0o600, mtime=7, xattrs=((b"user.a", b"\0"),), **ME), b""
    yield Entry(b"app/l", Kind.HARDLINK, 0o600, mtime=7, target=b"app/empty", **ME), b""
    yield Entry(b"app/z", Kind.SYMLINK, 0o777, target=b"\xff/nowhere", mtime=8, **ME), b""
    yield Entry(b"many", Kind.DIRECTORY, 0o755, mtime=9, **ME), b""
    for number in range(FILES):
        content = b"%d" % number * 300
        yield Entry(b"many/%03d" % number, Kind.FILE, 0o644, size=len(content), mtime=number, **ME), content
    yield Entry(b"pipe", Kind.FIFO, 0o640, mtime=10, **ME), b""


def written(scratch: Path) -> Path:
    """A folder of all the entries, which has the diff ID that the writer told."""
    folder = scratch / "folder"
    folder.mkdir(parents=True)
    with LayerWriter(scratch / "blob", scratch / "index", codec=NONE, folder=folder) as writer:
        for entry, content in entries():
            writer.add(entry, io.BytesIO(content) if entry.path == b"app/big" else content)
        done = writer.finish()
    assert captured(folder, scratch).diff_id == done.diff_id
    return folder


def test_a_process_writes_the_folder_that_its_caller_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    beside = written(tmp_path / "beside")
    assert children() == before
    for few in (100, sys.maxsize):
        monkeypatch.setattr(folderwriter, "_FEW", few)
        assert described(written(tmp_path / str(few))) == described(beside)


def test_the_process_is_there_only_for_many_entries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folderwriter, "_FEW", FILES)
    before = children()
    with FolderWriter(folder, user_xattr=True) as writer:
        for number in range(FILES + 1):
            writer.add(Entry(b"%d" % number, Kind.FILE, 0o644))
        assert children() == before
        for number in range(FILES):
            writer.add(Entry(b"more%d" % number, Kind.FILE, 0o644))
        assert len(children() - before) == 1
        writer.finish(RootMetadata())
    assert children() == before
    assert len(list(folder.iterdir())) == 2 * FILES + 1


@pytest.mark.parametrize(
    ("path", "kind", "error", "told"),
    [
        (b"none/file", Kind.FILE, MachineError, "writing /none/file: No such file or directory"),
        (b"n" * 300, Kind.FILE, FormatError, "File name too long"),
        (b"there", Kind.DIRECTORY, MachineError, "writing /there: File exists"),
    ],
    ids=["no parent", "long name", "twice"],
)
def test_what_goes_wrong_there_is_raised_here(
    folder: Path, path: bytes, kind: Kind, error: type[LayerbuildError], told: str
) -> None:
    with FolderWriter(folder, user_xattr=True) as writer:
        writer.add(Entry(b"there", Kind.FILE, 0o644))
        writer.add(Entry(path, kind, 0o644))
        with pytest.raises(error, match=told):
            writer.finish(RootMetadata())


def test_it_is_raised_while_more_is_added(folder: Path) -> None:
    with FolderWriter(folder, user_xattr=True) as writer, pytest.raises(MachineError, match="/none/file"):
        writer.add(Entry(b"none/file", Kind.FILE, 0o644))
        for number in range(1_000_000):
            writer.add(Entry(b"%d" % number, Kind.FILE, 0o644), bytes(1000))


def test_a_large_file_waits_for_its_folder(folder: Path) -> None:
    with FolderWriter(folder, user_xattr=True) as writer:
        writer.add(Entry(b"d", Kind.DIRECTORY, 0o755, **ME))
        writer.add_pieces(Entry(b"d/big", Kind.FILE, 0o644, size=3, **ME), [b"a", b"bc"], source=None)
        assert (folder / "d/big").read_bytes() == b"abc"


def process_of(writer: FolderWriter) -> int:
    """The process that ``writer`` has begun, given files enough for it."""
    before = children()
    for number in range(FILES):
        writer.add(Entry(b"%d" % number, Kind.FILE, 0o644))
    (pid,) = children() - before
    return pid


def test_a_process_that_is_killed_is_an_error(folder: Path) -> None:
    with FolderWriter(folder, user_xattr=True) as writer:
        os.kill(process_of(writer), signal.SIGKILL)
        with pytest.raises(MachineError, match=f"the process that writes {folder} ended with exit code -9"):
            writer.finish(RootMetadata())


def test_who_waits_for_it_can_be_stopped(folder: Path) -> None:
    before = children()
    with FolderWriter(folder, user_xattr=True) as writer:
        os.kill(process_of(writer), signal.SIGSTOP)
        threading.Timer(0.2, writer.fail, [KeyboardInterrupt("stop")]).start()
        with pytest.raises(KeyboardInterrupt, match="stop"):
            writer.finish(RootMetadata())
    assert children() == before


def test_who_leaves_early_leaves_no_process(folder: Path) -> None:
    before = children()
    with pytest.raises(KeyboardInterrupt), FolderWriter(folder, user_xattr=True) as writer:
        for number in range(50_000):
            writer.add(Entry(b"%d" % number, Kind.FILE, 0o644))
            if number == FILES:
                left = time.monotonic()
                raise KeyboardInterrupt
    assert children() == before
    assert time.monotonic() - left < 1
    names = len(list(folder.iterdir()))
    time.sleep(0.1)
    assert len(list(folder.iterdir())) == names  # nobody writes on
