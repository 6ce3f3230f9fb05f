"""Ignore files: which paths of a build context are left out.

The rules are those of moby/patternmatcher. Patterns hold in order and the last one that matches decides; one that
matches a directory matches all below it; ``!`` takes paths back in. ``*`` and ``?`` stop at a slash, ``**`` does not.
Paths are bytes, relative, without a leading or trailing slash.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import field
from typing import Self

from layerbuild.errors import RecipeError, Span
from layerbuild.frozen import frozen
from layerbuild.recipe.lines import BACKSLASH, SPACES

_SPECIAL = frozenset(".+()|{}$^")


@frozen
class Pattern:
    """One line of an ignore file. ``text`` is the line as written, ``glob`` the cleaned pattern without its ``!``."""

    file: str
    line: int
    text: str
    glob: str
    exception: bool
    regex: re.Pattern[str] = field(compare=False, repr=False)

    def matches(self, path: str) -> bool:
        """Whether it matches the path itself; whoever asks looks at the directories above, too."""
        return self.regex.fullmatch(path) is not None

    def may_match_below(self, directory: str) -> bool:
        """Whether some path below ``directory`` could match. True where that is hard to tell."""
        for part, name in zip(self.glob.split("/"), directory.split("/"), strict=False):
            if "**" in part or "[" in part or BACKSLASH in part:
                return True
            if not re.fullmatch(_translate(part), name, re.DOTALL):
                return False
        return self.glob.count("/") > directory.count("/")

    def __str__(self) -> str:
        return f"{self.file} line {self.line} (`{self.text}`)"


@frozen
class Verdict:
    """Whether a path is ignored, and by which rule: the last that matched, which may be an exception."""

    ignored: bool
    rule: Pattern | None = None


@frozen
class IgnoreRules:
    """The patterns of one ignore file, in order."""

    patterns: tuple[Pattern, ...] = ()
    _known: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, *, file: str = ".dockerignore") -> Self:
        """Read an ignore file. A line that begins with ``#`` is a comment; RecipeError for a pattern that is none."""
        found: list[Pattern] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            bare = line.strip(SPACES)
            if bare and not line.startswith("#"):
                found.append(read_pattern(bare, file=file, line=number))
        return cls(tuple(found))

    @property
    def has_exceptions(self) -> bool:
        return any(pattern.exception for pattern in self.patterns)

    def verdict(self, path: bytes) -> Verdict:
        """What the rules say about ``path``. Directories are remembered, so that a walk asks about each only once."""
        matched = self._matched(path.decode(errors="surrogateescape"))
        if not matched:
            return Verdict(False)
        rule = self.patterns[matched.bit_length() - 1]
        return Verdict(not rule.exception, rule)

    def prunes(self, directory: bytes) -> bool:
        """Whether a walk may skip ``directory``: it is ignored, and no exception can take back anything below it."""
        name = directory.decode(errors="surrogateescape")
        matched = self._matched(name)
        if not matched or self.patterns[matched.bit_length() - 1].exception:
            return False
        later = self.patterns[matched.bit_length() :]
        return not any(pattern.exception and pattern.may_match_below(name) for pattern in later)

    def _matched(self, path: str) -> int:
        """The rules that decide about ``path``, or did about a directory above it: bit N is rule N.

        As in a walk of BuildKit's, an exception is only looked at where the path is left out so far. So one that names
        a directory takes in what is below it only if the directory itself was left out: ``**/*.log`` and ``!logs``
        leave out ``logs/a.log``.
        """
        parent = path.rpartition("/")[0]
        bits = 0
        if parent:
            if parent not in self._known:
                self._known[parent] = self._matched(parent)
            bits = self._known[parent]
        ignored = False
        for index, pattern in enumerate(self.patterns):
            if bits >> index & 1 or (pattern.exception is ignored and pattern.matches(path)):
                bits |= 1 << index
                ignored = not pattern.exception
        return bits


