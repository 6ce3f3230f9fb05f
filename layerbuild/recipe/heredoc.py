"""Heredocs: documents that follow the line which names them.

``RUN <<EOF`` is followed by lines up to one that says ``EOF``. They belong to the recipe, not to a shell, and must be
found before any other line is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.recipe.lines import Line, not_utf8
from layerbuild.recipe.words import literal_words, raw_words

_FORM = re.compile(r"([0-9]*)<<(-?)\s*([^<]*)")


@frozen
class Mark:
    """The word that announces a heredoc. ``chomp`` (``<<-``) drops leading tabs, ``expand`` replaces variables in the
    body: quoting any part of the name turns that off."""

    name: str
    descriptor: int
    chomp: bool
    expand: bool

    @property
    def file_name(self) -> str:
        """What a file with the body is called; a RecipeError, without a place, for a name that no file can have."""
        if "/" in self.name or self.name in (".", ".."):
            raise RecipeError(f"a heredoc called {self.name!r} makes no file", hint="a path is for the destination")
        return self.name


@frozen
class Heredoc:
    """A mark with its body as written, line ends and tabs included."""

    mark: Mark
    body: str

    @property
    def content(self) -> str:
        """The body, less the leading tabs that ``<<-`` drops."""
        return re.sub(r"^\t+", "", self.body, flags=re.MULTILINE) if self.mark.chomp else self.body

    @property
    def written(self) -> str:
        """The body and the line that ends it."""
        return f"{self.body}{self.mark.name}"


def read_mark(word: str) -> Mark | None:
    """The heredoc that ``word`` announces, None if it announces none; RecipeError if its quotes are not closed.

    >>> read_mark("3<<-'EOF'")
    Mark(name='EOF', descriptor=3, chomp=True, expand=False)
    """
    form = _FORM.fullmatch(word)
    if form is None or not form[3]:
        return None
    names = literal_words(form[3])
    if len(names) != 1:
        return None
    raw = raw_words(form[3])[0]
    descriptor = int(form[1][-9:] or "0")
    return Mark(names[0], descriptor, form[2] == "-", _quotes(raw) == _quotes(names[0]))


def read_marks(text: str) -> tuple[Mark, ...]:
    """The heredocs that a logical line announces. A line that does not split into shell words announces none: its
    quotes are then the shell's business."""
    if "<<" not in text:
        return ()
    try:
        words = raw_words(text)
    except RecipeError:
        return ()
    return tuple(mark for word in words if (mark := read_mark(word)) is not None)


def read_body(mark: Mark, lines: Sequence[Line], start: int) -> tuple[Heredoc, int]:
    """The heredoc whose body begins at index ``start`` of ``lines``, and the index behind the line that ends it."""
    for index in range(start, len(lines)):
        text = lines[index].text
        if (text.lstrip("\t") if mark.chomp else text) == mark.name:
            body = lines[start:index]
            if any(line.broken for line in body):
                raise not_utf8()
            return Heredoc(mark, "".join(line.raw for line in body)), index + 1
    raise RecipeError("unterminated heredoc", hint=f"end it with a line that holds only {mark.name}")


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
