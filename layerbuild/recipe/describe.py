"""A recipe's statements as plain values: what ``layerbuild parse`` prints."""

from __future__ import annotations

from layerbuild.recipe.arguments import Arguments
from layerbuild.recipe.heredoc import Heredoc
from layerbuild.recipe.instructions.onbuild import trigger_text
from layerbuild.recipe.instructions.table import instruction_class
from layerbuild.recipe.syntax import Recipe, Statement, parse_trigger

Plain = str | int | bool | None | list["Plain"] | dict[str, "Plain"]


def describe(recipe: Recipe) -> dict[str, Plain]:
    """The file, its directives and its statements, ready for JSON. Arguments are split, and nothing is expanded.

    An unknown keyword has no arguments and is no error here. RecipeError for arguments that do not split, and for an
    ONBUILD that holds no instruction.
    """
    return {
        "file": recipe.file,
        "directives": [
            {"name": directive.name, "value": directive.value, "line": directive.span.line}
            for directive in recipe.directives
        ],
        "statements": [_statement(statement) for statement in recipe.statements],
    }


def _statement(statement: Statement) -> dict[str, Plain]:
    arguments = _arguments(statement)
    described: dict[str, Plain] = {
        "keyword": statement.keyword,
        "flags": [flag.text for flag in statement.flags],
        "arguments": list(arguments.texts),
        "json": arguments.json,
        "heredocs": [_heredoc(heredoc) for heredoc in statement.heredocs],
        "line": statement.span.line,
        "end_line": statement.span.end_line,
        "original": statement.text,
    }
    if statement.keyword == "ONBUILD" and statement.rest.text:
        trigger = parse_trigger(trigger_text(statement), span=statement.span, escape=statement.escape)
        described["trigger"] = _statement(trigger)
    return described


def _arguments(statement: Statement) -> Arguments:
    found = instruction_class(statement.keyword)
    return Arguments(()) if found is None else statement.arguments(found.shape)


def _heredoc(heredoc: Heredoc) -> dict[str, Plain]:
    mark = heredoc.mark
    return {"name": mark.name, "chomp": mark.chomp, "expand": mark.expand, "content": heredoc.body}
