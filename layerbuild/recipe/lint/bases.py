"""Rules about what a FROM starts from: its base, and its platform."""

from __future__ import annotations

from collections.abc import Iterator

from layerbuild.errors import RecipeError, UsageError
from layerbuild.image.config import ImageConfig
from layerbuild.image.platforms import read_platform
from layerbuild.recipe.instructions.spelling import quote
from layerbuild.recipe.lint.facts import Facts, Named, Unknown
from layerbuild.recipe.lint.rule import Finding
from layerbuild.recipe.nearest import nearest
from layerbuild.recipe.words import expansion
from layerbuild.reference import Reference

_TARGET = "TARGETPLATFORM"


def undefined_arg(facts: Facts) -> Iterator[Finding]:
    known = facts.globals or {}
    for named in facts.names:
        for name in sorted(named.found.unset - known.keys()):
            near = nearest(name, sorted(known))
            meant = f" (did you mean {near}?)" if near else ""
            yield Finding(named.start.statement, f"FROM argument '{name}' is not declared{meant}")


def invalid_default(facts: Facts) -> Iterator[Finding]:
    if facts.defaults is None:
        return
    values = {name: value for name, value in facts.defaults.items() if value is not None}
    for stage in facts.stages:
        word, statement = stage.start.base, stage.start.statement
        try:
            found = expansion(word.text, values, escape=statement.escape)
        except RecipeError:
            return  # the build fails for it, too, and says why
        if found.used | found.unset and not _is_reference(found.text):
            detail = f"Default value for ARG {word.text} results in empty or invalid base image name"
            yield Finding(statement, detail)


def image_platform(facts: Facts) -> Iterator[Finding]:
    for based in facts.bases:
        wanted, found = based.platform, based.image.platform
        if isinstance(based.image, Unknown) or _is_empty(based.image):
            continue
        if (wanted.os, wanted.architecture) != (found.os, found.architecture):
            detail = f"was pulled with platform {quote(str(found))}, expected {quote(str(wanted))} for current build"
            yield Finding(based.stage.start.statement, f"Base image {based.reference} {detail}")


def redundant_platform(facts: Facts) -> Iterator[Finding]:
    for named in _platforms(facts):
        alone = named.found.used == {_TARGET} and not named.found.unset
        if alone and facts.globals is not None and named.found.text == facts.globals[_TARGET]:
            detail = f"Setting platform to predefined {named.word.text} in FROM is redundant"
            yield Finding(named.start.statement, f"{detail} as this is the default behavior")


def constant_platform(facts: Facts) -> Iterator[Finding]:
    for named in _platforms(facts):
        if named.found.used | named.found.unset:
            continue
        try:
            platform = read_platform(named.found.text, default=facts.setting.platform)
        except UsageError:
            continue  # the build fails for it, too, and says why
        # A stage may say by its name that it is for one platform only.
        if not any(part in named.start.name for part in (platform.os, platform.architecture)):
            detail = f"FROM --platform flag should not use constant value {quote(named.found.text)}"
            yield Finding(named.start.statement, detail)


def _platforms(facts: Facts) -> Iterator[Named]:
    return (named for named in facts.names if named.word is named.start.platform)


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except UsageError:
        return False
    return True


def _is_empty(image: ImageConfig) -> bool:
    """Whether it holds no files, which then are of no platform."""
    return not image.diff_ids and all(entry.empty_layer for entry in image.history)
