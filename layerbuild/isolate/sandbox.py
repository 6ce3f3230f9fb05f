"""The build's side of the sandbox: starts the helper, hands it jobs, passes their output on.

The build may have threads, and a process with threads must not fork and go on in Python. So the helper is forked first,
while there are none (fork.py), and starts all commands from plain data.

::

    build                                               helper ─ fork ─▶ command
    Sandbox ────── control: Begin ──────────────────────▶│ loads its modules; forks a command ahead
    run(job) ── control: b"job" and descriptors ────────▶│                 │
       │        (connection, job, stdin, stdout, stderr) │                 │
       │◀─────── output: whatever the command writes ──────────────────────│
       │◀─────── connection: its terminal, if it has one ──────────────────│
       │◀─────── connection: {"exit": …} or {"failure": …} ─│◀─ ended ─────┘

Every job has its own connection and pipe, so several threads may run jobs at once. Closing the connection kills the
job; the helper's end kills them all, and the helper ends with the build, however that ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from layerbuild.errors import BuildError
from layerbuild.isolate import cgroups
from layerbuild.isolate.cgroups import Group, Groups
from layerbuild.isolate.container import as_error
from layerbuild.isolate.fork import Helper
from layerbuild.isolate.job import Begin, Exit, Job, Kind, Network, Process, Rootfs, Security, decode, encode
from layerbuild.isolate.limits import NO_LIMITS, Limits
from layerbuild.isolate.namespaces import Identity
from layerbuild.isolate.rlimits import reached
from layerbuild.isolate.streams import CHUNK, Deadline, Pipes, relay_terminal, size

__all__ = ["Exit", "Job", "Limits", "Network", "Process", "Rootfs", "Sandbox", "Security"]

_KILLED: Final = 128 + signal.SIGKILL

Output = Callable[[bytes], None]


class Sandbox:
    """Runs jobs, each within ``limits``, through a helper. A context manager: leaving it ends what still runs."""

    def __init__(self, identity: Identity, helper: Helper, limits: Limits = NO_LIMITS, *, runtime: str = "") -> None:
        """``helper`` is told to begin; it loads what it needs while the build goes on. The containers are its own, or
        those of the OCI ``runtime``. MachineError if the limits can't be had."""
        self._identity = identity
        self._helper = helper
        self._limits = limits
        self._runtime = runtime
        self._groups = Groups(limits) if limits.need_cgroup else None
        if runtime:
            cgroups.remove_stale()  # it makes groups whether there are limits or not
        with suppress(OSError):  # it was killed: the first job says so
            begin = Begin(runtime, Kind(identity, "host", "sandbox", limits.shm_size))
            helper.control.send(json.dumps(encode(begin)).encode())

    @classmethod
    def start(cls, identity: Identity, limits: Limits = NO_LIMITS, *, runtime: str = "") -> Self:
        """A sandbox with a helper that is forked now: see ``Helper.fork``. MachineError."""
        helper = Helper.fork()
        try:
            return cls(identity, helper, limits, runtime=runtime)
        except BaseException:
            helper.close()
            raise

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
                deadline = Deadline(self._limits.timeout, connection)
                message = _collect(connection, reader.fileno(), on_output, deadline)
                return self._outcome(message, group, deadline)

    def attach(self, job: Job, *, stdin: int = 0, stdout: int = 1, stderr: int = 2, terminal: bool = False) -> Exit:
        """Run ``job`` with these descriptors, relayed, as its own; with ``terminal`` on a terminal of its own.

        For ``terminal``, ``stdin`` is the person's terminal: it is in raw mode until the job ends, and its size is
        passed on, also when it changes if this is the main thread. Errors as for ``run``.
        """
        with self._limited(replace(job, terminal=size(stdin) if terminal else None)) as (limited, group):
            if terminal:
                return self._attach_terminal(limited, group, stdin, stdout)
            with Pipes(stdin, stdout, stderr) as pipes, _ending(self._send(limited, pipes.theirs)) as connection:
                pipes.handed_over()
                deadline = Deadline(self._limits.timeout, connection)
                return self._outcome(pipes.relay(connection, deadline), group, deadline)

    def _attach_terminal(self, job: Job, group: Group | None, stdin: int, stdout: int) -> Exit:
        with _ending(self._send(job, ())) as connection:
            deadline = Deadline(self._limits.timeout, connection)
            message, fds, _, _ = socket.recv_fds(connection, CHUNK, 1)
            if fds:
                with os.fdopen(fds[0], "r+b", buffering=0) as master:
                    message = relay_terminal(connection, master.fileno(), stdin, stdout, deadline)
            return self._outcome(message, group, deadline)

    def _outcome(self, message: bytes, group: Group | None, deadline: Deadline) -> Exit:
        if not message:
            raise _stopped()
        answer = json.loads(message)
        if "failure" in answer:
            raise as_error(answer["failure"])
        ended = decode(answer["exit"])
        assert isinstance(ended, Exit)
        hit = group.hit(killed=ended.code == _KILLED) if group else ()
        if deadline.passed:
            return replace(ended, hit=(*hit, "timeout"))
        return replace(ended, hit=(*hit, *reached(self._limits.rlimits, code=ended.code, cpu=ended.cpu)))

    @property
    def trusts_notes(self) -> bool:
        """Whether what a job's files say that they stand for (layer/standin.py) is ours: its commands could not set it,
        or, with one id, there is nobody to keep it from."""
        from layerbuild.isolate import notices

        identity = self._identity
        return identity.rootless and (identity.one_id or (not self._runtime and bool(notices.names())))

    def kill(self) -> None:
        """End all jobs at once. May be called from any thread; ``run`` then raises BuildError."""
        self._helper.kill()

    def close(self) -> None:
        """End the helper, and with it what still runs."""
        self._helper.close()

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
        with ExitStack() as stack:
            group = stack.enter_context(self._groups.group(job.name)) if self._groups else None
            if self._runtime:
                stack.callback(cgroups.remove_groups_of, job.name)
            yield replace(job, cgroup=group.paths if group else ()), group

    def _send(self, job: Job, stdio: tuple[int, ...]) -> socket.socket:
        """Hand ``job`` to the helper; the connection on which the answer will come."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plain = os.memfd_create("job")  # a job has no size limit, as a message would have
        try:
            with os.fdopen(plain, "wb", closefd=False) as file:
                file.write(json.dumps(encode((job, self._identity))).encode())
            os.lseek(plain, 0, os.SEEK_SET)
            socket.send_fds(self._helper.control, [b"job"], [theirs.fileno(), plain, *stdio])
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
                while connection.recv(CHUNK):
                    pass
            raise


def _stopped() -> BuildError:
    return BuildError("the sandbox was stopped before the command ended")


def _collect(connection: socket.socket, output: int, on_output: Output, deadline: Deadline) -> bytes:
    """Pass the output on until the job has ended; its last message."""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(connection, select.POLLIN)
    while True:
        ready = deadline.wait(poll)
        if output in ready:
            data = os.read(output, CHUNK)
            if data:
                on_output(data)
            else:
                poll.unregister(output)
        elif connection.fileno() in ready:
            message = connection.recv(CHUNK)
            _drain(output, on_output)
            return message


def _drain(output: int, on_output: Output) -> None:
    """What is still in the pipe: its end need not come, should a process elsewhere hold it."""
    os.set_blocking(output, False)
    with suppress(BlockingIOError):
        while data := os.read(output, CHUNK):
            on_output(data)
