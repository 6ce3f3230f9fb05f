"""Tables, sizes and times as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_DEEPEST = 8  # columns by which what finds no room in a table is indented


def size(count: int) -> str:
    """Bytes in decimal units, three significant digits, as Docker prints them: ``1.23MB``."""
    value = float(count)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    if unit == "B":
        return f"{count}B"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}{unit}"


def count(number: int, one: str, several: str = "") -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def seconds(value: float) -> str:
    """A duration: ``12ms``, ``3.4s``, ``2m05s``."""
    if value < 0.9995:
        return f"{value * 1000:.0f}ms"
    if value < 99.95:
        return f"{value:.1f}s"
    return f"{int(value) // 60}m{int(value) % 60:02d}s"


def date(rfc3339: str) -> str:
    """The day and minute of an RFC 3339 time; ``-`` where there is none."""
    return rfc3339[:16].replace("T", " ") if rfc3339 else "-"


def rfc3339(epoch: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC; a fraction only where there is one."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def shorten(text: str, width: int) -> str:
    """``text`` on one line, cut to ``width`` columns with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def printable(text: str) -> str:
    """``text`` with an escape for each character that would not be seen as itself: control characters, newlines, marks
    that turn the direction of writing, halves of surrogate pairs.

    >>> printable("a\\nb")
    'a\\\\nb'
    """
    if text.isprintable():
        return text
    return "".join(found if found.isprintable() else found.encode("unicode_escape").decode("ascii") for found in text)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, right: frozenset[int] = frozenset()
) -> str:
    """Columns padded to their widest cell, two blanks between them; the columns in ``right`` are right-aligned.

    Those that find no room in ``width`` go below the others of their row, indented: the terminal would wrap them
    anywhere.
    """
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    indent = min(widths[0] + 2, _DEEPEST)
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        parts = ["  ".join(padded[first:end]).rstrip() for first, end in _parts(widths, width, indent)]
        lines += [parts[0], *(f"{'':{indent}}{part}" for part in parts[1:] if part)]
    return "\n".join(lines)


def _parts(widths: Sequence[int], width: int, indent: int) -> list[tuple[int, int]]:
    """Which columns stand side by side, as ranges: as many as ``width`` has room for, behind the indent of all parts
    but the first."""
    found, first, taken = [], 0, widths[0]
    for column, wide in enumerate(widths[1:], start=1):
        if taken + 2 + wide > width:
            found.append((first, column))
            first, taken = column, indent + wide
        else:
            taken += 2 + wide
    return [*found, (first, len(widths))]
