"""Contexts by chance with an ignore file, and patterns in COPY: which files are seen, and which are left out."""

from __future__ import annotations

import shlex
from random import Random

from differential_cases import Case

_NAMES = ("a", "b", ".d", "foo", "foo.txt", "a.txt")
_PATTERNS = (*_NAMES, *_NAMES, "*", "*", "**", "**", "?", "[ab]", "[^a]", "foo*", "*.txt", "*o*", "**foo", "foo**")
# What is named without a pattern must be there.
_SOURCES = (*(".",) * 8, "*", "**", "*/*", "[ab]*", "*.txt", "?")


def ignoring_case(seed: int) -> Case:
    """Always the same one for a seed."""
    return _Maker(Random(seed)).case(f"ignoring-{seed}")


class _Maker:
    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def case(self, name: str) -> Case:
        files = [self._file(size) for size in range(1, self._chance.randint(7, 14))]
        rules = [self._chance.choice(("", "", "!")) + self._pattern() for _ in range(self._chance.randint(1, 4))]
        ignore = f"printf '%s\\n' {' '.join(map(shlex.quote, rules))} > .dockerignore"
        copies = [self._copy(number) for number in range(self._chance.randint(1, 3))]
        return Case(name, "\n".join(("FROM busybox", *copies)) + "\n", (*files, ignore))

    def _file(self, size: int) -> str:
        # No two of one length: BuildKit takes a file of the same size and time for the same.
        path = "/".join(self._chance.choice(_NAMES) for _ in range(self._chance.randint(1, 4)))
        parent = path.rpartition("/")[0] or "."
        makes = (f"echo {'x' * size} > {path}",) * 5 + (f"mkdir -p {path}", f"ln -s . {path}")
        return f"{{ mkdir -p {parent} && {self._chance.choice(makes)}; }} 2>/dev/null || true"

    def _pattern(self) -> str:
        names = [self._chance.choice(_PATTERNS) for _ in range(self._chance.choice((1, 1, 2, 2, 3)))]
        ends = self._chance.choice(("", "", "", "**/", "./")), self._chance.choice(("", "", "/", "/**"))
        return "/".join(names).join(ends)

    def _copy(self, number: int) -> str:
        marks = [self._chance.choice(("", "", "!")) for _ in range(self._chance.choice((0, 0, 1, 2)))]
        flags = "".join(f"--exclude={mark}{self._pattern()} " for mark in marks)
        return f"COPY {flags}{self._chance.choice(_SOURCES)} /{number}/"
