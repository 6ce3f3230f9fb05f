"""Recipe text to statements: directives, logical lines, flags, heredocs.

``dockerfile-parse`` splits the text into logical lines. It reads Dockerfiles as they were before BuildKit, so it gets
each line in a form that it cannot misread (``_plain``), in segments that end where a heredoc begins, and the words of
a logical line are put together here from the lines that it found to belong together.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter

from layerbuild.errors import RecipeError, Span
from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import Arguments, Misplaced, Shape, json_array
from layerbuild.recipe.directives import Directive, detect, read_directives
from layerbuild.recipe.heredoc import Heredoc, read_body, read_marks
from layerbuild.recipe.lines import ASCII_SPACES, BACKSLASH, SPACES, Line, read_lines, readable
from layerbuild.recipe.words import Word, cut_blank

WITH_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))


@frozen
class Comment:
    """A comment line above a statement: ``text`` is what stands behind the ``#``, without the blanks around it."""

    text: str
    span: Span


@frozen
class Piece:
    """Where a part of a logical line was written: from ``offset`` of its text on, at that line and column."""

    offset: int
    line: int
    column: int


@frozen
class Statement:
    """One logical line: split, but not yet understood.

    ``keyword`` is upper case, ``spelling`` as written; ``flags`` are the ``--…`` words in front, unquoted; ``rest`` is
    all that follows; ``text`` is the joined line that offsets count in; ``escape`` the recipe's escape character.
    ``comments`` are the comment lines between it and what stands above: an empty one takes away those before it, a
    blank line doesn't, and a directive is none. ``gaps`` are the numbers of the empty lines in its continuation.
    """

    keyword: str
    spelling: str
    flags: tuple[Word, ...]
    rest: Word
    heredocs: tuple[Heredoc, ...]
    text: str
    span: Span
    pieces: tuple[Piece, ...]
    escape: str = BACKSLASH
    comments: tuple[Comment, ...] = ()
    gaps: tuple[int, ...] = ()

    def at(self, word: Word) -> Span:
        """Where ``word`` stands in the recipe."""
        if not self.pieces:
            return self.span
        piece = self.pieces[bisect_right(self.pieces, word.offset, key=attrgetter("offset")) - 1]
        return self.span.at(piece.line, piece.column + word.offset - piece.offset)

    def arguments(self, shape: Shape) -> Arguments:
        """The rest, read in the given shape."""
        try:
            return shape(self.rest, self.escape)
        except Misplaced as error:
            message = f"{self.keyword} {error.message}" if error.keyword else error.message
            raise RecipeError(message, hint=error.hint, span=self.at(error.word)) from error

    def description(self, name: str) -> str:
        """What the comments above say about ``name``: ``# NAME text``, as above a stage or an ARG. Empty: nothing."""
        found = (comment.text for comment in self.comments if name and comment.text.startswith(f"{name} "))
        return next(found, "").removeprefix(f"{name} ")

    def error(self, message: str, *, at: Word | None = None, hint: str = "") -> RecipeError:
        """A RecipeError about this statement, or about one word of it."""
        return RecipeError(message, hint=hint, span=self.span if at is None else self.at(at))


@frozen
class Recipe:
    """A whole recipe, split. ``frontend`` is the directive by which the text names the front end that it is for, in
    whatever language, ``check`` the one that controls the linter: both may stand where the parser sees none, behind a
    ``#!`` line, say."""

    file: str
    directives: tuple[Directive, ...]
    statements: tuple[Statement, ...]
    frontend: Directive | None = None
    check: Directive | None = None

    def directive(self, name: str) -> Directive | None:
        """The directive of that name, if the recipe has it."""
        return next((directive for directive in self.directives if directive.name == name), None)


def parse(text: str, *, file: str = "Dockerfile", escape: str = BACKSLASH) -> Recipe:
    """Split ``text`` into statements. ``file`` is what messages call it; ``escape`` holds unless a directive says
    otherwise. RecipeError, with a place, for bad input."""
    lines = read_lines(text, file=file)
    directives = read_directives(lines, file=file)
    escape = next((directive.value for directive in directives if directive.name == "escape"), escape)
    statements = tuple(_Splitter(lines, file=file, escape=escape).statements())
    if not statements:
        what = "file with no instructions" if text else "the file is empty"
        raise RecipeError(what, hint="a recipe begins with FROM", span=Span(file, 1, end_line=1))
    commented = tuple(_commented(statements, lines, behind=len(directives)))
    text = text if text.isascii() else readable(text)
    frontend = detect(text, "syntax", foreign=True, file=file)
    return Recipe(file, directives, commented, frontend, detect(text, "check", file=file))


