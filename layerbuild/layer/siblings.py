"""Names of one file that a stack keeps together.

fuse-overlayfs knows a file of several names as one, like a plain file system and unlike the kernel's overlay; but what
it copies up lies in the upperdir under one of them only, not always the one that was written to. What the command saw
under the others must be there too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from layerbuild.layer.copyup import below, copy_up_parents
from layerbuild.layer.lowers import contributing, cut, scanned, visible
from layerbuild.layer.paths import join


def link_siblings(upper: Path, lowers: Sequence[Path]) -> None:
    """Give each file in ``upper`` that stands for one of several names below (``lowers``: diff folders, top first) all
    of these names that still show."""
    top, folders = os.fsencode(upper), [os.fsencode(lower) for lower in lowers]
    copied = dict(_copied(top, cut(folders)))
    if not copied:
        return
    for folder in folders:
        for path, inode in _names(folder):
            if inode not in copied or os.path.lexists(join(top, path)):
                continue
            shown = below(folders, path)
            if shown is not None and (shown.st_dev, shown.st_ino) == inode and copy_up_parents(top, folders, path):
                os.link(copied[inode], join(top, path), follow_symlinks=False)


def _copied(upper: bytes, lowers: list[bytes]) -> Iterator[tuple[tuple[int, int], bytes]]:
    """The inodes of several names below that have a file above, and that."""
    waiting = [(upper, lowers)]
    while waiting:
        folder, under = waiting.pop()
        for entry in scanned(folder):
            if entry.is_dir(follow_symlinks=False):
                inner = contributing(under, entry.name)
                if inner:
                    waiting.append((entry.path, inner))
                continue
            shown = visible(under, entry.name) if entry.is_file(follow_symlinks=False) else None
            if shown is not None and stat.S_ISREG(shown[1].st_mode) and shown[1].st_nlink > 1:
                yield (shown[1].st_dev, shown[1].st_ino), entry.path


def _names(root: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Every name below ``root`` of a file of several names, and its inode."""
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        for entry in scanned(join(root, folder) if folder else root):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(join(folder, entry.name))
            elif entry.is_file(follow_symlinks=False) and (found := entry.stat(follow_symlinks=False)).st_nlink > 1:
                yield join(folder, entry.name), (found.st_dev, found.st_ino)
