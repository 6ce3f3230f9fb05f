"""What a terminal makes of text: how many columns and rows it takes, also when the terminal grows narrow."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# Escape sequences: control sequences, operating system commands, all others (ECMA-48, 5.4 and 8.3.89)
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~]?)")

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
