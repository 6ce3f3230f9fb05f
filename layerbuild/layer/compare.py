"""A step's changes found by comparing two trees, for where no overlay has gathered them.

A step has run in a complete tree, a clone of the stack below. ``gather`` puts what is different there into an empty
folder, in the form in which overlay would have left it in an upperdir. It need not be exact: ``changes.seal`` drops
what is not changed after all, by the same rules for every way to run a step. But all of these are gathered:

    entry that is not below, or differs in kind, mode, owner, attributes, size, time or content
    entry with several names: whether they belong together is for ``seal`` to see
    folder that differs in more than its time, or that holds any of these
    name that is below and gone: a whiteout
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerbuild.layer.clone import copy, dress
from layerbuild.layer.lowers import contributing, cut, same_content, same_dress, shown, visible
from layerbuild.layer.owners import NOBODY, Owners, note_path
from layerbuild.layer.paths import join, split
from layerbuild.layer.whiteout import make_whiteout


def gather(tree: Path, lowers: Sequence[Path], upper: Path, *, owners_below: Owners = NOBODY) -> None:
    """Put into the empty folder ``upper`` in what ``tree`` differs from ``lowers``: diff folders, top first, or one
    complete tree. What is gathered leaves ``tree`` if both lie on one file system, so that is of no use any more.
    ``owners_below`` tell the owners that files in the lowers can't.
    """
    gatherer = _Gatherer(os.fsencode(tree), os.fsencode(upper), Owners.beside(tree), owners_below)
    gatherer.run([os.fsencode(lower) for lower in lowers])
    gatherer.finish()


@dataclass(slots=True)
class _Folder:
    path: bytes
    lowers: list[bytes]
    waiting: Iterator[os.DirEntry[bytes]]
    names: set[bytes]


class _Gatherer:
    def __init__(self, tree: bytes, upper: bytes, owners: Owners, owners_below: Owners) -> None:
        self._tree = tree
        self._owners = owners
        self._owners_below = owners_below
        self._upper = upper
        # Folders in the upper, parents first, as they were before anything left them: that sets their time.
        self._made: list[tuple[bytes, os.stat_result]] = []
        self._known: set[bytes] = {b""}
        self._inodes: dict[int, bytes] = {}  # in the tree, of several names: the first of them in the upper
        self._moves = os.stat(tree).st_dev == os.stat(upper).st_dev

    def run(self, lowers: list[bytes]) -> None:
        stack = [self._folder(b"", cut(lowers))]
        while stack:
            folder = stack[-1]
            entry = next(folder.waiting, None)
            if entry is None:
                self._whiteouts(folder)
                stack.pop()
                continue
            folder.names.add(entry.name)
            path = join(folder.path, entry.name)
            if not entry.is_dir(follow_symlinks=False):
                self._leaf(path, entry, visible(folder.lowers, entry.name))
                continue
            below = contributing(folder.lowers, entry.name)
            found = entry.stat(follow_symlinks=False)
            if not below and self._moves:
                self._parent(path)
                os.rename(entry.path, self._upper + b"/" + path)
                continue
            if not below or not same_dress(entry.path, found, below[0], os.lstat(below[0])):
                self._make(path)
            stack.append(self._folder(path, below))

    def finish(self) -> None:
        """Dress the folders that were made, after all that changes them."""
        for path, found in reversed(self._made):
            dress(self._tree + b"/" + path, self._upper + b"/" + path, found)

    def _folder(self, path: bytes, lowers: list[bytes]) -> _Folder:
        with os.scandir(join(self._tree, path) if path else self._tree) as entries:
            return _Folder(path, lowers, iter(list(entries)), set())

    def _leaf(self, path: bytes, entry: os.DirEntry[bytes], below: tuple[bytes, os.stat_result] | None) -> None:
        found = entry.stat(follow_symlinks=False)
        noted = self._owners.get(entry.path, found)
        if below is not None and found.st_nlink == 1 and not self._differs(entry.path, found, below):
            return
        self._parent(path)
        target = self._upper + b"/" + path
        if self._moves:
            os.rename(entry.path, target)
        elif stat.S_ISSOCK(found.st_mode):
            if below is not None:
                make_whiteout(target)
        elif found.st_nlink == 1:
            copy(entry.path, target, found)
        else:
            first = self._inodes.setdefault(found.st_ino, target)
            if first == target:
                copy(entry.path, target, found)
            else:
                os.link(first, target, follow_symlinks=False)
        if noted is not None and not self._moves:
            note_path(self._upper, target, noted)

    def _differs(self, full: bytes, found: os.stat_result, below: tuple[bytes, os.stat_result]) -> bool:
        return self._owners.differs(full, found, below, self._owners_below) or not _same(full, found, *below)

    def _whiteouts(self, folder: _Folder) -> None:
        for name in [name for name in shown(folder.lowers) if name not in folder.names]:
            path = join(folder.path, name)
            self._parent(path)
            make_whiteout(self._upper + b"/" + path)

    def _parent(self, path: bytes) -> None:
        self._make(split(path)[0])

    def _make(self, path: bytes) -> None:
        if path in self._known:
            return
        self._parent(path)
        os.mkdir(self._upper + b"/" + path, 0o700)
        self._known.add(path)
        self._made.append((path, os.lstat(self._tree + b"/" + path)))


def _same(full: bytes, found: os.stat_result, lower: bytes, below: os.stat_result) -> bool:
    """Whether an entry is the one below in every respect. What is cheap is compared first, content last."""
    if (found.st_ino, found.st_ctime_ns) == (below.st_ino, below.st_ctime_ns):
        return True  # a snapshot's inodes are the original's; whatever changes one sets its ctime (inode(7))
    if (found.st_mtime_ns, found.st_size, found.st_rdev) != (below.st_mtime_ns, below.st_size, below.st_rdev):
        return False
    if not same_dress(full, found, lower, below):
        return False
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(full) == os.readlink(lower)
    return not stat.S_ISREG(found.st_mode) or same_content(full, lower)
