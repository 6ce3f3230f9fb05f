"""``blame``: which instruction is answerable for a path."""

from __future__ import annotations

import os
from contextlib import ExitStack

import click

from layerbuild.cli.console import emit, format_option, width
from layerbuild.cli.operands import seen
from layerbuild.cli.options.platforms import chosen_platform, platform_option
from layerbuild.errors import NotFoundError


@click.command()
@click.argument("image")
@click.argument("path", required=False)
@platform_option()
@format_option
def blame(image: str, path: str | None, platform: str | None, output_format: str) -> None:
    """Show which instruction of IMAGE created, changed, hid or deleted each version of PATH and all below it; without
    PATH what each layer did, and the bytes that are shipped though invisible.

    IMAGE is a name in the store, an OCI layout or docker archive on the disk, or an image named with its registry.
    """
    from layerbuild.layer.paths import clean
    from layerbuild.views import blame as view
    from layerbuild.views.versions import versions

    with seen(image, platform=chosen_platform(platform)) as (found,), ExitStack() as cleaning:
        rows = found.layers()
        every = versions(found.indexes(cleaning))
    if path is None:
        emit(output_format, view.image_json(rows, every), lambda: view.image_text(rows, every, width=width()))
        return
    wanted = clean(os.fsencode(path))
    chosen = view.path_versions(every, wanted)
    if not chosen:
        near = " or ".join("/" + each.decode("utf-8", "backslashreplace") for each in view.near_paths(every, wanted))
        hint = f"did you mean {near}?" if near else "a path is told from the root of the image"
        raise NotFoundError(f"{image} never had {path!r}", hint=hint)
    emit(output_format, view.path_json(rows, chosen), lambda: view.path_text(rows, chosen))