def _commented(statements: Iterable[Statement], lines: Sequence[Line], *, behind: int) -> Iterator[Statement]:
    """The statements with their comments; ``behind`` is the number of the line that the first of them may follow."""
    for statement in statements:
        comments = _comments(lines[behind : statement.span.line - 1], file=statement.span.file)
        yield replace(statement, comments=comments) if comments else statement
        behind = statement.span.end_line


def _comments(lines: Sequence[Line], *, file: str) -> tuple[Comment, ...]:
    found: list[Comment] = []
    for line in lines:
        text = line.text.strip(SPACES)
        if text == "#":
            found.clear()
        elif text:  # no statement begins here, so whatever is not blank is a comment
            found.append(Comment(text[1:].strip(SPACES), Span(file, line.number, end_line=line.number)))
    return tuple(found)


def parse_trigger(text: str, *, span: Span, escape: str = BACKSLASH) -> Statement:
    """The one instruction that an ONBUILD trigger is; all its words are said to stand at ``span``. ``escape`` is that
    of the recipe where it stands; where it fires, from an image's configuration, a backslash is all that is known."""
    try:
        statements = parse(text, file=span.file, escape=escape).statements
    except RecipeError as error:
        raise RecipeError(f"ONBUILD trigger `{text}`: {error.message}", hint=error.hint, span=span) from error
    if len(statements) != 1:
        raise RecipeError(f"ONBUILD trigger `{text}` is not exactly one instruction", span=span)
    # The trigger was written elsewhere, so its columns mean nothing here: without pieces every place is the span.
    return replace(statements[0], span=span, pieces=())


@contextmanager
def placed(span: Span) -> Iterator[None]:
    """Give a RecipeError from within that knows no place the place ``span``."""
    try:
        yield
    except RecipeError as error:
        error.span = error.span or span
        raise


# -- logical lines -----------------------------------------------------------------------------------------------------


class _Splitter:
    """Walks over the lines in segments: each ends with the logical line that a ``<<`` stands in, because what follows
    that may be a body and no instruction. Every line is split once, so the whole is linear in the recipe's length."""

    def __init__(self, lines: Sequence[Line], *, file: str, escape: str) -> None:
        self._lines = lines
        self._file = file
        self._escape = escape

    def statements(self) -> Iterator[Statement]:
        position = 0
        while position < len(self._lines):
            end = self._segment_end(position)
            groups = _logical_lines(self._lines[position:end], escape=self._escape)
            for first, last in groups[:-1]:
                yield self._statement(position + first, position + last)
            if groups:
                first, last = groups[-1]
                statement, end = self._with_heredocs(self._statement(position + first, position + last), end)
                yield statement
            position = end

    def _segment_end(self, position: int) -> int:
        """The index behind the next logical line that holds a ``<<``, or behind the last line."""
        inside = False
        for index in range(position, len(self._lines)):
            line = self._lines[index]
            if (inside or "<<" in line.text) and not line.comment and not line.blank:
                inside = True
                if not line.continued(self._escape):
                    return index + 1
        return len(self._lines)

    def _statement(self, first: int, last: int) -> Statement:
        lines = [line for line in self._lines[first : last + 1] if not line.comment and not line.blank]
        span = Span(self._file, lines[0].number, 1, self._lines[last].number)
        text, pieces = _join(lines, escape=self._escape)
        span = replace(span, column=pieces[0].column)
        indent = len(text) - len(text.lstrip(SPACES))
        spelling, rest = cut_blank(Word(text.strip(SPACES), indent))
        flags, rest = read_flags(rest or Word("", len(text)), escape=self._escape)
        gaps = tuple(line.number for line in self._lines[first : last + 1] if line.blank)
        keyword = spelling.text.upper()
        return Statement(keyword, spelling.text, flags, rest, (), text, span, pieces, escape=self._escape, gaps=gaps)

    def _with_heredocs(self, statement: Statement, position: int) -> tuple[Statement, int]:
        """The statement with the heredocs that begin at index ``position``, and the index behind the last of them."""
        if not _may_have_heredocs(statement):
            return statement, position
        heredocs: list[Heredoc] = []
        with placed(statement.span):
            for mark in read_marks(statement.text):
                heredoc, position = read_body(mark, self._lines, position)
                heredocs.append(heredoc)
        if not heredocs:
            return statement, position
        span = replace(statement.span, end_line=self._lines[position - 1].number)
        return replace(statement, heredocs=tuple(heredocs), span=span), position


