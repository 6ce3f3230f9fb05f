"""Instructions grouped into stages, and which stages need which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from layerbuild.errors import RecipeError, UsageError, alike
from layerbuild.frozen import frozen
from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.stage import From
from layerbuild.recipe.instructions.table import read_instruction
from layerbuild.recipe.instructions.variables import Arg
from layerbuild.recipe.scope import Roots
from layerbuild.recipe.syntax import Recipe, placed


@frozen
class Stage:
    """A FROM and what follows it, up to the next one."""

    index: int
    start: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.start.name

    @property
    def title(self) -> str:
        return self.name or str(self.index)


@frozen
class Outline:
    """A recipe understood: the ARGs before the first FROM, and the stages."""

    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def globals(self, predefined: Mapping[str, str | None], build_args: Mapping[str, str]) -> Mapping[str, str | None]:
        """The ARGs that a FROM sees, None: declared without a value. RecipeError if a default is wrong."""
        values = predefined
        for argument in self.arguments:
            values = argument.as_globals(values, build_args)
        return values

    def without(self, replaced: Collection[int]) -> Outline:
        """The same, but the stages with these indexes, for which named contexts stand, have no instructions."""
        kept = [replace(stage, instructions=()) if stage.index in replaced else stage for stage in self.stages]
        return replace(self, stages=tuple(kept))

    def target(self, name: str | None) -> Stage:
        """The stage of that name or index, the last one for None. UsageError if there is none."""
        if name is None:
            return self.stages[-1]
        same = [stage for stage in self.stages if stage.name and stage.name == name.lower()]
        if same:
            return same[-1]
        if name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < len(self.stages):
            return self.stages[int(name)]
        near = alike(name.lower(), self.names)
        known = ", ".join(stage.title for stage in self.stages)
        hint = f"did you mean {near[0]}?" if near and near[0] else f"its stages are {known}"
        raise UsageError(f'target stage "{name}" could not be found', hint=hint)


def read_stages(recipe: Recipe) -> Outline:
    """Understand every statement, and group the instructions. RecipeError with the place of the first wrong one."""
    _refuse_other_languages(recipe)
    arguments: list[Arg] = []
    groups: list[tuple[From, list[Instruction]]] = []
    for statement in recipe.statements:
        instruction = read_instruction(statement)
        if isinstance(instruction, From):
            groups.append((instruction, []))
        elif groups:
            groups[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise statement.error(
                "no build stage in current context", hint=f"{statement.keyword} belongs behind a FROM"
            )
    if not groups:
        last = recipe.statements[-1]
        raise last.error("dockerfile contains no stages to build", hint="add a FROM")
    stages = tuple(Stage(index, start, tuple(body)) for index, (start, body) in enumerate(groups))
    return Outline(tuple(arguments), stages)


def _refuse_other_languages(recipe: Recipe) -> None:
    """A text whose front end is named as no Dockerfile names one (``//syntax=…``, JSON) is none."""
    first = recipe.statements[0]
    if recipe.frontend is not None and first.text.startswith(("//", "{")):
        raise first.error(
            f"this is written for the front end {recipe.frontend.reference}, which is not run here",
            hint="name a Dockerfile with --file",
        )


def stages_read(instructions: Iterable[Instruction], roots: Roots) -> set[int]:
    """The indexes of the stages that the instructions copy or mount from, those below included, which is an error that
    lowering reports."""
    found: set[int] = set()
    for instruction in instructions:
        for reference in instruction.references:
            if roots.context(reference.word.text) is not None:
                continue
            with placed(instruction.statement.at(reference.word)):
                index = roots.stage(reference.word.text, by_index=reference.by_index)
            if index is not None:
                found.add(index)
    return found


def refuse_circles(stages: Sequence[Stage], needs: Sequence[set[int]]) -> None:
    """RecipeError for a stage that needs itself, by way of others or not. ``needs[i]`` are the stages that i reads."""
    for stage in stages:
        # A circle has a stage that needs a later one, or itself.
        if any(need >= stage.index for need in needs[stage.index]) and stage.index in _reachable(stage.index, needs):
            raise RecipeError(
                f"circular dependency detected on stage: {stage.title}",
                hint="a stage can read only stages above it",
                span=stage.start.statement.span,
            )


def _reachable(start: int, needs: Sequence[set[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(needs[start])
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += needs[index]
    return found
