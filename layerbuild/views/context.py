"""A build context as a table: what a build can see of it; and for one path, which line of the ignore file decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind
from layerbuild.views.text import size, table


@frozen
class ContextRow:
    """One path. ``size`` is in bytes, 0 for what is no file."""

    path: str
    kind: str
    size: int


@frozen
class Why:
    """Whether ``path`` is in the context. ``file`` and ``line`` name the deciding line of the ignore file, ``pattern``
    is what it says; empty: no line matches. ``there``: something has that path, sent or not."""

    path: str
    sent: bool
    there: bool
    file: str = ""
    line: int = 0
    pattern: str = ""


def row(path: bytes, kind: Kind, size: int) -> ContextRow:
    """The row for an entry."""
    return ContextRow(path.decode("utf-8", "backslashreplace"), kind.value, size if kind is Kind.FILE else 0)


def as_json(rows: Sequence[ContextRow], *, context: str, patterns: int) -> dict[str, Any]:
    """The list as plain data; ``patterns`` counts the lines of the ignore file."""
    return {
        "context": context,
        "ignore_patterns": patterns,
        "entries": [asdict(row) for row in rows],
        "files": _files(rows),
        "bytes": sum(row.size for row in rows),
    }


def as_text(rows: Sequence[ContextRow], *, patterns: int, width: int) -> str:
    """The list for people."""
    cells = [[row.path + "/" * (row.kind == Kind.DIRECTORY.value), row.kind, _size(row)] for row in rows]
    total = f"{_counted(len(rows), 'path')}, {_counted(_files(rows), 'file')}, {size(sum(row.size for row in rows))}"
    hidden = f"; {_counted(patterns, 'pattern')} in the ignore file" if patterns else "; no ignore file hides anything"
    lines = [table(["PATH", "KIND", "SIZE"], cells, width=width, right=frozenset((2,)))] if cells else []
    return "\n".join((*lines, total + hidden))


def why_json(why: Why) -> dict[str, Any]:
    """The answer as plain data."""
    return asdict(why)


def why_text(why: Why) -> str:
    """The answer as a sentence."""
    rule = f"{why.file} line {why.line} (`{why.pattern}`)"
    if not why.there:
        would = f"; {rule} would {'take it back in' if why.sent else 'leave it out'}" if why.line else ""
        return f"{why.path}: not in the context's folder{would}"
    if not why.line:
        return f"{why.path}: sent; nothing hides it"
    if not why.sent:
        return f"{why.path}: left out by {rule}"
    if why.pattern.startswith("!"):
        return f"{why.path}: sent; {rule} takes it back in"
    return f"{why.path}: sent, though {rule} matches it: it leads to what another line takes back in"


def _files(rows: Sequence[ContextRow]) -> int:
    return sum(row.kind == Kind.FILE.value for row in rows)


def _size(row: ContextRow) -> str:
    return size(row.size) if row.kind == Kind.FILE.value else "-"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
