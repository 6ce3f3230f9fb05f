"""Drivers that mount the layers as a stack: the kernel's overlay, and fuse-overlayfs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from layerbuild.errors import MachineError
from layerbuild.isolate import linux
from layerbuild.isolate.job import Rootfs, WholeTree
from layerbuild.layer.copyup import copy_up_set_ids
from layerbuild.layer.siblings import link_siblings
from layerbuild.layer.tree import remove_tree
from layerbuild.layer.whiteout import FUSE, TRUSTED, USER, adopt_fuse_marks
from layerbuild.store.durable import sync_filesystem
from layerbuild.store.overlay import StackedFolder

_ENDING: Final = 5.0  # seconds that the program may take to end after its mount has gone
_PAUSE: Final = 0.001


class OverlayDriver:
    """The job mounts its root itself: nothing is to be done here."""

    name = "overlay"

    def tree(self, folder: StackedFolder) -> None:
        """See ``driver.Driver``."""

    def spaces(self, *, user_xattr: bool) -> tuple[str, ...]:
        """See ``driver.Driver``."""
        return (USER if user_xattr else TRUSTED,)

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

    def tree(self, folder: StackedFolder) -> None:
        """See ``driver.Driver``."""

    def spaces(self, *, user_xattr: bool) -> tuple[str, ...]:
        """See ``driver.Driver``."""
        return (FUSE if user_xattr else TRUSTED,)

    def __init__(self, *, user_xattr: bool) -> None:
        self._user_xattr = user_xattr

    @contextmanager
    def rootfs(self, folder: StackedFolder) -> Iterator[WholeTree]:
        """See ``driver.Driver``."""
        own, nothing = folder.folder / "fuse", folder.folder / "nothing"
        for made in (own, nothing):
            made.mkdir(exist_ok=True)
        lowers = [below.short for below in folder.below] or [str(nothing)]
        copy_up_set_ids(folder.diff, [below.diff for below in folder.below])
        try:
            with fuse_mounted(lowers, folder.diff, own, folder.merged, directory=folder.overlay):
                merged = str(folder.merged)
                yield WholeTree(merged, str(folder.work), merged, upper=str(folder.diff))
        finally:
            for made in (own, nothing):
                remove_tree(made)
        adopt_fuse_marks(folder.diff, user_xattr=self._user_xattr)
        link_siblings(folder.diff, [below.diff for below in folder.below])


@contextmanager
def fuse_mounted(lowers: list[str], upper: Path, work: Path, target: Path, *, directory: Path) -> Iterator[None]:
    """Have the program serve the stack (topmost first, relative to ``directory``) at ``target``; MachineError if it
    can't. What was written is in ``upper`` when the context ends."""
    folders = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    # allow_other: also those may look who are not root in the container.
    words = ["fuse-overlayfs", "-f", "-o", f"allow_other,suid,{folders}", str(target)]
    # However the build ends, the program ends with it, and its mount with both (PR_SET_PDEATHSIG(2const)).
    bound = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    with tempfile.TemporaryFile() as said:
        program = subprocess.Popen([*bound, *words], cwd=directory, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            _await_mount(program, target, said)
            try:
                yield
                # The kernel may hold back what was written, and a job elsewhere may for a moment hold this mount.
                sync_filesystem(target)
            finally:
                linux.umount(str(target), linux.MNT_DETACH)
                with suppress(subprocess.TimeoutExpired):
                    program.wait(timeout=_ENDING)
        finally:
            program.kill()
            program.wait()


def _await_mount(program: subprocess.Popen[bytes], target: Path, said: IO[bytes]) -> None:
    before = target.parent.stat().st_dev
    while target.stat().st_dev == before:
        if program.poll() is not None:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise MachineError(f"fuse-overlayfs: {lines[-1] if lines else f'exit code {program.returncode}'}")
        time.sleep(_PAUSE)
