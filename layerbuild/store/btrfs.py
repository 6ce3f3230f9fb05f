"""Subvolumes of btrfs: one function per request to the file system. Source: include/uapi/linux/btrfs.h.

A subvolume is a tree of its own, and a snapshot one that shares all with another until either changes. Whoever may
write to a folder may make them in it; to delete one in a single request takes CAP_SYS_ADMIN, or a mount with
``user_subvol_rm_allowed``, and without either it is emptied first.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from layerbuild.layer.tree import remove_tree

_CREATE: Final = 0x5000940E  # _IOW(0x94, 14, struct btrfs_ioctl_vol_args)
_DESTROY: Final = 0x5000940F
_SNAPSHOT: Final = 0x50009417  # SNAP_CREATE_V2
_MAGIC: Final = 0x9123683E  # statfs(2)
_libc: Final = ctypes.CDLL(None, use_errno=True)


def is_btrfs(folder: Path) -> bool:
    """Whether the file system that holds ``folder`` is btrfs."""
    buffer = ctypes.create_string_buffer(256)
    return bool(_libc.statfs(os.fsencode(folder), buffer) == 0 and struct.unpack_from("=I", buffer)[0] == _MAGIC)


def create(path: Path) -> None:
    """Make an empty subvolume."""
    _ask(path.parent, _CREATE, struct.pack("=q4088s", 0, os.fsencode(path.name)))


def snapshot(source: Path, path: Path) -> None:
    """Make a subvolume that is what the subvolume ``source`` is."""
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # fd, transid, flags, four unused, name: struct btrfs_ioctl_vol_args_v2
        _ask(path.parent, _SNAPSHOT, struct.pack("=qQQ4Q4040s", descriptor, 0, 0, 0, 0, 0, 0, os.fsencode(path.name)))
    finally:
        os.close(descriptor)


def delete(path: Path) -> None:
    """Delete a subvolume with all that is in it; nothing there is fine."""
    try:
        _ask(path.parent, _DESTROY, struct.pack("=q4088s", 0, os.fsencode(path.name)))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOENT, errno.EINVAL, errno.ENOTDIR, errno.ENOTEMPTY):
            raise
        remove_tree(path)  # rmdir(2) takes an empty one since Linux 4.18


def _ask(folder: Path, request: int, argument: bytes) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, request, bytearray(argument))  # of bytes Python takes only 1024
    finally:
        os.close(descriptor)
