"""Writing a diff folder, entry by entry, with nothing outside it within reach.

Every folder is opened component by component with ``O_NOFOLLOW``, starting at the diff folder, and every file is made
by its name in an open folder: a link on the way is an error, never a way out. Who resolves links does so before, by
text (``paths.resolve``).

What the kernel refuses in a user namespace (other owners, device nodes) is noted on what stands in for it (standin.py);
foreign attributes, and the owners of links, are left out on disk. The layer's tar and index keep all of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

from layerbuild.errors import FormatError, LayerbuildError, MachineError, SpaceError, descriptors_hint
from layerbuild.layer import owners, standin
from layerbuild.layer.entry import Entry, Kind, RootMetadata, Xattrs, kept_xattrs
from layerbuild.layer.paths import join, split
from layerbuild.layer.whiteout import make_whiteout, set_opaque

_OPEN_FOLDERS = 128
_LONG = 3072  # bytes of a path; the kernel takes 4095 (path_resolution(7)), and a name may have 255
_HOLE = 1 << 20  # bytes of zeros that make a hole: the pieces of a large file are of that size
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_SHARED = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ETXTBSY)
_DEVICES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


class Tree:
    """The folder ``root``, being written. As a context manager it closes the folders that it holds open.

    ``user_xattr`` chooses overlay's mark for opaque folders. Entries' parents must exist; an existing name is a
    FileExistsError. Folders get their times in ``finish``, after all that changes them. ``noted`` False: for a folder
    that is no layer's. There nothing stands in for what the kernel refuses: owners stay as they are, and a device is
    not made.
    """

    def __init__(self, root: Path, *, user_xattr: bool, noted: bool = True) -> None:
        self._root = root
        self._noted = noted
        self._user_xattr = user_xattr
        self._open: dict[bytes, int] = {b"": os.open(root, _FOLDER)}
        self._times: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    # Making things. Each takes the metadata from its entry.

    def file(self, entry: Entry, pieces: Iterable[bytes], *, source: int | None = None) -> None:
        """A regular file with the content ``pieces``, that were read from the descriptor ``source``, if it is given:
        then the kernel may share the bytes, or copies them by itself."""
        parent, name = split(entry.path)
        descriptor = os.open(name, _NEW, entry.mode & 0o777, dir_fd=self._folder(parent))
        try:
            _fill(descriptor, pieces, source)
            self._dress_new(descriptor, entry)
            time = _nanoseconds(entry)
            os.utime(descriptor, ns=(time, time))
        finally:
            os.close(descriptor)

    def directory(self, entry: Entry) -> None:
        """A folder."""
        if entry.path:
            parent, name = split(entry.path)
            os.mkdir(name, 0o700, dir_fd=self._folder(parent))
        self.dress(entry)

    def dress(self, entry: Entry) -> None:
        """Give a folder that exists (or the root) the metadata of ``entry``."""
        descriptor = self._folder(entry.path)
        wanted = {name for name, _ in entry.xattrs}
        for name, _ in kept_xattrs(descriptor):
            if name not in wanted:
                os.removexattr(descriptor, name)
        self._dress(descriptor, entry)
        self._times[entry.path] = _nanoseconds(entry)

    def symlink(self, entry: Entry) -> None:
        """A symbolic link with the text ``target``."""
        parent, name = split(entry.path)
        folder = self._folder(parent)
        os.symlink(entry.target, name, dir_fd=folder)
        self._lightly_dress(folder, name, entry)

    def hardlink(self, entry: Entry) -> None:
        """Another name for ``target``."""
        parent, name = split(entry.path)
        target_parent, target = split(entry.target)
        # A descriptor of our own: opening the second folder may close the first.
        source = os.dup(self._folder(target_parent))
        try:
            os.link(target, name, src_dir_fd=source, dst_dir_fd=self._folder(parent), follow_symlinks=False)
        finally:
            os.close(source)

    def device(self, entry: Entry) -> bool:
        """A device or fifo, or what stands in for the device; False if this file system can't hold that."""
        parent, name = split(entry.path)
        folder = self._folder(parent)
        mode, number = 0o600 | _DEVICES[entry.kind], os.makedev(*entry.device)
        if self._noted:
            if not standin.make_device(name, mode, number, dir_fd=folder):
                return False
        else:
            try:
                os.mknod(name, mode, number, dir_fd=folder)
            except PermissionError:
                return False
        self._lightly_dress(folder, name, entry)
        os.chmod(name, entry.mode, dir_fd=folder)  # after chown, which clears set-id bits; a chmod keeps the mtime
        return True

    def whiteout(self, path: bytes) -> None:
        """A whiteout, in overlay's form."""
        parent, name = split(path)
        make_whiteout(name, dir_fd=self._folder(parent))

    def opaque(self, path: bytes) -> None:
        """Mark an existing folder opaque, in overlay's form."""
        set_opaque(self._folder(path), user_xattr=self._user_xattr)

    def add(self, entry: Entry, pieces: Iterable[bytes], *, source: int | None = None) -> bool:
        """Make whatever ``entry`` is; False if the kernel refused to make a device. ``source`` as in ``file``."""
        match entry.kind:
            case Kind.FILE:
                self.file(entry, pieces, source=source)
            case Kind.DIRECTORY:
                self.directory(entry)
            case Kind.SYMLINK:
                self.symlink(entry)
            case Kind.HARDLINK:
                self.hardlink(entry)
            case Kind.WHITEOUT:
                self.whiteout(entry.path)
            case Kind.CHARACTER | Kind.BLOCK | Kind.FIFO:
                return self.device(entry)
        return True

    # Taking away, looking, ending.

    def remove(self, path: bytes) -> None:
        """Remove what is at ``path``, with all below it; nothing there is fine."""
        for known in [known for known in self._open if known == path or known.startswith(path + b"/")]:
            os.close(self._open.pop(known))
        parent, name = split(path)
        folder = self._folder(parent)
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):  # POSIX allows EPERM for a folder
            remove_tree(self._root / os.fsdecode(path))
        for known in [known for known in self._times if known == path or known.startswith(path + b"/")]:
            del self._times[known]

    def source(self, path: bytes) -> bytes:
        """The path on this machine of something in the tree whose parents hold no link."""
        return os.fsencode(self._root) + b"/" + path

    def finish(self, root: RootMetadata | None = None) -> None:
        """Set the folders' times; ``root`` is given to the root unless an entry said what it is."""
        for path, time in self._times.items():
            os.utime(self._folder(path), ns=(time, time))
        if root is not None and b"" not in self._times:
            root.put(self._root)

    # Open folders.

    def _folder(self, path: bytes) -> int:
        descriptor = self._open.get(path)
        if descriptor is not None:
            return descriptor
        known = path
        while known not in self._open:
            known = split(known)[0]
        descriptor = self._open[known]
        for name in path[len(known) :].lstrip(b"/").split(b"/"):
            descriptor = os.open(name, _FOLDER, dir_fd=descriptor)
            known = join(known, name)
            self._remember(known, descriptor)
        return descriptor

    def _remember(self, path: bytes, descriptor: int) -> None:
        """Hold a folder open, and let go of the one that is held longest; the root is never let go."""
        self._open[path] = descriptor
        if len(self._open) > _OPEN_FOLDERS:
            oldest = next(known for known in self._open if known)
            os.close(self._open.pop(oldest))

    # Metadata. The owner first: chown clears the set-id bits and file capabilities.

    def _dress(self, descriptor: int, entry: Entry) -> None:
        own = standin.own if self._noted else standin.give
        own(descriptor, entry.uid, entry.gid)
        os.fchmod(descriptor, entry.mode)
        if entry.xattrs:
            _set_xattrs(descriptor, entry.xattrs)

    def _dress_new(self, descriptor: int, entry: Entry) -> None:
        """The same for a file just made, which nearly always has owner and mode already: to ask costs less than to
        set."""
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (entry.uid, entry.gid, entry.mode):
            self._dress(descriptor, entry)
        elif entry.xattrs:
            _set_xattrs(descriptor, entry.xattrs)

    def _lightly_dress(self, folder: int, name: bytes, entry: Entry) -> None:
        """Owner and time of what can't be opened."""
        own = standin.own if self._noted else standin.give
        if not own(f"/proc/self/fd/{folder}/{os.fsdecode(name)}", entry.uid, entry.gid) and self._noted:
            owners.note_path(os.fsencode(self._root), self.source(entry.path), (entry.uid, entry.gid))
        time = _nanoseconds(entry)
        os.utime(name, ns=(time, time), dir_fd=folder, follow_symlinks=False)


