"""The limits of one process, which its children inherit: getrlimit(2)."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from layerbuild.errors import MachineError
from layerbuild.frozen import frozen


@frozen
class Rlimit:
    """A limit by its short name ("nofile"; ``NUMBERS`` has them all); -1 is no limit."""

    name: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


# Those of ``docker build --ulimit``; two of them are not in Python (include/uapi/asm-generic/resource.h).
NUMBERS: Final[Mapping[str, int]] = {
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": 10,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": 15,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}


# The kernel counts ticks for its limit and run time for who asks: on a busy machine the second was 0.86 of the first.
_COUNTED: Final = 0.5


def set_rlimit(limit: Rlimit) -> None:
    """Set ``limit`` for this process; MachineError where that takes more rights than it has."""
    number = NUMBERS[limit.name]
    soft, hard = (resource.RLIM_INFINITY if value < 0 else value for value in (limit.soft, limit.hard))
    try:
        resource.setrlimit(number, (soft, hard))
    except ValueError as error:  # EPERM: only real root may raise a hard limit
        most = resource.getrlimit(number)[1]
        raise MachineError(
            f"the limit {limit} is above the {most} that this user may have",
            hint="ask for less, run layerbuild as root, or raise it: limits.conf(5), and LimitNOFILE= … of systemd",
        ) from error


def reached(limits: Iterable[Rlimit], *, code: int, cpu: float) -> tuple[str, ...]:
    """The names of those that ended a command with the exit ``code`` after ``cpu`` seconds of a processor: the kernel
    sends SIGXFSZ, SIGXCPU, and SIGKILL where the first is ignored, as by pid 1 (getrlimit(2))."""
    found = []
    for limit in limits:
        killed = code == 128 + signal.SIGKILL and cpu >= _COUNTED * limit.soft >= 0
        if limit.name == "cpu" and (killed or code == 128 + signal.SIGXCPU):
            found.append(limit.name)
        if limit.name == "fsize" and code == 128 + signal.SIGXFSZ:
            found.append(limit.name)
    return tuple(found)


def forbid_core_dumps() -> None:
    """No memory of this process, with the secrets that may be in it, is written to a file when it crashes.

    1 instead of 0, because that stops a core dump handler of the machine too: core(5), "Piping core dumps".
    """
    with suppress(ValueError):  # already 0, and only real root could raise it
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
