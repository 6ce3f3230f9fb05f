"""One path of a layer, with all that a layer can say about it.

The order of entries is that of ``sort_key``: depth first, names bytewise, so a folder's content follows it directly and
``dir1/x`` comes before ``dir1-1``. Tar, index and every listing use it, and two of them can be merged in one pass.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import cast

from layerbuild.frozen import frozen
from layerbuild.layer import standin

_CAPABILITY = b"security.capability"
_OWN_SPACES = (b"user.overlay.", b"user.fuseoverlayfs.", standin.SPACE)

Xattrs = tuple[tuple[bytes, bytes], ...]

#: Tells the owner of a path, given its lstat, where a folder can't: in a user namespace with one mapped id.
Owner = Callable[[bytes, os.stat_result], tuple[int, int]]


class Kind(StrEnum):
    """What a path is. A socket is none of these: no tar can hold one."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "character"
    BLOCK = "block"
    FIFO = "fifo"
    WHITEOUT = "whiteout"


@frozen
class Entry:
    """One path of a layer.

    ``mode`` holds the 12 permission bits. ``size`` counts the bytes of a FILE and is 0 for all else. ``mtime`` is in
    whole seconds since 1970, ``mtime_ns`` the fraction in nanoseconds (only layers from elsewhere have one). ``target``
    is a symlink's text, or the path in the same layer that a HARDLINK shares its inode with; a HARDLINK repeats that
    inode's mode, owner and time. ``digest`` is the sha256 of a FILE's content in hexadecimal. ``xattrs`` are sorted by
    name. ``opaque`` says that a DIRECTORY hides what the layers below have in it.
    """

    path: bytes
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Xattrs = ()
    digest: str = ""
    opaque: bool = False


@frozen
class RootMetadata:
    """What a layer's own root folder looks like. No tar of ours says it, so it is the same for every way of making the
    folder: given by the caller, or this. ``mtime`` is in nanoseconds since 1970."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0

    @classmethod
    def of(cls, folder: os.PathLike[str]) -> RootMetadata:
        """The metadata of ``folder`` as it is."""
        found = os.lstat(folder)
        return cls(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns)

    def put(self, folder: os.PathLike[str]) -> None:
        """Give ``folder`` this metadata; an owner that the kernel refuses (user namespaces) is left out."""
        found = os.lstat(folder)
        if (found.st_uid, found.st_gid) != (self.uid, self.gid):
            with suppress(OSError):
                os.chown(folder, self.uid, self.gid)
        if stat.S_IMODE(found.st_mode) != self.mode:
            os.chmod(folder, self.mode)
        os.utime(folder, ns=(self.mtime_ns, self.mtime_ns))


def sort_key(path: bytes) -> bytes:
    """The key that puts paths into a layer's order.

    >>> sorted([b"dir1-1", b"dir1/x", b"dir1"], key=sort_key)
    [b'dir1', b'dir1/x', b'dir1-1']
    """
    return path.replace(b"/", b"\0")


_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


def kind_of(mode: int) -> Kind | None:
    """The kind that ``st_mode`` tells; None for a socket."""
    return _KINDS.get(stat.S_IFMT(mode))


def entry_of(
    path: bytes,
    found: os.stat_result,
    *,
    source: bytes | int,
    owner: tuple[int, int] | None = None,
    marked: bool = True,
) -> Entry:
    """Describe the file at ``source`` (``found`` is its lstat) as ``path`` of a layer; the digest stays empty.

    ``source`` is a path or, for what is no link, an open descriptor. What stands in for something else is described as
    that; but not (``marked`` False) where the file is from outside the store, and anybody may have set its marks.
    ``owner`` replaces the owner found, where the file can't say the true one. Sockets: ValueError.
    """
    kind = kind_of(found.st_mode)
    if kind is None:
        raise ValueError(f"{source!r} is a socket")
    uid, gid = owner or (found.st_uid, found.st_gid)
    link = kind is Kind.SYMLINK
    device = kind is Kind.CHARACTER or kind is Kind.BLOCK
    seconds, fraction = divmod(found.st_mtime_ns, 1_000_000_000)
    names = [] if link else _xattr_names(source)
    entry = Entry(
        path,
        kind,
        stat.S_IMODE(found.st_mode),
        uid,
        gid,
        found.st_size if kind is Kind.FILE else 0,
        seconds,
        fraction,
        os.readlink(cast(bytes, source)) if link else b"",
        (os.major(found.st_rdev), os.minor(found.st_rdev)) if device else (0, 0),
        _kept(source, names) if names else (),
    )
    return _undisguised(entry, standin.read(source, names), found) if names and marked else entry


def _undisguised(entry: Entry, said: standin.StandIn, found: os.stat_result) -> Entry:
    """``entry`` as the file says that it should be. An owner is noted on root's files only: on another's it is the
    invention of a command, which may be no root itself and ask for what root alone may give away."""
    if said.owner is not None and found.st_uid == 0:
        entry = replace(entry, uid=said.owner[0], gid=said.owner[1])
    if said.device is None or entry.kind is not Kind.FILE:
        return entry
    kind, *numbers = said.device
    if numbers == [0, 0]:
        return Entry(entry.path, Kind.WHITEOUT)
    return replace(entry, kind=_KINDS[kind], size=0, device=(numbers[0], numbers[1]), xattrs=())


def is_kept(name: bytes) -> bool:
    """Whether a layer carries the extended attribute: file capabilities and ``user.*``, but never overlay's own, nor
    the marks of what stands in for something else.

    ``trusted.*`` and security labels describe the machine that they were set on, not the image.
    """
    return name == _CAPABILITY or (name.startswith(b"user.") and not name.startswith(_OWN_SPACES))


def is_copied(name: bytes) -> bool:
    """Whether the attribute belongs to the file: what a layer carries, and the marks of a stand-in; not the mark of a
    folder in a stack."""
    return is_kept(name) or (name.startswith(standin.SPACE) and name != standin.OPAQUE.encode())


def kept_xattrs(source: bytes | int) -> Xattrs:
    """The attributes of ``source`` (a path that is not followed, or a file descriptor) that a layer carries."""
    names = _xattr_names(source)
    return _kept(source, names) if names else ()


def copied_xattrs(source: bytes | int) -> Xattrs:
    """The attributes of ``source`` that belong to the file, marks included."""
    names = _xattr_names(source)
    return _kept(source, names, is_copied) if names else ()


def _xattr_names(source: bytes | int) -> list[str]:
    """Nearly always none."""
    try:
        return os.listxattr(source, follow_symlinks=isinstance(source, int))  # there is no "nofollow" for a descriptor
    except OSError:  # a file system without extended attributes
        return []


def _kept(source: bytes | int, names: list[str], wanted: Callable[[bytes], bool] = is_kept) -> Xattrs:
    follow = isinstance(source, int)
    kept = sorted(name for name in map(os.fsencode, names) if wanted(name))
    return tuple((name, os.getxattr(source, name, follow_symlinks=follow)) for name in kept)
