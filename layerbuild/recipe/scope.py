"""What holds at one place of a stage: the configuration so far, the variables, and the names that ``--from`` knows.

A scope is frozen; an instruction that changes something hands back another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field, replace

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.image.config import DEFAULT_PATH, Pairs, Platform, RuntimeConfig
from layerbuild.recipe.contexts import NamedContexts, replaced
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.witness import Witness
from layerbuild.recipe.words import Word, expand, expand_document, expansion
from layerbuild.steps import ContextRoot, ImageRoot, Root, StageRoot

DEFAULT_SHELL = ("/bin/sh", "-c")
_WINDOWS_SHELL = ("cmd", "/S", "/C")

# Build arguments that reach every RUN undeclared, in both spellings, and leave no trace in the image.
PROXIES = ("all_proxy", "ftp_proxy", "http_proxy", "https_proxy", "no_proxy")

# ARGs that steer the builder: no stage's environment has them.
STEERING = frozenset(("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"))

EPOCH = "SOURCE_DATE_EPOCH"

_INDEX = re.compile(r"[+-]?[0-9]+", re.ASCII)

Expand = Callable[[Word], str]


@frozen
class RunDefaults:
    """What every RUN finds around it, and no recipe says: the ``network`` of those that name none, and ``hosts``, names
    with their addresses. ``env_wins``: an ENV counts more than a later ARG of its name, as before BuildKit."""

    network: str = "default"
    hosts: Pairs = ()
    env_wins: bool = False


AS_USUAL = RunDefaults()


@frozen
class Inputs:
    """What comes from outside the recipe and holds for all its stages.

    ``globals`` are the ARGs before the first FROM and the predefined ones, None: declared without a value. ``epoch``
    (seconds since 1970) is put in the environment of RUN, None: it is not. ``defaults`` is what RUN finds around
    it. ``witness`` is told of each expansion.
    """

    build_args: Mapping[str, str] = field(default_factory=dict)
    globals: Mapping[str, str | None] = field(default_factory=dict)
    epoch: int | None = None
    defaults: RunDefaults = AS_USUAL
    witness: Witness | None = None

    def with_epoch(self, value: str) -> Inputs:
        """The same with another value of SOURCE_DATE_EPOCH, where it was given: the word that says where the time comes
        from is for the builder, and the time for the recipe."""
        given = {EPOCH: value}
        build_args = {**self.build_args, **given} if EPOCH in self.build_args else self.build_args
        known = {**self.globals, **given} if EPOCH in self.globals else self.globals
        return replace(self, build_args=build_args, globals=known)

    @property
    def proxies(self) -> Pairs:
        """The proxy variables, in both spellings, sorted; where both were given, the lower-case one counts."""
        given = {name.lower(): value for name, value in sorted(self.build_args.items()) if name.lower() in PROXIES}
        both = {**{name.upper(): value for name, value in given.items()}, **given}
        return tuple(sorted(both.items()))


@frozen
class Roots:
    """The places that ``--from`` can mean where one stage stands.

    ``stages`` are the names of all stages in order (empty: unnamed), ``current`` the index of the stage that asks and
    ``platform`` the one it is for, ``contexts`` the named contexts.
    """

    stages: tuple[str, ...] = ()
    current: int = 0
    contexts: NamedContexts = field(default_factory=dict)
    platform: Platform | None = None

    def title(self, index: int) -> str:
        return self.stages[index] or str(index)

    def context(self, name: str) -> str | None:
        """The key of the named context that ``name`` means, None: it means none."""
        return replaced(name, self.contexts, self.platform) if self.contexts else None

    def stage(self, name: str, *, by_index: bool) -> int | None:
        """The index of the stage that ``name`` means, None: it means no stage. Of equal names the nearest one above
        counts; ``by_index`` takes a number for an index, and RecipeError tells of one that no stage has."""
        if by_index and _INDEX.fullmatch(name):
            index = int(name[:18])
            if not 0 <= index < len(self.stages):
                raise RecipeError(f"invalid stage index {name}", hint=f"stages count from 0 to {len(self.stages) - 1}")
            return index
        same = [index for index, stage in enumerate(self.stages) if stage and stage == name.lower()]
        return max((index for index in same if index < self.current), default=same[0] if same else None)

    def find(self, name: str, *, verb: str, by_index: bool) -> Root:
        """The place itself: a named context, an earlier stage, or an image. ``verb`` is for the message."""
        context = self.context(name)
        if context is not None:
            image = self.contexts[context]
            return ContextRoot(context) if image is None else ImageRoot(image)
        index = self.stage(name, by_index=by_index)
        if index is None:
            return ImageRoot(name)
        if index >= self.current:
            raise RecipeError(
                f'cannot {verb} from stage "{name}", it needs to be defined before '
                f'current stage "{self.title(self.current)}"',
                hint="move that stage up",
            )
        return StageRoot(index)


@frozen
class Scope:
    """``env`` is the one list that RUN and expansion see: the configuration's variables and the ARGs in force, each
    name once, where the later of ARG and ENV counts. ``args`` are the declared ARGs, in order (None: without a value).
    ``cmd_set`` tells whether this stage had a CMD. ``system`` is that of the image."""

    config: RuntimeConfig
    env: Pairs = ()
    args: tuple[tuple[str, str | None], ...] = ()
    cmd_set: bool = False
    author: str = ""
    inputs: Inputs = field(default_factory=Inputs)
    roots: Roots = field(default_factory=Roots)
    system: str = "linux"

    def expander(self, statement: Statement) -> Expand:
        """A function that expands a word of ``statement``. It sees the variables as they are now, so that all words of
        an instruction see them as they were before it."""
        variables = self.variables

        def expand_word(word: Word) -> str:
            try:
                if self.inputs.witness is None:
                    return expand(word.text, variables, escape=statement.escape)
                found = expansion(word.text, variables, escape=statement.escape)
            except RecipeError as error:
                raise statement.error(error.message, at=word, hint=error.hint) from error
            self.inputs.witness.expanded(statement, word, found, self)
            return found.text

        return expand_word

    def expand_document(self, statement: Statement, text: str) -> str:
        """The body of a heredoc of ``statement`` with its variables replaced."""
        found = expand_document(text, self.variables)
        if self.inputs.witness is not None:
            self.inputs.witness.expanded(statement, None, found, self)
        return found.text

    @property
    def variables(self) -> dict[str, str]:
        """The variables that expansion sees."""
        return dict(self.env)

    def with_config(self, **changes: object) -> Scope:
        """The same with some fields of the configuration changed."""
        return replace(self, config=replace(self.config, **changes))  # type: ignore[arg-type]

    def with_variable(self, name: str, value: str) -> Scope:
        """The same with a variable that expansion and RUN see: the last of all, as in BuildKit."""
        return replace(self, env=(*(pair for pair in self.env if pair[0] != name), (name, value)))

    def begun(self) -> Scope:
        """The same where a stage begins: what the image sets counts more than an ARG of the stage that it is from, and
        of equal names the last."""
        scope = self
        for name, value in self.config.env:
            scope = scope.with_variable(name, value)
        return scope

    @property
    def working_dir(self) -> str:
        return self.config.working_dir or "/"

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or (_WINDOWS_SHELL if self.system == "windows" else DEFAULT_SHELL)


def with_pair(pairs: Pairs, name: str, value: str) -> Pairs:
    """``pairs`` with the first entry of that name replaced in place, or a new one at the end."""
    for index, (key, _) in enumerate(pairs):
        if key == name:
            return (*pairs[:index], (name, value), *pairs[index + 1 :])
    return (*pairs, (name, value))


def with_default_path(env: Pairs) -> Pairs:
    """``env`` with a PATH: BuildKit gives one to every image that has none."""
    return env if any(name == "PATH" for name, _ in env) else (*env, ("PATH", DEFAULT_PATH))
