"""What rules look at: all that planning a recipe brings to light."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field

from layerbuild.errors import NotFoundError, RecipeError, RegistryError
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.recipe.contexts import NamedContexts
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.stage import From
from layerbuild.recipe.instructions.table import read_instruction
from layerbuild.recipe.planner import Bases, examine, predefined
from layerbuild.recipe.scope import Inputs, Scope
from layerbuild.recipe.stages import Outline, Stage, read_stages
from layerbuild.recipe.syntax import Recipe, Statement
from layerbuild.recipe.words import Expansion, Word

Values = Mapping[str, str | None]


@frozen(kw_only=True)
class Setting:
    """What a build of the recipe would know. ``bases`` raises NotFoundError or RegistryError for a base that can't be
    had. ``build_platform`` None is ``platform``, ``target`` None the last stage; ``every`` has all stages examined, and
    not only those that the target needs.
    """

    bases: Bases
    platform: Platform
    build_platform: Platform | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    every: bool = False
    named_contexts: NamedContexts = field(default_factory=dict)
    ignore: IgnoreRules = field(default_factory=IgnoreRules)


@frozen
class Unknown(ImageConfig):
    """Stands in for a base that is not at hand."""


@frozen
class Named:
    """A word of a FROM, expanded."""

    start: From
    word: Word
    found: Expansion


@frozen
class Based:
    """A stage that starts from an image, and what asked for that."""

    stage: Stage
    reference: str
    platform: Platform
    image: ImageConfig


@frozen
class Visit:
    """An instruction of an examined stage, and the scope that holds where it stands."""

    instruction: Instruction
    scope: Scope

    @property
    def stage(self) -> int:
        return self.scope.roots.current


@frozen
class Expanded:
    """A word of an instruction, or a heredoc, expanded in ``scope``."""

    statement: Statement
    found: Expansion
    scope: Scope

    @property
    def stage(self) -> int:
        return self.scope.roots.current


@frozen(kw_only=True)
class Facts:
    """A recipe, as far as it could be examined: where it is wrong (``failure``), all that lies behind is missing.

    ``instructions`` are those of all stages; ``visits`` and ``expanded`` are of the examined ones. ``outline`` is None
    if an instruction is wrong. ``globals`` are the ARGs that a FROM sees, ``defaults`` the same without build
    arguments (None: a default can't be expanded). ``parents`` has, for each stage that is from another, that one.
    """

    recipe: Recipe
    setting: Setting
    instructions: tuple[Instruction, ...]
    outline: Outline | None
    globals: Values | None
    defaults: Values | None
    names: tuple[Named, ...]
    bases: tuple[Based, ...]
    visits: tuple[Visit, ...]
    expanded: tuple[Expanded, ...]
    parents: Mapping[int, int]
    failure: RecipeError | None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, none if an instruction is wrong."""
        return () if self.outline is None else self.outline.stages

    def ancestry(self, stage: int) -> tuple[int, ...]:
        """``stage``, the stage that it is from, the one that this is from, and so on."""
        return (stage, *(self.ancestry(self.parents[stage]) if stage in self.parents else ()))

    def knows_base(self, stage: int) -> bool:
        """Whether the image is at hand that ``stage`` grows from."""
        root = self.ancestry(stage)[-1]
        return not any(based.stage.index == root and isinstance(based.image, Unknown) for based in self.bases)


def gather(recipe: Recipe, setting: Setting) -> Facts:
    """Examine ``recipe``. UsageError for an unknown target; a recipe that is wrong is no error here."""
    record = _Record(setting)
    failure: RecipeError | None = None
    try:
        record.examine(recipe)
    except RecipeError as error:
        failure = error
    return Facts(
        recipe=recipe,
        setting=setting,
        instructions=tuple(record.instructions),
        outline=record.outline,
        globals=record.globals,
        defaults=record.defaults,
        names=tuple(record.names),
        bases=tuple(record.bases),
        visits=tuple(record.visits),
        expanded=tuple(record.words.values()),
        parents=record.parents,
        failure=failure,
    )


class _Record:
    """Keeps what it is told: the witness of one examination."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.instructions: list[Instruction] = []
        self.outline: Outline | None = None
        self.globals: Values | None = None
        self.defaults: Values | None = None
        self.names: list[Named] = []
        self.bases: list[Based] = []
        self.parents: dict[int, int] = {}
        self.visits: list[Visit] = []
        self.words: dict[tuple[int, Word | None, str], Expanded] = {}

    def examine(self, recipe: Recipe) -> None:
        """Go as far as the recipe is right; then RecipeError."""
        setting = self._setting
        for statement in recipe.statements:
            self.instructions.append(read_instruction(statement))
        self.outline = read_stages(recipe)
        known = predefined(
            self.outline.target(setting.target),
            platform=setting.platform,
            build_platform=setting.build_platform or setting.platform,
            build_args=setting.build_args,
        )
        with suppress(RecipeError):  # a build argument may take the place of what is wrong
            self.defaults = self.outline.globals(known, {})
        self.globals = self.outline.globals(known, setting.build_args)
        examine(
            self.outline,
            self,
            bases=self._base,
            platform=setting.platform,
            inputs=Inputs(setting.build_args, self.globals),
            target=self.outline.target(setting.target),
            every=setting.every,
            named_contexts=setting.named_contexts,
        )

    def _base(self, name: str, platform: Platform) -> ImageConfig:
        try:
            return self._setting.bases(name, platform)
        except (NotFoundError, RegistryError):
            return Unknown(platform)

    def named(self, start: From, word: Word, found: Expansion) -> None:
        self.names.append(Named(start, word, found))

    def based(self, stage: Stage, reference: str, platform: Platform, image: ImageConfig) -> None:
        self.bases.append(Based(stage, reference, platform, image))

    def derived(self, stage: Stage, parent: Stage) -> None:
        self.parents[stage.index] = parent.index

    def lowered(self, instruction: Instruction, scope: Scope) -> None:
        self.visits.append(Visit(instruction, scope))

    def expanded(self, statement: Statement, word: Word | None, found: Expansion, scope: Scope) -> None:
        key = (id(statement), word, "" if word is not None else found.text)
        self.words.setdefault(key, Expanded(statement, found, scope))
