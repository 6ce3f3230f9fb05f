"""Whiteouts and opaque folders, in both dialects; nowhere else are their marks spelled.

::

                       in a tar                      on disk, in a diff folder
    name is gone       empty file ".wh.NAME"         character device 0/0 called NAME
                                                     (newer kernels also: empty file with the xattr overlay.whiteout;
                                                     where neither can be made: what stands in for the device)
    folder is opaque   empty file ".wh..wh..opq"     xattr overlay.opaque = "y" on the folder

On disk the xattrs are called ``trusted.overlay.*`` where root mounts, and ``user.overlay.*`` in a user namespace (mount
option ``userxattr``). Sources: OCI image-spec layer.md ("Whiteouts"); the kernel's filesystems/overlayfs.rst
("whiteouts and opaque directories", "nested overlayfs mounts").
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from layerbuild.errors import BuildError, MachineError
from layerbuild.layer import standin

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
_FUSE_OPAQUE = b".wh..opq"
META_PREFIX = b".wh..wh."  # aufs kept its own files under such names; no layer means them as content

TRUSTED = "trusted.overlay."
USER = "user.overlay."
FUSE = "user.fuseoverlayfs."  # of fuse-overlayfs in a user namespace; it keeps commands from them

_SPACES = (TRUSTED, USER, standin.SPACE.decode())
_REFUSED = ("redirect", "metacopy")


def tar_name(path: bytes) -> bytes:
    """The name that a tar gives to the whiteout of ``path``: ``a/b`` is ``a/.wh.b``."""
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + PREFIX + name


def hidden_name(name: bytes) -> bytes | None:
    """The name that the tar name ``name`` whites out; None if it is no whiteout.

    ``.wh.`` alone, ``.wh..`` and ``.wh...`` give ``b""``, ``b"."`` and ``b".."``: nothing that a whiteout can mean.
    """
    return name[len(PREFIX) :] if name.startswith(PREFIX) else None


def make_whiteout(path: bytes, *, dir_fd: int | None = None) -> None:
    """White out ``path`` on disk. Needs no privilege since Linux 5.8 (mknod(2), "whiteout" device), but not every file
    system takes it: overlay itself does not."""
    if not standin.make_device(path, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd):
        raise MachineError(
            f"{os.fsdecode(path)}: no whiteout can be made here",
            hint="choose a place on ext4, xfs, btrfs or tmpfs with --root",
        )


def is_whiteout(found: os.stat_result, path: bytes | None = None) -> bool:
    """Whether ``found``, the lstat of ``path``, is that of a whiteout. Without ``path``: in the form of a device."""
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev == 0
    return path is not None and standin.bears_whiteout(path, found)


def bears_whiteout(names: list[str], spaces: tuple[str, ...]) -> bool:
    """Whether the xattr ``names`` of an empty file make it a whiteout; marks begin with one of ``spaces``.

    Overlay takes this form only for an overlay inside an overlay, where a device can't be made.
    """
    return any(f"{space}whiteout" in names for space in spaces)


def set_opaque(target: bytes | int, *, user_xattr: bool) -> None:
    """Make a folder (path or descriptor) opaque. ``trusted.*`` needs CAP_SYS_ADMIN in the first user namespace."""
    try:
        os.setxattr(target, (USER if user_xattr else TRUSTED) + "opaque", b"y")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        os.setxattr(target, standin.OPAQUE, b"y")  # in an overlay; no overlay can be stacked there, then


def is_opaque(target: bytes | int, spaces: tuple[str, ...] = _SPACES) -> bool:
    """Whether a folder (path or descriptor) bears the opaque mark, in one of the name spaces.

    ``x`` in place of ``y`` only says that whiteouts in the form of xattrs may lie in the folder; it hides nothing.
    """
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError:  # not there, or a file system without extended attributes
        return False
    marks = [space + "opaque" for space in spaces]
    return any(os.getxattr(target, name, follow_symlinks=follow) == b"y" for name in names if name in marks)


def adopt_fuse_marks(folder: Path, *, user_xattr: bool) -> None:
    """Turn what fuse-overlayfs left in an upperdir into overlay's own marks.

    In a user namespace these begin with ``FUSE``. It says opaque by a file ``.wh..wh..opq`` (and a device
    ``.wh..opq``), and deleted by ``.wh.NAME`` where it can make no device; both were aufs's way (fuse-overlayfs(1)).
    """
    folders = [os.fsencode(folder)]
    while folders:
        place = folders.pop()
        with os.scandir(place) as entries:
            found = list(entries)
        names = {entry.name for entry in found}
        for entry in found:
            if entry.name in (OPAQUE, _FUSE_OPAQUE):
                os.unlink(entry.path)
            elif entry.name.startswith(PREFIX) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)
                if entry.name[len(PREFIX) :] not in names:
                    make_whiteout(place + b"/" + entry.name[len(PREFIX) :])
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
        if OPAQUE in names:
            os.setxattr(place, (FUSE if user_xattr else TRUSTED) + "opaque", b"y")


def refuse_marks(names: list[str], path: bytes, spaces: tuple[str, ...]) -> None:
    """Raise BuildError if the xattr ``names`` of ``path`` hold a mark that moves a folder or keeps a file's data below;
    marks begin with one of ``spaces``.

    Such an upperdir does not hold what the step wrote, so a layer made from it would be wrong.
    """
    for mark in (space + refused for space in spaces for refused in _REFUSED):
        if mark in names:
            raise BuildError(
                f"/{os.fsdecode(path)} bears overlay's mark {mark}: its content is not in the upper folder",
                hint="mount overlay with redirect_dir=off and metacopy=off",
            )
