"""The keywords of the language."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from layerbuild.errors import alike
from layerbuild.recipe.syntax import Statement, placed
from layerbuild.recipe.words import Word

if TYPE_CHECKING:
    from layerbuild.recipe.instructions.base import Instruction

# keyword → module of recipe/instructions/ and the class in it, imported when a recipe has it
KEYWORDS = {
    "ADD": "copy:Add",
    "ARG": "variables:Arg",
    "CMD": "command:Cmd",
    "COPY": "copy:Copy",
    "ENTRYPOINT": "command:Entrypoint",
    "ENV": "variables:Env",
    "EXPOSE": "expose:Expose",
    "FROM": "stage:From",
    "HEALTHCHECK": "healthcheck:Healthcheck",
    "LABEL": "labels:Label",
    "MAINTAINER": "labels:Maintainer",
    "ONBUILD": "onbuild:OnBuild",
    "RUN": "run:Run",
    "SHELL": "command:Shell",
    "STOPSIGNAL": "stopsignal:StopSignal",
    "USER": "place:User",
    "VOLUME": "volume:Volume",
    "WORKDIR": "place:Workdir",
}


def instruction_class(keyword: str) -> type[Instruction] | None:
    """The class of a keyword, None: there is no such keyword."""
    if keyword not in KEYWORDS:
        return None
    module, _, name = KEYWORDS[keyword].partition(":")
    found: type[Instruction] = getattr(importlib.import_module(f"layerbuild.recipe.instructions.{module}"), name)
    return found


def read_instruction(statement: Statement) -> Instruction:
    """The instruction that a statement is; RecipeError for an unknown keyword, with the nearest known one."""
    found = instruction_class(statement.keyword)
    if found is None:
        near = alike(statement.keyword, KEYWORDS)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYWORDS)}"
        raise statement.error(f"unknown instruction: {statement.spelling}", at=Word(statement.spelling, 0), hint=hint)
    with placed(statement.span):
        return found.parse(statement)
