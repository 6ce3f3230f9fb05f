"""H, the helper: starts the commands, waits for them, takes their mounts down, reports.

It is pid 1 of a pid namespace, has one thread and the build's mount namespace. It never mounts: each command starts in
fresh namespaces (container.py) and mounts there; the process for the next one stands ready when a job has ended
(spares.py). What it gets on its control socket, and what it answers, is drawn in sandbox.py.
"""

from __future__ import annotations

import errno
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

from layerbuild.errors import LayerbuildError
from layerbuild.isolate import linux, oci, rootfs
from layerbuild.isolate.container import as_error, failure, init_folder, root_mount, start
from layerbuild.isolate.job import Begin, Exit, Job, Kind, Rootfs, WholeTree, decode, encode
from layerbuild.isolate.pretenders import Lent, Pretenders, Stage
from layerbuild.isolate.spares import DESCRIPTORS, Spares
from layerbuild.isolate.standard import surroundings

_MESSAGE: Final = 65536  # bytes; a failure's text is far shorter


def serve(control: socket.socket) -> None:
    """Start what comes on ``control`` until the build is gone. The first message is a ``Begin``."""
    told = control.recv(_MESSAGE)
    if not told:
        return
    begin: Begin = decode(json.loads(told))
    # After pivot_root every path is the image's: a module loaded then would be the image's program with our rights.
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
    gc.disable()  # a collection would only write to pages that are shared with the build
    gc.freeze()
    _Helper(control, _own_keyring(), begin.runtime).serve(begin.likely)


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
    kind: Kind
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
        try:
            message, fds, _, _ = socket.recv_fds(self.report, _MESSAGE, 1)
        except ConnectionError:  # it was killed before it had taken its job
            return False
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
        self._spares = Spares()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self, likely: Kind) -> None:
        if not self._poll.poll(0):
            self._prepare(likely)  # the build has still to find out how layers are mounted here
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
            running = self._start_command(connection, plain, stdio)
        except Exception as error:  # whatever it is, the other jobs go on
            _answer(connection, {"failure": failure("start a container", error)})
            connection.close()
            return
        finally:
            # Else whoever reads the output would wait for this process too.
            for fd in (plain, *stdio):
                os.close(fd)
        for fd in (running.ended, connection.fileno(), running.report.fileno()):
            self._watch(fd, running)

    def _start_command(self, connection: socket.socket, plain: int, stdio: tuple[int, ...]) -> _Running:
        with open(plain, "rb", closefd=False) as file:
            job, identity = decode(json.load(file))
        kind = Kind.of(job, identity)
        log = os.memfd_create("log") if self._runtime else None
        try:
            if log is not None:
                pid, report = _fork_runtime(oci.Runtime(job, identity, stdio, program=self._runtime, log=log))
            else:
                has_init = _make_points(job, kind)
                pid, report = self._spares.start(kind, connection, plain, stdio, has_init=has_init)
        except (OSError, LayerbuildError):
            _take_down(job)
            raise
        return _Running(job, kind, pid, os.pidfd_open(pid), connection, report, log)

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
        if running.job.followed and "exit" in answer:
            self._prepare(running.kind)

    def _prepare(self, kind: Kind) -> None:
        if not self._runtime:
            self._spares.prepare(kind)

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


def _make_points(job: Job, kind: Kind) -> bool:
    """Make the container's mount points, here and not in the fork: half of what a fork needs for something is the pages
    that it writes to first. Whether there is an init folder then."""
    around = surroundings(kind)
    mounts = (*around.mounts, *around.groups, *job.mounts)
    try:
        return rootfs.make_points(job.rootfs, mounts, init=init_folder(job.rootfs.merged))
    except OSError as error:
        raise as_error(failure(root_mount(job, kind.identity), error)) from error


def _fork_runtime(runtime: oci.Runtime) -> tuple[int, socket.socket]:
    """Its pid, and where it reports. The runtime makes the container's namespaces; in this one it ends with all that it
    started."""
    report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        pid = linux.fork_into(linux.CLONE_NEWPID)
        if pid == 0:
            start(runtime, theirs)
    return pid, report


def _take_down(job: Job) -> None:
    rootfs.take_down(job.rootfs, init=init_folder(job.rootfs.merged))


def _answer(connection: socket.socket, answer: dict[str, object]) -> None:
    with suppress(OSError):  # nobody may be waiting any more
        connection.send(json.dumps(answer).encode(), socket.MSG_NOSIGNAL)
