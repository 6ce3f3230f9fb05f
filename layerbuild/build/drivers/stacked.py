"""Drivers that mount the layers as a stack: the kernel's overlay, and fuse-overlayfs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerbuild.errors import MachineError
from layerbuild.isolate import linux
from layerbuild.isolate.job import Rootfs, WholeTree
from layerbuild.layer.siblings import link_siblings
from layerbuild.layer.tree import remove_tree
from layerbuild.layer.whiteout import adopt_fuse_marks
from layerbuild.store.durable import sync_filesystem
from layerbuild.store.overlay import StackedFolder


class OverlayDriver:
    """The job mounts its root itself: nothing is to be done here."""

    name = "overlay"

    @contextmanager
    def rootfs(self, folder: StackedFolder) -> Iterator[Rootfs]:
        """See ``driver.Driver``."""
        yield Rootfs(
            lowers=tuple(str(folder.overlay / below.short) for below in folder.below),
            upper=str(folder.diff),
            work=str(folder.work),
            merged=str(folder.merged),
            link_dir=str(folder.overlay),
        )


class FuseOverlayDriver:
    """The program fuse-overlayfs serves the stack, from the build's own namespaces: a job can't reach it."""

    name = "fuse-overlayfs"

    def __init__(self, *, user_xattr: bool) -> None:
        self._user_xattr = user_xattr

    @contextmanager
    def rootfs(self, folder: StackedFolder) -> Iterator[WholeTree]:
        """See ``driver.Driver``."""
        own, nothing = folder.folder / "fuse", folder.folder / "nothing"
        for made in (own, nothing):
            made.mkdir(exist_ok=True)
        lowers = [below.short for below in folder.below] or [str(nothing)]
        try:
            mount_fuse(lowers, folder.diff, own, folder.merged, directory=folder.overlay)
            try:
                yield WholeTree(str(folder.merged), str(folder.work), str(folder.merged))
                # The kernel may hold back what was written, and a job elsewhere may for a moment hold this mount.
                sync_filesystem(folder.merged)
            finally:
                linux.umount(str(folder.merged), linux.MNT_DETACH)
        finally:
            for made in (own, nothing):
                remove_tree(made)
        adopt_fuse_marks(folder.diff, user_xattr=self._user_xattr)
        link_siblings(folder.diff, [below.diff for below in folder.below])


def mount_fuse(lowers: list[str], upper: Path, work: Path, target: Path, *, directory: Path) -> None:
    """Have the program mount the stack (topmost first, relative to ``directory``) at ``target``."""
    folders = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    # allow_other: also those may look who are not root in the container.
    words = ["fuse-overlayfs", "-o", f"allow_other,suid,{folders}", str(target)]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise MachineError(f"fuse-overlayfs: {said[-1] if said else f'exit code {done.returncode}'}")
