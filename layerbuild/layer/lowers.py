"""The diff folders below, read as one tree, and two files compared: what both ways to find a step's changes share.

``lowers`` are the folders of one path that show together, top first.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from layerbuild.layer.entry import copied_xattrs
from layerbuild.layer.whiteout import is_opaque, is_whiteout

_PIECE = 1 << 17


def cut(folders: list[bytes]) -> list[bytes]:
    """The folders that show: none below one that is opaque."""
    for number, folder in enumerate(folders):
        if is_opaque(folder):
            return folders[: number + 1]
    return folders


def visible(lowers: list[bytes], name: bytes) -> tuple[bytes, os.stat_result] | None:
    """What the name is below: its path there and its lstat; None if it is not, or is whited out."""
    for lower in lowers:
        full = lower + b"/" + name
        try:
            found = os.lstat(full)
        except FileNotFoundError:
            continue
        return None if is_whiteout(found, full) else (full, found)
    return None


def contributing(lowers: list[bytes], name: bytes) -> list[bytes]:
    """The folders of that name that show together, top first; empty if the name is no folder below."""
    folders = []
    for lower in lowers:
        full = lower + b"/" + name
        try:
            found = os.lstat(full)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(found.st_mode):  # a file, or a whiteout: it hides what is further below
            break
        folders.append(full)
        if is_opaque(full):
            break
    return folders


def shown(lowers: list[bytes]) -> Iterator[bytes]:
    """The names that show in the folders, merged."""
    seen: set[bytes] = set()
    for lower in lowers:
        with os.scandir(lower) as entries:
            for entry in entries:
                if entry.name in seen:
                    continue
                seen.add(entry.name)
                if not is_whiteout(entry.stat(follow_symlinks=False), entry.path):
                    yield entry.name


def scanned(folder: bytes) -> list[os.DirEntry[bytes]]:
    """What is in a folder, all at once: it may be changed meanwhile."""
    with os.scandir(folder) as entries:
        return list(entries)


def same_dress(full: bytes, found: os.stat_result, lower: bytes, below: os.stat_result) -> bool:
    """Whether kind, mode, owner and the attributes that a layer carries are equal."""
    if (found.st_mode, found.st_uid, found.st_gid) != (below.st_mode, below.st_uid, below.st_gid):
        return False
    return stat.S_ISLNK(found.st_mode) or copied_xattrs(full) == copied_xattrs(lower)


def same_content(one: bytes, other: bytes) -> bool:
    with open(one, "rb", buffering=0) as first, open(other, "rb", buffering=0) as second:
        while True:
            piece = first.read(_PIECE)
            if piece != second.read(_PIECE):
                return False
            if not piece:
                return True
