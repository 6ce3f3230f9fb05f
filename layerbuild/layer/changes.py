"""Sealing: after a step ended, its upperdir is made equal to what its layer says.

Overlay leaves in an upperdir what its own work needed, not what changed: copies of files that were opened for writing
and not changed, whiteouts of files that never were below, folders whose only change is a time, marks that stand for
"all that is below". ``seal`` walks the upperdir once, compares it with the folders below and removes all of it:

    upperdir                                           sealed
    entry as it is below, in every respect             dropped
    folder with a new mtime and no changed child       dropped
    whiteout of a name that is not below               dropped
    opaque folder                                      a whiteout for each name that it hides
    socket                                             dropped; a whiteout if it stood in place of something
    times                                              whole seconds, not later than the epoch
    attributes that no layer carries                   dropped

Then the folder is the same tree as one unpacked from the layer's tar, and may be the next step's lower at once. The
comparison needs no mount: it walks beside the folders below, of which each upper folder carries those that contribute
to it, so nothing is looked up below a folder that is new. Sources: the kernel's filesystems/overlayfs.rst; OCI
image-spec layer.md ("Change Types", "Representing Changes").
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from layerbuild.errors import BuildError
from layerbuild.frozen import frozen
from layerbuild.layer import standin
from layerbuild.layer.entry import RootMetadata, is_copied
from layerbuild.layer.lowers import contributing, cut, same_content, same_dress, shown, visible
from layerbuild.layer.owners import NOBODY, Owners
from layerbuild.layer.paths import join, split
from layerbuild.layer.whiteout import (
    PREFIX,
    TRUSTED,
    bears_whiteout,
    is_opaque,
    is_whiteout,
    make_whiteout,
    refuse_marks,
)

_SECOND = 1_000_000_000

# What overlay, or the machine, put on a file and the image does not have. Security labels stay: the kernel sets them
# anew on every file, and gives no leave to remove them.
_STRIPPED = ("trusted.", "user.overlay.", "user.fuseoverlayfs.", "system.posix_acl_", standin.OPAQUE)
_NOTES = standin.SPACE.decode()


@frozen
class Sealed:
    """``entries`` counts what the layer holds, whiteouts included; 0: the step changed nothing."""

    entries: int


def seal(
    upper: Path,
    lowers: Sequence[Path],
    *,
    epoch: int | None,
    spaces: tuple[str, ...] = (TRUSTED,),
    trust_notes: bool = False,
    root: RootMetadata | None = None,
    owners: Owners = NOBODY,
    owners_below: Owners = NOBODY,
) -> Sealed:
    """Make ``upper`` equal to what its layer says, relative to the diff folders ``lowers`` (top first).

    Modification times are cut to whole seconds, and to ``epoch`` (seconds since 1970) where they are later; None keeps
    them. Marks begin with one of ``spaces``, in which no command can set any. What looks like a mark and begins
    otherwise says nothing, and is removed. So is a note of what a file stands in for (standin.py), unless the
    file below has the same: ``trust_notes`` says that no command could set or remove one, and then all count.
    ``owners`` and ``owners_below`` tell the owners that the files can't, of the upper and of the lowers. The root
    folder gets ``root``, else RootMetadata's defaults: a tar of ours says nothing about it. BuildError for what a layer
    can't hold: a name that begins with ``.wh.``, or a mark of overlay's redirect or metacopy.
    Sealing a sealed folder again changes nothing. Nothing may write to the folders meanwhile.
    """
    sealer = _Sealer(os.fsencode(upper), epoch, spaces, owners, owners_below, trust_notes=trust_notes)
    entries = sealer.run([os.fsencode(lower) for lower in lowers])
    if entries:
        (root or RootMetadata()).put(upper)
    return Sealed(entries)


@dataclass(slots=True)
class _Folder:
    """An upper folder on the way: ``lowers`` are the folders below that show in it, top first; ``plain``: it is also
    below and differs in time at most; ``hides``: overlay showed nothing of the lowers, and whiteouts must say so."""

    path: bytes
    lowers: list[bytes]
    plain: bool
    hides: bool
    time: int
    waiting: Iterator[os.DirEntry[bytes]]
    kept: int = 0
    names: set[bytes] = field(default_factory=set)  # of a folder that hides: those that need no whiteout


@dataclass(slots=True)
class _Links:
    """The unchanged names of one upper inode, and the inodes that they have below."""

    names: list[bytes] = field(default_factory=list)
    below: set[tuple[int, int]] = field(default_factory=set)


class _Sealer:
    def __init__(
        self,
        upper: bytes,
        epoch: int | None,
        spaces: tuple[str, ...],
        owners: Owners,
        owners_below: Owners,
        *,
        trust_notes: bool,
    ) -> None:
        self._upper = upper
        self._trust_notes = trust_notes
        self._spaces = spaces
        self._owners = owners
        self._owners_below = owners_below
        self._epoch = epoch
        self._entries = 0
        self._times: dict[bytes, int] = {}  # of folders, set last
        self._plain: set[bytes] = set()  # folders kept only for what is in them
        self._changed: set[tuple[int, int]] = set()  # inodes of several names, one of which is new or changed
        self._unchanged: dict[tuple[int, int], _Links] = {}

    def run(self, lowers: list[bytes]) -> int:
        top = _Folder(b"", cut(lowers), False, False, 0, self._scan(b""))
        stack = [top]
        while stack:
            folder = stack[-1]
            entry = next(folder.waiting, None)
            if entry is None:
                stack.pop()
                self._leave(folder, stack[-1] if stack else None)
            elif entry.is_dir(follow_symlinks=False):
                stack.append(self._enter(folder, entry))
            else:
                kept = self._leaf(folder, entry, entry.stat(follow_symlinks=False))
                folder.kept += kept
                self._entries += kept
        self._drop_unchanged_links()
        for path, time in self._times.items():
            os.utime(self._full(path), ns=(time, time))
        if self._entries:
            self._clean(b"", self._upper, 0, None)
        return self._entries

    def _full(self, path: bytes) -> bytes:
        return self._upper + b"/" + path if path else self._upper

    def _scan(self, path: bytes) -> Iterator[os.DirEntry[bytes]]:
        with os.scandir(self._full(path)) as entries:
            return iter(list(entries))

    # Folders.

    def _enter(self, parent: _Folder, entry: os.DirEntry[bytes]) -> _Folder:
        path = join(parent.path, entry.name)
        _check_name(path, entry.name)
        found = entry.stat(follow_symlinks=False)
        lowers = contributing(parent.lowers, entry.name)
        hides = bool(lowers) and (parent.hides or is_opaque(entry.path, self._spaces))
        self._clean(path, entry.path, found.st_uid, lowers[0] if lowers else None)
        if parent.hides:
            parent.names.add(entry.name)
        plain = bool(lowers) and same_dress(entry.path, found, lowers[0], os.lstat(lowers[0]))
        return _Folder(path, lowers, plain, hides, self._time(found), self._scan(path))

    def _leave(self, folder: _Folder, parent: _Folder | None) -> None:
        if folder.hides:
            hidden = [name for name in shown(folder.lowers) if name not in folder.names]
            for name in hidden:
                make_whiteout(self._full(join(folder.path, name)))
            folder.kept += len(hidden)
            self._entries += len(hidden)
        if parent is None:
            return
        if folder.plain:
            if not folder.kept:
                os.rmdir(self._full(folder.path))
                return
            self._plain.add(folder.path)
        self._times[folder.path] = folder.time
        self._entries += 1
        parent.kept += 1

    # All else.

    def _leaf(self, folder: _Folder, entry: os.DirEntry[bytes], found: os.stat_result) -> bool:
        """Settle one entry that is no folder; whether it stays."""
        path = join(folder.path, entry.name)
        _check_name(path, entry.name)
        below = visible(folder.lowers, entry.name) if folder.lowers else None
        if folder.hides:
            folder.names.add(entry.name)
        if is_whiteout(found) or (is_whiteout(found, entry.path) and self._whiteouts_stand_in):
            if below is None:
                os.unlink(entry.path)
            return below is not None
        link = stat.S_ISLNK(found.st_mode)
        names = [] if link else self._clean(path, entry.path, found.st_uid, below[0] if below else None)
        if stat.S_ISSOCK(found.st_mode) or (found.st_size == 0 and bears_whiteout(names, self._spaces)):
            os.unlink(entry.path)
            if below is not None:
                make_whiteout(entry.path)
            return below is not None
        return self._content(path, entry.path, found, below)

    def _content(
        self, path: bytes, full: bytes, found: os.stat_result, below: tuple[bytes, os.stat_result] | None
    ) -> bool:
        time = self._time(found)
        inode = (found.st_dev, found.st_ino)
        if below is not None and self._same(full, found, *below):
            if found.st_nlink == 1:
                os.unlink(full)
                return False
            links = self._unchanged.setdefault(inode, _Links())
            links.names.append(path)
            links.below.add((below[1].st_dev, below[1].st_ino))
        elif found.st_nlink > 1:
            self._changed.add(inode)
        if found.st_mtime_ns != time or found.st_atime_ns != time:
            os.utime(full, ns=(time, time), follow_symlinks=False)
        return True

    def _drop_unchanged_links(self) -> None:
        """Drop the inodes of which no name is new or changed, and the folders that were kept for them alone.

        A new link to a lower file makes overlay copy the file up, and both names share the copy; then both stay. So do
        names that shared no inode below.
        """
        for inode, links in self._unchanged.items():
            if inode in self._changed or len(links.below) > 1:
                continue
            for path in links.names:
                os.unlink(self._full(path))
                self._entries -= 1
                self._drop_empty(split(path)[0])

    def _drop_empty(self, path: bytes) -> None:
        while path in self._plain:
            try:
                os.rmdir(self._full(path))
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                return
            self._entries -= 1
            del self._times[path]
            path = split(path)[0]

    # Metadata.

    def _time(self, found: os.stat_result) -> int:
        """The modification time as the layer will say it, in nanoseconds."""
        seconds = found.st_mtime_ns // _SECOND
        if self._epoch is not None and seconds > self._epoch:
            seconds = self._epoch
        return seconds * _SECOND

    def _clean(self, path: bytes, full: bytes, uid: int, below: bytes | None) -> list[str]:
        """Remove the attributes that no layer carries, and notes that can't be ours; all names that were there. ``uid``
        is whom the file belongs to on the disk, ``below`` what it is below."""
        try:
            names = os.listxattr(full, follow_symlinks=False)
        except OSError:  # a file system without extended attributes
            return []
        if names:
            refuse_marks(names, path, self._spaces)
            for name in names:
                strange = name.startswith(_STRIPPED) and not is_copied(os.fsencode(name))
                if strange or (name.startswith(_NOTES) and not self._is_ours(name, full, uid, below)):
                    _remove_xattr(full, name)
        return names

    def _is_ours(self, name: str, full: bytes, uid: int, below: bytes | None) -> bool:
        """Whether a note may count. An owner is noted on files that are root's on the disk only."""
        if name == standin.OWNER and uid != 0:
            return False
        value = _value(full, name) or b""
        if self._trust_notes and len(value) <= standin.LONGEST:  # what is longer nobody is told of
            return True
        return below is not None and value == _value(below, name)

    @cached_property
    def _whiteouts_stand_in(self) -> bool:
        """Whether what stands in for a whiteout is ours: where one can be made, a command has set that mark."""
        if self._trust_notes:
            return True
        trial = self._full(PREFIX)  # a name that nothing else has
        try:
            os.mknod(trial, stat.S_IFCHR, os.makedev(0, 0))
        except PermissionError:
            return True
        os.unlink(trial)
        return False

    def _same(self, full: bytes, found: os.stat_result, lower: bytes, below: os.stat_result) -> bool:
        """Whether an entry is the one below in every respect. What is cheap is compared first, content last."""
        if self._owners.differs(full, found, (lower, below), self._owners_below):
            return False
        if found.st_mtime_ns != below.st_mtime_ns and self._time(found) != below.st_mtime_ns:
            return False
        if stat.S_ISREG(found.st_mode) and found.st_size != below.st_size:
            return False
        if found.st_rdev != below.st_rdev or not same_dress(full, found, lower, below):
            return False
        if stat.S_ISLNK(found.st_mode):
            return os.readlink(full) == os.readlink(lower)
        return not stat.S_ISREG(found.st_mode) or same_content(full, lower)


def _check_name(path: bytes, name: bytes) -> None:
    if name.startswith(PREFIX):
        raise BuildError(
            f"/{os.fsdecode(path)}: no layer can hold a name that begins with {PREFIX.decode()}",
            hint="such names mark deletions in layers; let the step remove or rename the file",
        )


def _value(full: bytes, name: str) -> bytes | None:
    try:
        return os.getxattr(full, name, follow_symlinks=False)
    except OSError:
        return None


def _remove_xattr(full: bytes, name: str) -> None:
    try:
        os.removexattr(full, name, follow_symlinks=False)
    except OSError as error:
        # ENODATA: overlay's own view of it differs; EPERM: trusted.* in a user namespace
        if error.errno not in (errno.ENODATA, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
            raise
