"""The physical lines of a recipe, and what each of them is on its own: blank, a comment, continued or not."""

from __future__ import annotations

import re
from dataclasses import replace

from layerbuild.errors import RecipeError, Span
from layerbuild.frozen import frozen

# White space as Go's unicode.IsSpace sees it, which is how every Dockerfile parser does. Python's own notion has four
# more characters (U+001C to U+001F), so str.strip() and \s would split where others don't.
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

# The white space of the parts of BuildKit's parser that go byte by byte: flags, and the type of a HEALTHCHECK.
ASCII_SPACES = "\t\n\v\f\r "

# The longest line that BuildKit's scanner takes (Go's bufio.MaxScanTokenSize is 64 KiB).
LONGEST_LINE = 65535

BACKSLASH = "\\"

_LONE = re.compile("[\ud800-\udfff]")  # what bytes that are no UTF-8 were decoded to

_CONTINUED = {
    escape: re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*\Z") for escape in (BACKSLASH, "`")
}


@frozen
class Line:
    """One physical line: ``text`` without its end, ``end`` as written (empty at the end of a file). ``broken`` is the
    column of the first byte that is no UTF-8, 0 if all are: a comment may have such, and its text shows U+FFFD there.
    """

    number: int
    text: str
    end: str
    broken: int = 0

    @property
    def raw(self) -> str:
        return self.text + self.end

    @property
    def blank(self) -> bool:
        return not self.text.strip(SPACES)

    @property
    def comment(self) -> bool:
        return self.text.lstrip(SPACES).startswith("#")

    def continued(self, escape: str) -> bool:
        """Whether the next line belongs to it: it ends in one escape character, blanks and tabs aside."""
        return escape in self.text and _CONTINUED[escape].search(self.text) is not None

    def without_escape(self, escape: str) -> str:
        """The text of a continued line, less the escape character and the blanks behind it."""
        return self.text.rstrip(" \t").removesuffix(escape)


def read_lines(text: str, *, file: str) -> tuple[Line, ...]:
    """Split at line feeds; a byte-order mark is dropped, and carriage returns before a line feed belong to the line's
    end. A RecipeError tells of a line that is too long, or that is no text.

    Bytes that are no UTF-8 are expected as lone surrogates (``errors="surrogateescape"``): they are refused here,
    where the line is known, but for comments, which nobody reads.
    """
    lines: list[Line] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        bare = raw.rstrip("\r")
        line = Line(number, bare, raw[len(bare) :] + "\n")
        plain = bare.isascii() and len(bare) <= LONGEST_LINE and "\0" not in bare
        lines.append(line if plain else _checked(line, file))
    last = lines.pop()
    if last.raw != "\n":
        lines.append(replace(last, end=last.end.removesuffix("\n")))
    return tuple(lines)


def readable(text: str) -> str:
    """``text`` with U+FFFD for each byte that is no UTF-8."""
    return _LONE.sub("\ufffd", text)


def not_utf8() -> RecipeError:
    """The error, without a place, for a line that means something and can't be read."""
    return RecipeError("this line is not UTF-8", hint="save the recipe as UTF-8")


def _checked(line: Line, file: str) -> Line:
    span = Span(file, line.number, end_line=line.number)
    size = len(line.text.encode("utf-8", "surrogatepass"))
    if size > LONGEST_LINE:
        raise RecipeError(
            f"dockerfile line greater than max allowed size of {LONGEST_LINE}",
            hint="break it with a continuation, or put the data in a file and COPY it",
            span=span,
        )
    if "\0" in line.text:
        raise RecipeError("this line holds a NUL byte", hint="is this a text file?", span=span)
    lone = _LONE.search(line.text)
    if lone is None:
        return line
    if not line.comment:
        error = not_utf8()
        error.span = span.at(line.number, lone.start() + 1)
        raise error
    return replace(line, text=readable(line.text), broken=lone.start() + 1)
