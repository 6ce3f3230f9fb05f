"""The process that becomes the next command, forked by the helper ahead of its job: the build does other work then.

::

    helper                       spare: in pid, ipc and uts namespaces of its own, and a net one if jobs have no network
    prepare(kind) ── fork ──────▶│ closes what is open; mounts what is around the files of a container of that kind
    start(kind, …) ─ report: ───▶│
       job and descriptors       │ becomes the container of this one job, and tells of itself (container.py)

A job for which none is ready has its process forked at once, and handed to it in the same way.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
from contextlib import suppress
from typing import Final, NoReturn

from layerbuild.errors import LayerbuildError
from layerbuild.frozen import frozen
from layerbuild.isolate import linux, notices, seccomp
from layerbuild.isolate.capabilities import kept
from layerbuild.isolate.container import Container, as_error, failure, give_up, root_mount, start
from layerbuild.isolate.job import Kind, decode
from layerbuild.isolate.standard import stage, surroundings

DESCRIPTORS: Final = 5  # that come with a job at most: connection, job, stdin, stdout, stderr
_STAGE: Final = "/proc"  # a folder that every machine has; in a mount namespace that goes again
_WITH_INIT: Final = b"job, with an init folder"


@frozen
class _Spare:
    kind: Kind
    pid: int
    report: socket.socket

    def hand(self, connection: socket.socket, plain: int, stdio: tuple[int, ...], *, has_init: bool) -> None:
        """Have it become the job's command. ConnectionError if it was killed."""
        fds = [connection.fileno(), plain, *stdio]
        socket.send_fds(self.report, [_WITH_INIT if has_init else b"job"], fds, socket.MSG_NOSIGNAL)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.report.close()


class Spares:
    """One at most. Only for a process with a single thread."""

    def __init__(self) -> None:
        self._spare: _Spare | None = None

    def prepare(self, kind: Kind) -> None:
        """Have one stand ready for a job of ``kind``."""
        if self._spare is not None:
            if self._spare.kind == kind:
                return
            self._spare.end()
            self._spare = None
        with suppress(Exception):  # whatever it is, it is told when a job has need of one
            self._spare = _fork(kind)

    def start(
        self, kind: Kind, connection: socket.socket, plain: int, stdio: tuple[int, ...], *, has_init: bool
    ) -> tuple[int, socket.socket]:
        """Start the job in the file ``plain``: its pid, and where it reports. OSError if that is refused."""
        if self._spare is not None and self._spare.kind == kind:
            spare, self._spare = self._spare, None
            with suppress(ConnectionError):
                spare.hand(connection, plain, stdio, has_init=has_init)
                return spare.pid, spare.report
            spare.end()  # it was killed, for want of memory say
        forked = _fork(kind)
        try:
            forked.hand(connection, plain, stdio, has_init=has_init)
        except OSError:
            forked.end()
            raise
        return forked.pid, forked.report


def _fork(kind: Kind) -> _Spare:
    # Made here, and not by the fork: half of what a fork needs for something is the pages that it writes to first.
    surroundings(kind)
    program = _filter() if kind.security == "sandbox" else None
    told = _notices(one_id=kind.identity.one_id) if kind.identity.rootless else None
    network = linux.CLONE_NEWNET if kind.network == "none" else 0
    report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        pid = linux.fork_into(linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | network)
        if pid == 0:
            _stand_by(kind, theirs, filter=program, notices=told)
    return _Spare(kind, pid, report)


@functools.cache
def _filter() -> bytes | None:
    """The system call filter, compiled before the first command; None without libseccomp. All capabilities that a
    command may have bring the same calls."""
    return seccomp.compile(seccomp.policy(kept("none"))) if seccomp.library() else None


@functools.cache
def _notices(*, one_id: bool) -> bytes | None:
    """The filter that tells of what is pretended; None on a machine whose calls have numbers not known here."""
    return notices.program(one_id=one_id) if notices.names() else None


# -- the process itself ------------------------------------------------------------------------------------------------


def _stand_by(kind: Kind, report: socket.socket, *, filter: bytes | None, notices: bytes | None) -> NoReturn:
    """Prepare, wait for a job, become its command. No descriptor of another job, or of the helper, stays open."""
    try:
        linux.close_all_but(report.fileno())
        staged = _staged(kind)
        message, fds, _, _ = socket.recv_fds(report, 64, DESCRIPTORS)
        connection, plain, *stdio = fds
        with open(plain, "rb") as file:
            file.seek(0)  # the helper has read it
            job, identity = decode(json.load(file))
        container = Container(
            job,
            identity,
            tuple(stdio),
            socket.socket(fileno=connection),
            report,
            root=root_mount(job, identity, has_init=message == _WITH_INIT),
            surroundings=surroundings(kind),
            staged=staged,
            filter=filter,
            notices=notices,
        )
    except BaseException as error:  # whatever it is: this process must not go on as a second helper
        give_up(report, "take a job", error)
    start(container, report)


def _staged(kind: Kind) -> int | LayerbuildError:
    """A descriptor of a tree, mounted nowhere, of what is around the files of a container of ``kind``; or why there is
    none: for the job to tell.

    It is made in a mount namespace of its own, which ends here: to wait in that would keep mounted what the build has
    mounted just now, and not show what it mounts later.
    """
    doing: object = "start the container"
    try:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        linux.unshare(linux.CLONE_NEWNS)
        try:
            for mount in stage(surroundings(kind), _STAGE, rootless=kind.identity.rootless):
                doing = mount
            return linux.open_tree(_STAGE)
        except OSError as error:
            error.filename = str(error.filename or "").removeprefix(_STAGE)  # as the container would see it
            raise
        finally:
            linux.setns(home, linux.CLONE_NEWNS)
            # Else the root would be the namespace's, and that of a build in a chroot is another.
            os.fchdir(root)
            os.chroot(".")
            os.close(home)
            os.close(root)
    except Exception as error:
        return as_error(failure(doing, error))
