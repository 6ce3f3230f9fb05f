"""``images``, ``tag`` and ``rmi``: what the store holds, and its names."""

from __future__ import annotations

import click

from layerbuild.cli.console import emit, format_option, width
from layerbuild.cli.place import reading
from layerbuild.reference import Reference
from layerbuild.views.images import image_rows, images_text


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only image IDs.")
@click.option("--no-trunc", is_flag=True, help="IDs in full.")
@format_option
def images(quiet: bool, no_trunc: bool, output_format: str) -> None:
    """List the images in the store."""
    with reading() as store:
        rows = image_rows(store.images.all())
    if quiet:
        for image_id in dict.fromkeys(row["image_id"] for row in rows):
            click.echo(image_id if no_trunc else image_id.short)
        return
    emit(output_format, rows, lambda: images_text(rows, width=width(), full=no_trunc))


@click.command()
@click.argument("image")
@click.argument("name")
def tag(image: str, name: str) -> None:
    """Give IMAGE one more NAME."""
    with reading() as store:
        store.images.tag(Reference.parse(name), store.images.find(image).digest)


@click.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="By ID: with all its names.")
def rmi(names: tuple[str, ...], force: bool) -> None:
    """Remove images: a name, and with its last name the image. `prune` then frees the space."""
    with reading() as store:
        for name in names:
            removed = store.images.remove(name, force=force)
            for untagged in removed.untagged:
                click.echo(f"Untagged: {Reference.parse(untagged).familiar}")
            if removed.deleted:
                click.echo(f"Deleted: {removed.deleted}")
