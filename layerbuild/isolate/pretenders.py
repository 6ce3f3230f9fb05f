"""The pretenders of a build, as the helper has them: one is lent to each job that needs one, and kept for the next.

To fork one takes longer than most commands do with it; so there are as many as jobs have needed one at the same time.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, NoReturn

from layerbuild.frozen import frozen
from layerbuild.isolate import ids, linux
from layerbuild.isolate.credentials import Credentials, Ids
from layerbuild.isolate.notices import Listener
from layerbuild.isolate.pretender import Pretender
from layerbuild.layer.owners import Owners

_PATIENCE: Final = 200  # milliseconds for it to let go of a job; one that is caught in a call of that job's never will


@frozen
class Stage:
    """Where a pretender works, as plain values. ``upper``: the folder that holds what the job writes; ``noted``: the
    folders beside which owners are noted that no file can bear, bottom first. ``first`` is the command's process, and
    ``uid``, ``gid`` and ``groups`` say who it is."""

    upper: str
    noted: tuple[str, ...]
    first: int
    uid: int
    gid: int
    groups: tuple[int, ...]


@frozen
class Lent:
    """A pretender's process, and the socket on which it hears of jobs."""

    pid: int
    control: socket.socket


class Pretenders:
    """Only for a process with a single thread."""

    def __init__(self) -> None:
        self._idle: list[Lent] = []

    def lend(self, listener: int, mounts: int, stage: Stage) -> Lent:
        """One that answers what ``listener`` tells of, in the mount namespace ``mounts``; both stay the caller's."""
        described = os.memfd_create("stage")  # a stage has no size limit, as a message would have
        with os.fdopen(described, "wb") as file:
            file.write(json.dumps(asdict(stage)).encode())
            file.flush()
            file.seek(0)
            while True:
                lent = self._idle.pop() if self._idle else _fork()
                try:
                    socket.send_fds(lent.control, [b"job"], [listener, mounts, described])
                    return lent
                except OSError:  # it was killed, for want of memory say
                    _end(lent)

    def take_back(self, lent: Lent) -> None:
        """Its job has ended: have it let go of that job's tree."""
        poll = select.poll()
        poll.register(lent.control, select.POLLIN)
        with suppress(OSError):
            lent.control.send(b"end")
            if poll.poll(_PATIENCE) and lent.control.recv(16):
                self._idle.append(lent)
                return
        _end(lent)


def _fork() -> Lent:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = linux.fork_into(0)
    if pid == 0:
        stand_by(theirs)
    theirs.close()
    return Lent(pid, ours)


def _end(lent: Lent) -> None:
    with suppress(ProcessLookupError):
        os.kill(lent.pid, signal.SIGKILL)
    os.waitpid(lent.pid, 0)
    lent.control.close()


# -- the process itself ------------------------------------------------------------------------------------------------


def stand_by(control: socket.socket) -> NoReturn:
    """Answer for one job after the other, as they come on ``control``, until its other end is closed. Of this process's
    descriptors no other stays open.

    A job comes with three: its listener, its mount namespace, and a file with its Stage. Any message ends it; it is
    answered when nothing of the job is held any more.
    """
    try:
        linux.close_all_but(control.fileno())
        one_id = [mapping.count for mapping in ids.current("uid")] == [1]
        proc = linux.own_proc()
        home = os.open(f"{os.getpid()}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        os.umask(0)
        while True:
            message, fds, _, _ = socket.recv_fds(control, 16, 3)
            if not message:
                break
            _pretend(control, *fds, proc=proc, one_id=one_id)
            linux.setns(home, linux.CLONE_NEWNS)
            linux.close_all_but(control.fileno(), proc, home)
            control.send(b"home")
    finally:
        os._exit(0)


def _pretend(control: socket.socket, listener: int, mounts: int, described: int, *, proc: int, one_id: bool) -> None:
    with open(described, "rb") as file:
        stage = Stage(**json.load(file))
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    upper, around = os.open(stage.upper, flags), os.open(os.path.dirname(stage.upper), flags)
    known = Owners.of([Path(folder) for folder in stage.noted]).known
    linux.setns(mounts, linux.CLONE_NEWNS)
    who = Credentials(Ids.all(stage.uid), Ids.all(stage.gid), tuple(stage.groups))
    pretender = Pretender(
        Listener(listener), stage.first, who, upper=upper, around=around, known=known, proc=proc, one_id=one_id
    )
    pretender.serve(control)
