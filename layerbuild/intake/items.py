"""A root file system as a list of values: each path with its entry, and where its content is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from layerbuild.errors import FormatError
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Entry, Kind, entry_of, kind_of
from layerbuild.layer.paths import join, split
from layerbuild.layer.whiteout import hidden_name


@frozen
class Item:
    """One path. ``content`` of a file is a path on this machine or the bytes themselves; None for all else."""

    entry: Entry
    content: Path | bytes | None = None


def folder_items(folder: Path, *, epoch: int | None) -> Iterator[Item]:
    """All that is below ``folder``, in a layer's order; times later than ``epoch`` become it (None: they stay).

    A file with several names is its first name in order; the others are hard links to that. Sockets are left out.
    FormatError for a name that would be taken for a whiteout in a layer.
    """
    first: dict[tuple[int, int], Entry] = {}
    for path, source, found in _walk(os.fsencode(folder)):
        entry = _clamped(entry_of(path, found, source=source, marked=False), epoch)
        if entry.kind is not Kind.DIRECTORY and found.st_nlink > 1:
            known = first.setdefault((found.st_dev, found.st_ino), entry)
            if known is not entry:
                yield Item(replace(entry, kind=Kind.HARDLINK, size=0, target=known.path))
                continue
        yield Item(entry, Path(os.fsdecode(source)) if entry.kind is Kind.FILE else None)


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """All below ``root`` but sockets, in a layer's order: path, path on this machine, lstat."""
    stack = [(name, join(root, name)) for name in _names(root)]
    while stack:
        path, source = stack.pop()
        found = os.lstat(source)
        kind = kind_of(found.st_mode)
        if hidden_name(split(path)[1]) is not None:
            raise FormatError(
                f"{os.fsdecode(source)} has a name that means a deletion in a layer",
                hint="it is the content of a layer rather than of a root file system; import the whole image",
            )
        if kind is None:
            continue
        yield path, source, found
        if kind is Kind.DIRECTORY:
            stack.extend((join(path, name), join(source, name)) for name in _names(source))


def _names(folder: bytes) -> list[bytes]:
    """The names in a folder, last first: the walk takes them from the end."""
    return sorted(os.listdir(folder), reverse=True)


def _clamped(entry: Entry, epoch: int | None) -> Entry:
    mtime = entry.mtime if epoch is None else min(entry.mtime, epoch)
    return replace(entry, mtime=mtime, mtime_ns=0)
