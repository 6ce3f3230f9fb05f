"""What lies below in a stack is copied into its upperdir, as an overlay would: by us, where the one who stacks can't.

fuse-overlayfs loses the set-user-ID and set-group-ID bits of what it copies up: it makes the copy with them, and gives
it to its owner afterwards, by which the kernel takes them away (chown(2)); mkdir(2) does not even take them. Of what is
in the upperdir already nothing gets lost; and what a step leaves as it is, ``changes.seal`` drops.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from layerbuild.layer.clone import copy, dress
from layerbuild.layer.lowers import contributing, cut, scanned, visible
from layerbuild.layer.paths import join, split

_SET_ID = stat.S_ISUID | stat.S_ISGID


def copy_up_set_ids(upper: Path, lowers: Sequence[Path]) -> None:
    """Put into ``upper``, which need not be empty, each folder and file with such a bit that shows from ``lowers``:
    diff folders, top first."""
    top, folders = os.fsencode(upper), [os.fsencode(lower) for lower in lowers]
    copied: dict[tuple[int, int], bytes] = {}
    for folder in folders:
        for path, found in _set_ids(folder):
            target, inode = join(top, path), (found.st_dev, found.st_ino)
            shown = below([top, *folders], path)
            if shown is None or (shown.st_dev, shown.st_ino) != inode or not copy_up_parents(top, folders, path):
                continue
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(target, 0o700)
                dress(join(folder, path), target, found)
            elif inode in copied:
                os.link(copied[inode], target)
            else:
                copy(join(folder, path), target, found)
                copied[inode] = target


def _set_ids(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        for entry in scanned(join(root, folder) if folder else root):
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder:
                waiting.append(join(folder, entry.name))
            if is_folder or entry.is_file(follow_symlinks=False):
                found = entry.stat(follow_symlinks=False)
                if found.st_mode & _SET_ID:
                    yield join(folder, entry.name), found


def below(lowers: list[bytes], path: bytes) -> os.stat_result | None:
    """The lstat of what shows at ``path``."""
    *parents, name = path.split(b"/")
    folders = cut(lowers)
    for parent in parents:
        folders = contributing(folders, parent)
    shown = visible(folders, name)
    return shown[1] if shown else None


def copy_up_parents(upper: bytes, lowers: list[bytes], path: bytes) -> bool:
    """Copy the folders above ``path`` up; False if the step has put something else in the place of one."""
    parent = split(path)[0]
    if not parent:
        return True
    if os.path.lexists(join(upper, parent)):
        return stat.S_ISDIR(os.lstat(join(upper, parent)).st_mode)
    if not copy_up_parents(upper, lowers, parent):
        return False
    folders = cut(lowers)
    for name in parent.split(b"/"):
        folders = contributing(folders, name)
    os.mkdir(join(upper, parent), 0o700)
    dress(folders[0], join(upper, parent), os.lstat(folders[0]))
    return True
