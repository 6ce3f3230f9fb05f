"""``plan`` and ``parse``: what a recipe says; nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli import recipes
from layerbuild.cli.console import emit, format_option, observer, width
from layerbuild.cli.contexts import opened, store_for
from layerbuild.cli.credentials import lent
from layerbuild.cli.options import sources
from layerbuild.cli.options.command import Command

if TYPE_CHECKING:
    from layerbuild.cli.options.sources import Request
    from layerbuild.cli.recipes import Planned
    from layerbuild.views.plan import PlanRow


@click.command(cls=Command)
@sources.options
@click.option("--change", "changed", metavar="PATH", multiple=True, help="Take this file of the context to be edited.")
@format_option
def plan(request: Request, changed: tuple[str, ...], output_format: str) -> None:
    """Show which step of the recipe makes a layer, which hits the cache, and why; of those that miss, what they took
    when they last ran. Nothing runs.

    With --change: what an edit of that file would cost.
    """
    from layerbuild.views.plan import as_json, as_text

    with (
        lent(request.secrets, request.agents) as credentials,
        store_for(request) as store,
        opened(request, store, credentials) as found,
    ):
        planned = recipes.planned(request, store, found, observer("auto"), changed=changed)
        rows = _rows(planned)
        before = _rows(recipes.planned(request, store, found, observer("quiet"))) if changed else rows
    emit(
        output_format,
        as_json(planned.plan, rows, changed=changed, before=before),
        lambda: as_text(planned.plan, rows, width=width(), changed=changed, before=before),
    )


def _rows(planned: Planned) -> list[PlanRow]:
    from layerbuild.build.preview import preview
    from layerbuild.views.plan import describe

    return [
        describe(
            forecast.stage.title,
            forecast.number,
            forecast.step,
            hit=forecast.hit,
            layer=forecast.layer,
            reason=forecast.reason.text,
            seconds=forecast.seconds,
            size=forecast.size,
            tar_size=forecast.tar_size,
        )
        for forecast in preview(planned.plan, planned.lookup)
    ]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def parse(file: Path) -> None:
    """Print the statements of a recipe as JSON."""
    from layerbuild.recipe.describe import describe

    recipe = recipes.parse_recipe(None if str(file) == "-" else file, option="")
    emit("json", describe(recipe), str)
