"""Which rules are in force: ``skip=A,B;error=true;experimental=X``, where ``all`` stands for every rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Self

from layerbuild.errors import RecipeError, UsageError
from layerbuild.frozen import frozen
from layerbuild.recipe.lint.rule import Rule
from layerbuild.recipe.syntax import Recipe, Statement, placed

BUILD_ARG = "BUILDKIT_DOCKERFILE_CHECK"

_ALL = "all"
_COMMENT = re.compile(r"check[ \t]*=(.*)", re.IGNORECASE)
_GAPS = re.compile(r"\s*([,;=])\s*")
# As Go's strconv.ParseBool, which reads the option in BuildKit.
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


@frozen
class Control:
    """``skip`` are rules that are silent, ``experimental`` those that speak although they are experimental; ``error``
    makes every warning count as an error."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the options; what follows a blank or ``//`` is a remark. RecipeError, without a place, for others."""
        bare = _GAPS.sub(r"\1", text.partition("//")[0]).split()
        found = cls()
        for option in bare[0].split(";") if bare else ():
            if option:
                found = found._with(option)
        return found

    @classmethod
    def of(cls, recipe: Recipe, build_args: Mapping[str, str]) -> Self:
        """What holds for the whole recipe: the build argument if it is given, else the directive."""
        if text := build_args.get(BUILD_ARG):
            try:
                return cls.parse(text)
            except RecipeError as error:
                raise UsageError(f"{BUILD_ARG}: {error.message}", hint=error.hint) from error
        if recipe.check is None:
            return cls()
        with placed(recipe.check.span):
            return cls.parse(recipe.check.value)

    def above(self, statement: Statement) -> Self:
        """What holds for one statement: the same, and what ``# check=`` in the comments above it adds."""
        found = self
        for comment in statement.comments:
            match = _COMMENT.fullmatch(comment.text)
            if match is None:
                continue
            try:
                own = self.parse(match[1])
            except RecipeError:  # an ordinary comment, which happens to begin so
                continue
            skip, experimental = found.skip | own.skip, found.experimental | own.experimental
            found = replace(found, skip=skip, experimental=experimental)
        return found

    def allows(self, rule: Rule) -> bool:
        """Whether ``rule`` may speak. An experimental rule has to be asked for, and then nothing skips it."""
        if rule.experimental:
            return not self.experimental.isdisjoint((_ALL, rule.name))
        return self.skip.isdisjoint((_ALL, rule.name))

    def _with(self, option: str) -> Self:
        name, equals, value = option.partition("=")
        names = frozenset(filter(None, value.split(",")))
        match name if equals else "":
            case "skip":
                return replace(self, skip=names)
            case "experimental":
                return replace(self, experimental=names)
            case "error" if value in _TRUE | _FALSE:
                return replace(self, error=value in _TRUE)
        raise RecipeError(
            f"invalid check option {option!r}", hint="write skip=RULE,RULE;error=true;experimental=RULE, or all"
        )


def is_control(text: str) -> bool:
    """Whether the text of a comment is a ``check=``."""
    return _COMMENT.fullmatch(text) is not None
