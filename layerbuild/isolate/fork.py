"""The helper's fork: early, while the build is small and has no thread; what the helper does is in helper.py.

Many builds find all in the cache and ask nothing of it. So it loads nothing of its own before something is sent to it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from types import TracebackType
from typing import NoReturn, Self

from layerbuild.errors import MachineError
from layerbuild.isolate import linux


class Helper:
    """The build's hold on its helper; ``control`` leads there. A context manager: leaving it ends the helper."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.control = control
        self._pid = pid
        self._reaping = threading.Lock()
        self._reaped = False

    @classmethod
    def fork(cls) -> Self:
        """Fork it, as pid 1 of a pid namespace. Call it from the main thread, before there is another one.

        The kernel ends the helper with the thread that started it (PR_SET_PDEATHSIG(2const)). MachineError if a pid
        namespace is refused.
        """
        if threading.active_count() > 1:
            raise RuntimeError("the helper must be forked before a thread is started")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = linux.fork_into(linux.CLONE_NEWPID)
        except OSError as error:
            raise MachineError(
                f"a pid namespace was refused: {error.strerror}",
                hint="see user.max_pid_namespaces (sysctl); in a container, grant CAP_SYS_ADMIN",
            ) from error
        if pid == 0:
            _wait(theirs)
        theirs.close()
        return cls(pid, ours)

    def kill(self) -> None:
        """End it at once, and all jobs with it. May be called from any thread."""
        with self._reaping:
            if not self._reaped:
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and with it what still runs."""
        self.kill()
        self.control.close()
        with self._reaping:
            if not self._reaped:
                os.waitpid(self._pid, 0)
                self._reaped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _wait(control: socket.socket) -> NoReturn:
    """Be the helper until the build is gone. Ends the process, without any of the build's own clean-up."""
    try:
        _settle(control)
        select.select([control], [], [])
        from layerbuild.isolate.helper import serve

        serve(control)
    finally:
        os._exit(0)


def _settle(control: socket.socket) -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()  # Ctrl-C at the terminal is for the build to act upon
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # what is ignored here would be so in the commands too (signal(7))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    # The build's open files and locks are none of the helper's business.
    os.closerange(3, control.fileno())
    os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
