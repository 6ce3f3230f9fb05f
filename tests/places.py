"""Folders that every user can reach: pytest's own are closed to others than who runs the tests.

They lie in one folder for each process of the tests. It goes with the process; what one that was killed has left goes
when the next one starts.
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


def fresh(name: str) -> Path:
    """A new folder in it, whose name begins with ``name``."""
    folder = public() / f"{name}-{next(_numbers)}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)  # whatever the umask is
    return folder


def remove() -> None:
    """Remove the folder of this process, if it has one."""
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
