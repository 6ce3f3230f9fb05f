"""The shapes that an instruction's arguments take: one function per shape, from a statement's rest to ``Arguments``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.recipe.lines import ASCII_SPACES
from layerbuild.recipe.words import Word, cut_blank, split_blanks, split_words

_FIRST = re.compile(f"[{ASCII_SPACES}]+")


@frozen
class Arguments:
    """``words`` in order; ``json`` tells that they stood in a JSON array, which is the exec form; ``legacy`` that a
    pair was written without ``=``."""

    words: tuple[Word, ...]
    json: bool = False
    legacy: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)


Shape = Callable[[Word, str], Arguments]
"""A shape takes the rest of a statement and the escape character."""


def whole(rest: Word, _escape: str) -> Arguments:
    """The rest as one word, blanks included: MAINTAINER, STOPSIGNAL, USER, WORKDIR."""
    return Arguments((rest,) if rest.text else ())


def blank_separated(rest: Word, _escape: str) -> Arguments:
    """FROM, EXPOSE."""
    return Arguments(split_blanks(rest))


def json_or_blanks(rest: Word, escape: str) -> Arguments:
    """ADD, COPY, VOLUME."""
    return _json(rest) or blank_separated(rest, escape)


def json_or_whole(rest: Word, escape: str) -> Arguments:
    """RUN, CMD, ENTRYPOINT, SHELL."""
    return _json(rest) or whole(rest, escape)


def type_and_command(rest: Word, escape: str) -> Arguments:
    """HEALTHCHECK: a type, then a command in either form."""
    name = _FIRST.split(rest.text, maxsplit=1)[0]
    tail = rest.text[len(name) :].lstrip(ASCII_SPACES)
    command = json_or_whole(Word(tail, rest.offset + len(rest.text) - len(tail)), escape)
    words = (Word(name, rest.offset), *command.words) if name else ()
    return Arguments(words, command.json)


def quoted_words(rest: Word, escape: str) -> Arguments:
    """ARG: words with quotes and escapes kept."""
    return Arguments(split_words(rest, escape=escape))


def key_values(rest: Word, escape: str) -> Arguments:
    """ENV, LABEL: key, value, key, value, … from ``key=value …``, or from the old ``key value``."""
    words = split_words(rest, escape=escape)
    if not words:
        return Arguments(())
    if "=" not in words[0].text:
        return _old_pair(rest)
    pairs: list[Word] = []
    for word in words:
        key, equals, value = word.text.partition("=")
        if not equals:
            raise Misplaced(
                f'Syntax error - can\'t find = in "{word.text}". Must be of the form: name=value',
                word,
                hint="a comment has a line of its own" if word.text == "#" else "quote a value that holds blanks",
            )
        pairs += (Word(key, word.offset), Word(value, word.offset + len(key) + 1))
    return Arguments(tuple(pairs))


def _old_pair(rest: Word) -> Arguments:
    key, value = cut_blank(rest)
    if value is None:
        raise Misplaced("must have two arguments", rest, hint="write name=value", keyword=True)
    return Arguments((key, value), legacy=True)


class Misplaced(RecipeError):
    """Raised by a shape, which knows the word but neither file nor line: the statement turns it into a RecipeError
    with a span. ``keyword`` asks for the instruction's name in front of the message."""

    def __init__(self, message: str, word: Word, *, hint: str = "", keyword: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.word = word
        self.keyword = keyword


def json_array(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array that is all of ``text``; None if it is no JSON array.

    A valid array with anything but strings is a RecipeError: nobody means a shell command by it.
    """
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text, parse_int=float, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in values):
        raise RecipeError(
            "when using JSON array syntax, arrays must be comprised of strings only",
            hint='put every element in double quotes: ["a", "1"]',
        )
    # Half of a surrogate pair is no character: Go's decoder replaces it, and nothing could encode it.
    return tuple(value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for value in values)


def _json(rest: Word) -> Arguments | None:
    try:
        values = json_array(rest.text)
    except RecipeError as error:
        raise Misplaced(error.message, rest, hint=error.hint) from error
    if values is None:
        return None
    return Arguments(tuple(Word(value, rest.offset) for value in values), json=True)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")  # Python would read NaN and Infinity
