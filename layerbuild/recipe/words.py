"""Words: splitting an instruction's arguments, and expanding variables in them.

Two things that look alike and differ: ``split_words`` only finds where words end and keeps quotes and escapes;
``expand`` replaces variables and takes quotes and escapes away. An instruction is split first, so that a value with
blanks stays one argument. The grammar of ``${…}`` is that of BuildKit's word lexer: the POSIX forms without ``=``, and
``/`` and ``//`` for replacement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.recipe.lines import BACKSLASH, SPACES

# Deep enough for any recipe, and shallow enough for Python's stack: each level of ${a:-${b:-…}} is a few frames.
DEEPEST = 64

_UNCLOSED = "close the quote, or put the escape character in front of one that is meant"
_MODIFIERS = "known are :- - :+ + :? ? # ## % %% / and //; what a shell knows besides, RUN can use"

_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")
_BLANKS = re.compile(r"[\t\v\f\r ]+")


@frozen
class Word:
    """A piece of a statement and the offset in the statement's text where it begins."""

    text: str
    offset: int


@frozen
class Expansion:
    """``text`` is the result as one word, ``words`` the result split at blanks that no quote protects. ``used`` and
    ``unset`` are the names of variables that were met and had, or had not, a value."""

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    unset: frozenset[str]


# -- splitting ---------------------------------------------------------------------------------------------------------


def split_blanks(rest: Word) -> tuple[Word, ...]:
    """Split at blanks alone; quotes mean nothing."""
    found: list[Word] = []
    position = 0
    for gap in _BLANKS.finditer(rest.text):
        found.append(Word(rest.text[position : gap.start()], rest.offset + position))
        position = gap.end()
    return (*found, Word(rest.text[position:], rest.offset + position)) if rest.text else ()


def cut_blank(rest: Word) -> tuple[Word, Word | None]:
    """The text up to the first blanks, and the text behind them (None: there are no blanks)."""
    gap = _BLANKS.search(rest.text)
    if gap is None:
        return rest, None
    return Word(rest.text[: gap.start()], rest.offset), Word(rest.text[gap.end() :], rest.offset + gap.end())


@lru_cache(maxsize=4)
def _word_pattern(escape: str) -> re.Pattern[str]:
    # Outside quotes and inside double quotes an escape protects the next character; inside single quotes it has no
    # power. A quote that is never closed reaches to the end: expansion reports it, where the words are understood.
    mark = re.escape(escape)
    quoted = rf"\"(?:{mark}.|[^\"{mark}])*(?:\"|{mark}?\Z)|'[^']*(?:'|\Z)"
    return re.compile(rf"(?:{mark}(?:.|\Z)|{quoted}|[^\"'{mark}{SPACES}])+", re.DOTALL)


def split_words(rest: Word, *, escape: str = BACKSLASH) -> tuple[Word, ...]:
    """Split at blanks outside quotes; quotes and escapes stay. A lone escape at the very end is dropped."""
    text = rest.text
    found = [Word(match.group(), rest.offset + match.start()) for match in _word_pattern(escape).finditer(text)]
    if found and _ends_escaped(found[-1].text, escape):
        last = found.pop()
        if len(last.text) > 1:
            found.append(Word(last.text[:-1], last.offset))
    return tuple(found)


def _ends_escaped(word: str, escape: str) -> bool:
    """Whether the word ends in an escape that protects nothing."""
    if not word.endswith(escape):
        return False
    quote = ""
    position = 0
    while position < len(word):
        char = word[position]
        if char == escape and quote != "'":
            if position + 1 == len(word):
                return True
            position += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        position += 1
    return False


# -- expanding ---------------------------------------------------------------------------------------------------------


def expand(text: str, env: Mapping[str, str], *, escape: str = BACKSLASH) -> str:
    """``text`` with its variables replaced, quotes and escapes removed: always one word.

    An unset variable is empty. A RecipeError, without a place, tells of a form that is wrong.
    """
    if "$" not in text and escape not in text and "'" not in text and '"' not in text:
        return text
    return expansion(text, env, escape=escape).text


def expand_words(text: str, env: Mapping[str, str], *, escape: str = BACKSLASH) -> tuple[str, ...]:
    """The same, split at blanks, those included that came out of an unquoted variable. EXPOSE alone wants this."""
    return expansion(text, env, escape=escape).words


def expand_document(text: str, env: Mapping[str, str]) -> Expansion:
    """A heredoc's body with its variables replaced: quotes are ordinary there, and the escape is always a backslash."""
    return _Lexer(text, env, escape=BACKSLASH, quotes=False).run()


def expansion(text: str, env: Mapping[str, str], *, escape: str = BACKSLASH) -> Expansion:
    """``text`` expanded, with all that can be said about it."""
    try:
        return _Lexer(text, env, escape=escape).run()
    except RecipeError as error:
        raise RecipeError(f'failed to process "{text}": {error.message}', hint=error.hint) from error


