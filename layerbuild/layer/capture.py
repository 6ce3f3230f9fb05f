"""A layer's tar, blob and index, made in one pass.

::

    caller's thread                           worker thread
    read file, its sha256, tar header  ──▶  sha256 of the tar ─▶ compressor ─▶ sha256 of the blob ─▶ file
                    │        │         1 MiB chunks
                    │        └─▶ the same file in the diff folder (folderwriter.py)
                    └─▶ index line

``LayerWriter`` takes entries from anywhere, in order; ``capture`` feeds it from a sealed folder. The tar is a function
of the entries alone, so the same tree gives the same diff ID whenever and wherever it is captured.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from layerbuild.digest import BlobDigest, DiffID, HashingWriter, Piece
from layerbuild.errors import BuildError
from layerbuild.frozen import frozen
from layerbuild.layer.codecs import Codec, compress
from layerbuild.layer.entry import Entry, Kind, Owner, RootMetadata, entry_of
from layerbuild.layer.folderwriter import FolderWriter
from layerbuild.layer.index import IndexWriter
from layerbuild.layer.paths import join
from layerbuild.layer.pipeline import CHUNK, Pump
from layerbuild.layer.tar import END, header, padding
from layerbuild.layer.tree import explained
from layerbuild.layer.whiteout import is_whiteout

Watch = Callable[[Entry, bytes], None]

_SMALL = 1 << 18  # files up to this size are read by one call
_GRAIN = 2_000_000_000  # nanoseconds in which a file may change twice and bear the same time
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@frozen
class Captured:
    """A finished layer. ``tar_size`` and ``size`` (the blob's) are in bytes; ``codec`` is the codec's name."""

    diff_id: DiffID
    tar_size: int
    digest: BlobDigest
    size: int
    entries: int
    codec: str


class LayerWriter:
    """Writes a layer: the blob at ``blob``, the index at ``index`` and, where ``folder`` is given, the diff folder.

    ``add`` takes entries in the order of ``sort_key``, parents first; the root is none of them. ``folder`` must exist
    and be empty; ``root`` is what it looks like in the end. What goes wrong in it may be raised by a later call.
    ``watch`` sees each file's content, of a large one the first piece; ``tell`` is told, on another thread, the size of
    the tar so far. Both files are new, appear under their names at once and are not synced: whoever records the layer
    names and syncs them. Leaving the context without ``finish`` leaves no thread or process behind, and the caller
    removes the blob. A full disk is a SpaceError.
    """

    def __init__(
        self,
        blob: Path,
        index: Path,
        *,
        codec: Codec,
        level: int | None = None,
        folder: Path | None = None,
        user_xattr: bool = False,
        root: RootMetadata | None = None,
        watch: Watch | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self._watch = watch
        self._tell = tell
        self._codec = codec
        self._root = root
        self._folder_finished = False
        self._blob_path = blob
        self._parts: list[Piece] = []
        self._waiting = 0
        self._tar = hashlib.sha256()
        self._tar_size = 0
        with ExitStack() as stack:
            file = stack.enter_context(blob.open("xb", buffering=0))
            self._blob = HashingWriter(file)
            self._compressor = compress(codec, self._blob, level=level)
            self._index = stack.enter_context(IndexWriter(index))
            self._folder = stack.enter_context(FolderWriter(folder, user_xattr=user_xattr)) if folder else None
            self._pump = stack.enter_context(Pump(self._consume))
            self._stack = stack.pop_all()

    def add(self, entry: Entry, content: bytes | BinaryIO | None = None) -> str:
        """Write ``entry``, for a FILE with its ``content``, and give the content's sha256 (empty for all else).

        A content that is shorter or longer than the entry's size is a BuildError.
        """
        if entry.mtime_ns:
            entry = replace(entry, mtime_ns=0)  # a tar of ours has whole seconds
        try:
            digest = self._content(entry, content) if entry.kind is Kind.FILE else self._bare(entry)
        except OSError as error:
            raise explained(error, f"writing /{os.fsdecode(entry.path)}") from error
        self._index.add(entry, digest)
        return digest

    def finish_folder(self) -> None:
        """Complete the diff folder: from now on it may be read, whether the tar is finished or not."""
        if self._folder is not None and not self._folder_finished:
            self._folder_finished = True
            try:
                self._folder.finish(self._root or RootMetadata())
            except OSError as error:
                raise explained(error, f"writing the folder of {self._blob_path}") from error

    def finish(self) -> Captured:
        """Write the end of the tar, wait for the worker and close everything."""
        self.finish_folder()
        try:
            self._put(END)
            self._pump.put(b"".join(self._parts))
            self._pump.close()
            self._compressor.close()
            entries = self._index.finish()
        except OSError as error:
            raise explained(error, f"writing {self._blob_path}") from error
        self._stack.close()
        return Captured(
            DiffID("sha256:" + self._tar.hexdigest()),
            self._tar_size,
            BlobDigest(self._blob.digest()),
            self._blob.size,
            entries,
            self._codec.name,
        )

    def abort(self, error: BaseException) -> None:
        """From another thread: whoever writes here gets ``error`` with the next piece of the tar, or of the folder."""
        self._pump.fail(error)
        if self._folder is not None:
            self._folder.fail(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _bare(self, entry: Entry) -> str:
        self._put(header(entry))
        if self._folder is not None:
            self._folder.add(entry)
        return ""

    def _content(self, entry: Entry, content: bytes | BinaryIO | None) -> str:
        if content is None or isinstance(content, bytes):
            return self._whole(entry, content or b"")
        self._put(header(entry))
        digest = hashlib.sha256()
        pieces = self._passing(self._watched(entry, _exactly(entry, content)), digest.update)
        if self._folder is not None:
            with _unchanged(entry, content) as source:
                self._folder.add_pieces(entry, pieces, source=source)
        else:
            for _ in pieces:
                pass
        self._put(padding(entry.size))
        return digest.hexdigest()

    def _whole(self, entry: Entry, content: bytes) -> str:
        if len(content) != entry.size:
            raise _changed(entry, len(content))
        self._put(header(entry), content, padding(entry.size))
        if self._watch is not None:
            self._watch(entry, content)
        if self._folder is not None:
            self._folder.add(entry, content)
        return hashlib.sha256(content).hexdigest()

    def _passing(self, pieces: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
        for piece in pieces:
            update(piece)
            self._put(piece)
            yield piece

    def _watched(self, entry: Entry, pieces: Iterator[bytes]) -> Iterator[bytes]:
        first = next(pieces, b"")
        if self._watch is not None:
            self._watch(entry, first)
        yield first
        yield from pieces

    def _put(self, *data: bytes) -> None:
        self._parts += data
        self._waiting += sum(map(len, data))
        if self._waiting >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        """Hand whole chunks over: each is a block of the compressor's, which then need not be cut and copied again."""
        joined = memoryview(b"".join(self._parts))
        whole = len(joined) - len(joined) % CHUNK
        for start in range(0, whole, CHUNK):
            self._pump.put(joined[start : start + CHUNK])
        self._parts = [joined[whole:]]
        self._waiting = len(joined) - whole

    def _consume(self, chunk: Piece) -> None:
        self._tar.update(chunk)
        self._tar_size += len(chunk)
        self._compressor.write(chunk)
        if self._tell is not None:
            self._tell(self._tar_size)


def capture(folder: Path, writer: LayerWriter, *, owner: Owner | None = None) -> Captured:
    """Write the sealed ``folder`` to ``writer`` and finish it.

    ``owner`` tells the owner of a path where the folder can't (a user namespace with one mapped id). A file that
    changes meanwhile is a BuildError.
    """
    files = _Files(writer, owner)
    for path, item in _walk(os.fsencode(folder)):
        if item.is_file(follow_symlinks=False):
            files.take(path, item.path)
            continue
        found = item.stat(follow_symlinks=False)
        if is_whiteout(found):
            writer.add(Entry(path, Kind.WHITEOUT))
        else:
            files.add(entry_of(path, found, source=item.path, owner=owner and owner(path, found)), found)
    return writer.finish()


class _Files:
    """Adds what a folder holds; of an inode with several names, the first in order is the file, the others are
    links."""

    def __init__(self, writer: LayerWriter, owner: Owner | None) -> None:
        self._writer = writer
        self._owner = owner
        self._seen: dict[tuple[int, int], bytes] = {}

    def take(self, path: bytes, full: bytes) -> None:
        """Add a regular file. All is asked of its descriptor: looking up the path once more costs more than a read."""
        descriptor = _open(full)
        try:
            found = os.fstat(descriptor)
            entry = entry_of(path, found, source=descriptor, owner=self._owner and self._owner(path, found))
            if entry.size <= _SMALL:
                # One byte more is asked for, to notice that the file grew.
                self.add(entry, found, os.read(descriptor, entry.size + 1))
            else:
                with open(descriptor, "rb", buffering=0, closefd=False) as file:
                    self.add(entry, found, file)
        finally:
            os.close(descriptor)

    def add(self, entry: Entry, found: os.stat_result, content: bytes | BinaryIO | None = None) -> None:
        """Add an entry, or the link that it is."""
        if found.st_nlink > 1 and entry.kind is not Kind.DIRECTORY:
            first = self._seen.setdefault((found.st_dev, found.st_ino), entry.path)
            if first != entry.path:
                link = replace(entry, kind=Kind.HARDLINK, size=0, target=first, device=(0, 0), xattrs=())
                self._writer.add(link)
                return
        self._writer.add(entry, content)


def _walk(root: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """All below ``root`` in a layer's order."""
    stack = [_sorted(root)]
    folders = [b""]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            folders.pop()
            continue
        path = join(folders[-1], entry.name)
        yield path, entry
        if entry.is_dir(follow_symlinks=False):
            stack.append(_sorted(entry.path))
            folders.append(path)


def _sorted(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    with os.scandir(folder) as entries:
        return iter(sorted(entries, key=lambda entry: entry.name))


def _open(full: bytes) -> int:
    try:
        # A capture leaves no access times behind. Only an owner may ask for that (open(2)).
        return os.open(full, _READ | os.O_NOATIME)
    except PermissionError:
        return os.open(full, _READ)


def _exactly(entry: Entry, content: BinaryIO) -> Iterator[bytes]:
    """The content in pieces of at most 1 MiB; BuildError if it is not of the size that the header says."""
    size = 0
    while piece := content.read(CHUNK):
        size += len(piece)
        if size > entry.size:
            raise _changed(entry, size)
        yield piece
    if size != entry.size:
        raise _changed(entry, size)


@contextmanager
def _unchanged(entry: Entry, content: BinaryIO) -> Iterator[int | None]:
    """The descriptor of ``content``, if a change of it meanwhile would show: what the kernel copies must be what was
    read. BuildError if there was one."""
    if not isinstance(content, io.FileIO):
        yield None
        return
    before = os.fstat(content.fileno())
    settled = stat.S_ISREG(before.st_mode) and before.st_ctime_ns < time.time_ns() - _GRAIN
    yield content.fileno() if settled else None
    after = os.fstat(content.fileno())
    if settled and (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    ):
        raise _changed(entry, after.st_size)


def _changed(entry: Entry, size: int) -> BuildError:
    sizes = f": {size} bytes or more instead of {entry.size}" if size != entry.size else ""
    return BuildError(
        f"/{os.fsdecode(entry.path)} changed while it was read{sizes}",
        hint="nothing may write to the files of a layer while it is made",
    )
