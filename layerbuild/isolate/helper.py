"""H, the helper: starts the commands, waits for them, takes their mounts down, reports.

It is pid 1 of a pid namespace, has one thread and the build's mount namespace. It never mounts: each command starts in
fresh namespaces (container.py) and mounts there. What it gets on its control socket, and what it answers, is drawn in
sandbox.py.
"""

from __future__ import annotations

import errno
import functools
import gc
import json
import os
import resource  # noqa: F401 -- os.wait4 would load it, when the helper can load nothing any more
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, FrozenImporter
from pathlib import Path
from typing import Final

from layerbuild.isolate import linux, notices, oci, rootfs, seccomp
from layerbuild.isolate.capabilities import kept
from layerbuild.isolate.container import Container, Entering, as_error, failure, init_folder, root_mount, start
from layerbuild.isolate.fork import BEGIN
from layerbuild.isolate.job import Exit, Job, Rootfs, WholeTree, decode, encode
from layerbuild.isolate.mounts import Overlay, Whole
from layerbuild.isolate.namespaces import Identity
from layerbuild.isolate.pretenders import Lent, Pretenders, Stage
from layerbuild.isolate.standard import Surroundings, surroundings

DESCRIPTORS: Final = 5  # that come with a job at most: connection, job, stdin, stdout, stderr
_MESSAGE: Final = 65536  # bytes; a failure's text is far shorter


def serve(control: socket.socket) -> None:
    """Start what comes on ``control`` until the build is gone. The first message says ``BEGIN``, and behind that which
    OCI runtime makes the containers; nothing: they are the helper's own."""
    begun = control.recv(_MESSAGE).decode()
    if not begun:
        return
    runtime = begun.removeprefix(BEGIN)
    # After pivot_root every path is the image's: a module loaded then would be the image's program with our rights.
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
    gc.disable()  # a collection would only write to pages that are shared with the build
    gc.freeze()
    _Helper(control, _own_keyring(), runtime).serve()


def _own_keyring() -> OSError | None:
    """Keys of the caller's session (keyrings(7)) are none of the commands' business. The error if that failed.

    One for all the commands: a keyring counts in its user's quota until the kernel comes to collect it, and steps may
    follow each other faster.
    """
    try:
        linux.join_session_keyring()
    except OSError as error:
        return None if error.errno == errno.ENOSYS else error
    return None


@dataclass(slots=True)
class _Running:
    """A job whose command is running. ``ended`` is its pidfd; ``report`` holds what the command said before execve;
    ``log``, a file in memory, what an OCI runtime says of itself.

    Of that, ``mounts`` holds its mount namespace, ``listener`` tells of system calls, and ``failed`` says why it could
    not be started. ``pretender`` is the process that answers these calls; there is none before the first has come.
    """

    job: Job
    pid: int
    ended: int
    connection: socket.socket
    report: socket.socket
    log: int | None = None
    mounts: int | None = None
    listener: int | None = None
    failed: bytes = b""
    pretender: Lent | None = None

    def hear(self) -> bool:
        """Take one message of ``report``; False after the last."""
        message, fds, _, _ = socket.recv_fds(self.report, _MESSAGE, 1)
        match message:
            case b"mounts":
                self.mounts = fds[0]
            case b"listener":
                self.listener = fds[0]
            case _ if message:
                self.failed = message
        return bool(message)


class _Helper:
    """``trouble`` is what keeps it from starting any job."""

    def __init__(self, control: socket.socket, trouble: OSError | None, runtime: str) -> None:
        self._control = control
        self._trouble = trouble
        self._runtime = runtime
        self._running: dict[int, _Running] = {}  # by pidfd and by connection
        self._pretenders = Pretenders()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                running = self._running.get(fd)
                if fd == self._control.fileno():
                    message, fds, _, _ = socket.recv_fds(self._control, 16, DESCRIPTORS)
                    if not message:
                        return
                    self._start(socket.socket(fileno=fds[0]), fds[1], tuple(fds[2:]))
                elif running and fd == running.ended:
                    self._finish(running)
                elif running and fd == running.listener:
                    self._pretend(running, fd)
                elif running and fd == running.report.fileno():
                    self._hear(running)
                elif running:
                    self._cancel(running)

    def _start(self, connection: socket.socket, plain: int, stdio: tuple[int, ...]) -> None:
        try:
            if self._trouble is not None:
                raise self._trouble
            running = _start_command(connection, plain, stdio, self._runtime)
        except Exception as error:  # whatever it is, the other jobs go on
            _answer(connection, {"failure": failure("start a container", error)})
            connection.close()
            return
        finally:
            # Else whoever reads the output would wait for this process too.
            for fd in stdio:
                os.close(fd)
        for fd in (running.ended, connection.fileno(), running.report.fileno()):
            self._watch(fd, running)

    def _watch(self, fd: int, running: _Running) -> None:
        self._running[fd] = running
        self._poll.register(fd, select.POLLIN)

    def _hear(self, running: _Running) -> None:
        known = running.listener
        if not running.hear():
            self._forget(running.report.fileno())
        elif running.listener is not None and known is None:
            self._watch(running.listener, running)

    def _pretend(self, running: _Running, listener: int) -> None:
        """A first call waits for its answer: have them all answered."""
        self._forget(listener)
        if running.mounts is not None:
            running.pretender = self._pretenders.lend(listener, running.mounts, _stage(running))
            os.close(listener)
            running.listener = None

    def _cancel(self, running: _Running) -> None:
        """The other end has closed the connection: nobody wants the job any more."""
        self._forget(running.connection.fileno())
        os.kill(running.pid, signal.SIGKILL)

    def _finish(self, running: _Running) -> None:
        """The command has ended, and with it, since it is pid 1 there, all in its pid namespace."""
        for fd in (running.ended, running.connection.fileno(), running.report.fileno(), running.listener):
            self._forget(fd)
        with running.connection:
            try:
                answer = self._outcome(running)
            except Exception as error:  # whatever it is, the other jobs go on
                answer = {"failure": failure("take the container down", error)}
            _answer(running.connection, answer)

    def _outcome(self, running: _Running) -> dict[str, object]:
        os.close(running.ended)
        _, status, usage = os.wait4(running.pid, 0)
        with running.report:
            while running.hear():
                pass
        if running.pretender is not None:
            self._pretenders.take_back(running.pretender)
        # The last hold on the job's mounts: the kernel unmounts before this call returns. Without it the command's own
        # exit would leave that to a worker, some time later (fs/namespace.c, mntput_no_expire), and the next job would
        # find an overlay that still has its folders in use.
        for fd in (running.mounts, running.listener):
            if fd is not None:
                os.close(fd)
        _take_down(running.job)
        if running.failed:
            return {"failure": json.loads(running.failed)}
        code = os.waitstatus_to_exitcode(status)
        if running.log is not None:
            with os.fdopen(running.log, "rb") as log:
                told = os.pread(log.fileno(), _MESSAGE, 0)
            error = oci.trouble(self._runtime, told) if code else None
            if error is not None:
                return {"failure": failure("", error)}
        ended = Exit(
            code=code if code >= 0 else 128 - code,
            signal=max(0, -code),
            cpu=usage.ru_utime + usage.ru_stime,
            max_rss=usage.ru_maxrss * 1024,
        )
        return {"exit": encode(ended)}

    def _forget(self, fd: int | None) -> None:
        if fd in self._running:
            del self._running[fd]
            self._poll.unregister(fd)


