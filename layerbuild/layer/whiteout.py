"""Whiteouts and opaque folders, in both dialects; nowhere else are their marks spelled.

::

                       in a tar                      on disk, in a diff folder
    name is gone       empty file ".wh.NAME"         character device 0/0 called NAME
                                                     (newer kernels also: empty file with the xattr overlay.whiteout)
    folder is opaque   empty file ".wh..wh..opq"     xattr overlay.opaque = "y" on the folder

On disk the xattrs are called ``trusted.overlay.*`` where root mounts, and ``user.overlay.*`` in a user namespace (mount
option ``userxattr``). Sources: OCI image-spec layer.md ("Whiteouts"); the kernel's filesystems/overlayfs.rst
("whiteouts and opaque directories", "nested overlayfs mounts").
"""

from __future__ import annotations

import os
import stat

from layerbuild.errors import BuildError

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
META_PREFIX = b".wh..wh."  # aufs kept its own files under such names; no layer means them as content

_SPACES = ("trusted.overlay.", "user.overlay.")
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
    """White out ``path`` on disk. Needs no privilege since Linux 5.8 (mknod(2), "whiteout" device)."""
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd)


def is_whiteout(found: os.stat_result) -> bool:
    """Whether an lstat is that of a whiteout, in the form of a device."""
    return found.st_rdev == 0 and stat.S_ISCHR(found.st_mode)


def bears_whiteout(names: list[str]) -> bool:
    """Whether the xattr ``names`` of an empty file make it a whiteout.

    Overlay takes this form only for an overlay inside an overlay, where a device can't be made.
    """
    return any(space + "whiteout" in names for space in _SPACES)


def set_opaque(target: bytes | int, *, user_xattr: bool) -> None:
    """Make a folder (path or descriptor) opaque. ``trusted.*`` needs CAP_SYS_ADMIN in the first user namespace."""
    os.setxattr(target, _SPACES[user_xattr] + "opaque", b"y")


def is_opaque(target: bytes | int) -> bool:
    """Whether a folder (path or descriptor) bears the opaque mark, in either name space.

    ``x`` in place of ``y`` only says that whiteouts in the form of xattrs may lie in the folder; it hides nothing.
    """
    for space in _SPACES:
        try:
            if os.getxattr(target, space + "opaque", follow_symlinks=isinstance(target, int)) == b"y":
                return True
        except OSError:  # none there, no right to see it, or a file system without extended attributes
            continue
    return False


def refuse_marks(names: list[str], path: bytes) -> None:
    """Raise BuildError if the xattr ``names`` of ``path`` hold a mark that moves a folder or keeps a file's data below.

    Such an upperdir does not hold what the step wrote, so a layer made from it would be wrong.
    """
    for name in names:
        for mark in _REFUSED:
            if name in (_SPACES[0] + mark, _SPACES[1] + mark):
                raise BuildError(
                    f"/{os.fsdecode(path)} bears overlay's mark {name}: its content is not in the upper folder",
                    hint="mount overlay with redirect_dir=off and metacopy=off",
                )
