"""The build's side of the sandbox: starts the helper, hands it jobs, passes their output on.

The build may have threads, and a process with threads must not fork and go on in Python. So the helper is forked first,
while there are none, and starts all commands from plain data.

::

    build                                               helper ─ fork ─▶ command
    run(job) ── control: b"job" and descriptors ────────▶│                 │
       │        (connection, job, stdin, stdout, stderr) │                 │
       │◀─────── output: whatever the command writes ──────────────────────│
       │◀─────── connection: its terminal, if it has one ──────────────────│
       │◀─────── connection: {"exit": …} or {"failure": …} ─│◀─ ended ─────┘

Every job has its own connection and pipe, so several threads may run jobs at once. Closing the connection kills the
job; the helper's end kills them all, and the helper ends with the build, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from layerbuild.errors import BuildError, MachineError
from layerbuild.isolate import cgroups, linux
from layerbuild.isolate.cgroups import Group, Groups
from layerbuild.isolate.container import as_error
from layerbuild.isolate.helper import serve
from layerbuild.isolate.job import NO_LIMITS, Exit, Job, Limits, Network, Process, Rootfs, Security, decode, encode
from layerbuild.isolate.namespaces import Identity

__all__ = ["Exit", "Job", "Limits", "Network", "Process", "Rootfs", "Sandbox", "Security"]

_CHUNK: Final = 65536
_KILLED: Final = 128 + signal.SIGKILL

Output = Callable[[bytes], None]


class Sandbox:
    """Runs jobs, each within ``limits``, through a helper. A context manager: leaving it ends what still runs."""

    def __init__(
        self, identity: Identity, helper: int, control: socket.socket, *, limits: Limits, groups: Groups | None
    ) -> None:
        self._identity = identity
        self._limits = limits
        self._groups = groups
        self._helper = helper
        self._control = control
        self._reaping = threading.Lock()
        self._reaped = False

    @classmethod
    def start(cls, identity: Identity, limits: Limits = NO_LIMITS, *, runtime: str = "") -> Self:
        """Fork the helper, as pid 1 of a pid namespace. Call it from the main thread, before there is another one. Its
        containers are its own, or those of the OCI ``runtime``.

        The kernel ends the helper with the thread that started it (PR_SET_PDEATHSIG(2const)). MachineError if the
        limits can't be had.
        """
        if threading.active_count() > 1:
            raise RuntimeError("the sandbox must be started before a thread is")
        groups = Groups(limits) if limits.need_cgroup else None
        if runtime:
            cgroups.remove_stale()  # it makes groups whether there are limits or not
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = linux.fork_into(linux.CLONE_NEWPID)
        except OSError as error:
            raise MachineError(
                f"a pid namespace was refused: {error.strerror}",
                hint="see user.max_pid_namespaces (sysctl); in a container, grant CAP_SYS_ADMIN",
            ) from error
        if pid == 0:
            serve(theirs, runtime=runtime)
        theirs.close()
        return cls(identity, pid, ours, limits=limits, groups=groups)

    def run(self, job: Job, on_output: Output) -> Exit:
        """Run ``job`` to its end. What it writes goes, in order, to ``on_output`` as it comes; its input is empty.

        An exit code other than 0 is no error here. If the command can't even be started: StepFailed with code 126 or
        127 where it is the image's fault, BuildError, SpaceError or MachineError where setting up failed.
        """
        null = os.open(os.devnull, os.O_RDONLY)
        output, write_output = os.pipe()
        with os.fdopen(output, "rb", buffering=0) as reader, self._limited(job) as (limited, group):
            try:
                connection = self._send(limited, (null, write_output, write_output))
            finally:
                os.close(null)
                os.close(write_output)
            with _ending(connection):
                deadline = _Deadline(self._limits.timeout, connection)
                message = _collect(connection, reader.fileno(), on_output, deadline)
                return _outcome(message, group, deadline)

    def attach(self, job: Job, *, stdin: int = 0, stdout: int = 1, stderr: int = 2, terminal: bool = False) -> Exit:
        """Run ``job`` with these descriptors as its own; with ``terminal`` on a terminal of its own, relayed to them.

        For ``terminal``, ``stdin`` is the person's terminal: it is in raw mode until the job ends, and its size is
        passed on, also when it changes if this is the main thread. Errors as for ``run``.
        """
        descriptors = () if terminal else (stdin, stdout, stderr)
        with (
            self._limited(replace(job, terminal=terminal)) as (limited, group),
            _ending(self._send(limited, descriptors)) as connection,
        ):
            deadline = _Deadline(self._limits.timeout, connection)
            if not terminal:
                return _outcome(_last_message(connection, deadline), group, deadline)
            message, fds, _, _ = socket.recv_fds(connection, _CHUNK, 1)
            if not fds:
                return _outcome(message, group, deadline)
            with os.fdopen(fds[0], "r+b", buffering=0) as master, _raw(stdin), _sized(stdin, master.fileno()):
                return _outcome(_relay(connection, master.fileno(), stdin, stdout, deadline), group, deadline)

    def kill(self) -> None:
        """End all jobs at once. May be called from any thread; ``run`` then raises BuildError."""
        with self._reaping:
            if not self._reaped:
                os.kill(self._helper, signal.SIGKILL)

    def close(self) -> None:
        """End the helper, and with it what still runs."""
        self.kill()
        self._control.close()
        with self._reaping:
            if not self._reaped:
                os.waitpid(self._helper, 0)
                self._reaped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _limited(self, job: Job) -> Iterator[tuple[Job, Group | None]]:
        """``job`` with its name and the build's limits, and the control group that has them, if one is needed."""
        job = replace(job, limits=self._limits, name=cgroups.job_name())
        if self._groups is None:
            yield job, None
            return
        with self._groups.group(job.name) as group:
            yield replace(job, cgroup=group.paths), group

    def _send(self, job: Job, stdio: tuple[int, ...]) -> socket.socket:
        """Hand ``job`` to the helper; the connection on which the answer will come."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plain = os.memfd_create("job")  # a job has no size limit, as a message would have
        try:
            with os.fdopen(plain, "wb", closefd=False) as file:
                file.write(json.dumps(encode((job, self._identity))).encode())
            os.lseek(plain, 0, os.SEEK_SET)
            socket.send_fds(self._control, [b"job"], [theirs.fileno(), plain, *stdio])
        except OSError as error:
            ours.close()
            raise _stopped() from error
        finally:
            theirs.close()
            os.close(plain)
        return ours


# -- the build's side of a job -----------------------------------------------------------------------------------------


@contextmanager
def _ending(connection: socket.socket) -> Iterator[socket.socket]:
    """Leaves no job behind: on an exception it is killed, and its mounts are gone before that goes on."""
    with connection:
        try:
            yield connection
        except BaseException:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(_CHUNK):
                    pass
            raise


class _Deadline:
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


def _outcome(message: bytes, group: Group | None, deadline: _Deadline) -> Exit:
    if not message:
        raise _stopped()
    answer = json.loads(message)
    if "failure" in answer:
        raise as_error(answer["failure"])
    ended = decode(answer["exit"])
    assert isinstance(ended, Exit)
    hit = group.hit(killed=ended.code == _KILLED) if group else ()
    return replace(ended, hit=(*hit, "timeout") if deadline.passed else hit)


def _stopped() -> BuildError:
    return BuildError("the sandbox was stopped before the command ended")


def _last_message(connection: socket.socket, deadline: _Deadline) -> bytes:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    deadline.wait(poll)
    return connection.recv(_CHUNK)


def _collect(connection: socket.socket, output: int, on_output: Output, deadline: _Deadline) -> bytes:
    """Pass the output on until the job has ended; its last message."""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(connection, select.POLLIN)
    while True:
        ready = deadline.wait(poll)
        if output in ready:
            data = os.read(output, _CHUNK)
            if data:
                on_output(data)
            else:
                poll.unregister(output)
        elif connection.fileno() in ready:
            message = connection.recv(_CHUNK)
            _drain(output, on_output)
            return message


def _drain(output: int, on_output: Output) -> None:
    """What is still in the pipe: its end need not come, should a process elsewhere hold it."""
    os.set_blocking(output, False)
    with suppress(BlockingIOError):
        while data := os.read(output, _CHUNK):
            on_output(data)


def _relay(connection: socket.socket, master: int, stdin: int, stdout: int, deadline: _Deadline) -> bytes:
    """Between the person's terminal and the job's, until the job has ended; its last message."""
    poll = select.poll()
    for fd in (master, stdin, connection.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        ready = deadline.wait(poll)
        if master in ready and not _copy(master, stdout):
            poll.unregister(master)
        elif stdin in ready and not _copy(stdin, master):
            poll.unregister(stdin)
        elif connection.fileno() in ready and master not in ready:
            return connection.recv(_CHUNK)


def _copy(source: int, target: int) -> bool:
    """One chunk; False at the end. A terminal's master gives EIO when its last user has closed it (pty(7))."""
    try:
        data = os.read(source, _CHUNK)
    except OSError:
        return False
    while data:
        data = data[os.write(target, data) :]
        if not data:
            return True
    return False


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
        with suppress(OSError):
            size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)

    adapt()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, adapt)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
