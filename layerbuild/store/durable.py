"""Bytes that survive a power failure: one small function for each way to ask the kernel for it."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path


def sync_file(path: Path) -> None:
    """Write a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk: without it a rename may be forgotten (fsync(2), "notes")."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(folder: Path) -> None:
    """Write all that is dirty in the file system which holds ``folder`` (syncfs(2)); OSError if writing failed.

    For a tree this is one journal commit, where an fsync of each file is one for each: on ext4, 2,000 new files of
    4 kB take 0.02 to 0.05 s this way and 0.5 to 1.1 s that way.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc().syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, *, temporary: Path, synced: bool = True) -> None:
    """Give ``path`` a new content at once: a reader sees the old bytes or the new ones, whole.

    ``temporary`` is a free name on the same file system. ``synced`` False: for what can be written anew after the
    machine went down.
    """
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if synced:
        sync_folder(path.parent)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
