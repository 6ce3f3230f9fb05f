"""How much a step that runs has written so far: looks into its folder, each of them short."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from layerbuild.views import text as show

_LOOK = 0.05  # seconds that one look may take


class Weigher:
    """The bytes of the files below ``folder``. ``tree``: it is a complete tree, of which only what was written since it
    came to be counts. A round that a look does not get through is gone on with by the next."""

    def __init__(self, folder: str, *, tree: bool = False) -> None:
        self._folder = folder
        self._tree = tree
        self._since = 0  # of a tree, when it was there: its parent's time, in nanoseconds
        self._round: Iterator[int] | None = None
        self._counted = 0  # in this round
        self._known: int | None = None  # at the end of the last one

    def look(self, seconds: float = _LOOK) -> str:
        """What is known after one more look; empty while there is no tree."""
        if self._tree and not self._since and not self._is_there():
            return ""
        end = time.monotonic() + seconds
        if self._round is None:
            self._round, self._counted = self._sizes(), 0
        for size in self._round:
            self._counted += size
            if time.monotonic() > end:
                return self._unfinished()
        self._round, self._known = None, self._counted
        return show.size(self._counted)

    def _unfinished(self) -> str:
        if self._known is not None and self._known >= self._counted:
            return show.size(self._known)
        return f">{show.size(self._counted)}"

    def _is_there(self) -> bool:
        """Whether the tree is whole. A driver gives it its name last, so all that lies in it then is older."""
        try:
            if os.path.lexists(self._folder):
                self._since = Path(self._folder).parent.stat().st_mtime_ns
        except OSError:
            pass
        return self._since > 0

    def _sizes(self) -> Iterator[int]:
        """The size of each file that counts, and 0 for each folder, so that a look can end there."""
        folders = [self._folder]
        while folders:
            try:
                with os.scandir(folders.pop()) as found:
                    for entry in found:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            status = entry.stat(follow_symlinks=False)
                            yield status.st_size if status.st_ctime_ns > self._since else 0
            except OSError:  # the step goes on, and may remove what was just listed
                continue
            yield 0
