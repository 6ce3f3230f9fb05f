"""BuildKit's parser cases: trees, directives, heredocs, JSON arrays, words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from corpus_rows import Row, corpus

from layerbuild.errors import RecipeError
from layerbuild.recipe.arguments import Arguments, json_array
from layerbuild.recipe.describe import describe
from layerbuild.recipe.directives import detect, read_directives
from layerbuild.recipe.heredoc import Heredoc, Mark, read_mark, read_marks
from layerbuild.recipe.instructions.onbuild import trigger_text
from layerbuild.recipe.instructions.spelling import quote, quoted_list
from layerbuild.recipe.instructions.table import instruction_class
from layerbuild.recipe.lines import read_lines
from layerbuild.recipe.syntax import Statement, parse, parse_trigger
from layerbuild.recipe.words import Word, split_words


def arguments(statement: Statement) -> Arguments:
    found = instruction_class(statement.keyword)
    return Arguments(()) if found is None else statement.arguments(found.shape)


def nodes(statement: Statement) -> list[str]:
    """The arguments as BuildKit's tree has them: behind each name and value of ENV and LABEL stands what was between
    the two."""
    found = arguments(statement)
    if statement.keyword not in ("ENV", "LABEL"):
        return list(found.texts)
    between = "" if found.legacy else "="
    pairs = zip(found.texts[::2], found.texts[1::2], strict=True)
    return [text for pair in pairs for text in (*pair, between)]


def dump(statement: Statement) -> str:
    head = [statement.spelling.lower()]
    if statement.flags:
        head.append(quoted_list([flag.text for flag in statement.flags]))
    if statement.keyword == "ONBUILD" and statement.rest.text:
        trigger = parse_trigger(trigger_text(statement), span=statement.span, escape=statement.escape)
        head.append(dump(trigger))
    else:
        head += [quote(text) for text in nodes(statement)]
    return f"({' '.join(head)})"


@corpus("buildkit/parser/testfiles")
def test_trees(row: Row) -> None:
    folder = Path(row["folder"])
    recipe = parse((folder / "Dockerfile").read_text())
    dumped = "\n".join(dump(statement) for statement in recipe.statements)
    assert dumped == (folder / "result").read_text().strip()


@corpus("buildkit/parser/testfiles-negative")
def test_recipes_that_are_wrong(row: Row) -> None:
    text = (Path(row["folder"]) / "Dockerfile").read_text()
    with pytest.raises(RecipeError) as raised:
        describe(parse(text))
    assert raised.value.span is not None


@corpus("buildkit/parser/directives")
def test_directives(row: Row) -> None:
    if row["op"] == "parse_all":
        lines = read_lines(row["text"], file="Dockerfile")
        if "error" in row:
            with pytest.raises(RecipeError):
                read_directives(lines, file="Dockerfile")
            return
        found = read_directives(lines, file="Dockerfile")
        assert [[directive.name, directive.value] for directive in found] == row["directives"]
        return
    name = "syntax" if row["op"] == "detect_syntax" else row["op"].partition(":")[2]
    detected = detect(row["text"], name, foreign=row["op"] == "detect_syntax")
    assert (detected is not None) == row["found"]
    if detected is not None:
        told = {"ref": detected.reference, "cmdline": detected.value, "line": detected.span.line}
        assert told | {field: row[field] for field in told if field in row} == told


@corpus("buildkit/parser/empty_continuation")
def test_empty_lines_in_continuations(row: Row) -> None:
    statements = parse(row["dockerfile"]).statements
    found = [statement.text for statement in statements if statement.gaps]
    assert len(found) == len(row["warnings"])
    for text, warning in zip(found, row["warnings"], strict=True):
        assert warning["text_contains"] in text


@corpus("buildkit/parser/heredoc_chomp")
def test_chomped_heredocs(row: Row) -> None:
    assert Heredoc(Mark("EOF", 0, chomp=True, expand=True), row["content"]).content == row["expected"]


# What a row may call the facts about a heredoc.
_FACTS = {"name": "name", "expand": "expand", "chomp": "chomp", "fd": "descriptor", "filedescriptor": "descriptor"}


def spelled(row: Row) -> Row:
    return {field.lower().replace("_", ""): value for field, value in row.items()}


def facts(row: Row) -> Row:
    return {_FACTS[field]: value for field, value in spelled(row).items() if field in _FACTS}


def told(mark: Mark, wanted: Row) -> Row:
    return {field: getattr(mark, field) for field in wanted}


@corpus("buildkit/parser/heredoc_extract")
def test_heredocs_of_instructions(row: Row) -> None:
    statements = parse(row["dockerfile"]).statements[row["first_child_index"] :]
    assert len(statements) == len(row["heredocs_per_child"])
    for statement, expected in zip(statements, row["heredocs_per_child"], strict=True):
        assert len(statement.heredocs) == len(expected or [])
        for heredoc, wanted in zip(statement.heredocs, expected or [], strict=True):
            assert heredoc.body == spelled(wanted)["content"]
            assert told(heredoc.mark, facts(wanted)) == facts(wanted)


@corpus("buildkit/parser/heredoc_line")
def test_heredocs_of_a_line(row: Row) -> None:
    assert [mark.name for mark in read_marks(row["line"])] == row["names"]


@corpus("buildkit/parser/heredoc_words")
def test_heredoc_words(row: Row) -> None:
    if row["result"] == "error":
        with pytest.raises(RecipeError):
            read_mark(row["word"])
        return
    mark = read_mark(row["word"])
    assert (mark is not None) == (row["result"] == "heredoc")
    if mark is not None:
        assert told(mark, facts(row)) == facts(row)


@corpus("buildkit/parser/json_arrays")
def test_json_arrays(row: Row) -> None:
    try:
        found = json_array(row["input"])
    except RecipeError:
        found = None
    assert found == (tuple(row["expected"]) if row["valid"] else None)


@corpus("buildkit/parser/long_line")
def test_long_lines(row: Row) -> None:
    text = re.sub(r"\{(\d+) x '(.)'\}", lambda match: match.group(2) * int(match.group(1)), row["dockerfile_template"])
    with pytest.raises(RecipeError, match=re.escape(row["error"])):
        parse(text)


@corpus("buildkit/parser/name_val")
def test_names_and_values(row: Row) -> None:
    statement = parse(f"{row['instr']} {row['rest']}").statements[0]
    if "nodes" in row:
        assert nodes(statement) == row["nodes"]
        return
    with pytest.raises(RecipeError) as raised:
        arguments(statement)
    assert row["error_contains"] in raised.value.message


@corpus("buildkit/parser/words")
def test_words(row: Row) -> None:
    assert [word.text for word in split_words(Word(row["input"], 0))] == row["words"]
