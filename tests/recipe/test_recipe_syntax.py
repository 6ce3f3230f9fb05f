"""Text to statements: lines, directives, continuations, flags, heredocs, places."""

from __future__ import annotations

import time

import pytest

from layerbuild.errors import RecipeError
from layerbuild.recipe.describe import describe
from layerbuild.recipe.syntax import parse, parse_trigger


def texts(recipe: str) -> list[str]:
    return [statement.text for statement in parse(recipe).statements]


def ranges(recipe: str) -> list[tuple[int, int]]:
    return [(statement.span.line, statement.span.end_line) for statement in parse(recipe).statements]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("FROM a\nRUN b\n", ["FROM a", "RUN b"]),
        ("\ufeffFROM a\r\nRUN b\r\n", ["FROM a", "RUN b"]),
        ("  FROM a\n\tRUN b", ["FROM a", "RUN b"]),
        # Only the first line loses its indent, nothing comes between the parts.
        ("RUN a \\\n    b", ["RUN a     b"]),
        ("RUN a\\\nb", ["RUN ab"]),
        ("RUN a \\ \t\nb", ["RUN a b"]),
        ("RU\\\nN a", ["RUN a"]),
        # Comments and blank lines inside a continuation vanish; a # behind other text is data.
        ("RUN a \\\n  # no\n\n \\\n\tb # c\n", ["RUN a  \tb # c"]),
        ("# RUN a \\\nRUN b", ["RUN b"]),
        ("RUN a \\\n# c \\\nb", ["RUN a b"]),
        # Two escapes escape each other, and so do three, by an old mistake that everybody keeps.
        ("RUN a\\\\\nRUN b", ["RUN a\\\\", "RUN b"]),
        ("RUN a\\\\\\\nRUN b", ["RUN a\\\\\\", "RUN b"]),
        # Only blanks and tabs may follow the escape.
        ("RUN a \\\x0b\nRUN b", ["RUN a \\\x0b", "RUN b"]),
        # The end of the file ends everything.
        ("RUN a \\", ["RUN a "]),
        ("RUN a \\\n\n# c\n", ["RUN a "]),
        ("# escape=`\nRUN a `\n b\\\nRUN c\n", ["RUN a  b\\", "RUN c"]),
    ],
)
def test_logical_lines(recipe: str, expected: list[str]) -> None:
    assert texts(recipe) == expected


def test_ranges_cover_continuations_heredocs_and_what_the_end_of_the_file_cuts_off() -> None:
    assert ranges("FROM a\n\nRUN a \\\n\n b\nRUN <<A <<B\nA\nx\nB\nRUN c \\\n\n") == [(1, 1), (3, 5), (6, 9), (10, 11)]


@pytest.mark.parametrize(
    ("head", "escape"),
    [
        ("# escape=`\n", "`"),
        ("#ESCAPE = `\n", "`"),
        ("# syntax=x\n# escape=`\n", "`"),
        ("# check=skip=all\n# escape=`\n", "`"),
        ("\n# escape=`\n", "\\"),
        ("# other=x\n# escape=`\n", "\\"),
        ("#!/bin/x\n# escape=`\n", "\\"),
        ("# plain\n# escape=`\n", "\\"),
        ("FROM a\n# escape=`\n", "\\"),
    ],
)
def test_directives_end_at_the_first_other_line(head: str, escape: str) -> None:
    recipe = parse(f"{head}RUN a {escape}\n b\n")
    assert recipe.statements[-1].text == "RUN a  b"
    assert recipe.statements[-1].escape == escape


@pytest.mark.parametrize(
    ("recipe", "message", "line"),
    [
        ("", "the file is empty", 1),
        ("\n# c\n", "file with no instructions", 1),
        ("# escape=x\nFROM a", "invalid ESCAPE 'x'", 1),
        ("# escape=`\n# escape=`\nFROM a", "only one escape parser directive", 2),
        ("FROM a\nLABEL b=" + "c" * 65536, "greater than max allowed size of 65535", 2),
        ("FROM a\nRUN \udcff", "not UTF-8", 2),
        ("FROM a\nRUN \ud800", "not UTF-8", 2),
        ("FROM a\nCOPY <<E /\n# \udcff\nE\n", "not UTF-8", 2),
        ("# \udcff" + "c" * 65535 + "\nFROM a", "greater than max allowed size of 65535", 1),
        ("FROM a\nRUN \0", "NUL", 2),
        ("FROM a\nRUN <<E\nx\n", "unterminated heredoc", 2),
    ],
)
def test_errors_have_a_line(recipe: str, message: str, line: int) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        parse(recipe)
    assert caught.value.span is not None
    assert caught.value.span.line == line


def test_a_comment_may_be_in_any_encoding() -> None:
    recipe = parse("# check=skip=caf\udce9\n# caf\udce9\nFROM a\nRUN b \\\n  # \udce9 \\\n  c\n")
    assert [statement.text for statement in recipe.statements] == ["FROM a", "RUN b   c"]
    assert recipe.statements[0].comments[0].text == "caf\ufffd"
    assert recipe.check is not None and recipe.check.value == "skip=caf\ufffd"


