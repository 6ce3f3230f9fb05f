"""The known name that a misspelt one may have meant."""

from __future__ import annotations

from collections.abc import Iterable

# BuildKit suggests a name that is at most two edits away.
_TOO_FAR = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """The first of the ``known`` names that fewest edits turn into ``name``, empty: none is near enough.

    >>> nearest("PAHT", ("HOME", "PATH"))
    'PATH'
    """
    found, least = "", _TOO_FAR
    for other in known:
        if abs(len(other) - len(name)) < least and (edits := _distance(name, other)) < least:
            found, least = other, edits
    return found


def _distance(one: str, other: str) -> int:
    """How many characters must be added, dropped or replaced (Levenshtein)."""
    row = list(range(len(other) + 1))
    for count, char in enumerate(one, start=1):
        diagonal, row[0] = row[0], count
        for index, against in enumerate(other, start=1):
            replaced = diagonal + (char != against)
            diagonal = row[index]
            row[index] = min(replaced, row[index] + 1, row[index - 1] + 1)
    return row[-1]
