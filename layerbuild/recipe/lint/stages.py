"""Rules about stages: their names, and the words and comments of FROM and ARG."""

from __future__ import annotations

from collections.abc import Iterator

from layerbuild.recipe.arguments import blank_separated
from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.spelling import quote
from layerbuild.recipe.instructions.stage import From
from layerbuild.recipe.instructions.variables import Arg
from layerbuild.recipe.lint.control import is_control
from layerbuild.recipe.lint.facts import Facts
from layerbuild.recipe.lint.rule import Finding

RESERVED = ("context", "scratch")


def name_casing(facts: Facts) -> Iterator[Finding]:
    for start, _keyword, name in _named_stages(facts):
        if name != name.lower():
            yield Finding(start.statement, f"Stage name '{name}' should be lowercase")


def as_casing(facts: Facts) -> Iterator[Finding]:
    for start, keyword, _name in _named_stages(facts):
        spelling = start.statement.spelling
        # A FROM of mixed case is for ConsistentInstructionCasing to tell of.
        if spelling in (spelling.lower(), spelling.upper()):
            expected = keyword.lower() if spelling == spelling.lower() else keyword.upper()
            if keyword != expected:
                yield Finding(start.statement, f"'{keyword}' and '{spelling}' keywords' casing do not match")


def duplicate_name(facts: Facts) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in facts.stages:
        if stage.name in seen:
            detail = f"Duplicate stage name {quote(stage.name)}, stage names should be unique"
            yield Finding(stage.start.statement, detail)
        if stage.name:
            seen.add(stage.name)


def reserved_name(facts: Facts) -> Iterator[Finding]:
    for stage in facts.stages:
        if stage.name in RESERVED:
            detail = f"Stage name should not use the same name as reserved stage {quote(stage.name)}"
            yield Finding(stage.start.statement, detail)


def description(facts: Facts) -> Iterator[Finding]:
    for instruction in facts.instructions:
        names = _described(instruction)
        comment = _comment_above(instruction)
        if names and comment and comment.split(" ", 1)[0] not in names:
            example = names[0] if len(names) == 1 else "<arg_key>"
            keyword = instruction.statement.keyword
            yield Finding(
                instruction.statement, f"Comment for {keyword} should follow the format: `# {example} <description>`"
            )


def _named_stages(facts: Facts) -> Iterator[tuple[From, str, str]]:
    """Each FROM that names its stage, with the words AS and NAME as written."""
    for instruction in facts.instructions:
        if isinstance(instruction, From) and instruction.name:
            _base, keyword, name = instruction.statement.arguments(blank_separated).texts
            yield instruction, keyword, name


def _described(instruction: Instruction) -> tuple[str, ...]:
    match instruction:
        case From(name=name) if name:
            return (name,)
        case Arg(defaults=defaults):
            return tuple(name for name, _ in defaults)
    return ()


def _comment_above(instruction: Instruction) -> str:
    """The comment on the line right above, empty: there is none. An empty line parts a comment from what follows."""
    statement = instruction.statement
    comments = [comment for comment in statement.comments if not is_control(comment.text)]
    controls = len(statement.comments) - len(comments)
    near = comments and comments[-1].span.line >= statement.span.line - 1 - controls
    return comments[-1].text if near else ""
