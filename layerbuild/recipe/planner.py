"""A recipe to a layer plan: which stages are needed, where each starts, and which steps it has.

::

    outline   stages and the ARGs before them                          all of the recipe is checked
    starts    what every FROM means, once variables are expanded       no base is looked up yet
    needed    from the target upwards: its base, and the stages that it copies or mounts from
    plans     from the first needed stage downwards: each instruction lowered in the scope that the one before it left

Stages can need only stages above them, so one sweep up and one sweep down do, however many there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from layerbuild.errors import LayerbuildError, Span, UsageError
from layerbuild.frozen import frozen
from layerbuild.image.config import MOST_LAYERS, ImageConfig, Platform
from layerbuild.image.platforms import read_platform
from layerbuild.recipe.contexts import RESERVED, NamedContexts, replaced
from layerbuild.recipe.epoch import Epoch, read_epoch
from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.onbuild import NO_TRIGGERS, OnBuild
from layerbuild.recipe.instructions.table import read_instruction
from layerbuild.recipe.nearest import nearest
from layerbuild.recipe.platforms import platform_args
from layerbuild.recipe.scope import AS_USUAL, Inputs, Roots, RunDefaults, Scope, with_default_path
from layerbuild.recipe.stages import Outline, Stage, read_stages, refuse_circles, stages_read
from layerbuild.recipe.syntax import Recipe, parse_trigger, placed
from layerbuild.recipe.witness import Witness
from layerbuild.recipe.words import Expansion, Word, expansion
from layerbuild.reference import Reference
from layerbuild.steps import (
    Base,
    ConfigStep,
    ContextRoot,
    CopyStep,
    ImageBase,
    LayerPlan,
    PathSource,
    ScratchBase,
    SkippedStage,
    StageBase,
    StagePlan,
    Step,
)

Bases = Callable[[str, Platform], ImageConfig]
"""Resolves the name of a base image; raises NotFoundError if there is none."""

SCRATCH = "scratch"
NO_CONTEXTS: NamedContexts = {}

_SYNTAX = "BUILDKIT_SYNTAX"  # the build argument that says what `# syntax=` does
# The front ends of the language that layerbuild reads: Docker's, and BuildKit's own builds of it.
_DOCKERFILE = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?:[:@]\S+)?(?: .*)?")
_NO_VALUE = "give the ARG before FROM a default, or use --build-arg"


def plan(
    recipe: Recipe,
    *,
    bases: Bases,
    platform: Platform,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    build_platform: Platform | None = None,
    named_contexts: NamedContexts = NO_CONTEXTS,
    epoch: int | None = None,
    defaults: RunDefaults = AS_USUAL,
) -> LayerPlan:
    """The plan for ``target``, a stage's name or index (None: the last stage), an image for ``platform``.

    ``bases`` is asked for the bases of needed stages only. ``build_platform`` is where RUN executes (None: the same).
    ``named_contexts`` replace stages, bases and what ``--from`` names. ``epoch`` (seconds) is put in RUN's environment;
    ``defaults`` is what RUN finds besides.
    RecipeError for a recipe that is wrong, UsageError for an unknown target, and what ``bases`` raises, with the place
    of the FROM.
    """
    outline = read_stages(recipe)
    last = outline.target(target)
    args = build_args or {}
    known = predefined(last, platform=platform, build_platform=build_platform or platform, build_args=args)
    inputs = Inputs(args, outline.globals(known, args), epoch, defaults)
    said = read_epoch(outline, inputs, platform=platform, contexts=named_contexts)  # a wrong one is never passed over
    if not isinstance(said, int | None):
        inputs = inputs.with_epoch("" if epoch is None else str(epoch))
    planner = _Planner(outline, last, inputs, bases, platform, named_contexts)
    found = planner.plan({last.index})
    return replace(found, notes=(*_notes(recipe, named_contexts, args), *_depth(found)))


def recipe_epoch(
    recipe: Recipe,
    *,
    platform: Platform,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    build_platform: Platform | None = None,
    named_contexts: NamedContexts = NO_CONTEXTS,
) -> Epoch:
    """What the build arguments, else the recipe, say about the epoch; raises as ``plan`` does."""
    outline = read_stages(recipe)
    args = build_args or {}
    builder = build_platform or platform
    known = predefined(outline.target(target), platform=platform, build_platform=builder, build_args=args)
    inputs = Inputs(args, outline.globals(known, args))
    return read_epoch(outline, inputs, platform=platform, contexts=named_contexts)


def examine(
    outline: Outline,
    witness: Witness,
    *,
    bases: Bases,
    platform: Platform,
    inputs: Inputs,
    target: Stage,
    every: bool = False,
    named_contexts: NamedContexts = NO_CONTEXTS,
) -> None:
    """Go through the plan for ``target`` while ``witness`` looks on; ``every``: through all stages, needed or not.

    It raises what ``plan`` raises, once the witness has seen what comes before.
    """
    read_epoch(outline, inputs, platform=platform, contexts=named_contexts)
    wanted = range(len(outline.stages)) if every else (target.index,)
    planner = _Planner(outline, target, replace(inputs, witness=witness), bases, platform, named_contexts)
    planner.plan(set(wanted))


def predefined(
    target: Stage, *, platform: Platform, build_platform: Platform, build_args: Mapping[str, str]
) -> dict[str, str | None]:
    """The ARGs that a FROM sees undeclared."""
    values = {**platform_args(build=build_platform, target=platform), "TARGETSTAGE": target.name or "default"}
    return {name: build_args.get(name, value) for name, value in values.items()}


def _notes(recipe: Recipe, contexts: NamedContexts, build_args: Mapping[str, str]) -> tuple[str, ...]:
    kept = tuple(f"{name} keeps its meaning: no named context replaces it" for name in RESERVED if name in contexts)
    given, place = build_args.get(_SYNTAX, ""), _SYNTAX
    if not given and (frontend := recipe.frontend) is not None:
        given, place = frontend.value, str(frontend.span)
    if not given or _DOCKERFILE.fullmatch(given):
        return kept
    return (f"{place}: the front end {given} is not run: layerbuild reads the recipe itself", *kept)


def _depth(plan: LayerPlan) -> tuple[str, ...]:
    """A note of more layers than others run. Only the build can tell how many RUNs change no file."""
    own = sum(not isinstance(step, ConfigStep) for stage in plan.lineage for step in stage.steps)
    count = len(plan.lineage[-1].start.diff_ids) + own
    if count <= MOST_LAYERS:
        return ()
    return (f"the image may get {count} layers: Docker runs none with more than {MOST_LAYERS}",)


@frozen
class _Start:
    """What a FROM means: its base, and the platform asked for. ``files`` is the named context whose files make up the
    base, empty: none does."""

    base: Base
    platform: Platform
    files: str = ""


@frozen
class _Needed:
    """A stage that the target needs: the configuration that an image brings (None: it starts from a stage), and the
    instructions of its triggers."""

    image: ImageConfig | None
    triggers: tuple[Instruction, ...]


@frozen
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
        contexts: NamedContexts,
    ) -> None:
        self._target = target
        self._inputs = inputs
        self._bases = bases
        self._platform = platform
        self._contexts = contexts
        self._platforms: dict[int, Platform] = {}
        replacing = {stage.index: self._replaced(stage.name, stage) for stage in outline.stages if stage.name}
        self._replacing = {index: context for index, context in replacing.items() if context is not None}
        self._outline = outline.without(self._replacing)
        self._starts = [self._start(stage) for stage in self._outline.stages]
        self._plans: dict[int, StagePlan] = {}
        self._scopes: dict[int, Scope] = {}

    def plan(self, targets: set[int]) -> LayerPlan:
        stages = self._outline.stages
        needs = [self._needs(stage, stage.instructions) for stage in stages]
        refuse_circles(stages, needs)
        needed = self._needed(needs, targets)
        for index in sorted(needed):
            self._plan_stage(stages[index], needed[index])
        skipped = tuple(self._skipped(stage) for stage in stages if stage.index not in needed)
        return LayerPlan(tuple(self._plans[index] for index in sorted(needed)), skipped)

    def _skipped(self, stage: Stage) -> SkippedStage:
        reason = f"the target {self._target.title} does not need it"
        return SkippedStage(stage.index, stage.name, stage.start.origin, reason)

    # What each FROM means.

    def _start(self, stage: Stage) -> _Start:
        context = self._replacing.get(stage.index)
        if context is not None:
            return self._context_start(context, stage)
        start = stage.start
        name = self._global_word(start.base, stage).text
        if not name:
            raise start.statement.error(
                f"base name ({start.base.text}) should not be blank",
                at=start.base,
                hint=_NO_VALUE,
            )
        context = self._replaced(name, stage)
        if context is not None:
            return self._context_start(context, stage)
        return _Start(self._base(name, stage), self._stage_platform(stage))

    def _replaced(self, name: str, stage: Stage) -> str | None:
        """The named context that ``name`` means in ``stage``, None: it means none."""
        return replaced(name, self._contexts, self._stage_platform(stage)) if self._contexts else None

    def _context_start(self, context: str, stage: Stage) -> _Start:
        """Where a stage begins that a named context stands for, or that is built on one."""
        image, platform = self._contexts[context], self._stage_platform(stage)
        if image is None:
            return _Start(ScratchBase(), platform, files=context)
        return _Start(ScratchBase() if image == SCRATCH else ImageBase(image), platform)

    def _base(self, name: str, stage: Stage) -> Base:
        index = self._roots(stage).stage(name, by_index=False)
        if index is not None and index < stage.index:  # whatever it is called: `AS scratch` is only warned of
            return StageBase(index)
        if name == SCRATCH:
            return ScratchBase()
        try:
            Reference.parse(name)
        except UsageError as error:
            statement = stage.start.statement
            raise statement.error(error.message, at=stage.start.base, hint=error.hint) from error
        return ImageBase(name)

    def _stage_platform(self, stage: Stage) -> Platform:
        if stage.index not in self._platforms:
            self._platforms[stage.index] = self._asked_platform(stage)
        return self._platforms[stage.index]

    def _asked_platform(self, stage: Stage) -> Platform:
        word = stage.start.platform
        if word is None or not word.text:  # a flag that is left empty says nothing
            return self._platform
        found = self._global_word(word, stage)
        statement = stage.start.statement
        others = [name for name in self._inputs.globals if name not in found.unset]
        near = next(filter(None, (nearest(name, others) for name in sorted(found.unset))), "")
        meant = f"did you mean {near}?" if near else ""
        if not found.text:
            message = f"empty platform value from expression {word.text}"
            raise statement.error(message, at=word, hint=meant or _NO_VALUE)
        try:
            return read_platform(found.text, default=self._platform)
        except UsageError as error:
            message = f"failed to parse platform {word.text}: {error.message}"
            raise statement.error(message, at=word, hint=meant or error.hint) from error

    def _global_word(self, word: Word, stage: Stage) -> Expansion:
        # Only ARGs from before the first FROM exist here: no stage has begun.
        variables = {name: value for name, value in self._inputs.globals.items() if value is not None}
        with placed(stage.start.statement.at(word)):
            found = expansion(word.text, variables, escape=stage.start.statement.escape)
        if self._inputs.witness is not None:
            self._inputs.witness.named(stage.start, word, found)
        return found

    def _roots(self, stage: Stage) -> Roots:
        return Roots(self._outline.names, stage.index, self._contexts, self._stage_platform(stage))

    # Which stages are needed.

    def _needs(self, stage: Stage, instructions: tuple[Instruction, ...]) -> set[int]:
        base = self._starts[stage.index].base
        read = stages_read(instructions, self._roots(stage))
        return read | {base.stage} if isinstance(base, StageBase) else read

    def _needed(self, needs: list[set[int]], targets: set[int]) -> dict[int, _Needed]:
        wanted = set(targets)
        found: dict[int, _Needed] = {}
        for stage in reversed(self._outline.stages):
            if stage.index not in wanted:
                continue
            image = self._image(stage)
            triggers = self._triggers(stage, image)
            found[stage.index] = _Needed(image, triggers)
            wanted |= needs[stage.index] | self._needs(stage, triggers)
        return found

    def _image(self, stage: Stage) -> ImageConfig | None:
        start, witness = self._starts[stage.index], self._inputs.witness
        match start.base:
            case ScratchBase():
                return ImageConfig.scratch(start.platform)
            case StageBase(parent):
                if witness is not None:
                    witness.derived(stage, self._outline.stages[parent])
                return None
            case ImageBase(reference):
                with _at(stage.start.statement.at(stage.start.base)):
                    image = self._bases(reference, start.platform)
                if witness is not None:
                    witness.based(stage, reference, start.platform, image)
                return image

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
        steps: list[Step] = [*self._files(stage, scope)]
        for instruction in (*needed.triggers, *stage.instructions):
            with placed(instruction.statement.span):
                lowered = instruction.lower(scope)
            if self._inputs.witness is not None:
                self._inputs.witness.lowered(instruction, scope)
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

    def _files(self, stage: Stage, scope: Scope) -> Iterator[Step]:
        """A base of mere files is an empty one, and their copy."""
        files = self._starts[stage.index].files
        if files:
            copied = f"FROM {files} # files of a named context"
            origin = stage.start.origin
            yield CopyStep(origin, scope.config, copied, ContextRoot(files), (PathSource("/"),), "/")

    def _from_image(self, stage: Stage, image: ImageConfig) -> _Opening:
        # Triggers fire once: neither this image nor one that is built on it has them any more.
        platform = self._starts[stage.index].platform
        env = image.config.env if platform.os == "windows" else with_default_path(image.config.env)
        config = replace(image.config, env=env, on_build=())
        scope = Scope(
            config,
            author=image.author,
            inputs=self._inputs,
            roots=self._roots(stage),
            system=platform.os,
        )
        return _Opening(scope.begun(), platform, replace(image, config=config, created=""))

    def _from_stage(self, stage: Stage) -> _Opening:
        base = self._starts[stage.index].base
        assert isinstance(base, StageBase)
        parent, before = self._plans[base.stage], self._scopes[base.stage]
        scope = replace(before.with_config(on_build=()), cmd_set=False, roots=self._roots(stage)).begun()
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
