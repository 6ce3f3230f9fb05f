"""``--memory``, ``--cpus`` and the like: what a command may use, spelled as in ``docker build`` and ``docker run``."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from layerbuild.cli.options.command import LIMITS, gathered, option
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.isolate.limits import Limits
    from layerbuild.isolate.rlimits import Rlimit

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SCALES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_LEAST_MEMORY: Final = 6 << 20  # as in docker: with less hardly a program starts


_limit = partial(option, heading=LIMITS)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; ``command`` gets what they say as ``most``. UsageError for what can't be."""

    return gathered(
        command,
        "most",
        _limits,
        _limit("-m", "--memory", metavar="SIZE", help="Memory that a command may use: 512m, 1.5g."),
        _limit("--memory-swap", metavar="SIZE", help="Memory and swap together; -1: any.  [default: twice]"),
        _limit("--cpus", metavar="NUMBER", help="Processors that a command may use: 1.5."),
        _limit("--pids-limit", metavar="NUMBER", help="Processes and threads of a command."),
        _limit("--ulimit", "ulimits", metavar="NAME=SOFT[:HARD]", multiple=True, help="A limit of ulimit(1)."),
        _limit("--shm-size", metavar="SIZE", help="Size of /dev/shm.  [default: 64m]"),
        _limit("--timeout", metavar="TIME", help="End a command after that: 90, 1m30s, 2h."),
    )


def _limits(
    *,
    memory: str | None,
    memory_swap: str | None,
    cpus: str | None,
    pids_limit: str | None,
    ulimits: tuple[str, ...],
    shm_size: str | None,
    timeout: str | None,
) -> Limits:
    from layerbuild.isolate.limits import NO_LIMITS, Limits

    most = _size("--memory", memory) if memory else 0
    if memory and most < _LEAST_MEMORY:
        raise UsageError(f"--memory {memory} is too little", hint="6m at least")
    return Limits(
        memory=most,
        memory_swap=_with_swap(memory_swap, most),
        cpus=_number("--cpus", cpus, least=0.01) if cpus else 0.0,
        pids=_pids(pids_limit) if pids_limit else 0,
        rlimits=tuple(_rlimit(text) for text in ulimits),
        shm_size=_size("--shm-size", shm_size) if shm_size else NO_LIMITS.shm_size,
        timeout=_seconds(timeout) if timeout else 0.0,
    )


def _size(option: str, text: str) -> int:
    form = _SIZE.fullmatch(text.strip())
    size = int(float(form[1]) * _SCALES[form[2].lower()]) if form else 0
    if not size:
        raise UsageError(f"{option} can't be {text!r}", hint=f"{option} 512m, or 1.5g, or bytes")
    return size


def _with_swap(text: str | None, memory: int) -> int:
    if not text:
        return 0
    if not memory:
        raise UsageError("--memory-swap says nothing without --memory", hint="it is memory and swap together")
    if text == "-1":
        return -1
    size = _size("--memory-swap", text)
    if size < memory:
        raise UsageError("--memory-swap is less than --memory", hint="it is memory and swap together")
    return size


def _number(option: str, text: str, *, least: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not least <= number < float("inf"):
        raise UsageError(f"{option} can't be {text!r}", hint=f"a number, {least:g} at least")
    return number


def _pids(text: str) -> int:
    """-1 and 0 are no limit, as in docker."""
    if text in ("-1", "0"):
        return 0
    if not text.isdecimal():
        raise UsageError(f"--pids-limit can't be {text!r}", hint="a whole number; -1: no limit")
    return int(text)


def _rlimit(text: str) -> Rlimit:
    from layerbuild.isolate.rlimits import NUMBERS, Rlimit

    name, _, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    if name not in NUMBERS:
        raise UsageError(f"--ulimit {text!r}: there is no limit {name!r}", hint=f"known are {', '.join(NUMBERS)}")
    try:
        limit = Rlimit(name, int(soft), int(hard) if colon else int(soft))
    except ValueError:
        raise UsageError(f"--ulimit can't be {text!r}", hint="NAME=SOFT or NAME=SOFT:HARD, numbers; -1: none") from None
    if limit.hard >= 0 and not 0 <= limit.soft <= limit.hard:
        raise UsageError(f"--ulimit {text!r}: the soft limit is above the hard one")
    return limit


def _seconds(text: str) -> float:
    form = _DURATION.fullmatch(text)
    hours, minutes, seconds = form.groups() if form else (None, None, None)
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)
    if not total:
        raise UsageError(f"--timeout can't be {text!r}", hint="seconds, or 1m30s, or 2h")
    return total
