"""Directives: ``# name=value`` lines at the head of a recipe.

Two readers, because BuildKit has two. ``read_directives`` is the parser's: what it finds changes how the rest is read.
``detect`` asks a text that may be no Dockerfile at all for one directive: that is how ``syntax`` names the front end
which the text is written for, in ``#`` lines, in ``//`` lines or as a key of a JSON object.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence

from layerbuild.errors import RecipeError, Span
from layerbuild.frozen import frozen
from layerbuild.recipe.lines import BACKSLASH, SPACES, Line

DIRECTIVES = ("syntax", "escape", "check")

_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*", re.ASCII)


@frozen
class Directive:
    """A ``# name=value``. ``reference`` is the value's first word: for ``syntax`` the front end's image, behind which
    its command line may stand."""

    name: str
    value: str
    span: Span

    @property
    def reference(self) -> str:
        return self.value.partition(" ")[0]


def read_directives(lines: Sequence[Line], *, file: str) -> tuple[Directive, ...]:
    """The directives at the head: they end at the first line that is anything else, a plain comment included."""
    found: dict[str, Directive] = {}
    for line in lines:
        directive = _read(line.text.lstrip(SPACES), "#", Span(file, line.number, end_line=line.number))
        if directive is None:
            break
        if directive.name in found:
            raise RecipeError(f"only one {directive.name} parser directive can be used", span=directive.span)
        found[directive.name] = directive
    if (escape := found.get("escape")) is not None and escape.value not in (BACKSLASH, "`"):
        raise RecipeError(
            f"invalid ESCAPE '{escape.value}'. Must be ` or \\", hint="use one of the two", span=escape.span
        )
    return tuple(found.values())


def detect(text: str, name: str, *, foreign: bool = False, file: str = "Dockerfile") -> Directive | None:
    """The directive ``name`` of a text, None if it has none. A first line with ``#!`` is passed over, and unlike the
    parser's directives these begin in the first column. ``foreign`` also takes the forms of other languages."""
    text = text.removeprefix("\ufeff")
    first = 1
    if text.startswith("#!"):
        text = text.partition("\n")[2]
        first = 2
    found = _detect(text, "#", name, Span(file, first))
    if found is not None or not foreign:
        return found
    return _detect(text, "//", name, Span(file, first)) or _in_json(text, name, Span(file, first, end_line=first))


def _read(text: str, mark: str, span: Span) -> Directive | None:
    if not text.startswith(mark):
        return None
    match = _DIRECTIVE.fullmatch(text[len(mark) :].lstrip(SPACES))
    if match is None or match[1].lower() not in DIRECTIVES:
        return None
    return Directive(match[1].lower(), match[2], span)


def _detect(text: str, mark: str, name: str, start: Span) -> Directive | None:
    seen: set[str] = set()
    for number, line in enumerate(io.StringIO(text, newline="\n"), start.line):
        directive = _read(line.rstrip("\r\n"), mark, start.at(number))
        if directive is None or directive.name in seen:
            return None
        if directive.name == name:
            return directive
        seen.add(directive.name)
    return None


def _in_json(text: str, name: str, span: Span) -> Directive | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = values.get(name) if isinstance(values, dict) else None
    return Directive(name, value, span) if isinstance(value, str) else None
