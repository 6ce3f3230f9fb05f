"""Progress on standard error, and lists on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

import click

from layerbuild import events
from layerbuild.cli import rawjson
from layerbuild.cli.plain import Plain
from layerbuild.errors import UsageError

FORMATS = ("table", "json", "yaml")

format_option = click.option(
    "--format", "output_format", type=click.Choice(FORMATS), default="table", help="How to print the result."
)


def emit(output_format: str, data: object, as_text: Callable[[], str]) -> None:
    """Print a result: as text for people, or ``data`` as JSON or YAML."""
    if output_format == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif output_format == "yaml":
        import yaml

        # Through JSON first: digests are subclasses of str, which YAML would spell out as Python objects.
        click.echo(yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(shown(as_text(), sys.stdout))


def width() -> int:
    """Columns of the terminal; plenty where there is none, so that a file gets whole lines."""
    told: int | None = click.get_current_context().find_root().obj.columns
    return told or (_columns() if sys.stdout.isatty() else 10_000)


def _columns() -> int:
    from shutil import get_terminal_size

    return get_terminal_size().columns


def observer(progress: str) -> events.Observer:
    """As ``observing``, to the end of the command that is going on."""
    return click.get_current_context().with_resource(observing(progress))


def observing(progress: str) -> AbstractContextManager[events.Observer]:
    """The observer for ``--progress``: tty, plain, quiet or rawjson; auto is tty where a person watches, else plain.
    What it draws is taken away at the end; print no results before."""
    if progress == "quiet":
        return nullcontext(lambda event: None)
    if progress == rawjson.STYLE:
        return nullcontext(rawjson.tell)
    if progress == "tty" and not sys.stderr.isatty():
        raise UsageError("--progress tty draws on a terminal, and standard error is none", hint="plain, or auto")
    if progress == "tty" or (progress == "auto" and _watched()):
        from layerbuild.cli.screen import reflows
        from layerbuild.cli.terminal import Terminal

        return Terminal(sys.stderr, color=_color(), reflows=reflows(os.environ))
    if progress in ("auto", "plain"):
        columns = _columns() if sys.stderr.isatty() else 10_000
        return nullcontext(Plain(_say, columns=lambda: columns, color=_color()))
    raise UsageError(f"--progress can't be {progress!r}", hint="auto, tty, plain, quiet or rawjson")


def _watched() -> bool:
    """Whether standard error is a terminal that can be drawn on, and no log of a CI system, which may look like one."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")


def _color() -> bool:
    """https://no-color.org: a variable that is there and not empty. A dumb terminal knows no colors."""
    capable = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return capable and not os.environ.get("NO_COLOR")


def _say(line: str) -> None:
    sys.stderr.write(f"{shown(line, sys.stderr)}\n")
    sys.stderr.flush()


def shown(text: str, stream: TextIO) -> str:
    """``text`` as it may be written to ``stream``: to a terminal nothing that it would obey, else as it is."""
    if not stream.isatty():
        return text
    from layerbuild.cli.screen import harmless

    return harmless(text)


def told_all(*observers: events.Observer) -> events.Observer:
    """One observer for several, who hear in this order."""

    def tell(event: events.Event) -> None:
        for observe in observers:
            observe(event)

    return tell
