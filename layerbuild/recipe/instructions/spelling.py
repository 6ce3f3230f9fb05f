"""How Go spells values: image histories are full of its formats, and durations are written in its syntax."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_ESCAPES = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 34: '\\"', 92: "\\\\"}
_LONGEST = 2**63 - 1


def duration(text: str) -> int:
    """Nanoseconds from Go's syntax (time.ParseDuration): ``1h30m``, ``1.5s``, ``-3ms``, ``0``; else a ValueError."""
    sign, bare = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if bare == "0":
        return 0
    total = 0
    position = 0
    while position < len(bare) or not bare:
        part = _PART.match(bare, position)
        if part is None or not (part[1] or part[2]):
            raise ValueError(f"invalid duration {text!r}")
        unit = _UNITS[part[3]]
        total += int(part[1][:20] or 0) * unit
        total += int(part[2][:20]) * unit // 10 ** len(part[2][:20]) if part[2] else 0
        position = part.end()
    if total > _LONGEST:
        raise ValueError(f"duration {text!r} is too long")
    return sign * total


def spell_duration(nanoseconds: int) -> str:
    """As Go's time.Duration prints: ``1m30s``, ``100ms``, ``0s``.

    >>> spell_duration(90 * 10**9)
    '1m30s'
    """
    for unit, name in ((1000, "ns"), (10**6, "µs"), (10**9, "ms")):
        if 0 < nanoseconds < unit:
            scale = {"ns": 1, "µs": 1000, "ms": 10**6}[name]
            return _decimal(nanoseconds, scale) + name
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    front = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return front + _decimal(rest, 10**9) + "s"


def _decimal(value: int, scale: int) -> str:
    whole, fraction = divmod(value, scale)
    digits = f"{fraction:0{len(str(scale)) - 1}d}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)


def quote(text: str) -> str:
    """As Go's %q: in double quotes, with what can't be printed escaped."""
    return '"' + "".join(_quoted(char) for char in text) + '"'


def _quoted(char: str) -> str:
    code = ord(char)
    if code in _ESCAPES:
        return _ESCAPES[code]
    if char == " " or (char.isprintable() and code != 0xAD):
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted_list(texts: Sequence[str]) -> str:
    """As Go's %q of a slice: ``["a" "b"]``."""
    return "[" + " ".join(map(quote, texts)) + "]"


def plain_list(texts: Sequence[str]) -> str:
    """As Go's %v of a slice: ``[a b]``."""
    return "[" + " ".join(texts) + "]"
