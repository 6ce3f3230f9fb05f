"""Who is alive: lock files that the kernel lets go of when their process ends, however it ends.

flock(2) belongs to the open file, so a helper process that was forked shares it: a lease is free only when the whole
family is gone, and nothing can still write into what the lease covers.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerbuild.errors import StoreError


class Lease:
    """A process's claim on the workspaces and temporary files that carry its id. Freed by ``release`` or by death."""

    def __init__(self, folder: Path) -> None:
        """Take a new lease: a lock file ``<id>.lock`` in ``folder`` that holds the process ID, for messages."""
        self.id = os.urandom(8).hex()
        self._path = folder / f"{self.id}.lock"
        # Named only once it is locked: a sweeper must never meet a lease that looks dead because it is too young.
        young = folder / f"{self.id}.new"
        self._descriptor = os.open(young, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            os.write(self._descriptor, f"{os.getpid()}\n".encode())
            young.rename(self._path)
        except OSError:
            young.unlink()
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """End the lease. Whatever still carries its id is now a leftover."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def lease_ids(folder: Path) -> frozenset[str]:
    """The ids of all leases in ``folder``, alive or dead."""
    return frozenset(path.stem for path in folder.iterdir() if path.suffix == ".lock")


def is_alive(folder: Path, lease: str) -> bool:
    """Whether the process that took the lease, or a child of it, still lives."""
    try:
        descriptor = os.open(folder / f"{lease}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def forget(folder: Path, lease: str) -> None:
    """Remove the lock file of a dead lease."""
    (folder / f"{lease}.lock").unlink(missing_ok=True)


def holders(folder: Path, *, but: str = "") -> tuple[int, ...]:
    """The process IDs of the leases alive, as their own PID namespaces count them; ``but`` is left out."""
    alive = sorted(lease for lease in lease_ids(folder) - {but} if is_alive(folder, lease))
    texts = ((folder / f"{lease}.lock").read_text() for lease in alive)
    return tuple(int(text) for text in texts if text.strip().isdigit())


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Be the only one who does something with ``folder``; waits for its turn."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def folder_claim(folder: Path) -> Iterator[bool]:
    """As ``folder_lock``, but without waiting: False if somebody else has it. What is absent nobody has."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    try:
        yield free
    finally:
        os.close(descriptor)


@contextmanager
def name_lock(path: Path) -> Iterator[None]:
    """Be the only one who does what ``path`` stands for, a file that is here only meanwhile; waits for its turn."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_same(path, descriptor):  # else the one before has removed it between open and lock
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def is_same(path: Path, descriptor: int) -> bool:
    """Whether ``path`` is the file that is open as ``descriptor``."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class SharedLock:
    """The lock of a whole store: each user holds it shared, a sweeper exclusively."""

    def __init__(self, path: Path) -> None:
        """Take it shared; waits while a sweeper works."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    @contextmanager
    def exclusive(self, *, others: str) -> Iterator[None]:
        """Be alone in the store; StoreError, with ``others`` as its remark, if somebody else uses it now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A conversion that fails loses the lock that was held (flock(2)).
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            hint = "wait until the other builds and containers have ended, then try again"
            raise StoreError(f"the store at {self._path.parent} is in use{others}", hint=hint) from None
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)
