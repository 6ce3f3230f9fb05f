"""VOLUME: the paths that a runtime should keep outside the container's layer."""

from __future__ import annotations

from typing import Self

from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import json_or_blanks
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, at_least_one
from layerbuild.recipe.instructions.spelling import plain_list
from layerbuild.recipe.lines import SPACES
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word


@frozen(kw_only=True)
class Volume(Instruction):
    """``VOLUME PATH …`` or ``VOLUME ["PATH", …]``. What later steps write there stays in their layers."""

    words: tuple[Word, ...]

    shape = json_or_blanks

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        words = at_least_one(statement, json_or_blanks).words
        bare = tuple(Word(word.text.strip(SPACES), word.offset) for word in words)
        for word in bare:
            if not word.text:
                raise statement.error("VOLUME specified can not be an empty string", at=word)
        return cls(statement=statement, words=bare)

    def lower(self, scope: Scope) -> Lowered:
        expand_word = scope.expander(self.statement)
        paths = [expand_word(word) for word in self.words]
        for word, path in zip(self.words, paths, strict=True):
            if not path:
                raise self.statement.error("VOLUME specified can not be an empty string", at=word)
        volumes = sorted({*scope.config.volumes, *paths})
        return self.metadata(scope.with_config(volumes=tuple(volumes)), f"VOLUME {plain_list(paths)}")
