"""A full or read-only disk, said so that its reader can act."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerbuild.errors import MachineError, SpaceError

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_REFUSED = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))

SPACE_HINT = "`layerbuild df` shows what takes the room, `layerbuild prune` frees some; or move the store with --root"
ROOT_HINT = "choose a folder of your own with --root"


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn what the disk refuses below ``place`` into a SpaceError (full) or a MachineError (not writable).

    Any other OSError passes: it is not about the disk.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or place
        if error.errno in FULL:
            raise SpaceError(f"no room to write {_text(where)}: {error.strerror}", hint=SPACE_HINT) from error
        if error.errno in _REFUSED:
            raise MachineError(f"can't write {_text(where)}: {error.strerror}", hint=ROOT_HINT) from error
        raise


def _text(path: object) -> str:
    return path.decode(errors="backslashreplace") if isinstance(path, bytes) else str(path)


def used_bytes(path: Path) -> int:
    """The room that a file or a tree takes on the disk, in bytes; hard links count once, and subvolumes in it not.
    What is absent takes none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    seen: dict[tuple[int, int], int] = {(found.st_dev, found.st_ino): found.st_blocks}
    device = found.st_dev
    folders = [str(path)] if stat.S_ISDIR(found.st_mode) else []
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
            states = [entry.stat(follow_symlinks=False) for entry in entries]
        except OSError:  # removed meanwhile, closed to this user, or too deep for any path: its content can't be told
            continue
        for entry, found in zip(entries, states, strict=True):
            if found.st_dev != device:
                continue  # a subvolume, which shares what it has with others
            seen[found.st_dev, found.st_ino] = found.st_blocks
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return sum(seen.values()) * 512  # st_blocks counts in units of 512 bytes, whatever the file system (stat(2))
