"""``inspect``, ``history``, ``layers``, ``where``: one image, seen from four sides."""

from __future__ import annotations

import click

from layerbuild.cli.console import emit, format_option
from layerbuild.cli.options.platforms import chosen_platform, platform_option
from layerbuild.cli.place import inside, reading
from layerbuild.views import images as image_views
from layerbuild.views import inspect as inspect_view
from layerbuild.views import layers as layer_view
from layerbuild.views import where as where_view


@click.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@platform_option()
def inspect(names: tuple[str, ...], platform: str | None) -> None:
    """Tell all about images, as JSON in the shape of `docker inspect`."""
    wanted = chosen_platform(platform)
    with reading() as store:
        found = [inspect_view.inspect(store, store.images.resolve(name, platform=wanted)) for name in names]
    click.echo(inspect_view.text(found))


@click.command()
@click.argument("image")
@click.option("--no-trunc", is_flag=True, help="Instructions in full.")
@platform_option()
@format_option
def history(image: str, no_trunc: bool, platform: str | None, output_format: str) -> None:
    """Show the history of IMAGE, newest entry first."""
    with reading() as store:
        stored = store.images.resolve(image, platform=chosen_platform(platform))
        rows = image_views.history_rows(stored, layer_view.layer_rows(store, stored))
    emit(output_format, rows, lambda: image_views.history_text(rows, full=no_trunc))


@click.command()
@click.argument("image")
@click.option("--no-trunc", is_flag=True, help="Digests and folders in full.")
@platform_option()
@format_option
def layers(image: str, no_trunc: bool, platform: str | None, output_format: str) -> None:
    """Show which instruction of IMAGE made which layer, and the layer's names."""
    with reading() as store:
        stored = store.images.resolve(image, platform=chosen_platform(platform))
        rows = layer_view.layer_rows(store, stored)
    emit(
        output_format,
        layer_view.as_json(stored, rows),
        lambda: layer_view.as_text(stored, rows, full=no_trunc),
    )


@click.command()
@click.argument("image")
@click.option("--layer", metavar="N|top", help="Print the diff folder of this layer alone; 1 is the lowest.")
@platform_option()
@format_option
def where(image: str, layer: str | None, platform: str | None, output_format: str) -> None:
    """Tell where the layers of IMAGE lie on this disk, and what is what in their folders."""
    with inside() as (store, _):
        stored = store.images.resolve(image, platform=chosen_platform(platform))
        found = where_view.places(store, stored)
        if layer is not None:
            click.echo(where_view.one(found, layer, image).diff)
            return
        emit(
            output_format,
            where_view.as_json(store, stored, found),
            lambda: where_view.as_text(store, stored, found),
        )
