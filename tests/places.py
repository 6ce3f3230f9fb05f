"""Folders that every user can reach: pytest's own are closed to others than who runs the tests.

They lie in one folder for each process of the tests. It goes with the process; what one that was killed has left goes
when the next one starts. As root the process has a file system in memory there, too.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from layerbuild.isolate import linux

_PREFIX = "layerbuild-tests-"
_numbers = itertools.count()


@functools.cache
def public() -> Path:
    """The folder of this process."""
    above = Path(tempfile.gettempdir())
    for left in above.glob(f"{_PREFIX}*"):
        _sweep(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
        with suppress(FileNotFoundError):  # another process that starts now has swept it before it was locked
            folder.chmod(0o755)
            if _lock(folder):
                return folder


@functools.cache
def memory() -> Path:
    """A folder of this process in memory, where a store costs no disk, for which all that goes on meanwhile would wait.

    It is on the disk after all where this user can't mount, and where the kernel's tmpfs can't hold a layer: an
    ordinary user's overlay needs attributes that it has since Linux 6.6.
    """
    folder = public() / "memory"
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        linux.mount("tmpfs", str(folder), "tmpfs", data="mode=0755")
        try:
            os.setxattr(folder, "user.layerbuild-tests", b"")
        except OSError:
            linux.umount(str(folder))
    return folder


def fresh(name: str, *, in_memory: bool = False) -> Path:
    """A new folder in it, whose name begins with ``name``."""
    folder = (memory() if in_memory else public()) / f"{name}-{next(_numbers)}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)  # whatever the umask is
    return folder


def remove() -> None:
    """Remove the folder of this process, if it has one."""
    if memory.cache_info().currsize:
        with suppress(OSError):  # it is none
            linux.umount(str(memory()), linux.MNT_DETACH)
    if public.cache_info().currsize:
        shutil.rmtree(public(), ignore_errors=True)


def _lock(folder: Path) -> bool:
    """Hold ``folder`` for as long as this process lives: flock(2) ends with it, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


def _sweep(left: Path) -> None:
    mounted = any(f" {left}/" in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    with suppress(OSError):  # another user's, or gone meanwhile
        if left.stat().st_uid == os.geteuid() and not mounted and _lock(left):
            shutil.rmtree(left, ignore_errors=True)