def read_pattern(text: str, *, file: str = "", line: int = 0) -> Pattern:
    """One pattern, cleaned and compiled; RecipeError if it is malformed. ``text`` is neither blank nor a comment."""
    span = Span(file, line, end_line=line)
    exception = text.startswith("!")
    glob = text.removeprefix("!").strip(SPACES) if exception else text
    if not glob:
        raise RecipeError('illegal exclusion pattern: "!"', hint="name a path behind it", span=span)
    # As Go's path.Clean; normpath alone would keep two leading slashes, which POSIX allows to be special.
    glob = posixpath.normpath(re.sub("^/+", "/", glob))
    if exception and glob == "/":
        raise RecipeError(f'illegal exclusion pattern: "{text}"', hint="name a path below the context", span=span)
    glob = glob.removeprefix("/") if len(glob) > 1 else glob
    try:
        regex = re.compile(to_regex(glob), re.DOTALL)
    except (ValueError, re.error) as error:
        raise RecipeError(
            f"syntax error in pattern: {text}", hint="close brackets, and escape nothing at the end", span=span
        ) from error
    return Pattern(file, line, text, glob, exception, regex)


def to_regex(glob: str) -> str:
    """The regular expression that a whole path must match. ValueError if the pattern is malformed.

    >>> to_regex("**/foo*")
    '(.*/)?foo[^/]*'
    """
    if glob.startswith("**") and not _wild(rest := glob[2:]):
        # A name behind ** is a suffix, with or without a slash between: `**file` matches `dir/myfile`.
        return rf"(.*/)?{_translate(rest[1:])}" if rest.startswith("/") else rf".*{_translate(rest)}"
    return _translate(glob)


def _wild(text: str) -> bool:
    return any(char in text for char in "*?[]\\")


def _translate(glob: str) -> str:
    result: list[str] = []
    position = 0
    while position < len(glob):
        piece, position = _piece(glob, position)
        result.append(piece)
    return "".join(result)


def _piece(glob: str, position: int) -> tuple[str, int]:
    char = glob[position]
    if glob.startswith("**", position):
        position += 3 if glob.startswith("**/", position) else 2
        return ("(.*/)?" if position < len(glob) else ".*"), position
    if char == "*":
        return "[^/]*", position + 1
    if char == "?":
        return "[^/]", position + 1
    if char == "[":
        return _bracket(glob, position)
    if char == BACKSLASH:
        if position + 1 == len(glob):
            raise ValueError("nothing behind the escape")
        return re.escape(glob[position + 1]), position + 2
    return (BACKSLASH + char if char in _SPECIAL or char == "]" else char), position + 1


def _bracket(glob: str, position: int) -> tuple[str, int]:
    """A set such as ``[a-z]`` or ``[^a-z]``. As in Go's path.Match, ``-`` and ``]`` in it must be escaped."""
    start = position + 1
    negated = glob.startswith("^", start)
    position = start + negated
    ranges: list[str] = []
    while not (ranges and glob.startswith("]", position)):
        low, position = _member(glob, position)
        high = low
        if glob.startswith("-", position):
            high, position = _member(glob, position + 1)
        if high >= low:
            ranges.append(f"{_set_escape(low)}-{_set_escape(high)}" if high != low else _set_escape(low))
        else:
            ranges.append("")
    inner = "".join(ranges)
    if not inner:  # only ranges that hold nothing
        return ("." if negated else "(?!)"), position + 1
    return f"[{'^' * negated}{inner}]", position + 1


def _set_escape(char: str) -> str:
    return BACKSLASH + char if char in "\\^-[]&~|" else char


def _member(glob: str, position: int) -> tuple[str, int]:
    char = glob[position : position + 1]
    if not char or char in "-]":
        raise ValueError("malformed set")
    if char == BACKSLASH:
        position += 1
        char = glob[position : position + 1]
        if not char:
            raise ValueError("nothing behind the escape")
    return char, position + 1
