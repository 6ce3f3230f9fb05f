"""ONBUILD: an instruction for the images that are built on this one."""

from __future__ import annotations

from typing import Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import whole
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, at_least_one
from layerbuild.recipe.instructions.table import instruction_class
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement, parse_trigger
from layerbuild.recipe.words import cut_blank

# Instructions that no trigger can be.
NO_TRIGGERS = frozenset(("FROM", "MAINTAINER", "ONBUILD"))


@frozen(kw_only=True)
class OnBuild(Instruction):
    """``ONBUILD INSTRUCTION``. ``text`` is the trigger as the image's configuration keeps it, heredocs included."""

    text: str

    shape = whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        rest = at_least_one(statement, whole).words[0]
        keyword = cut_blank(rest)[0].text.upper()
        if keyword == "ONBUILD":
            raise statement.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", at=rest)
        if keyword in NO_TRIGGERS:
            raise statement.error(f"{keyword} isn't allowed as an ONBUILD trigger", at=rest)
        text = trigger_text(statement)
        _check_shape(text, statement)
        return cls(statement=statement, text=text)

    def lower(self, scope: Scope) -> Lowered:
        # A trigger is for the child: it makes no line in this image's history.
        return self.metadata(scope.with_config(on_build=(*scope.config.on_build, self.text)), None)


def trigger_text(statement: Statement) -> str:
    """The instruction behind ONBUILD, up to the end of its line, with the bodies of its heredocs."""
    line = statement.text[statement.rest.offset :]
    return "\n".join((line, *(heredoc.written for heredoc in statement.heredocs)))


def _check_shape(text: str, statement: Statement) -> None:
    """RecipeError if the arguments have not the shape that the keyword asks for. What they mean is for the child, and
    so is a keyword that is not known here."""
    trigger = parse_trigger(text, span=statement.span, escape=statement.escape)
    found = instruction_class(trigger.keyword)
    if found is not None:
        trigger.arguments(found.shape)
