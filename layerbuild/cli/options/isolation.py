"""How RUN steps are executed, whatever they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options.command import RUN, gathered, option
from layerbuild.errors import UsageError
from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from layerbuild.isolate.backends import Backend

ENTITLEMENTS = ("network.host", "security.insecure")


@frozen
class Way:
    """``backend`` executes; ``entitlements`` are what a RUN may have beyond the usual; ``jobs`` stages are at work at
    once."""

    backend: Backend
    entitlements: frozenset[str]
    jobs: int


_run = partial(option, heading=RUN)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; ``command`` gets them as ``way``. UsageError for what can't be."""
    return gathered(
        command,
        "way",
        _way,
        _run("--allow", metavar="WHAT", multiple=True, help="Let RUN steps have it: security.insecure."),
        _run("--isolation", metavar="WAY", default="namespaces", help="namespaces, or an OCI runtime: runc, crun."),
        _run(
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Stages at work at once.  [default: the number of cores]",
        ),
    )


def _way(*, allow: tuple[str, ...], isolation: str, jobs: int | None) -> Way:
    from layerbuild.isolate.backends import backend

    for text in allow:
        if text not in ENTITLEMENTS:
            raise UsageError(f"--allow can't be {text!r}", hint=f"known are {', '.join(ENTITLEMENTS)}")
    return Way(backend(isolation), frozenset(allow), jobs or len(os.sched_getaffinity(0)))
