"""Who makes a call that is answered in its place: what it means by numbers, as its own eyes see them.

A caller is known by a thread's number. What is in its memory, which files it has open, where its root is: /proc tells.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from layerbuild.isolate import linux
from layerbuild.isolate.notices import Listener, Notice

MASK: Final = 0xFFFFFFFF  # of an argument that is an int
AT_FDCWD: Final = -100
PATH: Final = os.O_PATH | os.O_CLOEXEC
OF_ITSELF: Final = (b"/proc/self/", b"/proc/thread-self/", b"/dev/fd/", b"/dev/std")  # leads to the caller's own files
_PATH_MAX: Final = 4096


class Gone(Exception):
    """The caller has been killed meanwhile."""


class Callers:
    """Those whose calls ``listener`` tells of. ``proc`` shows them, and this process."""

    def __init__(self, listener: Listener, proc: int) -> None:
        self._listener = listener
        self.proc = proc
        self._pid = os.getpid()
        self._root = os.open("/", PATH)
        self._own_root = os.stat("/")

    # -- its state -----------------------------------------------------------------------------------------------------

    def started(self, thread: int) -> str:
        """When it was started: numbers of threads are used again. Gone, like all that asks for its state."""
        return self._text(thread, "stat").rpartition(")")[2].split()[19]  # field 22: proc_pid_stat(5)

    def status(self, thread: int) -> dict[str, str]:
        """The lines of proc_pid_status(5)."""
        lines = (line.partition(":") for line in self._text(thread, "status").splitlines())
        return {key: value.strip() for key, _, value in lines}

    def umask(self, thread: int) -> int:
        """What it takes from the modes of new files: umask(2)."""
        return int(self.status(thread)["Umask"], 8)

    @contextmanager
    def acting(self, thread: int) -> Iterator[int]:
        """Have its rights to files, as the kernel knows them, and no others, for a while; its effective capabilities as
        a mask."""
        status = self.status(thread)
        uid, gid = (int(status[kind].split()[3]) for kind in ("Uid", "Gid"))
        groups, effective = [int(word) for word in status["Groups"].split()], int(status["CapEff"], 16)
        own_groups, own = os.getgroups(), linux.capget()[0]
        try:
            if groups != own_groups:
                os.setgroups(groups)
            linux.set_fs_ids(uid, gid)
            linux.set_effective(effective)
            yield effective
        finally:
            linux.set_effective(own)
            linux.set_fs_ids(0, 0)
            if groups != own_groups:
                os.setgroups(own_groups)

    def _text(self, thread: int, name: str) -> str:
        try:
            with self.opened(f"{thread}/{name}") as file:
                return os.read(file, 65536).decode("ascii", "replace")
        except OSError as error:
            raise Gone from error

    # -- its files -----------------------------------------------------------------------------------------------------

    @contextmanager
    def making(self, notice: Notice, folder: int, pointer: int) -> Iterator[tuple[int, bytes]]:
        """A folder and a path from it, of something that is to be made."""
        path = self.string(notice, pointer)
        with self.at(notice, folder, path) as place:
            if not self._listener.is_valid(notice):
                raise Gone
            yield place, path

    @contextmanager
    def at(self, notice: Notice, folder: int, path: bytes) -> Iterator[int]:
        """The caller's folder ``folder``, from which ``path`` goes, with its root as this process's."""
        number = AT_FDCWD & MASK if path.startswith(b"/") else folder & MASK  # whatever it is then: path_resolution(7)
        name = "cwd" if number == AT_FDCWD & MASK else f"fd/{number}"
        with ExitStack() as stack:
            try:
                root = stack.enter_context(self.opened(f"{notice.thread}/root", PATH))
                place = stack.enter_context(self.opened(f"{notice.thread}/{name}", PATH))
            except FileNotFoundError as error:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error
            found = os.fstat(root)
            if (found.st_dev, found.st_ino) != (self._own_root.st_dev, self._own_root.st_ino):
                stack.callback(_change_root, self._root)
                _change_root(root)
            yield place

    @contextmanager
    def file_of(self, notice: Notice, number: int) -> Iterator[int]:
        """The caller's descriptor ``number``, as one of this process (O_PATH)."""
        try:
            file = os.open(f"{notice.thread}/fd/{number & MASK}", PATH, dir_fd=self.proc)
        except OSError as error:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def opened(self, name: str, flags: int = os.O_RDONLY | os.O_CLOEXEC) -> Iterator[int]:
        """Something in proc."""
        file = os.open(name, flags, dir_fd=self.proc)
        try:
            yield file
        finally:
            os.close(file)

    def itself(self, file: int) -> str:
        """A name in proc for an open file of this process, to be used where a descriptor won't do."""
        return f"{self._pid}/fd/{file}"

    # -- its memory ----------------------------------------------------------------------------------------------------

    def string(self, notice: Notice, pointer: int) -> bytes:
        """The text at an address of the caller's."""
        text = b""
        while len(text) <= _PATH_MAX:
            # Not over the end of a page: the next may not be there.
            piece = self.read(notice, pointer + len(text), 4096 - (pointer + len(text)) % 4096)
            text += piece
            if b"\0" in piece:
                return text.partition(b"\0")[0]
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def read(self, notice: Notice, pointer: int, size: int) -> bytes:
        """``size`` bytes at an address; EFAULT."""
        with self._memory(notice, os.O_RDONLY) as memory:
            return os.pread(memory, size, pointer)

    def write(self, notice: Notice, pointer: int, data: bytes) -> None:
        """Put ``data`` at an address; EFAULT."""
        with self._memory(notice, os.O_RDWR) as memory:
            if not self._listener.is_valid(notice):
                raise Gone
            os.pwrite(memory, data, pointer)

    @contextmanager
    def _memory(self, notice: Notice, flags: int) -> Iterator[int]:
        try:
            with self.opened(f"{notice.thread}/mem", flags | os.O_CLOEXEC) as memory:
                yield memory
        except FileNotFoundError as error:
            raise Gone from error
        except OSError as error:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from error


def _change_root(root: int) -> None:
    os.fchdir(root)
    os.chroot(".")
