"""What the kernel refused, noted on the file that stands in for it.

In a user namespace no device can be made, and an owner whose id is not mapped can't be set (user_namespaces(7)). A
layer holds them all the same. So that nothing depends on who built it, the file on the disk says what it should be:

::

    user.layerbuild.owner     "UID:GID"        the owner; the file's own is root, else the mark says nothing
    user.layerbuild.device    "c MAJOR:MINOR"  an empty regular file is this device ("b …": a block device); "c 0:0",
                                               as everywhere, is a whiteout
    user.layerbuild.opaque    "y"              a folder hides what is below, where overlay's own mark was refused

The marks go with the inode: through renames, hard links and overlay's copy-up. Only regular files and folders can bear
them (xattr(7), "Extended user attributes"). Whoever makes a layer reads them, no layer carries them, and where nothing
was refused there are none.

A command that set such a mark itself could make what it has no right to. In a user namespace it can't
(isolate/attributes.py); elsewhere a mark counts only where the file below has it already (changes.py).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress

from layerbuild.frozen import frozen

Target = bytes | str | os.PathLike[str] | int

SPACE = b"user.layerbuild."
OPAQUE = "user.layerbuild.opaque"

OWNER = "user.layerbuild.owner"
_DEVICE = "user.layerbuild.device"
LONGEST = 27  # bytes that a mark's value has at most; the shortest access control list is longer (acl(5))
_DEVICE_TEXT = r"([cb]) (\d{1,10}):(\d{1,10})"
_REFUSED = (errno.EPERM, errno.EINVAL)  # no right; an id that the user namespace does not map (chown(2))
_LETTERS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
_FORMATS = {letter: kind for kind, letter in _LETTERS.items()}


@frozen
class StandIn:
    """What a file says that it should be; None where it is what it is. ``device``: S_IFCHR or S_IFBLK, major, minor."""

    owner: tuple[int, int] | None = None
    device: tuple[int, int, int] | None = None


def own(target: Target, uid: int, gid: int) -> bool:
    """Give ``target`` (a path that is not followed, or a descriptor) to an owner. Where the kernel refuses and the kind
    can bear it, the owner is noted; False if neither could be."""
    return give(target, uid, gid) or note_owner(target, uid, gid)


def give(target: Target, uid: int, gid: int) -> bool:
    """The same, without a note: False if the kernel refuses."""
    try:
        os.chown(target, uid, gid, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True


def note_owner(target: Target, uid: int, gid: int) -> bool:
    """Note the owner of a regular file or folder (0:0 takes the note away); False if it can't bear one."""
    follow = isinstance(target, int)
    try:
        if (uid, gid) == (0, 0):
            os.removexattr(target, OWNER, follow_symlinks=follow)
        else:
            os.setxattr(target, OWNER, b"%d:%d" % (uid, gid), follow_symlinks=follow)
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def make_device(name: bytes, mode: int, device: int, *, dir_fd: int | None = None) -> bool:
    """mknod(2) of a character or block device, or what stands in for it; False if this file system can't hold that."""
    try:
        os.mknod(name, mode, device, dir_fd=dir_fd)
    except PermissionError:
        if stat.S_IFMT(mode) not in _LETTERS:
            raise
        return _stand_in(name, mode, device, dir_fd)
    return True


def _stand_in(name: bytes, mode: int, device: int, dir_fd: int | None) -> bool:
    text = f"{_LETTERS[stat.S_IFMT(mode)]} {os.major(device)}:{os.minor(device)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, stat.S_IMODE(mode), dir_fd=dir_fd)
    try:
        os.setxattr(descriptor, _DEVICE, text.encode())
    except OSError:
        os.unlink(name, dir_fd=dir_fd)
        return False
    finally:
        os.close(descriptor)
    return True


def read(source: bytes | int, names: list[str]) -> StandIn:
    """What the marks among the attribute ``names`` of ``source`` (a path that is not followed, or a descriptor) say."""
    owner = device = None
    if OWNER in names and (found := re.fullmatch(r"(\d{1,10}):(\d{1,10})", _text(source, OWNER), re.ASCII)):
        owner = (int(found[1]), int(found[2]))
    if _DEVICE in names and (found := re.fullmatch(_DEVICE_TEXT, _text(source, _DEVICE), re.ASCII)):
        device = (_FORMATS[found[1]], int(found[2]), int(found[3]))
    return StandIn(owner, device)


def bears_whiteout(source: bytes, found: os.stat_result) -> bool:
    """Whether a file, given its lstat, stands in for a whiteout. One that is not root's bears the mark of a command."""
    if found.st_size or found.st_uid or not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode):
        return False
    with suppress(OSError):
        return _text(source, _DEVICE) == "c 0:0"
    return False


def _text(source: bytes | int, name: str) -> str:
    return os.getxattr(source, name, follow_symlinks=isinstance(source, int)).decode("ascii", "replace")
