"""Bytes by digest: ``blobs/sha256/<hex>``, an OCI layout's own folder.

A blob comes to be in one way: written under a temporary name, hashed on the way, renamed. So a name in the folder is a
promise that the bytes are whole; what has not reached the disk bears a mark (unsynced.py), which keeps that promise
when the machine goes down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from layerbuild.digest import BlobDigest, HashingWriter, VerifyingReader
from layerbuild.errors import DigestMismatch, NotFoundError
from layerbuild.store.space import disk_errors
from layerbuild.store.unsynced import Unsynced


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
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise _absent(digest) from error
        return VerifyingReader(file, digest, name=f"blob {digest}")

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

    def write(self, data: bytes, /) -> int:
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


def _absent(digest: BlobDigest) -> NotFoundError:
    return NotFoundError(f"blob {digest} is not in the store")
