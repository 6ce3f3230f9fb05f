"""What every instruction has: a statement, a shape of arguments, ``parse`` and ``lower``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import Arguments, Shape
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word
from layerbuild.steps import ConfigStep, Origin, Step, masked


@frozen
class Lowered:
    """A step (None: FROM makes none) and the scope behind it."""

    step: Step | None
    scope: Scope


@frozen
class Reference:
    """A name behind ``--from`` or ``from=``: it may mean a stage. ``by_index`` tells whether it may be a number."""

    word: Word
    by_index: bool


@frozen
class Instruction(ABC):
    """One instruction of a recipe; ``trigger`` tells that an ONBUILD brought it."""

    statement: Statement

    shape: ClassVar[Shape]
    trigger: bool = False

    @classmethod
    @abstractmethod
    def parse(cls, statement: Statement) -> Self:
        """Check flags and arguments; RecipeError with the place of the offending one."""

    @abstractmethod
    def lower(self, scope: Scope) -> Lowered:
        """The step that it is, and the scope behind it; RecipeError if expansion or a value is wrong."""

    @property
    def references(self) -> tuple[Reference, ...]:
        """Names in it that may mean stages."""
        return ()

    @property
    def origin(self) -> Origin:
        """Where it stands. What is shown of it, and recorded, is without the credentials of the URLs in it."""
        return Origin(self.statement.span, self.statement.keyword, masked(self.statement.text), self.trigger)

    def as_trigger(self) -> Self:
        """The same, brought by an ONBUILD."""
        return replace(self, trigger=True)

    def metadata(self, scope: Scope, created_by: str | None) -> Lowered:
        """A step that changes nothing but the configuration: ``scope`` has it already."""
        return Lowered(ConfigStep(self.origin, scope.config, created_by), scope)


def at_least_one(statement: Statement, shape: Shape) -> Arguments:
    """The arguments, of which there is one at least."""
    arguments = statement.arguments(shape)
    if not arguments.words:
        raise statement.error(f"{statement.keyword} requires at least one argument")
    return arguments


def exactly_one(statement: Statement, shape: Shape) -> Word:
    """The only argument."""
    arguments = statement.arguments(shape)
    if len(arguments.words) != 1:
        raise statement.error(f"{statement.keyword} requires exactly one argument")
    return arguments.words[0]


def named(statement: Statement, names: tuple[Word, ...]) -> None:
    """RecipeError for a name that is blank."""
    for name in names:
        if not name.text:
            message = f"{statement.keyword} names can not be blank"
            raise statement.error(message, at=name, hint="write name=value, without blanks around the =")


def shell_or_exec(arguments: Arguments, shell: tuple[str, ...]) -> tuple[str, ...]:
    """The command line: a JSON array as it is, anything else handed to the shell as one argument."""
    return arguments.texts if arguments.json else (*shell, *(arguments.texts or ("",)))
