"""Directives at the head of a text, the comments above statements, and the gaps in continuations."""

from __future__ import annotations

import pytest

from layerbuild.errors import RecipeError
from layerbuild.image.config import ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.directives import detect
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import Statement, parse

PLATFORM = Platform("linux", "amd64")


def bases(_name: str, platform: Platform) -> ImageConfig:
    return ImageConfig(platform, RuntimeConfig())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# syntax=a/b:1 x y\nFROM a", ("a/b:1", "a/b:1 x y", 1)),
        ("#!/bin/x\n#  SYNTAX  =  a  \n", ("a", "a", 2)),
        ("\ufeff#syntax=a\r\n", ("a", "a", 1)),
        ("# escape=`\n# syntax=a\n", ("a", "a", 2)),
        ("//check=skip=all\n//syntax=a\n", ("a", "a", 2)),
        ('{"syntax": "a b", "x": [1]}\n', ("a", "a b", 1)),
        (" # syntax=a\n", None),
        ("# plain\n# syntax=a\n", None),
        ("\n# syntax=a\n", None),
        ("# syntax=\n", None),
        ("# 1syntax=a\n", None),
        ("// syntax\n", None),
        ('{"syntax": 1}', None),
        ('{"syntax": "a"} x', None),
        ('["syntax"]', None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_front_ends(text: str, found: tuple[str, str, int] | None) -> None:
    """Facts P5, P7 and P8."""
    directive = detect(text, "syntax", foreign=True)
    assert (directive and (directive.reference, directive.value, directive.span.line)) == found


def test_other_directives_have_one_form() -> None:
    assert detect("//check=skip=all", "check") is None
    assert detect('{"check": "skip=all"}', "check") is None


@pytest.mark.parametrize(
    "text", ["//syntax=x/y\nservices: {}\n", '{"syntax": "x/y"}', "#!/bin/x\n//syntax=x/y z\nFROM a"]
)
def test_a_text_in_another_language_says_so(text: str) -> None:
    with pytest.raises(RecipeError, match="written for the front end x/y") as raised:
        plan(parse(text), bases=bases, platform=PLATFORM)
    assert raised.value.span is not None


def test_a_front_end_behind_a_shebang_is_noted() -> None:
    notes = plan(parse("#!/usr/bin/env x\n# syntax=y\nFROM a\n"), bases=bases, platform=PLATFORM).notes
    assert len(notes) == 1 and "front end y" in notes[0]


def comments(text: str) -> list[list[tuple[str, int]]]:
    return [[(each.text, each.span.line) for each in found.comments] for found in parse(text).statements]


def test_comments_attach_to_the_next_statement() -> None:
    """Fact P29."""
    text = "# syntax=x\n# a\n\n #  b \nFROM a\n# c\n#\n# d\nRUN <<E\n# body\nE\n# e\nRUN x \\\n# inside\n  y\nRUN z\n"
    assert comments(text) == [[("a", 2), ("b", 4)], [("d", 8)], [("e", 12)], []]


def only(text: str) -> Statement:
    return parse(text).statements[-1]


def test_descriptions() -> None:
    statement = only("# foo\n# foo  says this\n# foo and not this\n# bar\tno\nARG foo bar")
    assert statement.description("foo") == " says this"
    assert statement.description("bar") == ""
    assert statement.description("") == ""


@pytest.mark.parametrize(
    ("text", "gaps"),
    [
        ("RUN a \\\n\n b \\\n \t\n c", (2, 4)),
        ("RUN a \\\n# c\n b", ()),
        ("RUN a \\\n\n\n", (2, 3)),
        ("RUN a\n\n", ()),
        ("RUN <<E\n\nE\n", ()),
    ],
)
def test_gaps_in_continuations(text: str, gaps: tuple[int, ...]) -> None:
    """Fact P12."""
    assert only(text).gaps == gaps
