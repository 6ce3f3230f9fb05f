"""A command whose ``--help`` has its options under headings, and which knows those of other builders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Set
from typing import Any

import click

from layerbuild.cli.options import elsewhere
from layerbuild.errors import UsageError

SOURCES = "Recipe and context"
OUTPUTS = "Image and output"
CACHE = "Cache"
RUN = "What RUN gets"
LIMITS = "Limits of each command"
CHECKS = "Checks"
PROGRESS = "Progress"
HEADINGS = (SOURCES, OUTPUTS, CACHE, RUN, LIMITS, CHECKS, PROGRESS)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


# As Go's strconv.ParseBool
_VALUES = {**dict.fromkeys(("1", "t", "true"), True), **dict.fromkeys(("0", "f", "false"), False)}


def _plain(word: str, flags: Set[str]) -> list[str]:
    """What ``word`` is without the value of a flag; nothing, if it says what is so anyway. UsageError for a value that
    can't be had."""
    if word == "--pull":
        return ["--pull=always"]
    name, equals, text = word.partition("=")
    value = _VALUES.get(text.lower())
    if not equals or value is None:
        return [word]
    if elsewhere.ANYWAY.get(name, value) != value:
        reason, remedy = elsewhere.REASONS.get(name) or elsewhere.ALWAYS[name]
        raise UsageError(f"{word} can't be had: {reason}", hint=remedy)
    if name in elsewhere.ANYWAY:
        return []
    return [name] * value if name in flags else [word]


class Option(click.Option):
    """An option under a heading."""

    def __init__(self, *arguments: Any, heading: str = "", **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.heading = heading


def option(*names: str, heading: str, **named: Any) -> Decorator:
    """As ``click.option``."""
    return click.option(*names, cls=Option, heading=heading, **named)


def gathered(
    command: Callable[..., Any], into: str, read: Callable[..., object], *options: Decorator
) -> Callable[..., Any]:
    """``command`` with ``options``, listed in this order; as ``into`` it gets what ``read`` makes of their texts."""
    names: list[str] = []

    @functools.wraps(command)
    def gathering(*arguments: Any, **named: Any) -> Any:
        texts = {name: named.pop(name) for name in names}
        return command(*arguments, **{into: read(**texts)}, **named)

    called: Callable[..., Any] = gathering
    known = len(getattr(called, "__click_params__", ()))
    for each in reversed(options):
        called = each(called)
    added: list[click.Parameter] = called.__click_params__[known:]  # type: ignore[attr-defined]
    names += [str(parameter.name) for parameter in added if parameter.expose_value]
    return called


class Container(click.Command):
    """A command behind whose first word all words are for the container."""

    allow_interspersed_args = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise elsewhere.explained(error, elsewhere.OF_RUN) from error


class Command(click.Command):
    """Two things that docker and buildah take, and click knows no way to say. ``--pull`` alone means always, and takes
    no further word: a value stands behind ``=``. And a flag may have one, too: ``--push=true``, ``--no-cache=false``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {name for each in self.params if isinstance(each, click.Option) and each.is_flag for name in each.opts}
        words = [word for given in args for word in _plain(given, flags)]
        try:
            return super().parse_args(ctx, words)
        except click.NoSuchOption as error:
            raise elsewhere.explained(error) from error
        except click.MissingParameter as error:
            if error.param is None or error.param.name != "context":
                raise
            raise UsageError("no CONTEXT is named", hint=f"layerbuild {ctx.info_name} . for this folder") from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                rows.setdefault(getattr(parameter, "heading", "") or "Options", []).append(row)
        for heading, listed in rows.items():
            if listed:
                with formatter.section(heading):
                    formatter.write_dl(listed)
