"""What a build is to look out for, and what it is to do then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options.command import CHECKS, gathered, option
from layerbuild.errors import UsageError
from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from layerbuild.build.options import Gate
    from layerbuild.leaks import AllowList


@frozen
class Checks:
    """``only``: the recipe is checked, and nothing built. ``fail_on_miss``: a step that would have to run ends the
    build. ``gate`` is for what looks like a secret, ``allowed`` what may look so."""

    only: bool
    fail_on_miss: bool
    gate: Gate
    allowed: AllowList


_check = partial(option, heading=CHECKS)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; ``command`` gets them as ``checks``. UsageError for what can't be."""
    return gathered(
        command,
        "checks",
        _checks,
        _check("--check", "only", is_flag=True, help="Build nothing; check the recipe, as `lint` does."),
        _check("--call", metavar="METHOD", default="build", help="build, or check: as --check."),
        _check("--fail-on-miss", is_flag=True, help="End the build where a step would have to run."),
        _check(
            "--secrets",
            "gate",
            type=click.Choice(["warn", "fail", "off"]),
            default="warn",
            help="What to do about what looks like a secret in a layer, the environment or the history.",
        ),
        _check(
            "--secrets-allow",
            "allowed",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="What may look like a secret: globs over paths, or fingerprints, one on each line.",
        ),
    )


def _checks(*, only: bool, call: str, fail_on_miss: bool, gate: str, allowed: Path | None) -> Checks:
    from layerbuild.build.options import Gate

    if call not in ("build", "check"):
        hint = "build or check; `layerbuild plan` and `layerbuild parse` tell of stages and arguments"
        raise UsageError(f"--call can't be {call!r}", hint=hint)
    return Checks(only or call == "check", fail_on_miss, Gate(gate), _allow_list(allowed))


def _allow_list(path: Path | None) -> AllowList:
    """The findings that are known and meant."""
    from layerbuild.leaks import AllowList

    if path is None:
        return AllowList()
    try:
        return AllowList.parse(path.read_text("utf-8", "replace"))
    except OSError as error:
        raise UsageError(f"can't read the allow list {str(path)!r}: {error.strerror}") from error
