"""LABEL and MAINTAINER: what an image says about itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import key_values, whole
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, exactly_one
from layerbuild.recipe.instructions.variables import pairs_of
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word
from layerbuild.steps import ConfigStep


@frozen(kw_only=True)
class Label(Instruction):
    """``LABEL KEY=VALUE …``, or the old ``LABEL KEY VALUE``. The later of equal keys counts."""

    pairs: tuple[tuple[Word, Word], ...]

    shape = key_values

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        return cls(statement=statement, pairs=pairs_of(statement))

    def lower(self, scope: Scope) -> Lowered:
        expand_word = scope.expander(self.statement)
        pairs = [(expand_word(key), expand_word(value)) for key, value in self.pairs]
        labels = dict(scope.config.labels) | dict(pairs)
        scope = scope.with_config(labels=tuple(sorted(labels.items())))
        return self.metadata(scope, "LABEL " + " ".join(f"{key}={value}" for key, value in pairs))


@frozen(kw_only=True)
class Maintainer(Instruction):
    """``MAINTAINER TEXT``: the image's author; nothing in it is expanded."""

    author: str

    shape = whole

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        return cls(statement=statement, author=exactly_one(statement, whole).text)

    def lower(self, scope: Scope) -> Lowered:
        step = ConfigStep(self.origin, scope.config, f"MAINTAINER {self.author}", author=self.author)
        return Lowered(step, replace(scope, author=self.author))
