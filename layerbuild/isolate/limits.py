"""What a command may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from layerbuild.isolate.rlimits import Rlimit


@frozen
class Limits:
    """What a process and all that it starts may use together; 0 is no limit.

    ``memory`` and ``memory_swap`` (memory and swap together; -1: as much swap as there is; 0: as much again as
    ``memory``) are in bytes, ``cpus`` in processors, ``timeout`` in seconds. ``shm_size``: bytes of /dev/shm.
    """

    memory: int = 0
    memory_swap: int = 0
    cpus: float = 0.0
    pids: int = 0
    rlimits: tuple[Rlimit, ...] = ()
    shm_size: int = 64 << 20  # Docker's default
    timeout: float = 0.0

    @property
    def need_cgroup(self) -> bool:
        return bool(self.memory or self.cpus or self.pids)


NO_LIMITS: Final = Limits()
