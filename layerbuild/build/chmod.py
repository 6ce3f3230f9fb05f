"""``--chmod``: octal, or symbolic as chmod(1) has it, with an umask of 0.

One letter differs from GNU's chmod: whether ``X`` means anything is asked of the mode before the first change, as POSIX
says ("current (unmodified) file mode bits") and BuildKit does.
"""

from __future__ import annotations

import re

from layerbuild.errors import BuildError, Span
from layerbuild.frozen import frozen

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_ALL = 0o7777


@frozen
class Chmod:
    """A mode to set (``octal``), or changes to a mode, in order: whose bits, ``+``, ``-`` or ``=``, which."""

    octal: int | None
    changes: tuple[tuple[int, str, str], ...] = ()

    @classmethod
    def parse(cls, text: str, *, span: Span) -> Chmod:
        """Octal 0 to 07777, or clauses such as ``u=rwX,go=rX``."""
        if re.fullmatch(r"[0-7]+", text) and int(text, 8) <= _ALL:
            return cls(int(text, 8))
        changes: list[tuple[int, str, str]] = []
        for clause in text.split(","):
            found = _CLAUSE.fullmatch(clause)
            if found is None:
                message = f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                raise BuildError(message, span=span, hint="or symbolic, as in --chmod=u=rwX,go=rX")
            who = 0
            for letter in found[1] or "a":
                who |= _ALL if letter == "a" else _WHO[letter]
            changes += [(who, action[1], action[2]) for action in _ACTION.finditer(found[2])]
        return cls(None, tuple(changes))

    def apply(self, mode: int, *, is_folder: bool) -> int:
        """The 12 permission bits that ``mode`` becomes."""
        if self.octal is not None:
            return self.octal
        runs = is_folder or mode & 0o111 != 0
        for who, operator, letters in self.changes:
            bits = _bits(letters, mode, runs=runs) & who
            if operator == "+":
                mode |= bits
            elif operator == "-":
                mode &= ~bits
            else:
                mode = (mode & ~who) | bits
        return mode


def _bits(letters: str, mode: int, *, runs: bool) -> int:
    if letters in ("u", "g", "o"):
        three = mode >> {"u": 6, "g": 3, "o": 0}[letters] & 7
        return three * 0o111
    bits = 0
    for letter in letters:
        if letter == "X":
            bits |= 0o111 if runs else 0
        else:
            bits |= _BITS[letter]
    return bits
