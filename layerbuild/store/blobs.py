"""Bytes by digest: ``blobs/sha256/<hex>``, an OCI layout's own folder.

A blob comes to be in one way: written under a temporary name, hashed on the way, renamed. So a name in the folder is a
promise that the bytes are whole; what has not reached the disk bears a mark (unsynced.py), which keeps that promise
when the machine goes down.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from layerbuild.digest import BlobDigest, HashingWriter, Piece, Sink, VerifyingReader
from layerbuild.errors import DigestMismatch, NotFoundError
from layerbuild.store.space import disk_errors
from layerbuild.store.unsynced import Unsynced

_PIECE = 1 << 20
_NO_RANGE = frozenset((errno.EXDEV, errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM))


class Blobs:
    """The blobs of a store. ``temporary`` gives a free name in the store's ``tmp`` folder."""

    def __init__(self, folder: Path, unsynced: Unsynced, *, temporary: Callable[[], Path]) -> None:
        self.folder = folder
        self._unsynced = unsynced
        self._temporary = temporary

    def path(self, digest: BlobDigest) -> Path:
        """Where the blob is, or would be."""
        return self.folder / digest.hex

    def has(self, digest: BlobDigest) -> bool:
        """Whether it is here."""
        return self.path(digest).is_file()

    def size(self, digest: BlobDigest) -> int:
        """Its size in bytes; NotFoundError where it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise _absent(digest) from error

    def open(self, digest: BlobDigest) -> VerifyingReader:
        """A reader that raises DigestMismatch at its end if the file was damaged; NotFoundError."""
        return VerifyingReader(self.file(digest), digest, name=f"blob {digest}")

    def sending(self) -> Sending:
        """For blobs that leave the store; a context manager."""
        return Sending(self)

    def read(self, digest: BlobDigest) -> bytes:
        """A small blob (manifest, configuration), whole and verified."""
        with self.open(digest) as reader:
            return reader.read()

    def add(self, data: bytes) -> BlobDigest:
        """Store ``data``; the digest is its name from now on."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()[0]

    def writer(self) -> BlobWriter:
        """For a blob that arrives piece by piece."""
        return BlobWriter(self, self._temporary())

    def temporary(self) -> Path:
        """A free name for a writer that hashes by itself and calls ``adopt`` afterwards."""
        return self._temporary()

    def adopt(self, temporary: Path, digest: BlobDigest) -> int:
        """Make a finished temporary file the blob ``digest``, on the caller's word that it is; returns its size."""
        with disk_errors(self.folder):
            size = temporary.stat().st_size
            if self._holds(digest, size):
                temporary.unlink()
                return size
            self._unsynced.rename(temporary, self.path(digest))
            return size

    def digests(self) -> Iterator[BlobDigest]:
        """Every blob that is here, in no order."""
        for path in self.folder.iterdir():
            yield BlobDigest.parse(f"sha256:{path.name}")

    def file(self, digest: BlobDigest) -> BinaryIO:
        """The blob's file as it lies there, not verified; NotFoundError."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise _absent(digest) from error

    def _holds(self, digest: BlobDigest, size: int) -> bool:
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False


class BlobWriter:
    """Writes a blob whose digest is known at its end only. Left without ``commit``, it leaves nothing behind."""

    def __init__(self, blobs: Blobs, temporary: Path) -> None:
        self._blobs = blobs
        self._temporary = temporary
        with disk_errors(temporary):
            self._file = temporary.open("xb")
        self._hashing = HashingWriter(self._file)
        self._committed = False

    def write(self, data: Piece, /) -> int:
        with disk_errors(self._temporary):
            return self._hashing.write(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._hashing.size

    def commit(self, expected: BlobDigest | None = None) -> tuple[BlobDigest, int]:
        """Make it a blob; returns digest and size. DigestMismatch if the bytes are not those of ``expected``."""
        digest = BlobDigest(self._hashing.digest())
        if expected is not None and digest != expected:
            raise DigestMismatch(f"the blob that arrived has digest {digest} instead of {expected}")
        with disk_errors(self._temporary):
            self._file.close()
        self._blobs.adopt(self._temporary, digest)
        self._committed = True
        return digest, self._hashing.size

    def abort(self) -> None:
        """Throw away what was written."""
        self._temporary.unlink(missing_ok=True)
        try:
            self._file.close()
        except OSError:
            pass  # the buffered rest did not fit on the disk; it was to be thrown away

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._committed:
            self.abort()


class Sending:
    """Writes blobs to files, one after another. Their digests are verified beside that, several at once, for to hash a
    blob takes twice as long as to copy it; the block ends when all have been.

    DigestMismatch from ``send`` or at the block's end, after the blob was written, if it was damaged.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._checks: deque[_Check] = deque()
        self._most = len(os.sched_getaffinity(0))

    def send(self, digest: BlobDigest, sink: Sink) -> None:
        """Write a blob to ``sink``: where that is a file or a pipe, within the kernel, which shares the blocks on file
        systems that can (copy_file_range(2)). NotFoundError."""
        writer = _descriptor(sink)
        if writer is None:
            with self._blobs.open(digest) as reader:
                while data := reader.read(_PIECE):
                    sink.write(data)
            return
        if len(self._checks) == self._most:
            self._checks.popleft().finish()
        with self._blobs.file(digest) as file:
            self._checks.append(_Check(self._blobs.open(digest)))
            _copy(file.fileno(), writer, os.fstat(file.fileno()).st_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all; what they found is raised if the block itself has ended well."""
        for check in self._checks:
            check.wait()
        if kind is None:
            for check in self._checks:
                check.finish()


class _Check:
    """Reads ``reader`` to its end, and closes it, on a thread of its own."""

    def __init__(self, reader: VerifyingReader) -> None:
        self._reader = reader
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="blob-check", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def finish(self) -> None:
        """Wait for the end; raises what the reader raised."""
        self.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._reader:
                self._reader.finish()
        except Exception as error:  # raised again in the caller
            self._error = error


def _descriptor(sink: Sink) -> int | None:
    """What ``sink`` writes to, when all that it was given has gone there; None: no file."""
    if not isinstance(sink, io.BufferedWriter | io.FileIO):
        return None
    sink.flush()
    return sink.fileno()


def _copy(reader: int, writer: int, size: int) -> None:
    """Copy ``size`` bytes between two open files, or as many as there are."""
    copy: Callable[[int, int, int], int] = os.copy_file_range
    while size:
        try:
            count = copy(reader, writer, size)
        except OSError as error:
            # Not between these file systems, not to a pipe, not to a file that is only appended to, or not known.
            if copy is not os.copy_file_range or error.errno not in _NO_RANGE:
                raise
            copy = _splice
            continue
        if count == 0:
            return
        size -= count


def _splice(reader: int, writer: int, size: int) -> int:
    try:
        return os.sendfile(writer, reader, None, size)
    except OSError as error:
        if error.errno != errno.EINVAL:  # O_APPEND (sendfile(2))
            raise
        return os.write(writer, os.read(reader, min(size, _PIECE)))


def _absent(digest: BlobDigest) -> NotFoundError:
    return NotFoundError(f"blob {digest} is not in the store")