def _may_have_heredocs(statement: Statement) -> bool:
    """RUN, ADD and COPY may, also behind ONBUILD; but a JSON array holds strings, whatever they look like."""
    keyword, rest = statement.keyword, statement.rest
    if keyword == "ONBUILD":
        spelling, tail = cut_blank(rest)
        keyword = spelling.text.upper()
        _, rest = read_flags(tail or Word("", rest.offset), escape=statement.escape)
    return keyword in WITH_HEREDOCS and not (rest.text.startswith("[") and _is_array(rest.text))


def _is_array(text: str) -> bool:
    try:
        return json_array(text) is not None
    except RecipeError:
        return True


def _logical_lines(lines: Sequence[Line], *, escape: str) -> list[tuple[int, int]]:
    """The first and last index of each logical line, as dockerfile-parse finds them."""
    from dockerfile_parse import DockerfileParser

    kept = [index for index, line in enumerate(lines) if not line.blank]
    if not kept:
        return []
    # dockerfile-parse forgets an instruction that the end of the file cuts off, so its last line may not be continued.
    significant = [index for index in kept if not lines[index].comment]
    last = significant[-1] if significant else -1
    plain = "".join(_plain(lines[index], escape=escape, final=index == last) for index in kept)
    structure = DockerfileParser(fileobj=io.BytesIO(plain.encode()), env_replace=False).structure
    found = [
        (kept[part["startline"]], kept[part["endline"]]) for part in structure if not part["content"].startswith("#")
    ]
    if significant and lines[last].continued(escape):
        found[-1] = (found[-1][0], len(lines) - 1)  # blank lines and comments behind it still belong to it
    return found


# Characters that end a line or separate words for Python's regular expressions, but not for a Dockerfile.
_NO_SPACE = dict.fromkeys((0x1C, 0x1D, 0x1E, 0x1F), ".")


def _plain(line: Line, *, escape: str, final: bool) -> str:
    """The line in a form that dockerfile-parse reads as BuildKit reads the original.

    It takes any ``# escape=`` for the directive, wherever that stands: a comment is handed over bare. It lets a blank
    line end a continuation: those are left out. And for it a line is continued by any escape character before any kind
    of blank: a line that is continued ends in one backslash here, and one that is not in something else.
    """
    if line.comment:
        return "#\n"
    if line.continued(escape) and not final:
        return line.without_escape(escape).translate(_NO_SPACE) + "\\\n"
    text = line.text.translate(_NO_SPACE)
    return text + ".\n" if text.rstrip().endswith(BACKSLASH) else text + "\n"


def _join(lines: Sequence[Line], *, escape: str) -> tuple[str, tuple[Piece, ...]]:
    """The lines put together: escapes go, and nothing comes in between. Only the first line loses its indent."""
    parts: list[str] = []
    pieces: list[Piece] = []
    length = 0
    for line in lines:
        text = line.without_escape(escape) if line.continued(escape) else line.text
        column = 1
        if not pieces:
            stripped = text.lstrip(SPACES)
            column += len(text) - len(stripped)
            text = stripped
        pieces.append(Piece(length, line.number, column))
        parts.append(text)
        length += len(text)
    return "".join(parts), tuple(pieces)


# -- flags -------------------------------------------------------------------------------------------------------------


def read_flags(rest: Word, *, escape: str) -> tuple[tuple[Word, ...], Word]:
    """Take the leading ``--…`` words off ``rest``: quotes and escapes in them are honoured and removed. ``--`` alone
    ends them, and so does the first word that is no flag."""
    text = rest.text
    flags: list[Word] = []
    position = _skip_spaces(text, 0)
    while text.startswith("--", position):
        start = position
        word, position = _flag_word(text, position, escape=escape)
        position = _skip_spaces(text, position)
        if word == "--":
            break
        flags.append(Word(word, rest.offset + start))
    rest_text = text[position:].lstrip(SPACES)
    return tuple(flags), Word(rest_text.rstrip(SPACES), rest.offset + len(text) - len(rest_text))


def _skip_spaces(text: str, position: int) -> int:
    while position < len(text) and text[position] in ASCII_SPACES:
        position += 1
    return position


def _flag_word(text: str, position: int, *, escape: str) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while position < len(text):
        char = text[position]
        if not quote and char in ASCII_SPACES:
            break
        position += 1
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char != escape:
            word.append(char)
        elif position < len(text):
            word.append(text[position])
            position += 1
    return "".join(word), position
