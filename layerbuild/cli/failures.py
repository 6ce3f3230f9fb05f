"""From an error to text and an exit code.

::

    0 done · 1 a build or a RUN failed · 2 wrong use · 3 the recipe is wrong · 69 registry or credentials ·
    77 this machine can't · 102 out of space · 130/143 stopped

Commands that compare (``diff``, ``verify``, ``advise`` with rules) say by 1 that something differs, and by 2 what else
would be 1, as diff(1) does.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from layerbuild.errors import (
    LayerbuildError,
    MachineError,
    RecipeError,
    RegistryError,
    SpaceError,
    Span,
    StepFailed,
    UsageError,
    descriptors_hint,
)

_CODES: tuple[tuple[type[LayerbuildError], int], ...] = (
    (UsageError, 2),
    (RecipeError, 3),
    (RegistryError, 69),
    (MachineError, 77),
    (SpaceError, 102),
    (LayerbuildError, 1),
)


class Stopped(BaseException):
    """A signal asked the program to end; ``code`` is 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def exit_code(error: LayerbuildError) -> int:
    """The exit code for ``error``."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def report(error: LayerbuildError) -> None:
    """Say on standard error what went wrong, where, and what to do about it."""
    from layerbuild.cli.console import shown

    lines = [f"layerbuild: {error}"]
    if error.span is not None:
        lines += quoted(error.span)
    if isinstance(error, StepFailed) and error.output:
        tail = error.output.decode("utf-8", "replace").splitlines()[-20:]
        lines += ["the last lines of its output:", *(f"  | {line}" for line in tail)]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    sys.stderr.write(shown("\n".join(lines), sys.stderr) + "\n")


@contextmanager
def trouble(ctx: click.Context) -> Iterator[None]:
    """In a command that compares: an error that would end with 1 ends with 2, since 1 means a difference."""
    try:
        yield
    except LayerbuildError as error:
        ctx.close()  # what is drawn goes before what is said
        report(error)
        ctx.exit(max(2, exit_code(error)))


def of_os_error(error: OSError) -> LayerbuildError:
    """An operating system error that nobody nearer could explain, with its path."""
    if isinstance(error, FileNotFoundError) and not error.filename and _is_lost():
        return UsageError("the folder that this runs in was removed", hint="cd to another one")
    named = isinstance(error.filename, str | bytes | os.PathLike)  # and not a descriptor
    where = f" ({os.fsdecode(error.filename)})" if named else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "`layerbuild df` shows what takes the space, `layerbuild prune` frees some"
        return SpaceError(f"no space left on the disk{where}", hint=hint)
    return LayerbuildError(f"{error.strerror or error}{where}", hint=descriptors_hint(error))


def _is_lost() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def quoted(span: Span) -> list[str]:
    """The lines of the recipe that ``span`` covers, as far as the file can still be read."""
    from layerbuild.steps import masked

    try:
        source = Path(span.file).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    last = min(max(span.end_line, span.line), span.line + 9, len(source))
    return [f"{number:5} | {masked(source[number - 1])}" for number in range(span.line, last + 1)]
