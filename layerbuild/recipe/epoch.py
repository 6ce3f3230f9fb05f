"""SOURCE_DATE_EPOCH as a recipe or a build argument gives it: a number, or a word that says where the time comes from.

A word is ``context``, the name of a named context, or the name of a stage that is nothing but ``FROM scratch`` and one
ADD of something remote: when that was last changed is the epoch. Whoever can fetch resolves the word; here it is only
read, and refused if it can mean no time.
"""

from __future__ import annotations

import re

from layerbuild.errors import LayerbuildError, UsageError
from layerbuild.image.config import Platform, RuntimeConfig
from layerbuild.recipe.contexts import NamedContexts, replaced
from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.copy import Add
from layerbuild.recipe.instructions.variables import Arg
from layerbuild.recipe.scope import EPOCH as NAME
from layerbuild.recipe.scope import Inputs, Scope
from layerbuild.recipe.stages import Outline, Stage
from layerbuild.steps import ContextRoot, CopyStep, GitSource, UrlSource

Epoch = int | ContextRoot | UrlSource | GitSource | None
"""Seconds since 1970, or what they are to be asked of; None: nothing was said."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_ONE_ADD = f"{NAME} stage must contain exactly one remote ADD"


def read_epoch(outline: Outline, inputs: Inputs, *, platform: Platform, contexts: NamedContexts) -> Epoch:
    """What the build argument, else the ARG before the first FROM, says; UsageError or RecipeError, by who said it, for
    what can be no time."""
    value = inputs.build_args.get(NAME, inputs.globals.get(NAME)) or ""
    if not value:
        return None
    if _NUMBER.fullmatch(value):
        return int(value)
    if value == "context":
        return ContextRoot()
    context = replaced(value, contexts, platform)
    if context is not None:
        return ContextRoot(context)
    for stage in outline.stages:
        if stage.name == value.lower():
            return _of_stage(stage, inputs)
    raise _invalid(value, outline, inputs)


def _invalid(value: str, outline: Outline, inputs: Inputs) -> LayerbuildError:
    message = f"invalid {NAME}: {value}"
    hint = "give seconds since 1970, `context`, or the name of a stage"
    if NAME in inputs.build_args:
        return UsageError(message, hint=hint)
    said = [each.statement for each in outline.arguments if any(name == NAME for name, _ in each.defaults)]
    return said[-1].error(message, hint=hint)


def _of_stage(stage: Stage, inputs: Inputs) -> UrlSource | GitSource:
    variables = tuple((name, text) for name, text in inputs.globals.items() if text is not None and name != NAME)
    scope = Scope(RuntimeConfig(), env=variables, inputs=inputs)
    if scope.expander(stage.start.statement)(stage.start.base) != "scratch":
        raise stage.start.statement.error(f"{NAME} stage must use FROM scratch", at=stage.start.base)
    found: UrlSource | GitSource | None = None
    for instruction in stage.instructions:
        if isinstance(instruction, Arg):
            scope = instruction.lower(scope).scope
        elif found is not None:
            raise instruction.statement.error(_ONE_ADD)
        else:
            found = _remote(instruction, scope)
    if found is None:
        raise stage.start.statement.error(_ONE_ADD)
    return found


def _remote(instruction: Instruction, scope: Scope) -> UrlSource | GitSource:
    statement = instruction.statement
    if not isinstance(instruction, Add):
        raise statement.error(
            f"{NAME} stage does not meet source-only requirements: unsupported {statement.keyword} instruction",
            hint="it may hold ARGs and one ADD of a URL or a git repository",
        )
    step = instruction.lower(scope).step
    assert isinstance(step, CopyStep)
    match step.sources:
        case (UrlSource() | GitSource() as source,):
            return source
    raise statement.error(f"{_ONE_ADD} source", hint="ADD one URL or one git repository")
