"""``plan`` and ``parse``: what a recipe says; nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layerbuild.cli import recipes
from layerbuild.cli.console import emit, format_option, observer, width
from layerbuild.cli.contexts import opened, store_for
from layerbuild.cli.credentials import lent


@click.command(cls=recipes.Command)
@recipes.options
@format_option
def plan(output_format: str, **shared: Any) -> None:
    """Show which step of the recipe makes a layer, which hits the cache, and why. Nothing runs."""
    from layerbuild.build.lookup import Lookup
    from layerbuild.build.preview import preview
    from layerbuild.views.plan import as_json, as_text, describe

    request = recipes.request(**shared)
    with (
        lent(request.secrets, request.agents) as credentials,
        store_for(request) as store,
        opened(request, store, credentials) as found,
    ):
        bases = recipes.make_bases(request, store, observer("auto"))
        recipe = found.place.read_recipe()
        times = recipes.build_times(request, recipe, named=found.named, modified=found.modified)
        layer_plan = recipes.make_plan(request, recipe, bases, named=found.named, times=times)
        lookup = Lookup(
            store,
            bases,
            found.trees,
            found.remote,
            times=times,
            no_cache=request.no_cache,
            no_cache_stages=request.no_cache_stages,
            look_only=True,
        )
        rows = [
            describe(
                forecast.stage.title,
                forecast.number,
                forecast.step,
                hit=forecast.hit,
                layer=forecast.layer,
                reason=forecast.reason,
            )
            for forecast in preview(layer_plan, lookup)
        ]
    emit(output_format, as_json(layer_plan, rows), lambda: as_text(layer_plan, rows, width=width()))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def parse(file: Path) -> None:
    """Print the statements of a recipe as JSON."""
    from layerbuild.recipe.describe import describe

    recipe = recipes.parse_recipe(None if str(file) == "-" else file)
    emit("json", describe(recipe), str)