def remove_tree(path: Path) -> None:
    """Remove ``path`` and all below it, also folders that forbid it by their mode, and those so deep that no path leads
    there: a command can make such. Nothing there is fine."""
    top = os.fsencode(path)
    folders = [top]
    found = []
    while folders:
        folder = folders.pop()
        found.append(folder)
        for entry in _listed(folder):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif len(entry.path) < _LONG:
                folders.append(entry.path)
            else:
                nearer = top + b"/" + os.urandom(16).hex().encode()
                os.rename(entry.path, nearer)
                folders.append(nearer)
    for folder in reversed(found):
        with suppress(FileNotFoundError):
            os.rmdir(folder)


def _listed(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def explained(error: OSError, what: str) -> LayerbuildError:
    """``error``, met while doing ``what``, as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError(
            f"{what}: no space left", hint="`layerbuild prune` frees space, `--root` chooses another disk"
        )
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
        return FormatError(f"{what}: {error.strerror}", hint="this file system can't hold that name")
    return MachineError(f"{what}: {error.strerror}", hint=descriptors_hint(error))


def _set_xattrs(descriptor: int, xattrs: Xattrs) -> None:
    for name, value in xattrs:
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise


def _nanoseconds(entry: Entry) -> int:
    return entry.mtime * 1_000_000_000 + entry.mtime_ns


def _fill(descriptor: int, pieces: Iterable[bytes], source: int | None) -> None:
    """Write ``pieces``. A large one of zeros becomes a hole: a tar may tell of gigabytes that no disk ever held."""
    size = hole = 0
    for piece in pieces:
        hole = len(piece) if len(piece) >= _HOLE and piece == _zeros(len(piece)) else 0
        if hole:
            os.lseek(descriptor, hole, os.SEEK_CUR)
        elif source is None or not _share(source, descriptor, size, len(piece)):
            source = None
            _write(descriptor, piece)
        size += len(piece)
    if hole:
        os.ftruncate(descriptor, size)


def _share(source: int, descriptor: int, start: int, size: int) -> bool:
    """Copy a range without a way through this process (copy_file_range(2)): btrfs and xfs share the blocks, and on
    ext4 it takes half the time of a write. False, and nothing is written, where that can't be."""
    done = 0
    while done < size:
        try:
            copied = os.copy_file_range(source, descriptor, size - done, start + done)
        except OSError as error:
            if done or error.errno not in _NOT_SHARED:
                raise
            return False
        if not copied:  # the file has become shorter, which its reader tells
            return done > 0
        done += copied
    return True


@cache
def _zeros(size: int) -> bytes:
    return bytes(size)


def _write(descriptor: int, data: bytes) -> None:
    done = os.write(descriptor, data)
    while done < len(data):  # a write may take less than all, at most 2 GiB - 4 KiB (write(2))
        done += os.write(descriptor, memoryview(data)[done:])