@functools.cache
def _filter() -> bytes | None:
    """The system call filter, compiled when the first command needs it; None without libseccomp. All capabilities that
    a command may have bring the same calls."""
    return seccomp.compile(seccomp.policy(kept("none"))) if seccomp.library() else None


@functools.cache
def _notices(*, one_id: bool) -> bytes | None:
    """The filter that tells of what is pretended; None on a machine whose calls have numbers not known here."""
    return notices.program(one_id=one_id) if notices.names() else None


def _stage(running: _Running) -> Stage:
    root, process = running.job.rootfs, running.job.process
    upper = (root.upper or root.tree) if isinstance(root, WholeTree) else root.upper
    noted = tuple(map(str, _diffs(root)))
    return Stage(upper, noted, running.pid, process.uid, process.gid, process.groups)


def _diffs(root: Rootfs | WholeTree) -> list[Path]:
    """The folders beside which owners are noted, bottom first."""
    if isinstance(root, WholeTree):
        return [*map(Path, root.noted), Path(root.tree)]
    return [*(Path(lower).resolve() for lower in reversed(root.lowers)), Path(root.upper)]


def _start_command(connection: socket.socket, plain: int, stdio: tuple[int, ...], runtime: str) -> _Running:
    with os.fdopen(plain, "rb") as file:
        job, identity = decode(json.load(file))
    program = _filter() if job.security == "sandbox" and not runtime else None
    told = _notices(one_id=identity.one_id) if identity.rootless and not runtime else None
    log = os.memfd_create("log") if runtime else None
    report, write_report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    entering: Entering
    if log is not None:
        entering = oci.Runtime(job, identity, stdio, program=runtime, log=log)
    else:
        around = surroundings(identity, network=job.network, security=job.security, shm_size=job.limits.shm_size)
        root = _root_with_points(job, identity, around)
        entering = Container(
            job,
            identity,
            stdio,
            connection,
            write_report,
            root=root,
            surroundings=around,
            filter=program,
            notices=told,
        )
    with write_report:
        try:
            pid = linux.fork_into(_RUNTIME_NAMESPACES if log is not None else _namespaces(job))
        except OSError:
            _take_down(job)
            raise
        if pid == 0:
            start(entering, write_report)
    return _Running(job, pid, os.pidfd_open(pid), connection, report, log)


def _root_with_points(job: Job, identity: Identity, around: Surroundings) -> Overlay | Whole:
    """What the container will mount as its root. Its mount points are made here, and not by the fork: half of what a
    fork needs for something is the pages that it writes to first."""
    root = root_mount(job, identity)
    try:
        return rootfs.with_points(root, (*around.mounts, *job.mounts), init=init_folder(job.rootfs.merged))
    except OSError as error:
        _take_down(job)
        raise as_error(failure(root, error)) from error


def _take_down(job: Job) -> None:
    rootfs.take_down(job.rootfs, init=init_folder(job.rootfs.merged))


def _namespaces(job: Job) -> int:
    network = linux.CLONE_NEWNET if job.network == "none" else 0
    return linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | network


# A runtime makes those of the container; in these it ends with all that it started, and its mounts with it.
_RUNTIME_NAMESPACES: Final = linux.CLONE_NEWNS | linux.CLONE_NEWPID


def _answer(connection: socket.socket, answer: dict[str, object]) -> None:
    with suppress(OSError):  # nobody may be waiting any more
        connection.send(json.dumps(answer).encode(), socket.MSG_NOSIGNAL)
