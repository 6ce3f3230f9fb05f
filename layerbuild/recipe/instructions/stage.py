"""FROM: where a stage starts."""

from __future__ import annotations

import re
from typing import Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import blank_separated
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word

_FLAGS = flags.FlagSet(texts=frozenset({"platform"}))
_NAME = re.compile(r"[a-z][a-z0-9_.-]*", re.ASCII)


@frozen(kw_only=True)
class From(Instruction):
    """``FROM [--platform=P] BASE [AS NAME]``. ``name`` is lower case, empty where the stage has none."""

    base: Word
    name: str
    platform: Word | None

    shape = blank_separated

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        words = statement.arguments(blank_separated).words
        named = len(words) == 3 and words[1].text.lower() == "as"
        if len(words) != 1 and not named:
            raise statement.error(
                "FROM requires either one or three arguments", hint="write FROM IMAGE, or FROM IMAGE AS NAME"
            )
        name = words[2].text.lower() if named else ""
        if named and not _NAME.fullmatch(name):
            raise statement.error(
                f'invalid name for build stage: "{words[2].text}", name can\'t start with a number or contain symbols',
                at=words[2],
                hint="use letters, digits, -, _ and . behind a letter",
            )
        platform = flags.read(statement, _FLAGS).word("platform")
        return cls(statement=statement, base=words[0], name=name, platform=platform)

    def lower(self, scope: Scope) -> Lowered:
        """No step: the planner has made the scope from it."""
        return Lowered(None, scope)
