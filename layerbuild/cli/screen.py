"""What a terminal makes of text: how many columns and rows it takes, also when the terminal grows narrow."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# Escape sequences: control sequences, operating system commands, all others (ECMA-48, 5.4 and 8.3.89)
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)")
_COLOR = re.compile(r"\x1b\[[\d;:]*m")
_PLAIN = "\x1b[0m"
# What was written over: a carriage return goes back to the beginning of the line.
_WRITTEN_OVER = re.compile(r"^(?:[^\n\r]*\r)+(?=[^\n\r])", re.MULTILINE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")

# Terminals that wrap anew what stands on them when their width changes, by what they put into the environment.
_REFLOWING_TERMS = ("alacritty", "contour", "foot", "tmux", "wezterm", "xterm-ghostty", "xterm-kitty")
_REFLOWING_PROGRAMS = ("Apple_Terminal", "ghostty", "iTerm.app", "tmux", "vscode", "WezTerm")
_REFLOWING_MARKS = ("VTE_VERSION", "KONSOLE_VERSION", "WT_SESSION", "KITTY_WINDOW_ID", "TMUX")


def reflows(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is known to wrap its rows anew when its width changes. Of another one it is not assumed:
    it cuts them, or leaves them."""
    if "XTERM_VERSION" in environment or "STY" in environment:  # an xterm, or screen(1), inside of such a terminal
        return False
    return (
        environment.get("TERM", "").startswith(_REFLOWING_TERMS)
        or environment.get("TERM_PROGRAM") in _REFLOWING_PROGRAMS
        or any(mark in environment for mark in _REFLOWING_MARKS)
    )


def seen(line: str) -> str:
    """What a terminal would show of a line in the end: without escape sequences, and of what was written over each
    other the last.

    >>> seen("10%\\r\\x1b[32m20%\\x1b[0m\\r")
    '20%'
    """
    parts = [part for part in ESCAPES.sub("", line).split("\r") if part.strip()]
    return "".join(each for each in parts[-1].expandtabs() if each.isprintable()).rstrip() if parts else ""


def harmless(text: str) -> str:
    """``text`` for a terminal, less all that is more than text and color: what a recipe says must not name the window,
    fill the clipboard, have the terminal answer as if somebody typed, or write over what others have said.

    >>> harmless("\\x1b]52;c;eA==\\x07a\\x1b[2J\\x9b1Ab"), harmless("10%\\r20%\\r"), harmless("\\x1b[8mhidden")
    ('a1Ab', '20%', '\\x1b[8mhidden\\x1b[0m')
    """
    text = ESCAPES.sub(lambda found: found[0] if _COLOR.fullmatch(found[0]) else "", text)
    text = _CONTROLS.sub("", _WRITTEN_OVER.sub("", text))
    return text + _PLAIN if "\x1b" in text and not text.endswith(_PLAIN) else text


def cells(text: str) -> int:
    """How many columns ``text`` takes (UAX #11: wide characters take two; marks that combine take none)."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, columns: int) -> str:
    """``text`` in at most ``columns``, with an ellipsis where something is missing.

    >>> cut("RUN 漢字", 8), cut("RUN 漢字", 7)
    ('RUN 漢字', 'RUN 漢…')
    """
    if cells(text) <= columns:
        return text
    taken, room = [], columns - 1
    for each in text:
        room -= _cells(each)
        if room < 0:
            break
        taken.append(each)
    return "".join(taken) + "…"


def rows_taken(text: str, columns: int) -> int:
    """How many rows of a terminal a line takes that is wrapped at ``columns``.

    >>> rows_taken("123456", 3), rows_taken("1234567", 3), rows_taken("", 3), rows_taken("1漢漢", 2)
    (2, 3, 1, 3)
    """
    rows, room = 1, columns
    for each in ESCAPES.sub("", text):
        width = _cells(each)
        if width > room:
            rows, room = rows + 1, columns
        room -= width
    return rows


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
