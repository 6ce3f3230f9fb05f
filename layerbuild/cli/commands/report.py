"""``report``: an image as one page of HTML."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.operands import seen
from layerbuild.cli.options.platforms import chosen_platform, platform_option
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.cli.operands import Seen
    from layerbuild.store.builds import BuildRecord


@click.command()
@click.argument("image")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Where the page goes, in place of what is there; `-` is standard output.",
)
@click.option("--build", "number", type=int, metavar="N", help="Another build of IMAGE than the last one.")
@platform_option()
def report(image: str, output: Path, number: int | None, platform: str | None) -> None:
    """Write what there is to see of IMAGE as one page of HTML that needs no network: its stack of layers, bytes, waste,
    shadows, the time line of its build, and what the cache said.

    IMAGE is a name in the store, an OCI layout or docker archive on the disk, or an image named with its registry.
    """
    from layerbuild.views import report as view
    from layerbuild.views.html import page
    from layerbuild.views.versions import versions

    with seen(image, platform=chosen_platform(platform)) as (found,), ExitStack() as cleaning:
        rows = found.rows()
        every = versions(found.indexes(cleaning))
        told = view.report(image, found.image, rows=rows, found=every, build=_build(found, number))
    _write(output, page(told).encode())


def _build(found: Seen, number: int | None) -> BuildRecord | None:
    """The build that made the image: the last one, or that with the number."""
    if number is None:
        return found.store.builds.of_image(found.image.manifest_digest)
    build = found.store.builds.get(number)
    if build.image != found.image.manifest_digest:
        raise UsageError(
            f"build {number} did not make {found.name}", hint="without --build it is the last one that did"
        )
    return build


def _write(output: Path, data: bytes) -> None:
    from layerbuild.export.destination import new_file, writing

    if str(output) == "-":
        click.echo(data, nl=False)
    elif output.exists() and not (output.is_file() or output.is_dir()):  # a pipe or a device stays what it is
        with writing(output), output.open("wb") as stream:
            stream.write(data)
    else:
        with new_file(output) as file:
            file.write(data)
