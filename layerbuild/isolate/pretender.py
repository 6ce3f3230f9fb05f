"""P, the pretender: answers the calls of a command that the kernel would refuse in a user namespace.

::

    chown …                        the file stays root's, and its owner is noted (layer/standin.py, layer/owners.py)
    mknod of a device              what stands in for it is made
    setuid, setgroups, getuid …    a process is whom it has become, as far as it asks
    stat                           tells the noted owner
    open, mkdir, symlink           what a process makes that is not root any more, is its own
    setxattr, removexattr          all but the notes are changed (attributes.py)

It is lent to a job when the first such call comes (pretenders.py), sees the tree that the job sees, and is none of the
processes that the job can see. With ranges of ids only devices are refused: of calls only mknod and those on attributes
are told, and the kernel knows who makes them. What is not pretended: permissions, which with one id are root's.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Final

from layerbuild.isolate import linux, notices
from layerbuild.isolate.attributes import Attributes
from layerbuild.isolate.callers import AT_FDCWD, MASK, OF_ITSELF, PATH, Callers, Gone
from layerbuild.isolate.capabilities import numbers
from layerbuild.isolate.credentials import KEEP, Credentials, Ids, Refused
from layerbuild.isolate.notices import Listener, Notice
from layerbuild.layer import owners, standin

_AT_EMPTY_PATH: Final = 0x1000
_HOW: Final = 24  # bytes of struct open_how, first version
_MAY_MAKE_DEVICES: Final = sum(1 << number for number in numbers(("MKNOD",)))


class Pretender:
    """Answers what ``listener`` tells of, in the job's mount namespace.

    ``first`` is the command's process, and ``who`` whom that takes itself for. ``upper`` is the folder that holds what
    the job writes, and ``around`` the one in which that lies; ``known`` is what is noted so far of those that no file
    can bear. ``proc`` shows this process and those of the job. ``one_id``: the kernel knows no other.
    """

    def __init__(
        self,
        listener: Listener,
        first: int,
        who: Credentials,
        *,
        upper: int,
        around: int,
        known: Mapping[tuple[int, int], tuple[int, int]],
        proc: int,
        one_id: bool,
    ) -> None:
        self._listener = listener
        self._one_id = one_id
        self._upper, self._around = upper, around
        self._callers = Callers(listener, proc)
        self._known: dict[int, tuple[str, Credentials]] = {}  # by thread: when it was started, and who it is
        self._first = who
        self._stranger = Credentials(groups=who.groups)  # whose parent is none of the job's
        self._all_root = who.is_root
        if not self._all_root:
            self._remember(first, who)
        self._owners = dict(known)
        self._held: list[int] = []
        self._calls: dict[str, Callable[[Notice], None]] = {
            "stat": self._stat,
            "lstat": self._lstat,
            "newfstatat": self._fstatat,
            "fstat": self._fstat,
            "stat64": self._stat,
            "lstat64": self._lstat,
            "fstatat64": self._fstatat,
            "fstat64": self._fstat,
            "statx": self._statx,
            "chown": lambda notice: self._chown(notice, follow=True),
            "lchown": lambda notice: self._chown(notice, follow=False),
            "fchown": self._fchown,
            "fchownat": self._fchownat,
            "rename": lambda notice: self._moving(notice, AT_FDCWD, notice.arguments[0]),
            "renameat": lambda notice: self._moving(notice, *notice.arguments[:2]),
            "renameat2": lambda notice: self._moving(notice, *notice.arguments[:2]),
            "link": lambda notice: self._moving(notice, AT_FDCWD, notice.arguments[0]),
            "linkat": lambda notice: self._moving(notice, *notice.arguments[:2]),
            "mknod": lambda notice: self._mknod(notice, AT_FDCWD, *notice.arguments[:3]),
            "mknodat": lambda notice: self._mknod(notice, *notice.arguments[:4]),
            "mkdir": lambda notice: self._mkdir(notice, AT_FDCWD, *notice.arguments[:2]),
            "mkdirat": lambda notice: self._mkdir(notice, *notice.arguments[:3]),
            "symlink": lambda notice: self._symlink(notice, notice.arguments[0], AT_FDCWD, notice.arguments[1]),
            "symlinkat": lambda notice: self._symlink(notice, *notice.arguments[:3]),
            "open": lambda notice: self._open(notice, AT_FDCWD, *notice.arguments[:3]),
            "openat": lambda notice: self._open(notice, *notice.arguments[:4]),
            "openat2": self._openat2,
            "creat": self._creat,
            **dict.fromkeys(notices.MARKS, Attributes(listener, self._callers).answer),
        }

    def serve(self, control: socket.socket) -> None:
        """Answer until there is something to hear on ``control``."""
        poll = select.poll()
        for fd in (self._listener.fileno(), control.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if control.fileno() in ready:
                control.recv(16)
                return
            if not ready[self._listener.fileno()] & select.POLLIN:
                poll.unregister(self._listener.fileno())  # nobody is left who could call
                continue
            notice = self._listener.next()
            if notice is not None:
                self._answer(notice)

    def _answer(self, notice: Notice) -> None:
        try:
            if notice.name in self._calls:
                self._calls[notice.name](notice)
            else:
                self._identity(notice, notice.name)
        except Gone:
            pass
        except Refused:
            self._listener.fail(notice, errno.EPERM)
        except OSError as error:
            self._listener.fail(notice, error.errno or errno.EPERM)

    # -- who calls -----------------------------------------------------------------------------------------------------

    def _who(self, thread: int) -> Credentials:
        """Whom a thread takes itself for: what it said, else what its process or its parent was."""
        if self._all_root:
            return self._first
        started = self._callers.started(thread)
        known = self._known.get(thread)
        if known is None or known[0] != started:
            known = (started, self._inherited(thread))
            self._known[thread] = known
        return self._elevated(thread, known[1])

    def _inherited(self, thread: int) -> Credentials:
        status = self._callers.status(thread)
        group, parent = int(status["Tgid"]), int(status["PPid"])
        if group != thread:
            return self._who(group)
        return self._who(parent) if parent > 1 else self._stranger

    def _elevated(self, thread: int, who: Credentials) -> Credentials:
        """A set-user-ID program gives its process the owner's id, once: execve(2)."""
        if who.user.effective == 0 and who.keeps is None:
            return who
        try:
            found = os.stat(f"{thread}/exe", dir_fd=self._callers.proc)
        except OSError:
            return who
        if who.keeps is not None and who.keeps != (found.st_dev, found.st_ino):
            who = replace(who, keeps=None)
        if who.privileged or not found.st_mode & stat.S_ISUID or who.program == (found.st_dev, found.st_ino):
            return who
        with self._callers.opened(f"{thread}/exe") as program:
            owner = self._owner_of(program, found)[0]
        user = replace(who.user, effective=owner, saved=owner, fs=owner)
        return self._remember(thread, replace(who, user=user, program=(found.st_dev, found.st_ino)))

    def _remember(self, thread: int, who: Credentials) -> Credentials:
        self._all_root = self._all_root and who.is_root
        self._known[thread] = (self._callers.started(thread), who)
        return who

    # -- ids -----------------------------------------------------------------------------------------------------------

    def _identity(self, notice: Notice, name: str) -> None:
        who = self._who(notice.thread)
        if name == "getgroups":
            self._get_groups(notice, who)
        elif name == "setgroups":
            self._become(notice, who.with_groups(self._numbers(notice)))
        elif name.startswith("get"):
            self._tell(notice, name, who.group if "gid" in name else who.user)
        elif name.startswith("setfs"):
            old = who.group if "gid" in name else who.user
            new = old.set_fs(notice.arguments[0] & MASK, privileged=who.privileged)
            self._remember(notice.thread, _with(who, name, new))
            self._listener.result(notice, old.fs)
        elif name == "prctl":
            self._keep(notice, who)
        elif name.startswith("set"):
            self._become(notice, _with(who, name, _changed(who, name, notice.arguments)))
        else:
            self._listener.go_on(notice)

    def _tell(self, notice: Notice, name: str, ids: Ids) -> None:
        if name.startswith("getres"):
            for pointer, number in zip(notice.arguments, (ids.real, ids.effective, ids.saved), strict=False):
                self._callers.write(notice, pointer, struct.pack("=I", number))
            self._listener.result(notice)
        else:
            self._listener.result(notice, ids.effective if name.startswith("gete") else ids.real)

    def _keep(self, notice: Notice, who: Credentials) -> None:
        """PR_SET_KEEPCAPS(2const). The kernel has the flag as well, and tells it."""
        program = os.stat(f"{notice.thread}/exe", dir_fd=self._callers.proc)
        keeps = (program.st_dev, program.st_ino) if notice.arguments[1] else None
        self._all_root = False
        self._remember(notice.thread, replace(who, keeps=keeps))
        self._listener.go_on(notice)

    def _become(self, notice: Notice, who: Credentials) -> None:
        if who != self._first or not self._all_root:
            self._all_root = False
            self._remember(notice.thread, who)
        self._listener.result(notice)

    def _get_groups(self, notice: Notice, who: Credentials) -> None:
        size, pointer = notice.arguments[0] & MASK, notice.arguments[1]
        if size and size < len(who.groups):
            return self._listener.fail(notice, errno.EINVAL)
        if size:
            self._callers.write(notice, pointer, struct.pack(f"={len(who.groups)}I", *who.groups))
        return self._listener.result(notice, len(who.groups))

    def _numbers(self, notice: Notice) -> tuple[int, ...]:
        size, pointer = notice.arguments[0] & MASK, notice.arguments[1]
        if size > 65536:
            raise OSError(errno.EINVAL, "too many groups")
        return struct.unpack(f"={size}I", self._callers.read(notice, pointer, 4 * size)) if size else ()

    # -- owners --------------------------------------------------------------------------------------------------------

    def _chown(self, notice: Notice, *, follow: bool) -> None:
        path, uid, gid = notice.arguments[:3]
        self._chown_at(notice, AT_FDCWD, path, uid, gid, follow=follow)

    def _fchownat(self, notice: Notice) -> None:
        folder, path, uid, gid, flags, _ = notice.arguments
        if flags & _AT_EMPTY_PATH and not self._callers.string(notice, path):
            with self._callers.file_of(notice, folder) as file:
                return self._give(notice, file, uid, gid)
        return self._chown_at(notice, folder, path, uid, gid, follow=not flags & linux.AT_SYMLINK_NOFOLLOW)

    def _fchown(self, notice: Notice) -> None:
        number, uid, gid = notice.arguments[:3]
        with self._callers.file_of(notice, number) as file:
            self._give(notice, file, uid, gid)

    def _chown_at(self, notice: Notice, folder: int, pointer: int, uid: int, gid: int, *, follow: bool) -> None:
        path = self._callers.string(notice, pointer)
        if path.startswith(OF_ITSELF):
            return self._listener.result(notice)
        with self._callers.at(notice, folder, path) as place:
            file = os.open(path, PATH if follow else PATH | os.O_NOFOLLOW, dir_fd=place)
            try:
                self._give(notice, file, uid, gid)
            finally:
                os.close(file)

    def _give(self, notice: Notice, file: int, uid: int, gid: int) -> None:
        """Note the owner of an open file. The file is given to root, which it belongs to: so it is copied up, and
        loses its set-id bits and capabilities, as by any chown."""
        found = os.fstat(file)
        old = self._owner_of(file, found)
        new = (_or(uid & MASK, old[0]), _or(gid & MASK, old[1]))
        self._who(notice.thread).check_chown(old, new)
        if not self._listener.is_valid(notice):
            raise Gone
        try:
            os.chown(self._callers.itself(file), 0, 0, dir_fd=self._callers.proc)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            return self._listener.result(notice)  # a file from outside, whose owner is nobody here
        self._note(file, found, new)
        return self._listener.result(notice)

    def _owner_of(self, file: int, found: os.stat_result) -> tuple[int, int]:
        if _bears_marks(found):
            with suppress(OSError), self._callers.opened(self._callers.itself(file)) as plain:
                return standin.read(plain, os.listxattr(plain)).owner or (0, 0)
            return (0, 0)
        return self._owners.get((found.st_ino, owners.born(b"", dir_fd=file)), (0, 0))

    def _note(self, file: int, found: os.stat_result, owner: tuple[int, int]) -> None:
        if _bears_marks(found):
            with self._callers.opened(self._callers.itself(file)) as plain:
                standin.note_owner(plain, *owner)
            return
        path = (
            os.readlink(self._callers.itself(file), dir_fd=self._callers.proc)
            .encode("utf-8", "surrogateescape")
            .lstrip(b"/")
        )
        with suppress(OSError):  # not in the tree at all, but in a mount that goes with the job
            written = os.stat(path, dir_fd=self._upper, follow_symlinks=False)
            if stat.S_IFMT(written.st_mode) == stat.S_IFMT(found.st_mode):
                # Held open: else the next file could get its number, and within a tick of the clock the same birth.
                with suppress(OSError):
                    self._held.append(os.open(path, PATH | os.O_NOFOLLOW, dir_fd=self._upper))
                birth = owners.born(path, dir_fd=self._upper)
                owners.note(self._around, written.st_ino, birth, owner)
                self._owners[written.st_ino, birth] = owner
                # What was copied up just now still shows the number from below (overlayfs.rst, "Inode properties").
                self._owners[os.fstat(file).st_ino, owners.born(b"", dir_fd=file)] = owner

    def _moving(self, notice: Notice, folder: int, pointer: int) -> None:
        """A new name for what can bear no mark: it will be copied up, and its owner must be noted anew."""
        with suppress(OSError):
            if self._owners:
                with self._noted(notice, folder, pointer, linux.AT_SYMLINK_NOFOLLOW) as noted:
                    found = os.fstat(noted[0]) if noted is not None else None
                    if noted is not None and found is not None and not _bears_marks(found):
                        os.chown(self._callers.itself(noted[0]), 0, 0, dir_fd=self._callers.proc)
                        self._note(noted[0], found, noted[1])
        self._listener.go_on(notice)

    # -- what a file says of itself ------------------------------------------------------------------------------------

    def _stat(self, notice: Notice) -> None:
        path, buffer = notice.arguments[:2]
        self._tell_state(notice, AT_FDCWD, path, buffer, flags=0)

    def _lstat(self, notice: Notice) -> None:
        path, buffer = notice.arguments[:2]
        self._tell_state(notice, AT_FDCWD, path, buffer, flags=linux.AT_SYMLINK_NOFOLLOW)

    def _fstatat(self, notice: Notice) -> None:
        folder, path, buffer, flags = notice.arguments[:4]
        self._tell_state(notice, folder, path, buffer, flags=flags)

    def _fstat(self, notice: Notice) -> None:
        file, buffer = notice.arguments[:2]
        self._tell_state(notice, file, 0, buffer, flags=_AT_EMPTY_PATH)

    def _tell_state(self, notice: Notice, folder: int, pointer: int, buffer: int, *, flags: int) -> None:
        """Tell the noted owner. What has none is left to the kernel, and so is every error."""
        with self._noted(notice, folder, pointer, flags) as noted:
            if noted is None:
                return self._listener.go_on(notice)
            file, owner = noted
            raw = linux.raw_stat64 if notice.name.endswith("64") else linux.raw_stat
            self._callers.write(notice, buffer, raw(file, owner))
        return self._listener.result(notice)

    def _statx(self, notice: Notice) -> None:
        folder, pointer, flags, mask, buffer, _ = notice.arguments
        with self._noted(notice, folder, pointer, flags) as noted:
            if noted is None:
                return self._listener.go_on(notice)
            file, owner = noted
            self._callers.write(notice, buffer, linux.raw_statx(file, mask & MASK, owner))
        return self._listener.result(notice)

    @contextmanager
    def _noted(
        self, notice: Notice, folder: int, pointer: int, flags: int
    ) -> Iterator[tuple[int, tuple[int, int]] | None]:
        """The file that a call means, and its noted owner; None without one."""
        with ExitStack() as stack:
            try:
                yield self._look_up(notice, folder, pointer, flags, stack)
            except OSError:
                yield None

    def _look_up(
        self, notice: Notice, folder: int, pointer: int, flags: int, stack: ExitStack
    ) -> tuple[int, tuple[int, int]] | None:
        path = self._callers.string(notice, pointer) if pointer else b""
        if path.startswith(OF_ITSELF):
            return None
        if path or not flags & _AT_EMPTY_PATH:
            place = stack.enter_context(self._callers.at(notice, folder, path))
            file = os.open(path, PATH | (os.O_NOFOLLOW if flags & linux.AT_SYMLINK_NOFOLLOW else 0), dir_fd=place)
            stack.callback(os.close, file)
        else:
            file = stack.enter_context(self._callers.file_of(notice, folder))
        owner = self._owner_of(file, os.fstat(file))
        return None if owner == (0, 0) else (file, owner)

    # -- what is made --------------------------------------------------------------------------------------------------

    def _mknod(self, notice: Notice, folder: int, pointer: int, mode: int, device: int) -> None:
        who = self._who(notice.thread)
        if stat.S_IFMT(mode) not in (stat.S_IFCHR, stat.S_IFBLK):
            return self._make(notice, folder, pointer, lambda name, place: os.mknod(name, mode, 0, dir_fd=place))
        if device == 0 and stat.S_ISCHR(mode):
            raise Refused  # overlay takes it for a whiteout, and refuses it
        with self._callers.making(notice, folder, pointer) as (place, name):
            with self._callers.acting(notice.thread) as capabilities, self._umask(notice):
                if not (who.privileged if self._one_id else capabilities & _MAY_MAKE_DEVICES):
                    raise Refused
                made = standin.make_device(name, mode, device & MASK, dir_fd=place)
            if not made:
                raise Refused
            if self._one_id:
                self._own_new(place, name, self._owner_at(place, name, who))
        return self._listener.result(notice)

    def _mkdir(self, notice: Notice, folder: int, pointer: int, mode: int) -> None:
        self._make(notice, folder, pointer, lambda name, place: os.mkdir(name, mode, dir_fd=place))

    def _symlink(self, notice: Notice, target: int, folder: int, pointer: int) -> None:
        leads_to = self._callers.string(notice, target)
        self._make(notice, folder, pointer, lambda name, place: os.symlink(leads_to, name, dir_fd=place))

    def _make(self, notice: Notice, folder: int, pointer: int, make: Callable[[bytes, int], None]) -> None:
        """Have ``make`` put something in its place, given the name and the folder of that; what is to be root's is
        left to the kernel."""
        who = self._who(notice.thread)
        with self._callers.making(notice, folder, pointer) as (place, name):
            owner = self._owner_at(place, name, who)
            if owner == (0, 0):
                return self._listener.go_on(notice)
            with self._umask(notice):
                make(name, place)
            self._own_new(place, name, owner)
        return self._listener.result(notice)

    @contextmanager
    def _umask(self, notice: Notice) -> Iterator[None]:
        """The caller's, for a while. It is the kernel's to apply: a folder's default list makes it void (acl(5))."""
        own = os.umask(self._callers.umask(notice.thread))
        try:
            yield
        finally:
            os.umask(own)

    def _creat(self, notice: Notice) -> None:
        pointer, mode = notice.arguments[:2]
        self._open(notice, AT_FDCWD, pointer, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)

    def _openat2(self, notice: Notice) -> None:
        folder, pointer, how, size, *_ = notice.arguments
        flags, mode, resolve = (
            struct.unpack("=3Q", self._callers.read(notice, how, _HOW)) if size >= _HOW else (0, 0, 0)
        )
        if not flags & (os.O_CREAT | notices.TMPFILE):
            return self._listener.go_on(notice)
        return self._open(notice, folder, pointer, flags, mode, resolve=resolve)

    def _open(self, notice: Notice, folder: int, pointer: int, flags: int, mode: int, *, resolve: int = 0) -> None:
        """A new file belongs to its maker. One that is there already is the kernel's to open."""
        who = self._who(notice.thread)
        nameless = bool(flags & notices.TMPFILE)
        with self._callers.making(notice, folder, pointer) as (place, path):
            owner = self._owner_at(place, path + b"/." if nameless else path, who)
            if owner == (0, 0):
                return self._listener.go_on(notice)
            if not nameless and _is_there(place, path, follow=not flags & os.O_EXCL, resolve=resolve):
                return self._listener.go_on(notice)
            try:
                with self._umask(notice):
                    if resolve:
                        made = linux.openat2(place, path, flags, mode & 0o7777, resolve=resolve)
                    else:
                        made = os.open(path, flags & MASK | os.O_CLOEXEC, mode & 0o7777, dir_fd=place)
            except OSError:
                return self._listener.go_on(
                    notice
                )  # the kernel knows what is wrong; or it is a file of the caller's own
            try:
                self._note(made, os.fstat(made), owner)
                self._listener.result_file(notice, made, close_on_exec=bool(flags & os.O_CLOEXEC))
            finally:
                os.close(made)
        return None

    def _own_new(self, place: int, name: bytes, owner: tuple[int, int]) -> None:
        if owner == (0, 0):
            return
        file = os.open(name.rstrip(b"/"), PATH | os.O_NOFOLLOW, dir_fd=place)
        try:
            self._note(file, os.fstat(file), owner)
        finally:
            os.close(file)

    def _owner_at(self, place: int, path: bytes, who: Credentials) -> tuple[int, int]:
        """Of something new at ``path``: a folder with the set-group-ID bit hands its group down (inode(7)), root's too.
        Where there is no such folder the maker's own; the kernel will say what is wrong."""
        group = who.group.fs
        try:
            folder = os.open(os.path.dirname(path.rstrip(b"/")) or b".", PATH, dir_fd=place)
        except OSError:
            return (who.user.fs, group)
        try:
            found = os.fstat(folder)
            if found.st_mode & stat.S_ISGID:
                group = self._owner_of(folder, found)[1]
        finally:
            os.close(folder)
        return (who.user.fs, group)


def _changed(who: Credentials, name: str, arguments: tuple[int, ...]) -> Ids:
    """The ids of a kind after the call ``name``."""
    first, second, third, *_ = (argument & MASK for argument in arguments)
    ids = who.group if "gid" in name else who.user
    if name.startswith("setres"):
        return ids.set_three(first, second, third, privileged=who.privileged)
    if name.startswith("setre"):
        return ids.set_two(first, second, privileged=who.privileged)
    if first == KEEP:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return ids.set(first, privileged=who.privileged)


def _with(who: Credentials, name: str, ids: Ids) -> Credentials:
    return replace(who, group=ids) if "gid" in name else replace(who, user=ids)


def _is_there(place: int, path: bytes, *, follow: bool, resolve: int) -> bool:
    try:
        os.close(linux.openat2(place, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW), resolve=resolve))
    except OSError:
        return False
    return True


def _or(number: int, otherwise: int) -> int:
    return otherwise if number == KEEP else number


def _bears_marks(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
