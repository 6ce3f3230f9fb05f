"""Folders that outlive a build and belong to no layer: what ``RUN --mount=type=cache`` shows.

::

    cache-mounts/<key>/name      what people call it
    cache-mounts/<key>/0         the folder; a private user that finds it taken gets 1, 2, …
    cache-mounts/<key>/0.lock    who uses 0 holds it with flock(2): shared, or alone

The lock lies beside the folder, not in it: a command may lock the cache's own folder for its own reasons.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from layerbuild.frozen import frozen
from layerbuild.layer.tree import remove_tree
from layerbuild.store.lease import folder_lock
from layerbuild.store.space import disk_errors

Sharing = Literal["shared", "private", "locked"]


@frozen
class CacheName:
    """What names a cache: ``id`` in ``namespace``, and what it was made from (its seed, its owner): caches that start
    differently are different ones, so that a user never finds one that it may not write."""

    id: str
    namespace: str = ""
    made_from: str = ""

    @property
    def key(self) -> str:
        """The name of its folder."""
        return hashlib.sha256("\0".join((self.namespace, self.id, self.made_from)).encode()).hexdigest()


class CacheMounts:
    """The caches of a store. ``temporary`` gives free names on the same file system."""

    def __init__(self, folder: Path, *, temporary: Callable[[], Path]) -> None:
        self.folder = folder
        self._temporary = temporary

    def all(self) -> tuple[Path, ...]:
        """The folder of each cache, with all that it holds."""
        return tuple(sorted(self.folder.iterdir())) if self.folder.is_dir() else ()

    @contextmanager
    def claimed(
        self,
        name: CacheName,
        *,
        sharing: Sharing,
        fill: Callable[[Path], None],
        waiting: Callable[[], None],
        fresh: bool = False,
    ) -> Iterator[Path]:
        """The cache's folder, for as long as the context lasts. ``fill`` completes a new one, which is there and empty.

        "shared" users have it together, a "locked" one alone; ``waiting`` is called before a wait for others. A
        "private" one gets another folder instead of a wait. ``fresh``: what it held until now goes.
        """
        with disk_errors(self.folder):
            home = self._home(name)
            number, lock = _claim(home, sharing=sharing, alone=fresh or sharing != "shared", waiting=waiting)
        try:
            with disk_errors(home):
                folder = self._ready(home, home / str(number), fill, fresh=fresh)
            if sharing == "shared":
                fcntl.flock(lock, fcntl.LOCK_SH)  # of a fresh one that others may use now
            yield folder
        finally:
            os.close(lock)

    def _home(self, name: CacheName) -> Path:
        # Caches may hold set-user-ID programs and things that are private.
        self.folder.mkdir(mode=0o700, exist_ok=True)
        home = self.folder / name.key
        home.mkdir(exist_ok=True)
        (home / "name").write_text(f"{name.namespace}/{name.id}" if name.namespace else name.id)
        return home

    def _ready(self, home: Path, folder: Path, fill: Callable[[Path], None], *, fresh: bool) -> Path:
        """``folder``, made if need be: complete under another name, so that nobody takes over half of a seed."""
        with folder_lock(home):  # those who share it may come at the same time
            if fresh and folder.exists():
                old = folder.rename(self._temporary())
                remove_tree(old)
            if not folder.exists():
                young = self._temporary()
                young.mkdir()
                fill(young)
                young.rename(folder)
        return folder


def _claim(home: Path, *, sharing: Sharing, alone: bool, waiting: Callable[[], None]) -> tuple[int, int]:
    """The number of a folder, and the open lock that claims it."""
    operation = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    for number in itertools.count():
        lock = os.open(home / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, operation | fcntl.LOCK_NB)
            return number, lock
        except BlockingIOError:
            if sharing == "private":
                os.close(lock)
                continue
            waiting()
        try:
            fcntl.flock(lock, operation)
        except BaseException:
            os.close(lock)
            raise
        return number, lock
    raise AssertionError("there is always one more number")
