"""A recipe to a layer plan: which stages are needed, where each starts, and which steps it has.

::

    outline   stages and the ARGs before them                          all of the recipe is checked
    starts    what every FROM means, once variables are expanded       no base is looked up yet
    needed    from the target upwards: its base, and the stages that it copies or mounts from
    plans     from the first needed stage downwards: each instruction lowered in the scope that the one before it left

Stages can need only stages above them, so one sweep up and one sweep down do, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from layerbuild.errors import LayerbuildError, Span, UsageError
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.onbuild import NO_TRIGGERS, OnBuild
from layerbuild.recipe.instructions.table import read_instruction
from layerbuild.recipe.platforms import platform_args, read_platform
from layerbuild.recipe.scope import Inputs, Roots, Scope, with_default_path
from layerbuild.recipe.stages import Outline, Stage, read_stages, refuse_circles, stages_read
from layerbuild.recipe.syntax import Recipe, parse_trigger, placed
from layerbuild.recipe.words import Word, expand
from layerbuild.reference import Reference
from layerbuild.steps import Base, ImageBase, LayerPlan, ScratchBase, SkippedStage, StageBase, StagePlan, Step

Bases = Callable[[str, Platform], ImageConfig]
"""Resolves the name of a base image; raises NotFoundError if there is none."""

SCRATCH = "scratch"


def plan(
    recipe: Recipe,
    *,
    bases: Bases,
    platform: Platform,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    build_platform: Platform | None = None,
    named_contexts: Collection[str] = (),
    epoch: int | None = None,
) -> LayerPlan:
    """The plan for ``target``, a stage's name or index (None: the last stage), on ``platform``.

    ``bases`` is asked for the bases of needed stages only. ``build_platform`` is where RUN executes (None: the same).
    ``named_contexts`` are names that ``--from`` takes for contexts. ``epoch`` (seconds) is put in RUN's environment.
    RecipeError for a recipe that is wrong, UsageError for an unknown target, and what ``bases`` raises, with the place
    of the FROM.
    """
    outline = read_stages(recipe)
    last = outline.target(target)
    args = build_args or {}
    inputs = Inputs(args, _globals(outline, last, args, platform, build_platform or platform), epoch)
    planner = _Planner(outline, last, inputs, bases, platform, frozenset(named_contexts))
    return replace(planner.plan(), notes=_notes(recipe))


def _globals(
    outline: Outline, target: Stage, build_args: Mapping[str, str], platform: Platform, build_platform: Platform
) -> Mapping[str, str | None]:
    predefined = {**platform_args(build=build_platform, target=platform), "TARGETSTAGE": target.name or "default"}
    values: dict[str, str | None] = {name: build_args.get(name, value) for name, value in predefined.items()}
    for argument in outline.arguments:
        values = argument.as_globals(values, build_args)
    return values


def _notes(recipe: Recipe) -> tuple[str, ...]:
    syntax = recipe.directive("syntax")
    if syntax is None:
        return ()
    return (f"{syntax.span}: the front end {syntax.value} is not run: layerbuild reads the recipe itself",)


@dataclass(frozen=True, slots=True)
class _Start:
    """What a FROM means: its base, and the platform asked for."""

    base: Base
    platform: Platform


@dataclass(frozen=True, slots=True)
class _Needed:
    """A stage that the target needs: the configuration that an image brings (None: it starts from a stage), and the
    instructions of its triggers."""

    image: ImageConfig | None
    triggers: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class _Opening:
    """What a stage begins with."""

    scope: Scope
    platform: Platform
    image: ImageConfig


class _Planner:
    def __init__(
        self,
        outline: Outline,
        target: Stage,
        inputs: Inputs,
        bases: Bases,
        platform: Platform,
        contexts: frozenset[str],
    ) -> None:
        self._outline = outline
        self._target = target
        self._inputs = inputs
        self._bases = bases
        self._platform = platform
        self._contexts = contexts
        self._starts = [self._start(stage) for stage in outline.stages]
        self._plans: dict[int, StagePlan] = {}
        self._scopes: dict[int, Scope] = {}

    def plan(self) -> LayerPlan:
        stages = self._outline.stages
        needs = [self._needs(stage, stage.instructions) for stage in stages]
        refuse_circles(stages, needs)
        needed = self._needed(needs)
        for index in sorted(needed):
            self._plan_stage(stages[index], needed[index])
        skipped = tuple(self._skipped(stage) for stage in stages if stage.index not in needed)
        return LayerPlan(tuple(self._plans[index] for index in sorted(needed)), skipped)

    def _skipped(self, stage: Stage) -> SkippedStage:
        reason = f"the target {self._target.title} does not need it"
        return SkippedStage(stage.index, stage.name, stage.start.origin, reason)

    # What each FROM means.

    def _start(self, stage: Stage) -> _Start:
        start = stage.start
        name = self._global_word(start.base, stage)
        if not name:
            raise start.statement.error(
                f"base name ({start.base.text}) should not be blank",
                at=start.base,
                hint="give the ARG before FROM a default, or use --build-arg",
            )
        return _Start(self._base(name, stage), self._stage_platform(stage))

    def _base(self, name: str, stage: Stage) -> Base:
        if name == SCRATCH:
            return ScratchBase()
        if name in self._contexts:
            return ImageBase(name)
        index = self._roots(stage).stage(name, by_index=False)
        if index is not None and index < stage.index:
            return StageBase(index)
        try:
            Reference.parse(name)
        except UsageError as error:
            statement = stage.start.statement
            raise statement.error(error.message, at=stage.start.base, hint=error.hint) from error
        return ImageBase(name)

    def _stage_platform(self, stage: Stage) -> Platform:
        word = stage.start.platform
        if word is None:
            return self._platform
        text = self._global_word(word, stage)
        statement = stage.start.statement
        if not text:
            raise statement.error(f"empty platform value from expression {word.text}", at=word)
        with placed(statement.at(word)):
            return read_platform(text, default=self._platform)

    def _global_word(self, word: Word, stage: Stage) -> str:
        # Only ARGs from before the first FROM exist here: no stage has begun.
        variables = {name: value for name, value in self._inputs.globals.items() if value is not None}
        with placed(stage.start.statement.at(word)):
            return expand(word.text, variables, escape=stage.start.statement.escape)

    def _roots(self, stage: Stage) -> Roots:
        return Roots(self._outline.names, stage.index, self._contexts)

    # Which stages are needed.

    def _needs(self, stage: Stage, instructions: tuple[Instruction, ...]) -> set[int]:
        base = self._starts[stage.index].base
        read = stages_read(instructions, self._roots(stage))
        return read | {base.stage} if isinstance(base, StageBase) else read

    def _needed(self, needs: list[set[int]]) -> dict[int, _Needed]:
        wanted = {self._target.index}
        found: dict[int, _Needed] = {}
        for stage in reversed(self._outline.stages[: self._target.index + 1]):
            if stage.index not in wanted:
                continue
            image = self._image(stage)
            triggers = self._triggers(stage, image)
            found[stage.index] = _Needed(image, triggers)
            wanted |= needs[stage.index] | self._needs(stage, triggers)
        return found

    def _image(self, stage: Stage) -> ImageConfig | None:
        start = self._starts[stage.index]
        match start.base:
            case ScratchBase():
                return ImageConfig.scratch(start.platform)
            case StageBase():
                return None
            case ImageBase(reference):
                with _at(stage.start.statement.at(stage.start.base)):
                    return self._bases(reference, start.platform)

    def _triggers(self, stage: Stage, image: ImageConfig | None) -> tuple[Instruction, ...]:
        """The ONBUILD instructions that fire in this stage: its base image's, or those of the stage that it is from."""
        base = self._starts[stage.index].base
        texts = image.config.on_build if image is not None else ()
        if isinstance(base, StageBase):
            parents = self._outline.stages[base.stage].instructions
            texts = tuple(parent.text for parent in parents if isinstance(parent, OnBuild))
        return tuple(_read_trigger(text, stage.start.statement.span) for text in texts)

    # The plans.

    def _plan_stage(self, stage: Stage, needed: _Needed) -> None:
        opening = self._from_stage(stage) if needed.image is None else self._from_image(stage, needed.image)
        scope = opening.scope
        steps: list[Step] = []
        for instruction in (*needed.triggers, *stage.instructions):
            with placed(instruction.statement.span):
                lowered = instruction.lower(scope)
            scope = lowered.scope
            if lowered.step is not None:
                steps.append(lowered.step)
        self._scopes[stage.index] = scope
        self._plans[stage.index] = StagePlan(
            index=stage.index,
            name=stage.name,
            origin=stage.start.origin,
            base=self._starts[stage.index].base,
            platform=opening.platform,
            start=opening.image,
            steps=tuple(steps),
        )

    def _from_image(self, stage: Stage, image: ImageConfig) -> _Opening:
        # Triggers fire once: neither this image nor one that is built on it has them any more.
        config = replace(image.config, env=with_default_path(image.config.env), on_build=())
        scope = Scope(config, env=config.env, author=image.author, inputs=self._inputs, roots=self._roots(stage))
        return _Opening(scope, self._starts[stage.index].platform, replace(image, config=config, created=""))

    def _from_stage(self, stage: Stage) -> _Opening:
        base = self._starts[stage.index].base
        assert isinstance(base, StageBase)
        parent, before = self._plans[base.stage], self._scopes[base.stage]
        scope = replace(before.with_config(on_build=()), cmd_set=False, roots=self._roots(stage))
        image = replace(parent.start, config=scope.config, author=scope.author)
        return _Opening(scope, parent.platform, image)


def _read_trigger(text: str, span: Span) -> Instruction:
    statement = parse_trigger(text, span=span)
    if statement.keyword in NO_TRIGGERS:
        raise statement.error(f"{statement.keyword} isn't allowed as an ONBUILD trigger")
    return read_instruction(statement).as_trigger()


@contextmanager
def _at(span: Span) -> Iterator[None]:
    """Give any failure from within that knows no place the place ``span``."""
    try:
        yield
    except LayerbuildError as error:
        error.span = error.span or span
        raise
