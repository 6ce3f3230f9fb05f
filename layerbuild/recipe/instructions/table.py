"""The keywords of the language."""

from __future__ import annotations

import difflib

from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.command import Cmd, Entrypoint, Shell
from layerbuild.recipe.instructions.copy import Add, Copy
from layerbuild.recipe.instructions.expose import Expose
from layerbuild.recipe.instructions.healthcheck import Healthcheck
from layerbuild.recipe.instructions.labels import Label, Maintainer
from layerbuild.recipe.instructions.onbuild import OnBuild
from layerbuild.recipe.instructions.place import User, Workdir
from layerbuild.recipe.instructions.run import Run
from layerbuild.recipe.instructions.stage import From
from layerbuild.recipe.instructions.stopsignal import StopSignal
from layerbuild.recipe.instructions.variables import Arg, Env
from layerbuild.recipe.instructions.volume import Volume
from layerbuild.recipe.syntax import Statement, placed
from layerbuild.recipe.words import Word

KEYWORDS: dict[str, type[Instruction]] = {
    "ADD": Add,
    "ARG": Arg,
    "CMD": Cmd,
    "COPY": Copy,
    "ENTRYPOINT": Entrypoint,
    "ENV": Env,
    "EXPOSE": Expose,
    "FROM": From,
    "HEALTHCHECK": Healthcheck,
    "LABEL": Label,
    "MAINTAINER": Maintainer,
    "ONBUILD": OnBuild,
    "RUN": Run,
    "SHELL": Shell,
    "STOPSIGNAL": StopSignal,
    "USER": User,
    "VOLUME": Volume,
    "WORKDIR": Workdir,
}


def read_instruction(statement: Statement) -> Instruction:
    """The instruction that a statement is; RecipeError for an unknown keyword, with the nearest known one."""
    found = KEYWORDS.get(statement.keyword)
    if found is None:
        near = difflib.get_close_matches(statement.keyword, KEYWORDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYWORDS)}"
        raise statement.error(f"unknown instruction: {statement.spelling}", at=Word(statement.spelling, 0), hint=hint)
    with placed(statement.span):
        return found.parse(statement)
