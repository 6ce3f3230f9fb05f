"""ARG and ENV: variables that only the build sees, and variables that stay in the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import key_values, quoted_words
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, at_least_one, named
from layerbuild.recipe.scope import STEERING, Scope, with_pair
from layerbuild.recipe.syntax import Statement, placed
from layerbuild.recipe.words import Word, expand


@frozen(kw_only=True)
class Env(Instruction):
    """``ENV NAME=VALUE …``, or the old ``ENV NAME VALUE``."""

    pairs: tuple[tuple[Word, Word], ...]

    shape = key_values

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        return cls(statement=statement, pairs=pairs_of(statement))

    def lower(self, scope: Scope) -> Lowered:
        expand_word = scope.expander(self.statement)
        pairs = [(expand_word(name), expand_word(value)) for name, value in self.pairs]
        for name, value in pairs:
            config_env = with_pair(scope.config.env, name, value)
            scope = scope.with_config(env=config_env).with_variable(name, value)
        return self.metadata(scope, "ENV " + " ".join(f"{name}={value}" for name, value in pairs))


def pairs_of(statement: Statement) -> tuple[tuple[Word, Word], ...]:
    """The pairs of ENV or LABEL; a blank name is a RecipeError."""
    words = at_least_one(statement, key_values).words
    named(statement, words[::2])
    return tuple(zip(words[::2], words[1::2], strict=True))


@frozen(kw_only=True)
class Arg(Instruction):
    """``ARG NAME[=DEFAULT] …``; ``defaults`` has None where there is no ``=``."""

    defaults: tuple[tuple[str, Word | None], ...]

    shape = quoted_words

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        # ARG is one of the few that never look at their flags.
        defaults: list[tuple[str, Word | None]] = []
        for word in at_least_one(statement, quoted_words).words:
            name, equals, value = word.text.partition("=")
            named(statement, (Word(name, word.offset),))
            defaults.append((name, Word(value, word.offset + len(name) + 1) if equals else None))
        return cls(statement=statement, defaults=tuple(defaults))

    def lower(self, scope: Scope) -> Lowered:
        shown: list[str] = []
        for name, default in self.defaults:
            # Unlike ENV, each default sees the names before it in the same instruction.
            value = self._value(name, default, scope)
            scope = replace(scope, args=(*scope.args, (name, value)))
            if value is not None and name not in STEERING and not _kept(name, scope):
                scope = scope.with_variable(name, value)
            shown.append(name if value is None else f"{name}={value}")
        return self.metadata(scope, "ARG " + " ".join(shown))

    def _value(self, name: str, default: Word | None, scope: Scope) -> str | None:
        if name in scope.inputs.build_args:
            return scope.inputs.build_args[name]
        if default is not None:
            return scope.expander(self.statement)(default)
        return scope.inputs.globals.get(name)

    def as_globals(self, known: Mapping[str, str | None], build_args: Mapping[str, str]) -> dict[str, str | None]:
        """The values that it gives before the first FROM, where ``known`` are the predefined and earlier ones."""
        values = dict(known)
        for name, default in self.defaults:
            if name in build_args:
                values[name] = build_args[name]
            elif default is not None:
                variables = {key: value for key, value in values.items() if value is not None}
                with placed(self.statement.at(default)):
                    values[name] = expand(default.text, variables, escape=self.statement.escape)
            else:
                values.setdefault(name, None)
        return values


def _kept(name: str, scope: Scope) -> bool:
    """Whether an ENV of that name keeps its value (BuildKit's later one counts; classic builder and buildah: ENV)."""
    return scope.inputs.defaults.env_wins and any(key == name for key, _ in scope.config.env)
