"""From what was asked for to a recipe, its times and a plan."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.cli.options.platforms import this_platform
from layerbuild.errors import RecipeError, Span, UsageError, alike
from layerbuild.frozen import frozen
from layerbuild.steps import ContextRoot, GitSource, UrlSource

if TYPE_CHECKING:
    from layerbuild.build.bases import Bases
    from layerbuild.build.lookup import Lookup
    from layerbuild.build.times import Times
    from layerbuild.cli.contexts import Opened
    from layerbuild.cli.options.sources import Request
    from layerbuild.events import Observer
    from layerbuild.image.config import Platform
    from layerbuild.recipe.contexts import NamedContexts
    from layerbuild.recipe.syntax import Recipe
    from layerbuild.steps import LayerPlan
    from layerbuild.store.store import Store

_LIKE_A_RECIPE = re.compile(r"(?:docker|container)file", re.IGNORECASE)

Modified = Callable[[ContextRoot | UrlSource | GitSource], int | None]
"""When a source was last changed, in seconds since 1970; None: it does not say."""


def make_bases(request: Request, store: Store, observe: Observer) -> Bases:
    """What resolves image names: the store, and registries as ``--pull`` says."""
    from layerbuild.build.bases import Bases
    from layerbuild.cli.registries import Bringer

    return Bases(store, puller=Bringer(store, observe), policy=request.policy, own=this_platform())


@frozen
class Planned:
    """A recipe's plan, and what is needed to walk it."""

    plan: LayerPlan
    lookup: Lookup


def planned(
    request: Request,
    store: Store,
    found: Opened,
    observe: Observer,
    *,
    changed: tuple[str, ...] = (),
    look_only: bool = True,
) -> Planned:
    """The plan of ``request`` and its lookup, for a command that builds nothing. ``changed`` are files of the context
    that are taken to be edited; ``look_only``: no layer is brought for it."""
    from layerbuild.build.edited import edited
    from layerbuild.build.lookup import Lookup

    bases = make_bases(request, store, observe)
    recipe = found.place.read_recipe()
    times = build_times(request, recipe, named=found.named, modified=found.modified)
    plan = make_plan(request, recipe, bases, named=found.named, times=times)
    trees = {**found.trees, "": edited(found.trees[""], changed)} if changed else found.trees
    lookup = Lookup(
        store,
        bases,
        trees,
        found.remote,
        times=times,
        no_cache=request.no_cache,
        no_cache_stages=request.no_cache_stages,
        look_only=look_only,
    )
    return Planned(plan, lookup)


def parse_recipe(path: Path | None, *, name: str = "", option: str = "-f ") -> Recipe:
    """Parse a recipe file (None: standard input), which messages call ``name``; RecipeError if it can't be read.
    ``option`` is what names another one on the command line."""
    from layerbuild.recipe.syntax import parse

    if path is None:
        return parse(_decoded(sys.stdin.buffer.read()), file="stdin")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {path}", hint=_meant(path, option)) from None
    except OSError as error:
        raise RecipeError(f"can't read the recipe: {error.strerror}", span=Span(str(path), 1)) from error
    return parse(_decoded(data), file=name or str(path))


def _meant(path: Path, option: str) -> str:
    """What helps where there is no recipe ``path``."""
    names = [name for name in os.listdir(path.parent) if not name.endswith("ignore")] if path.parent.is_dir() else []
    near = [name for name in sorted(names) if _LIKE_A_RECIPE.search(name)]
    if path.name != "Dockerfile":  # which nobody may have typed
        near = alike(path.name, names) or near
    return f"did you mean {option}{path.with_name(near[0])}?" if near else f"name one: {option}FILE"


def _decoded(data: bytes) -> str:
    # The parser tells where bytes stand that are no UTF-8.
    return data.decode("utf-8", "surrogateescape")


def make_plan(
    request: Request,
    recipe: Recipe,
    bases: Bases,
    *,
    named: NamedContexts,
    times: Times,
    platform: Platform | None = None,
) -> LayerPlan:
    """The plan for ``platform``; None: for the one that was asked for."""
    from layerbuild.recipe.planner import plan
    from layerbuild.recipe.scope import RunDefaults
    from layerbuild.recipe.stages import read_stages

    bases.stages = lambda: read_stages(recipe).names
    found = plan(
        recipe,
        bases=bases.config,
        build_args=request.build_args,
        target=request.target,
        platform=platform or request.platform,
        build_platform=this_platform(),
        named_contexts=named,
        epoch=times.epoch,
        defaults=RunDefaults(request.network, request.hosts, request.env_wins),
    )
    return replace(found, notes=(*found.notes, *_unknown_stages(request, found)))


def _unknown_stages(request: Request, plan: LayerPlan) -> Iterator[str]:
    """Notes of names that --no-cache-filter has and no stage: with BuildKit, too, they are no error."""
    known = {stage.name.lower() for stage in plan.stages} | {stage.name.lower() for stage in plan.skipped}
    for name in sorted(request.no_cache_stages - known):
        near = alike(name, known - {""})
        yield f"--no-cache-filter {name}: no stage has this name{f'; did you mean {near[0]}?' if near else ''}"


def build_times(request: Request, recipe: Recipe, *, named: NamedContexts, modified: Modified) -> Times:
    """The times that the layers of a build get: ``--timestamp``, else what the build arguments or the recipe say of
    SOURCE_DATE_EPOCH, else the environment, else the default epoch. ``modified`` is asked where they name a source."""
    from layerbuild.recipe.planner import recipe_epoch

    if request.timestamp is not None:
        return layer_times(request.timestamp)
    said = recipe_epoch(
        recipe,
        platform=request.platforms[0] if request.platforms else this_platform(),
        build_args=request.build_args,
        target=request.target,
        build_platform=this_platform(),
        named_contexts=named,
    )
    seconds = said if isinstance(said, int | None) else modified(said)
    return layer_times(None if seconds is None else str(seconds))


def layer_times(said: str | None) -> Times:
    """The times that layers get: what was said, the environment's SOURCE_DATE_EPOCH, or the default epoch."""
    from layerbuild.build.times import DEFAULT_EPOCH, Times

    now = int(time.time())
    text = said or os.environ.get("SOURCE_DATE_EPOCH") or ""
    if text == "keep":
        return Times(None, now)
    if text and not re.fullmatch("-?[0-9]+", text):
        raise UsageError(f"{text!r} is not a time", hint="whole seconds since 1970-01-01 00:00 UTC, or `keep`")
    return Times(int(text) if text else DEFAULT_EPOCH, now)