def literal_words(text: str) -> tuple[str, ...]:
    """Shell-like words with quotes and escapes removed and variables left as they are written."""
    return _Lexer(text, {}, escape=BACKSLASH, keep_unset=True).run().words


def raw_words(text: str) -> tuple[str, ...]:
    """Shell-like words with quotes, escapes and variables left as they are written."""
    return _Lexer(text, {}, escape=BACKSLASH, keep_unset=True, keep_marks=True).run().words


class _Words:
    """Collects words: a blank outside quotes ends one."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._open: list[str] = []

    def add(self, text: str) -> None:
        """Text that may hold blanks which split."""
        for char in text:
            if char not in SPACES:
                self._open.append(char)
            else:
                self.close()

    def add_whole(self, text: str) -> None:
        """Text that came out of quotes: its blanks do not split."""
        self._open.append(text)

    def close(self) -> None:
        word = "".join(self._open)
        if word:
            self.done.append(word)
            self._open.clear()


class _Lexer:
    """One pass over one text. ``keep_marks`` leaves quotes and escapes in, ``keep_unset`` unset variables."""

    def __init__(
        self,
        text: str,
        env: Mapping[str, str],
        *,
        escape: str,
        quotes: bool = True,
        keep_unset: bool = False,
        keep_marks: bool = False,
    ) -> None:
        self._text = text
        self._position = 0
        self._env = env
        self._escape = escape
        self._quotes = "'\"" if quotes else ""
        self._keep_unset = keep_unset
        self._keep_quotes = keep_marks
        self._keep_escapes = keep_marks
        self._depth = 0
        self._used: set[str] = set()
        self._unset: set[str] = set()

    def run(self) -> Expansion:
        words = _Words()
        text = self._until("", words)
        words.close()
        return Expansion(text, tuple(words.done), frozenset(self._used), frozenset(self._unset))

    # The characters of the text; "" stands for its end.

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _next(self) -> str:
        char = self._peek()
        self._position += 1
        return char

    def _until(self, stop: str, words: _Words) -> str:
        """Everything up to the character ``stop``, which is consumed; "" is the end of the text."""
        result: list[str] = []
        while (char := self._peek()) != stop:
            if not char:
                raise RecipeError(f"syntax error: missing '{stop}'", hint="close the ${…} expression")
            if char == "$":
                piece = self._dollar()
                words.add(piece)
            elif char in self._quotes:
                piece = self._single_quoted() if char == "'" else self._double_quoted()
                words.add_whole(piece)
            elif char == self._escape:
                piece = self._escaped()
                words.add_whole(piece)
            else:
                piece = self._next()
                words.add(piece)
            result.append(piece)
        self._position += len(stop)
        return "".join(result)

    def _escaped(self) -> str:
        mark = self._next()
        # An escape as the very last character protects nothing and is dropped.
        char = self._next()
        return mark + char if self._keep_escapes else char

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._position + 1)
        if end < 0:
            raise RecipeError("unexpected end of statement while looking for matching single-quote", hint=_UNCLOSED)
        inner = self._text[self._position + 1 : end]
        self._position = end + 1
        return f"'{inner}'" if self._keep_quotes else inner

    def _double_quoted(self) -> str:
        mark = self._next() if self._keep_quotes else self._next()[:0]
        result = [mark]
        while (char := self._peek()) != '"':
            if not char:
                raise RecipeError("unexpected end of statement while looking for matching double-quote", hint=_UNCLOSED)
            if char == "$":
                result.append(self._dollar())
            elif char == self._escape:
                result.append(self._escaped_in_quotes())
            else:
                result.append(self._next())
        self._position += 1
        return "".join([*result, mark])

    def _escaped_in_quotes(self) -> str:
        mark = self._next()
        char = self._peek()
        # Only these three can be escaped here; before any other character the escape stands for itself.
        if not char or char not in f'"${self._escape}':
            return mark * 2 if self._keep_escapes else mark
        return mark + self._next() if self._keep_escapes else self._next()

    def _dollar(self) -> str:
        self._position += 1
        if self._peek() == "{":
            self._position += 1
            self._depth += 1
            if self._depth > DEEPEST:
                raise RecipeError(f"${{…}} is nested more than {DEEPEST} levels deep")
            value = self._braced()
            self._depth -= 1
            return value
        name = self._name()
        if not name:
            return "$"
        value_or_none = self._value(name)
        if value_or_none is None:
            return f"${name}" if self._keep_unset else ""
        return value_or_none

    def _name(self) -> str:
        start = self._position
        first = self._peek()
        if first.isdecimal():
            # A run of digits is a positional parameter, and ends at the first letter: $1x is $1 and x.
            while self._peek().isdecimal():
                self._position += 1
        elif first and first in _SPECIAL_PARAMETERS:
            self._position += 1
        else:
            while (char := self._peek()) and (char == "_" or char.isalpha() or char.isdecimal()):
                self._position += 1
        return self._text[start : self._position]

    def _value(self, name: str) -> str | None:
        value = self._env.get(name)
        if name[0].isdecimal() or name in _SPECIAL_PARAMETERS:
            value = None
        (self._unset if value is None else self._used).add(name)
        return value

    def _braced(self) -> str:
        name = self._name()
        modifier = self._next()
        if not modifier:
            raise RecipeError("syntax error: missing '}'", hint="close the ${…} expression")
        if not name:
            raise RecipeError("syntax error: bad substitution", hint="a name belongs behind ${")
        if modifier == "}":
            value = self._value(name)
            if value is None:
                return f"${{{name}}}" if self._keep_unset else ""
            return value
        if modifier == "/":
            return self._replaced(name)
        return self._modified(name, modifier)

    def _modified(self, name: str, modifier: str) -> str:
        colon = modifier == ":"
        kind = self._next() if colon else modifier
        if kind not in ("-", "+", "?", *(() if colon else ("#", "%"))):
            shown = modifier + kind if colon else kind
            raise RecipeError(f"unsupported modifier ({shown}) in substitution", hint=_MODIFIERS)
        word = self._inner("}", keep_escapes=kind in "#%")
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}{modifier if colon else ''}{kind}{word}}}"
        if kind in "#%":
            return _trimmed(value or "", word, suffix=kind == "%")
        missing = value is None or (colon and not value)
        if kind == "?" and missing:
            raise RecipeError(f"{name}: {word or 'is not allowed to be ' + ('unset' if value is None else 'empty')}")
        if kind == "+":
            return "" if missing else word
        return word if missing else value or ""

    def _inner(self, stop: str, *, keep_escapes: bool) -> str:
        """A word within ``${…}``. A pattern keeps its escapes: the pattern language has a use for them."""
        before, self._keep_escapes = self._keep_escapes, keep_escapes
        word = self._until(stop, _Words())
        self._keep_escapes = before
        return word

    def _replaced(self, name: str) -> str:
        everywhere = self._peek() == "/"
        self._position += everywhere
        pattern = self._inner("/", keep_escapes=True)
        replacement = self._inner("}", keep_escapes=True)
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{'/' * everywhere}{pattern}/{replacement}}}"
        matcher = re.compile(pattern_to_regex(pattern))
        if everywhere:
            return _replaced_everywhere(matcher, replacement, value or "")
        return matcher.sub(lambda _: replacement, value or "", count=1)


# -- patterns ----------------------------------------------------------------------------------------------------------


def pattern_to_regex(pattern: str, *, greedy: bool = True, anchored: bool = False) -> str:
    """The pattern of ``#``, ``%`` and ``/`` as a regular expression. ``*`` and ``?`` do not stop at a slash, brackets
    are ordinary, and a backslash may precede only ``*``, ``?``, ``\\``, ``}`` and ``/``.

    >>> pattern_to_regex("a*.b", greedy=False)
    'a.*?\\\\.b'
    """
    result = ["^"] if anchored else []
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            result.append(".*" if greedy else ".*?")
        elif char == "?":
            result.append(".")
        elif char == BACKSLASH:
            result.append(_pattern_escape(next(chars, "")))
        else:
            result.append(re.escape(char))
    return "".join(result)


def _pattern_escape(char: str) -> str:
    if char in ("}", "/"):  # the escape served the expression around the pattern, and is not part of it
        return re.escape(char)
    if char in ("*", "?", BACKSLASH):
        return BACKSLASH + char
    raise RecipeError(f"invalid pattern: invalid escape '\\{char}'", hint="only * ? \\ } / can be escaped")


def _replaced_everywhere(matcher: re.Pattern[str], replacement: str, value: str) -> str:
    """As Go replaces: right behind a match nothing empty is found, so ``*`` is found once."""
    end = -1

    def filled(match: re.Match[str]) -> str:
        nonlocal end
        if match.start() == match.end() == end:
            return ""
        end = match.end()
        return _filled(replacement, match.group())

    return matcher.sub(filled, value)


def _trimmed(value: str, word: str, *, suffix: bool) -> str:
    mark = "%" if suffix else "#"
    longest = word.startswith(mark)
    pattern = word[1:] if longest else word
    if not suffix:
        match = re.compile(pattern_to_regex(pattern, greedy=longest)).match(value)
        return value[match.end() :] if match else value
    # The shortest match from the right is the shortest one from the left of the text read backwards.
    match = re.compile(pattern_to_regex(reverse_pattern(pattern), greedy=longest)).match(value[::-1])
    return value[: len(value) - match.end()] if match else value


def reverse_pattern(pattern: str) -> str:
    """The pattern that matches the reversed texts; an escaped character stays behind its escape."""
    return "".join(re.findall(r"\\.|.", pattern, re.DOTALL)[::-1])


_TEMPLATE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


def _filled(template: str, matched: str) -> str:
    # BuildKit hands the replacement of // to Go's regexp.ReplaceAllString, for which $0 is the match, $$ is a dollar,
    # and any other $name a group that these patterns never have.
    def fill(reference: re.Match[str]) -> str:
        if reference.group(1):
            return "$"
        return matched if (reference.group(2) or reference.group(3)) == "0" else ""

    return _TEMPLATE.sub(fill, template)
