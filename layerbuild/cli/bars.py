"""Blobs on their way, on standard error: a bar for each on a terminal, a line for each elsewhere."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TextIO

from layerbuild.digest import BlobDigest
from layerbuild.events import BlobMoved
from layerbuild.views import text as show

_PAUSE = 0.1  # seconds between two drawings
_WORDS = {"pull": ("pulling", "pulled"), "push": ("pushing", "pushed")}


@dataclass(frozen=True, slots=True)
class _Row:
    moved: BlobMoved
    began: float


class Bars:
    """Draws on ``stream``; events come from any thread. ``columns`` is the width of a terminal, None: it is none.

    Bars are redrawn in place below everything else, so whoever prints a line calls ``clear`` before.
    """

    def __init__(self, stream: TextIO, *, columns: int | None) -> None:
        self._stream = stream
        self._columns = columns
        self._rows: dict[tuple[str, BlobDigest], _Row] = {}
        self._drawn = 0
        self._last = 0.0
        self._guard = threading.RLock()

    def show(self, moved: BlobMoved) -> None:
        """Take in how far a blob has come."""
        with self._guard:
            key, now = (moved.way, moved.digest), time.monotonic()
            began = self._rows[key].began if key in self._rows else now
            if moved.done < moved.size:
                self._rows[key] = _Row(moved, began)
                if self._columns is not None and now - self._last >= _PAUSE:
                    self._draw(now)
                return
            self._rows.pop(key, None)
            self.clear()
            took = show.seconds(now - began)
            word = _WORDS[moved.way][1] if moved.how in ("", "sent") else moved.how
            self._stream.write(f"       {word} {moved.digest.short}: {show.size(moved.size)}  {took}\n")
            self._stream.flush()

    def clear(self) -> None:
        """Take the bars away, so that a line can be printed where they were."""
        with self._guard:
            if self._drawn:
                self._stream.write(f"\x1b[{self._drawn}A\x1b[J")  # up, and erase to the end (ECMA-48)
                self._drawn = 0

    def _draw(self, now: float) -> None:
        self.clear()
        for row in self._rows.values():
            self._stream.write(_bar(row.moved, columns=self._columns or 80) + "\n")
        self._drawn, self._last = len(self._rows), now
        self._stream.flush()


def _bar(moved: BlobMoved, *, columns: int) -> str:
    """One line: what, how far, how much.

    >>> _bar(BlobMoved(BlobDigest.of(b""), "pull", "host/name", 500, 1000), columns=50)
    '       pulling e3b0c44298fc [#####     ] 500B of 1.00kB'
    """
    head = f"       {_WORDS[moved.way][0]} {moved.digest.short} ["
    tail = f"] {show.size(moved.done)} of {show.size(moved.size)}"
    room = max(10, min(40, columns - len(head) - len(tail) - 1))
    filled = room * moved.done // max(moved.size, 1)
    return f"{head}{'#' * filled}{' ' * (room - filled)}{tail}"
