"""Blobs on their way: written by who fetches them, read by who unpacks them, at the same time.

::

    arriving/<hex>      what has come of a blob so far; whoever writes it holds its lock (flock(2))

A fetch that was killed leaves its part behind, and the next one goes on from there. Who comes while another process
fetches the same blob waits for it: nothing is fetched twice. The name in ``blobs/`` appears when all is there and the
digest is right; what was wrong as a whole is thrown away, and may come again from another place. Who has read of it by
then is told by ``ComesAgain``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from layerbuild.digest import BlobDigest
from layerbuild.errors import DigestMismatch
from layerbuild.store.blobs import Blobs
from layerbuild.store.lease import is_same
from layerbuild.store.space import disk_errors

_PIECE = 1 << 20
_TURN = 0.1  # seconds between two looks whether another process has finished with a part


class ComesAgain(Exception):
    """What was read of an arrival was wrong, and it comes from the beginning again: read it anew."""


class Arrivals:
    """The parts of a store. One process may have several under way."""

    def __init__(self, folder: Path, blobs: Blobs) -> None:
        self.folder = folder
        self._blobs = blobs

    def expect(self, digest: BlobDigest, size: int) -> Arrival:
        """A blob that is to come, or has; nothing is written yet."""
        return Arrival(digest, size, self._blobs.path(digest))

    @contextmanager
    def writing(self, arrival: Arrival) -> Iterator[int]:
        """Have the blob's part for oneself, to ``write`` and then ``finish`` the arrival; how many bytes are there.

        Waits while another process has it. If that one brought the blob, the arrival is complete at once. An exception
        is told to the readers, and passes on.
        """
        try:
            with disk_errors(self.folder):
                self.folder.mkdir(exist_ok=True)
                with self._locked(arrival) as descriptor:
                    yield self._begin(arrival, descriptor)
        except BaseException as error:
            arrival.fail(error)
            raise

    def parts(self) -> tuple[Path, ...]:
        """The parts that nobody is writing."""
        if not self.folder.is_dir():
            return ()
        return tuple(path for path in self.folder.iterdir() if _is_free(path))

    @contextmanager
    def _locked(self, arrival: Arrival) -> Iterator[int]:
        path = self.folder / arrival.digest.hex
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # The second: it may have been finished or removed by another process between open and lock.
                if _lock(descriptor) and is_same(path, descriptor):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)
            arrival.rest(_TURN)

    def _begin(self, arrival: Arrival, descriptor: int) -> int:
        part = self.folder / arrival.digest.hex
        if self._blobs.has(arrival.digest):
            part.unlink(missing_ok=True)
            arrival.complete()
            return arrival.size
        return arrival.open(part, descriptor, adopt=lambda: self._blobs.adopt(part, arrival.digest))


class Arrival:
    """One blob that comes. One thread writes it; others read it from its beginning, and wait for what is not there."""

    def __init__(self, digest: BlobDigest, size: int, blob: Path) -> None:
        self.digest = digest
        self.size = size
        self._blob = blob
        self._part: Path | None = None
        self._descriptor = -1
        self._adopt: Callable[[], object] = int
        self._hash = hashlib.sha256()
        self._count = 0
        self._beginnings = 0
        self._complete = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    # -- for who fetches it

    @property
    def is_complete(self) -> bool:
        """Whether it is a blob, maybe by another process."""
        return self._complete

    def open(self, part: Path, descriptor: int, *, adopt: Callable[[], object]) -> int:
        """Go on with what is in the file ``part``; how many bytes that are."""
        self._part, self._descriptor, self._adopt = part, descriptor, adopt
        if os.fstat(descriptor).st_size > self.size:
            os.ftruncate(descriptor, 0)
        count = 0
        while piece := os.pread(descriptor, _PIECE, count):
            self._hash.update(piece)
            count += len(piece)
        self._advance(count)
        return count

    def write(self, data: bytes) -> None:
        """Append ``data``; raises what ``fail`` was told."""
        self.rest(0)
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, memoryview(data)[done:], self._count + done)
        self._hash.update(data)
        self._advance(len(data))

    def finish(self) -> None:
        """All was written: make it a blob. DigestMismatch if it is another one: ``restart`` or ``discard`` then."""
        found = "sha256:" + self._hash.hexdigest()
        if found != self.digest or self._count != self.size:
            raise DigestMismatch(f"what came as blob {self.digest} has digest {found}")
        self._adopt()
        self.complete()

    def restart(self) -> None:
        """Throw away what has come, which was wrong: it is written again from the beginning."""
        with self._changed:
            os.ftruncate(self._descriptor, 0)
            self._hash = hashlib.sha256()
            self._count = 0
            self._beginnings += 1
            self._changed.notify_all()

    def discard(self) -> None:
        """Throw away what has come, and the part with it."""
        assert self._part is not None
        self._part.unlink(missing_ok=True)

    def complete(self) -> None:
        """The blob is in its place."""
        with self._changed:
            self._complete, self._count = True, self.size
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """It will not come."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def rest(self, seconds: float) -> None:
        """Wait for some time; raises at once what ``fail`` was told."""
        with self._changed:
            if self._changed.wait_for(lambda: self._error, seconds or 0.0) and self._error is not None:
                raise self._error

    def _advance(self, count: int) -> None:
        with self._changed:
            self._count += count
            self._changed.notify_all()

    # -- for who reads it

    @property
    def beginnings(self) -> int:
        """How often it was begun anew."""
        return self._beginnings

    def wait(self, *, since: int | None = None) -> None:
        """Wait until it is a blob; raises what its fetching raised, and ComesAgain if it was begun anew ``since``."""
        with self._changed:
            self._changed.wait_for(lambda: self._complete or self._error or since not in (None, self._beginnings))
            if since not in (None, self._beginnings):
                raise ComesAgain
            if not self._complete and self._error is not None:
                raise self._error

    def reader(self, *, since: int) -> ArrivalReader:
        """Its bytes from the beginning, as they come. The end is told only when the digest has been found right.
        ComesAgain where ``beginnings`` is no longer ``since``: what was seen of it by then may have been wrong."""
        return ArrivalReader(self, since)

    def opened(self) -> int:
        """A descriptor to read it by, once there is a file."""
        with self._changed:
            self._changed.wait_for(lambda: self._complete or self._error or self._part)
            if not self._complete and self._error is not None:
                raise self._error
            paths = [path for path in (self._blob, self._part) if path is not None]
        for path in paths:
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
        self.wait()  # it became a blob between the two, or what had come was thrown away
        return os.open(self._blob, os.O_RDONLY | os.O_CLOEXEC)

    def available(self, beyond: int, *, since: int) -> int:
        """How many bytes there are, more than ``beyond`` unless that is all; raises as ``wait`` does."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._count > beyond or self._complete or self._error or since != self._beginnings
            )
            if since != self._beginnings:
                raise ComesAgain
            if self._count <= beyond and not self._complete and self._error is not None:
                raise self._error
            return self._count


class ArrivalReader:
    """Reads an arrival, as ``Blobs.open`` reads a blob."""

    def __init__(self, arrival: Arrival, since: int) -> None:
        self._arrival = arrival
        self._since = since
        self._descriptor = arrival.opened()
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        if size == 0:
            return b""
        there = self._arrival.available(self._position, since=self._since)
        if there <= self._position:
            self._arrival.wait(since=self._since)
            return b""
        data = os.pread(self._descriptor, min(there - self._position, size if size > 0 else _PIECE), self._position)
        self._position += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """``read`` into a buffer, as decompressors ask for it; returns the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> None:
        """Wait until all has come and is right: for a reader that stopped before the end."""
        self._arrival.wait(since=self._since)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_free(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
