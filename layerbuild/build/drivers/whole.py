"""Drivers without an overlay: the command runs in a complete tree, which is compared with what lies below."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from layerbuild.isolate.job import WholeTree
from layerbuild.layer.clone import dress_root, lay
from layerbuild.layer.compare import gather
from layerbuild.layer.owners import Owners
from layerbuild.layer.tree import remove_tree
from layerbuild.store import btrfs
from layerbuild.store.overlay import LayerFolder, StackedFolder


class CopyDriver:
    """Every job gets a copy of the whole stack; bytes are shared where the file system can do that."""

    name = "copy"

    def tree(self, folder: StackedFolder) -> Path:
        """See ``driver.Driver``."""
        return folder.folder / "tree"

    def spaces(self, *, user_xattr: bool) -> tuple[str, ...]:
        """See ``driver.Driver``."""
        return ()

    @contextmanager
    def rootfs(self, folder: StackedFolder) -> Iterator[WholeTree]:
        """See ``driver.Driver``."""
        tree, made = self.tree(folder), folder.folder / "copied"
        try:
            made.mkdir()
            for layer in (*reversed(folder.below), folder):
                lay(layer.diff, made)
            made.rename(tree)
            yield WholeTree(str(tree), str(folder.work), str(folder.merged))
            settle(folder, tree, [below.diff for below in folder.below])
        finally:
            for each in (made, tree):
                remove_tree(each)


class BtrfsDriver:
    """Every job gets a snapshot of the stack's subvolume. Each layer has one beside its diff folder, made when the
    first job needs it: a snapshot of the one below, changed as the layer says."""

    name = "btrfs"

    def tree(self, folder: StackedFolder) -> Path:
        """See ``driver.Driver``."""
        return folder.folder / "run"

    def spaces(self, *, user_xattr: bool) -> tuple[str, ...]:
        """See ``driver.Driver``."""
        return ()

    @contextmanager
    def rootfs(self, folder: StackedFolder) -> Iterator[WholeTree]:
        """See ``driver.Driver``."""
        run = self.tree(folder)
        base = _subvolume(folder.below)
        _start(base, run)
        try:
            lay(folder.diff, run)
            noted = tuple(str(below.diff) for below in folder.below)
            yield WholeTree(str(run), str(folder.work), str(folder.merged), noted)
            settle(folder, run, [base] if base else [])
        finally:
            btrfs.delete(run)


def _subvolume(layers: Sequence[LayerFolder]) -> Path | None:
    """The subvolume of a stack (top first), made where it or one below is not there; None for an empty stack."""
    tree: Path | None = None
    for layer in reversed(layers):
        below, tree = tree, layer.folder / "tree"
        if not tree.exists():
            made = layer.folder / f"tree-{os.urandom(8).hex()}"  # another build may just do the same
            _start(below, made)
            lay(layer.diff, made)
            try:
                made.rename(tree)
            except OSError as error:
                btrfs.delete(made)
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    return tree


def _start(below: Path | None, made: Path) -> None:
    if below is None:
        btrfs.create(made)
    else:
        btrfs.snapshot(below, made)


def settle(folder: StackedFolder, tree: Path, lowers: Sequence[Path]) -> None:
    """Make ``folder.diff`` what is different in ``tree``."""
    gathered = folder.folder / "gathered"
    gathered.mkdir()
    gather(tree, lowers, gathered, owners_below=Owners.of(below.diff for below in folder.below))
    dress_root(tree, gathered)
    remove_tree(folder.diff)
    gathered.rename(folder.diff)
