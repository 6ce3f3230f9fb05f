"""Blobs on their way: what is said when one is there, and bars for those that are not."""

from __future__ import annotations

import time

from layerbuild.digest import BlobDigest
from layerbuild.events import BlobMoved
from layerbuild.frozen import frozen
from layerbuild.views import text as show

_WORDS = {"pull": ("pulling", "pulled"), "push": ("pushing", "pushed")}


@frozen
class _Way:
    moved: BlobMoved
    began: float


class Blobs:
    """Those that are on their way."""

    def __init__(self) -> None:
        self._ways: dict[tuple[str, BlobDigest], _Way] = {}

    def __bool__(self) -> bool:
        return bool(self._ways)

    def take(self, moved: BlobMoved) -> str:
        """Note how far a blob has come; the line to say of one that is there, else nothing."""
        key, now = (moved.way, moved.digest), time.monotonic()
        began = self._ways[key].began if key in self._ways else now
        if moved.done < moved.size:
            self._ways[key] = _Way(moved, began)
            return ""
        self._ways.pop(key, None)
        word = _WORDS[moved.way][1] if moved.how in ("", "sent") else moved.how
        return f"       {word} {moved.digest.short}: {show.size(moved.size)}  {show.seconds(now - began)}"

    def bars(self, columns: int) -> list[str]:
        """A line for each that is on its way."""
        return [bar(way.moved, columns=columns) for way in self._ways.values()]


def bar(moved: BlobMoved, *, columns: int) -> str:
    """One line: what, how far, how much. Where there is no room for it, without the bar.

    >>> bar(BlobMoved(BlobDigest.of(b""), "pull", "host/name", 500, 1000), columns=55)
    '       pulling e3b0c44298fc [#####     ] 500B of 1.00kB'
    >>> bar(BlobMoved(BlobDigest.of(b""), "pull", "host/name", 500, 1000), columns=49)
    '       pulling e3b0c44298fc  500B of 1.00kB'
    """
    head = f"       {_WORDS[moved.way][0]} {moved.digest.short} "
    tail = f" {show.size(moved.done)} of {show.size(moved.size)}"
    room = min(40, columns - len(head) - len(tail) - 2)
    if room < 5:
        return head + tail
    filled = room * moved.done // max(moved.size, 1)
    return f"{head}[{'#' * filled}{' ' * (room - filled)}]{tail}"
