"""Rules about how statements are written: case, continuations, old forms."""

from __future__ import annotations

from collections.abc import Iterator

from layerbuild.recipe.arguments import key_values
from layerbuild.recipe.instructions.labels import Label, Maintainer
from layerbuild.recipe.instructions.variables import Env
from layerbuild.recipe.lint.facts import Facts
from layerbuild.recipe.lint.rule import Finding


def empty_continuation(facts: Facts) -> Iterator[Finding]:
    for statement in facts.recipe.statements:
        if statement.gaps:
            last = max(statement.pieces[-1].line, statement.gaps[-1])
            yield Finding(statement, "Empty continuation line", line=last)


def instruction_casing(facts: Facts) -> Iterator[Finding]:
    # ARGs before the first FROM neither vote nor are judged.
    statements = [instruction.statement for stage in facts.stages for instruction in (stage.start, *stage.instructions)]
    words = [statement.spelling for statement in statements]
    lower = sum(word == word.lower() for word in words)
    upper = sum(word == word.upper() for word in words)
    majority = "lowercase" if lower > upper else "uppercase"
    for statement in statements:
        word = statement.spelling
        if word != (word.lower() if lower > upper else word.upper()):
            yield Finding(statement, f"Command '{word}' should match the case of the command majority ({majority})")


def maintainer(facts: Facts) -> Iterator[Finding]:
    for instruction in facts.instructions:
        if isinstance(instruction, Maintainer):
            yield Finding(instruction.statement, "Maintainer instruction is deprecated in favor of using label")


def old_pair(facts: Facts) -> Iterator[Finding]:
    for visit in facts.visits:
        statement = visit.instruction.statement
        if isinstance(visit.instruction, Env | Label) and statement.arguments(key_values).legacy:
            word = statement.spelling
            detail = f'"{word} key=value" should be used instead of legacy "{word} key value" format'
            yield Finding(statement, detail)
