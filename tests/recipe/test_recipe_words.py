"""Splitting and expanding words."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import RecipeError
from layerbuild.recipe.arguments import json_array
from layerbuild.recipe.heredoc import read_mark
from layerbuild.recipe.words import DEEPEST, Word, expand, expand_document, expand_words, expansion, split_words

ENV = {"A": "a b", "E": "", "P": "/usr/lib/libx.so.1", "D": "$0-$$-$1", "Q": "\\bc"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "a b"),
        ("x${A}y", "xa by"),
        ("$U|${U}", "|"),
        ("$", "$"),
        ("$.", "$."),
        ("a$$b", "ab"),
        ("$1x", "x"),
        ("${E-d}|${E:-d}|${U-d}|${U:-d}", "|d|d|d"),
        ("${E+d}|${E:+d}|${U+d}|${A:+d}", "d|||d"),
        ("${U:-${V:-$A}}", "a b"),
        ("${A:?no}", "a b"),
        ("'$A'", "$A"),
        ('"$A"', "a b"),
        ('"a\\b\\"\\$"', 'a\\b"$'),
        ("\\$A", "$A"),
        ("a\\ b\\c", "a bc"),
        ("a\\", "a"),
        ("'a'\"b\"c", "abc"),
        ("${P#*/}|${P##*/}", "usr/lib/libx.so.1|libx.so.1"),
        ("${P%.*}|${P%%.*}", "/usr/lib/libx.so|/usr/lib/libx"),
        ("${P/lib/L}|${P//lib/L}", "/usr/L/libx.so.1|/usr/L/Lx.so.1"),
        ("${P//\\//:}", ":usr:lib:libx.so.1"),
        ("${P/[/x}", "/usr/lib/libx.so.1"),
        # Only // gives $0 and $$ in the replacement a meaning.
        ("${A/a/$D}|${A//a/$D}", "$0-$$-$1 b|a-$- b"),
        # As Go, // finds nothing empty right behind a match.
        ("${A//*/x}|${E//*/x}|${A//b*/x}|${A//x*/y}", "x|x|a x|a b"),
        # In a pattern a quoted backslash is a backslash; a word in the pattern is no pattern.
        ('${Q#"\\b"}|${Q%"\\bc"}', "c|"),
        ('${A/a/${U:-"\\""}}', '" b'),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, ENV) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${", "missing '}'"),
        ("${A", "missing '}'"),
        ("${A:-", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:-x}", "bad substitution"),
        ("${A=x}", "unsupported modifier \\(=\\)"),
        ("${A:=x}", "unsupported modifier \\(:=\\)"),
        ("${A:#x}", "unsupported modifier"),
        ("${A/x}", "missing '/'"),
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${E:?why}", "E: why"),
        ("${A:-${B?x}}", "B: x"),  # a default is evaluated even where it is not used
        ("${A#\\x}", "invalid pattern"),
        ("'a", "single-quote"),
        ('"a', "double-quote"),
        ("${A:-" * (DEEPEST + 1) + "}" * (DEEPEST + 1), "nested more than"),
    ],
)
def test_expand_errors_quote_the_word(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        expand(text, ENV)
    assert caught.value.message.startswith(f'failed to process "{text}"')


def test_the_escape_character_is_the_recipes() -> None:
    assert expand("a`$A\\b", ENV, escape="`") == "a$A\\b"


def test_only_unquoted_values_split() -> None:
    assert expand_words('$A "$A" x\\ y', ENV) == ("a", "b", "a b", "x y")


def test_documents_know_no_quotes() -> None:
    assert expand_document("'$A' \"\\$A\" \\\\ \\x", ENV).text == "'a b' \"$A\" \\ x"


def test_expansion_tells_which_variables_it_met() -> None:
    found = expansion("$A ${U:-$E} $U", ENV)
    assert (found.used, found.unset) == ({"A", "E"}, {"U"})


@given(st.text("ab/", max_size=8), st.text("ab/*?", max_size=5))
def test_prefixes_and_suffixes_agree_with_fnmatch(value: str, pattern: str) -> None:
    matches = [fnmatch.fnmatchcase(value[:end], pattern) for end in range(len(value) + 1)]
    shortest = matches.index(True) if any(matches) else 0
    longest = len(value) - matches[::-1].index(True) if any(matches) else 0
    env = {"V": value, "P": pattern}
    assert expand("${V#$P}", env) == value[shortest:]
    assert expand("${V##$P}", env) == value[longest:]
    backwards = {"V": value[::-1], "P": pattern[::-1]}
    assert expand("${V%$P}", backwards) == value[shortest:][::-1]
    assert expand("${V%%$P}", backwards) == value[longest:][::-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("a\\ b 'c d'\"e f\"", ["a\\ b", "'c d'\"e f\""]),
        ("'a\\' b", ["'a\\'", "b"]),
        ('"a\\" b" c', ['"a\\" b"', "c"]),
        ("a b\\", ["a", "b"]),
        ("a 'b c", ["a", "'b c"]),
        ("", []),
    ],
)
def test_split_words_keeps_quotes(text: str, expected: list[str]) -> None:
    words = split_words(Word(text, 5))
    assert [word.text for word in words] == expected
    assert all(text[word.offset - 5 :].startswith(word.text) for word in words)


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1), max_size=4))
def test_quoting_round_trips(values: list[str]) -> None:
    quoted = " ".join("'" + value.replace("'", "'\\''") + "'" for value in values)
    assert [expand(word.text, {}) for word in split_words(Word(quoted, 0))] == values


@pytest.mark.parametrize(
    ("word", "name", "chomp", "expands"),
    [
        ("<<E", "E", False, True),
        ("3<<-E", "E", True, True),
        ("<< E", "E", False, True),
        ("<<'E'", "E", False, False),
        ('<<"E F"', "E F", False, False),
        ("<<e'o'f", "eof", False, False),
        ("<<eo\\'f", "eo'f", False, True),
        ("<<$E", "$E", False, True),
    ],
)
def test_heredoc_marks(word: str, name: str, chomp: bool, expands: bool) -> None:
    mark = read_mark(word)
    assert mark is not None
    assert (mark.name, mark.chomp, mark.expand) == (name, chomp, expands)


@pytest.mark.parametrize("word", ["", "E", "<E", "<<", "<<<E", "<<E sh", "a<<E"])
def test_no_heredoc_marks(word: str) -> None:
    assert read_mark(word) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a", "b"]', ("a", "b")),
        ("[]", ()),
        ('["\\u0000\\/\\ud800"]', ("\0/\ufffd",)),
        ("[a]", None),
        ("['a']", None),
        ('["a"]junk', None),
        ("[NaN]", None),
        ("[" * 100_000, None),
        ("a", None),
    ],
)
def test_json_arrays(text: str, expected: tuple[str, ...] | None) -> None:
    assert json_array(text) == expected


@pytest.mark.parametrize("text", ["[1]", '["a", null]', '[["a"]]', f"[{'9' * 5000}]"])
def test_json_arrays_of_other_things_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="comprised of strings only"):
        json_array(text)
