"""``inspect``, ``history``, ``layers``, ``where``: one image, seen from four sides."""

from __future__ import annotations

import shlex

import click

from layerbuild.cli.console import emit, format_option, width
from layerbuild.cli.operands import place_of, seen
from layerbuild.cli.options.platforms import chosen_platform, platform_option
from layerbuild.cli.place import inside, invocation
from layerbuild.errors import NotFoundError
from layerbuild.views import images as image_views
from layerbuild.views import inspect as inspect_view
from layerbuild.views import layers as layer_view
from layerbuild.views import where as where_view


@click.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@platform_option()
def inspect(names: tuple[str, ...], platform: str | None) -> None:
    """Tell all about images, as JSON in the shape of `docker inspect`.

    IMAGE is a name in the store, an OCI layout or docker archive on the disk, or an image named with its registry.
    """
    with seen(*names, platform=chosen_platform(platform), whole=False) as images:
        found = [inspect_view.inspect(each.store, each.image, folders=each.own) for each in images]
    click.echo(inspect_view.text(found))


@click.command()
@click.argument("image")
@click.option("--no-trunc", is_flag=True, help="Instructions in full.")
@platform_option()
@format_option
def history(image: str, no_trunc: bool, platform: str | None, output_format: str) -> None:
    """Show the history of IMAGE, newest entry first.

    IMAGE is a name in the store, an OCI layout or docker archive on the disk, or an image named with its registry.
    """
    with seen(image, platform=chosen_platform(platform), whole=False) as (found,):
        rows = image_views.history_rows(found.image, found.rows())
    emit(output_format, rows, lambda: image_views.history_text(rows, width=width(), full=no_trunc))


@click.command()
@click.argument("image")
@click.option("--no-trunc", is_flag=True, help="Digests and folders in full.")
@platform_option()
@format_option
def layers(image: str, no_trunc: bool, platform: str | None, output_format: str) -> None:
    """Show which instruction of IMAGE made which layer, and the layer's names.

    IMAGE is a name in the store, an OCI layout or docker archive on the disk, or an image named with its registry.
    """
    with seen(image, platform=chosen_platform(platform), whole=False) as (found,):
        rows = found.rows()
    absent = "" if found.own else "(not in the store)"
    emit(
        output_format,
        layer_view.as_json(found.image, rows),
        lambda: layer_view.as_text(found.image, rows, width=width(), full=no_trunc, absent=absent),
    )


@click.command()
@click.argument("image")
@click.option("--layer", metavar="N|top", help="Print the diff folder of this layer alone; 1 is the lowest.")
@platform_option()
@format_option
def where(image: str, layer: str | None, platform: str | None, output_format: str) -> None:
    """Tell where the layers of IMAGE lie on this disk, and what is what in their folders.

    IMAGE is a name in the store. An OCI layout, a docker archive or an image of a registry has no folders on this disk:
    then it is told which blobs it has, and what would unpack them.
    """
    wanted = chosen_platform(platform)
    with seen(image, platform=wanted, whole=False) as (found,):
        if not found.own:
            if layer is not None:
                raise NotFoundError(f"{image} is not in the store: its layers have no folder", hint=_way_in(image))
            rows, hint = found.layers(), _way_in(image)
            emit(
                output_format,
                where_view.absent_json(found.image, rows),
                lambda: where_view.absent_text(image, rows, hint=hint, width=width()),
            )
            return
    with inside() as (store, _):
        stored = store.images.resolve(image, platform=wanted)
        places = where_view.places(store, stored)
        if layer is not None:
            click.echo(where_view.one(places, layer, image).diff)
            return
        emit(
            output_format,
            where_view.as_json(store, stored, places),
            lambda: where_view.as_text(store, stored, places, width=width()),
        )


def _way_in(image: str) -> str:
    """The line that brings an image into the store."""
    place = place_of(image)
    words = ["pull", image] if place is None else ["load", "-i", str(place[0])]
    return f"{invocation()} {shlex.join(words)}"
