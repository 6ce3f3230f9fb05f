"""Changes to a configuration, spelled as instructions: what ``import --change`` takes, as ``docker import`` does."""

from __future__ import annotations

from collections.abc import Sequence

from layerbuild.errors import UsageError, alike
from layerbuild.image.config import ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import parse

# docker import, "--change": what needs no file system to be changed
_ALLOWED = (
    *("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD"),
    *("SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)


def changed(changes: Sequence[str], *, platform: Platform) -> RuntimeConfig:
    """The configuration that ``changes`` make of an empty image's. UsageError for an instruction that is not one of
    those that may change it, RecipeError for a wrong one."""
    for change in changes:
        keyword = change.split(maxsplit=1)[0].upper() if change.strip() else ""
        if keyword not in _ALLOWED:
            near = alike(keyword, _ALLOWED)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(_ALLOWED)}"
            raise UsageError(f"--change {change!r} is no change to a configuration", hint=hint)
    recipe = parse("\n".join(("FROM scratch", *changes, "")), file="--change")
    steps = plan(recipe, bases=_no_base, platform=platform).target.steps
    return steps[-1].config


def _no_base(name: str, platform: Platform) -> ImageConfig:
    raise AssertionError(name, platform)  # scratch is asked of nobody
