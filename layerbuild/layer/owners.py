"""Owners of links, fifos and sockets that the kernel refused: these can bear no mark (standin.py).

They are noted in a file beside the diff folder, a line for each time: inode, time of birth in nanoseconds, owner. An
inode keeps its number through renames and links, and one that takes over the number of another was born later
(statx(2); zero on a file system that does not tell).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

from layerbuild.frozen import frozen

_FILE: Final = "owners"
_STATX_BTIME: Final = 0x800
_AT_FDCWD: Final = -100
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_EMPTY_PATH: Final = 0x1000
_SIZE: Final = 256  # of struct statx
_BTIME: Final = 80  # offset of stx_btime


@frozen
class Owners:
    """What is noted for the files of one diff folder."""

    known: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def beside(cls, diff: Path) -> Owners:
        """Those noted while a step wrote ``diff``."""
        file = diff.with_name(_FILE)
        try:
            lines = file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return cls()
        numbers = ([int(word) for word in line.split()] for line in lines if line.count(b" ") == 3)
        return cls({(inode, born): (uid, gid) for inode, born, uid, gid in numbers})

    @classmethod
    def of(cls, diffs: Iterable[Path]) -> Owners:
        """Those of several diff folders."""
        return cls({key: owner for diff in diffs for key, owner in cls.beside(diff).known.items()})

    def get(self, path: bytes, found: os.stat_result) -> tuple[int, int] | None:
        """The owner of the file at ``path`` (``found`` is its lstat), None if none was noted."""
        return self.known.get((found.st_ino, born(path))) if self.known else None

    def differs(self, path: bytes, found: os.stat_result, below: tuple[bytes, os.stat_result], owners: Owners) -> bool:
        """Whether the file at ``path`` has another owner noted than the one that it was copied from, ``below``, whose
        owner ``owners`` tell. What has none noted was copied for another reason, and keeps its owner."""
        noted = self.get(path, found)
        return noted is not None and noted != (owners.get(*below) or (below[1].st_uid, below[1].st_gid))


NOBODY: Final = Owners()


def note_file(diff: Path) -> Path:
    """Where the owners of ``diff`` are noted."""
    return diff.with_name(_FILE)


def note(folder: int, inode: int, birth: int, owner: tuple[int, int]) -> None:
    """Note an owner in ``folder``, the open folder around a diff folder."""
    file = os.open(_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        os.write(file, b"%d %d %d %d\n" % (inode, birth, *owner))
    finally:
        os.close(file)


def note_path(root: bytes, path: bytes, owner: tuple[int, int]) -> None:
    """Note the owner of the file at ``path``, in or beside the tree ``root``."""
    folder = os.open(os.path.dirname(root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        note(folder, os.lstat(path).st_ino, born(path), owner)
    finally:
        os.close(folder)


_libc: Final = ctypes.CDLL(None, use_errno=True)


def born(path: bytes, *, dir_fd: int = _AT_FDCWD) -> int:
    """When the file at ``path`` (not followed; empty: ``dir_fd`` itself) was made, in nanoseconds since 1970; 0: nobody
    knows."""
    buffer = ctypes.create_string_buffer(_SIZE)
    if _libc.statx(dir_fd, path, _AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH, _STATX_BTIME, buffer):
        return 0
    mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", buffer)
    return int(seconds) * 10**9 + int(nanoseconds) if mask & _STATX_BTIME else 0
