"""How much memory a build takes: the largest sum of resident sizes over its processes, the daemons' too."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

_EVERY = 0.02  # seconds; rounds that are timed are not watched
_PAGE = os.sysconf("SC_PAGESIZE")


class Watch:
    """Watches the processes that this one starts while it is entered, and ``daemons``, with all below them."""

    def __init__(self, daemons: Iterable[int] = ()) -> None:
        self._daemons = frozenset(daemons)
        self._others: frozenset[int] = frozenset()  # children that were there before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.peak = 0  # bytes

    def __enter__(self) -> Watch:
        parents, _ = _processes()
        self._others = frozenset(pid for pid, parent in parents.items() if parent == os.getpid()) - self._daemons
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_EVERY):
            self.peak = max(self.peak, self._sum())

    def _sum(self) -> int:
        parents, sizes = _processes()
        return sum(sizes[pid] for pid in parents if pid != os.getpid() and self._is_watched(pid, parents))

    def _is_watched(self, pid: int, parents: dict[int, int]) -> bool:
        while pid and pid not in self._others:
            if pid == os.getpid() or pid in self._daemons:
                return True
            pid = parents.get(pid, 0)
        return False


def _processes() -> tuple[dict[int, int], dict[int, int]]:
    """Of each process its parent, and its resident size in bytes."""
    parents, sizes = {}, {}
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(path.name)], sizes[int(path.name)] = int(fields[1]), int(fields[21]) * _PAGE
    return parents, sizes
