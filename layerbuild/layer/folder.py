"""A sealed folder in place of its index, for as long as that is still being written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from layerbuild.layer.entry import Entry, Kind, Owner, entry_of
from layerbuild.layer.paths import join
from layerbuild.layer.whiteout import is_whiteout


class SealedFolder:
    """What a sealed diff folder holds, asked as an index is asked.

    Files have no digest here, and the names of one inode are as many files. ``owner`` tells the owner of a path where
    the folder can't. Who asks for a path has made sure that its parents are folders of this layer (``union`` does).
    """

    def __init__(self, folder: Path, *, owner: Owner | None = None) -> None:
        self._folder = os.fsencode(folder)
        self._owner = owner

    def lookup(self, path: bytes) -> Entry | None:
        """The entry of exactly this path. Links are not followed. The root has none, as in every layer of ours."""
        if not path:
            return None
        full = self._folder + b"/" + path
        try:
            found = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._entry(path, found, full)

    def children(self, folder: bytes) -> Iterator[Entry]:
        """The entries directly in ``folder``, in order."""
        try:
            with os.scandir(join(self._folder, folder) if folder else self._folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            yield self._entry(join(folder, entry.name), entry.stat(follow_symlinks=False), entry.path)

    def _entry(self, path: bytes, found: os.stat_result, full: bytes) -> Entry:
        if is_whiteout(found):
            return Entry(path, Kind.WHITEOUT)
        return entry_of(path, found, source=full, owner=self._owner and self._owner(path, found))
