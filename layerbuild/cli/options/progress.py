"""How a build tells what it does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from layerbuild.cli.options.command import PROGRESS, gathered, option
from layerbuild.frozen import frozen


@frozen
class Telling:
    """``style`` is one of ``--progress``. ``teach``: each step is explained."""

    style: str
    teach: bool


_progress = partial(option, heading=PROGRESS)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; ``command`` gets them as ``telling``."""
    return gathered(
        command,
        "telling",
        _telling,
        _progress(
            "--progress",
            default="auto",
            envvar="BUILDKIT_PROGRESS",
            metavar="STYLE",
            help="auto, tty, plain, quiet or rawjson.  [env: BUILDKIT_PROGRESS]",
        ),
        _progress("-q", "--quiet", is_flag=True, help="Print only the image ID."),
        _progress("--teach", is_flag=True, help="Explain each step: mounts, upper folder, tar, names."),
    )


def _telling(*, progress: str, quiet: bool, teach: bool) -> Telling:
    if quiet:
        return Telling("quiet", teach=False)
    # An area that is drawn again and again would cut what is taught in two.
    return Telling("plain" if teach and progress in ("auto", "tty") else progress, teach)