@pytest.mark.parametrize(
    ("rest", "flags", "remainder"),
    [
        ("--a=b --c d --e", ["--a=b", "--c"], "d --e"),
        ("--a=b -- --c d", ["--a=b"], "--c d"),
        ("--a='b c'd \"e\"", ["--a=b cd"], '"e"'),
        ('--a="b\\"c" d', ['--a=b"c'], "d"),
        ("--a=b\\ c d", ["--a=b c"], "d"),
        ("-a b", [], "-a b"),
        ("--a", ["--a"], ""),
    ],
)
def test_flags_are_unquoted_and_end_at_the_first_other_word(rest: str, flags: list[str], remainder: str) -> None:
    statement = parse(f"COPY {rest}").statements[0]
    assert [flag.text for flag in statement.flags] == flags
    assert statement.rest.text == remainder


@pytest.mark.parametrize(
    ("recipe", "bodies"),
    [
        ("RUN <<E\nx\nE\nRUN y", ["x\n"]),
        ("RUN <<E\nE", [""]),
        ("RUN <<E\r\nx\r\nE\r\n", ["x\r\n"]),
        ("RUN <<A cat <<B\nx\nA\ny\nB", ["x\n", "y\n"]),
        ("RUN <<-E\n\tx\n\tE", ["\tx\n"]),
        ("RUN <<E\n\tE\nE", ["\tE\n"]),
        ("RUN <<E\n# no comment \\\n\nRUN <<F\nE", ["# no comment \\\n\nRUN <<F\n"]),
        ("RUN a && \\\n  cat <<E\nx\nE", ["x\n"]),
        ("RUN <<$E\nx\n$E", ["x\n"]),
        ("ONBUILD COPY <<E /x\nx\nE", ["x\n"]),
        # Not heredocs: quoted, a here-string, arithmetic, JSON, quotes that the shell must judge, other keywords.
        ('RUN "<<E"', []),
        ("RUN cat <<<E", []),
        ("RUN echo $((1<<2))", []),
        ('RUN ["<<E"]', []),
        ("RUN echo 'a <<E", []),
        ("CMD <<E", []),
    ],
)
def test_heredocs_take_the_lines_behind(recipe: str, bodies: list[str]) -> None:
    statements = parse(recipe).statements
    assert [heredoc.body for heredoc in statements[0].heredocs] == bodies
    assert len(statements) == (2 if recipe.endswith("RUN y") else 1)


def test_a_word_knows_its_place_across_a_continuation() -> None:
    statement = parse("FROM a\n  COPY --chown=x \\\n    --link b \\\n c\n").statements[1]
    places = [statement.at(word) for word in (*statement.flags, statement.rest)]
    assert [(place.line, place.column) for place in places] == [(2, 8), (3, 5), (3, 12)]


def test_a_trigger_is_one_instruction_and_stands_where_it_fires() -> None:
    span = parse("FROM a\nFROM b").statements[1].span
    statement = parse_trigger("RUN <<E\nx\nE", span=span)
    assert (statement.heredocs[0].body, statement.at(statement.rest)) == ("x\n", span)
    for text in ("", "RUN a\nRUN b", "RUN <<E\nx"):
        with pytest.raises(RecipeError, match="ONBUILD trigger") as caught:
            parse_trigger(text, span=span)
        assert caught.value.span == span


def test_describe_gives_plain_values() -> None:
    described = describe(parse("# syntax=x\nfrom a\nONBUILD RUN <<-'E' b\n\tx\nE\nENV c d  e\nNOPE f\n"))
    assert described["directives"] == [{"name": "syntax", "value": "x", "line": 1}]
    first, onbuild, env, unknown = described["statements"]  # type: ignore[misc]
    assert first["keyword"] == "FROM" and first["original"] == "from a"  # type: ignore[index, call-overload]
    assert onbuild["trigger"]["heredocs"] == [  # type: ignore[index, call-overload]
        {"name": "E", "chomp": True, "expand": False, "content": "\tx\n"}
    ]
    assert env["arguments"] == ["c", "d  e"]  # type: ignore[index, call-overload]
    assert unknown["arguments"] == []  # type: ignore[index, call-overload]


def test_a_long_recipe_is_split_in_linear_time() -> None:
    def seconds(blocks: int) -> float:
        text = "FROM a\n" + "RUN a \\\n  $((1<<2)) && \\\n  b\n# c\nRUN <<E\nx\nE\n" * blocks
        start = time.process_time()
        assert len(parse(text).statements) == 1 + 2 * blocks
        return time.process_time() - start

    small = min(seconds(50) for _ in range(3))
    assert seconds(1000) < 100 * small  # 20 times the text; a quadratic splitter needs 400 times as long
