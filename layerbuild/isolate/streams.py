"""Standard input and output of a container that somebody looks at: relayed, it has pipes or a terminal of its own.

Through /proc/self/fd a command could open what it is handed once more, with all its rights: a file of the machine for
writing, the caller's terminal for reading what is typed there. Pipes lead nowhere else, and are handed over.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

CHUNK: Final = 65536


class Deadline:
    """Cancels the job of ``connection`` when ``seconds`` (0: never) are over."""

    def __init__(self, seconds: float, connection: socket.socket) -> None:
        self._end = time.monotonic() + seconds if seconds else None
        self._connection = connection
        self.passed = False

    def wait(self, poll: select.poll) -> list[int]:
        """The descriptors that are ready. A job that is cancelled still has its last message to send."""
        while True:
            left = None if self._end is None or self.passed else max(0.0, self._end - time.monotonic()) * 1000
            ready = [fd for fd, _ in poll.poll(left)]
            if ready or left is None:
                return ready
            self.passed = True
            self._connection.shutdown(socket.SHUT_WR)


# -- pipes -------------------------------------------------------------------------------------------------------------


class Pipes:
    """What a command gets as its first three descriptors, ``theirs``, in place of the caller's. A context manager."""

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self._closing = ExitStack()
        self._outputs: dict[int, int] = {}  # by our end of the pipe: the caller's descriptor
        self._stdin, self._input = stdin, -1
        self._handed: list[int] = []
        first = self._to_caller(stdout)
        # Two names for one file share a pipe: what comes first is written first.
        second = first if os.path.sameopenfile(stdout, stderr) else self._to_caller(stderr)
        self.theirs = (self._from_caller(stdin), first, second)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.handed_over()
        self._closing.close()

    def handed_over(self) -> None:
        """Close our copies of the command's ends, whose end we could else not see."""
        while self._handed:
            os.close(self._handed.pop())

    def relay(self, connection: socket.socket, deadline: Deadline) -> bytes:
        """Pass on what comes, both ways, until the job of ``connection`` has ended; its last message."""
        poll = select.poll()
        for fd in (*self._outputs, connection.fileno(), *((self._stdin,) if self._input >= 0 else ())):
            poll.register(fd, select.POLLIN)
        pending = b""
        while True:
            ready = deadline.wait(poll)
            for fd in (fd for fd in ready if fd in self._outputs):
                if not copy(fd, self._outputs[fd]):
                    poll.unregister(fd)
            if self._input in ready:
                pending = self._send(poll, pending)
            elif self._stdin in ready and self._input >= 0:
                pending = self._receive(poll)
            elif connection.fileno() in ready and not set(ready) & self._outputs.keys():
                message = connection.recv(CHUNK)
                for fd, target in self._outputs.items():
                    _drain(fd, target)
                return message

    def _receive(self, poll: select.poll) -> bytes:
        """A piece of the caller's input, to be sent when there is room for it; at its end so is the command's."""
        poll.unregister(self._stdin)
        data = os.read(self._stdin, CHUNK)
        if data:
            poll.register(self._input, select.POLLOUT)
        else:
            self._close_input()
        return data

    def _send(self, poll: select.poll, pending: bytes) -> bytes:
        """What is left of ``pending`` after as much as the pipe takes."""
        try:
            pending = pending[os.write(self._input, pending) :]
        except BrokenPipeError:  # the command has closed its input
            poll.unregister(self._input)
            self._close_input()
            return b""
        if not pending:
            poll.unregister(self._input)
            poll.register(self._stdin, select.POLLIN)
        return pending

    def _close_input(self) -> None:
        os.close(self._input)
        self._input = -1

    def _from_caller(self, fd: int) -> int:
        if _leads_nowhere(fd):
            return fd
        theirs, ours = os.pipe()
        os.set_blocking(ours, False)
        self._input = ours
        self._closing.callback(lambda: self._close_input() if self._input >= 0 else None)
        self._handed.append(theirs)
        return theirs

    def _to_caller(self, fd: int) -> int:
        if _leads_nowhere(fd):
            return fd
        ours, theirs = os.pipe()
        self._outputs[ours] = fd
        self._closing.callback(os.close, ours)
        self._handed.append(theirs)
        return theirs


def _leads_nowhere(fd: int) -> bool:
    """A pipe; or /dev/null, in whose place the container puts its own."""
    found = os.fstat(fd)
    return stat.S_ISFIFO(found.st_mode) or (stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3))


def copy(source: int, target: int) -> bool:
    """One chunk; False at the end. A terminal's master gives EIO when its last user has closed it (pty(7))."""
    try:
        data = os.read(source, CHUNK)
    except OSError:
        return False
    while data:
        data = data[os.write(target, data) :]
        if not data:
            return True
    return False


def _drain(source: int, target: int) -> None:
    """What is still in the pipe: its end need not come, should a process elsewhere hold it."""
    os.set_blocking(source, False)
    with suppress(BlockingIOError):
        while data := os.read(source, CHUNK):
            while data:
                data = data[os.write(target, data) :]


# -- a terminal --------------------------------------------------------------------------------------------------------


def size(terminal: int) -> tuple[int, int]:
    """Its rows and columns; 0 and 0 of what is no terminal."""
    try:
        return termios.tcgetwinsize(terminal)
    except termios.error:
        return 0, 0


def relay_terminal(connection: socket.socket, master: int, stdin: int, stdout: int, deadline: Deadline) -> bytes:
    """Between the person's terminal and the job's, until the job has ended; its last message."""
    poll = select.poll()
    for fd in (master, stdin, connection.fileno()):
        poll.register(fd, select.POLLIN)
    with _raw(stdin), _sized(stdin, master):
        while True:
            ready = deadline.wait(poll)
            if master in ready and not copy(master, stdout):
                poll.unregister(master)
            elif stdin in ready and not copy(stdin, master):
                poll.unregister(stdin)
            elif connection.fileno() in ready and master not in ready:
                return connection.recv(CHUNK)


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Keys go through unchanged, Ctrl-C included: they are for the job's terminal to understand."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal, termios.TCSADRAIN)  # what was typed ahead is kept
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _sized(terminal: int, master: int) -> Iterator[None]:
    """The job's terminal is as large as the person's."""

    def adapt(*_: object) -> None:
        with suppress(termios.error):
            termios.tcsetwinsize(master, size(terminal))

    adapt()  # it may be another one since the job was sent
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, adapt)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
