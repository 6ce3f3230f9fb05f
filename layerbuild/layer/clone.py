"""A stack as one complete tree, for where nothing can stack it: layer after layer is laid into a folder.

A file's bytes are shared with the layer's own where the file system can do that (FICLONE: btrfs, xfs, bcachefs), else
copied; never linked, for a step that writes to the tree would write to the layer. Every name gets an inode of its own,
also where names of a layer share one: so a change of one name leaves the others alone, as it does in an overlay.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from layerbuild.layer.entry import copied_xattrs
from layerbuild.layer.lowers import scanned
from layerbuild.layer.owners import Owners, note_path
from layerbuild.layer.tree import remove_tree
from layerbuild.layer.whiteout import is_opaque, is_whiteout

_FICLONE: Final = 0x40049409  # linux/fs.h
_PIECE: Final = 1 << 30
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def lay(diff: Path, tree: Path) -> None:
    """Change the complete tree at ``tree``, which nobody else uses, as the sealed folder ``diff`` of a layer says."""
    top, target = os.fsencode(diff), os.fsencode(tree)
    noted = Owners.beside(diff)
    times = [(top, target)]
    folders = [(top, target)]
    while folders:
        source, place = folders.pop()
        for entry in scanned(source):
            made = place + b"/" + entry.name
            found = entry.stat(follow_symlinks=False)
            if is_whiteout(found, entry.path):
                _remove(made)
            elif entry.is_dir(follow_symlinks=False):
                _folder(entry.path, made)
                folders.append((entry.path, made))
                times.append((entry.path, made))
            else:
                _remove(made)
                copy(entry.path, made, found)
                owner = noted.get(entry.path, found)
                if owner is not None:
                    note_path(target, made, owner)
    for source, place in times:
        dress(source, place, os.lstat(source))


def dress_root(source: Path, target: Path) -> None:
    """Give a tree's root the metadata of another's."""
    dress(os.fsencode(source), os.fsencode(target), os.lstat(source))


def copy(source: bytes, target: bytes, found: os.stat_result) -> None:
    """Make ``target``, which does not exist, what ``source`` (no folder; ``found`` is its lstat) is."""
    match stat.S_IFMT(found.st_mode):
        case stat.S_IFREG:
            _copy_file(source, target, found)
            return
        case stat.S_IFLNK:
            os.symlink(os.readlink(source), target)
        case _:
            os.mknod(target, found.st_mode, found.st_rdev)
    dress(source, target, found)


def shares(source: Path, target: Path) -> bool:
    """Copy the content of a file to a new one; whether this file system lets the two share their bytes."""
    with source.open("rb") as reader, target.open("xb") as writer:
        return _copy_content(reader.fileno(), writer.fileno())


def dress(source: bytes, target: bytes | int, found: os.stat_result) -> None:
    """Give ``target`` (a path that is not followed, or a descriptor) the metadata of ``source``."""
    follow = isinstance(target, int)
    made = os.stat(target, follow_symlinks=follow)
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=follow)
    if not stat.S_ISLNK(found.st_mode):
        if stat.S_IMODE(os.stat(target, follow_symlinks=follow).st_mode) != stat.S_IMODE(found.st_mode):
            os.chmod(target, stat.S_IMODE(found.st_mode))
        _dress_xattrs(source, target)
    os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns), follow_symlinks=follow)


def _dress_xattrs(source: bytes, target: bytes | int) -> None:
    follow = isinstance(target, int)
    wanted, present = copied_xattrs(source), copied_xattrs(target)
    if wanted == present:
        return
    for name, _ in present:
        if name not in dict(wanted):
            os.removexattr(target, name, follow_symlinks=follow)
    for name, value in wanted:
        os.setxattr(target, name, value, follow_symlinks=follow)


def _folder(source: bytes, target: bytes) -> None:
    """Make the folder, unless it is there and shows on."""
    try:
        os.mkdir(target, 0o700)
        return
    except FileExistsError:
        pass
    if is_opaque(source) or not stat.S_ISDIR(os.lstat(target).st_mode):
        _remove(target)
        os.mkdir(target, 0o700)


def _copy_file(source: bytes, target: bytes, found: os.stat_result) -> None:
    reader = os.open(source, _READ)
    try:
        writer = os.open(target, _NEW, 0o600)
        try:
            if found.st_size:
                _copy_content(reader, writer)
            dress(source, writer, found)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_content(reader: int, writer: int) -> bool:
    """Whether the bytes are shared."""
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
        return True
    except OSError as error:
        # Not on this file system, across two of them, or not for this kind of file: ioctl_ficlone(2).
        if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.ETXTBSY):
            raise
    while os.sendfile(writer, reader, None, _PIECE):
        pass
    return False


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # POSIX allows EPERM for a folder
        remove_tree(Path(os.fsdecode(path)))
