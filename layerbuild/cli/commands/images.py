"""``images``, ``tag``, ``rmi``, ``import``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.console import emit, format_option
from layerbuild.cli.place import inside, reading
from layerbuild.cli.recipes import layer_times, this_platform
from layerbuild.errors import UsageError
from layerbuild.reference import Reference
from layerbuild.views.images import image_rows, images_text

if TYPE_CHECKING:
    from layerbuild.store.images import StoredImage
    from layerbuild.store.store import Store


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only image IDs.")
@click.option("--no-trunc", is_flag=True, help="IDs in full.")
@format_option
def images(quiet: bool, no_trunc: bool, output_format: str) -> None:
    """List the images in the store."""
    with reading() as store:
        rows = image_rows(store.images.list())
    if quiet:
        for image_id in dict.fromkeys(row["image_id"] for row in rows):
            click.echo(image_id if no_trunc else image_id.short)
        return
    emit(output_format, rows, lambda: images_text(rows, full=no_trunc))


@click.command()
@click.argument("image")
@click.argument("name")
def tag(image: str, name: str) -> None:
    """Give IMAGE one more NAME."""
    with reading() as store:
        store.images.tag(Reference.parse(name), store.images.resolve(image).manifest_digest)


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


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path, allow_dash=True))
@click.option("-t", "--tag", metavar="NAME", help="Name the image; of an archive with several, this one.")
def import_(source: Path, tag: str | None) -> None:
    """Bring an image in: an OCI layout or docker archive (folder or tar), or the tar or folder of a root file system.

    SOURCE `-` is the tar of a root file system on standard input.
    """
    from layerbuild.intake.load import Shape, identify, load

    name = Reference.parse(tag) if tag else None
    shape = Shape.ROOTFS if str(source) == "-" else identify(source)
    with inside() as (store, _):
        if shape is Shape.ROOTFS:
            images = [_import_rootfs(store, source)]
        else:
            images = load(store, source, platform=this_platform())
        if name is not None:
            if len(images) > 1:
                raise UsageError(f"{source} holds {len(images)} images; --tag can name one only")
            store.images.tag(name, images[0].manifest_digest)
        for image in images:
            names = {*image.names, *([str(name)] if name else [])}
            shown = ", ".join(Reference.parse(found).familiar for found in sorted(names)) or "<none>"
            click.echo(f"{shown}: {image.image_id}")


def _import_rootfs(store: Store, source: Path) -> StoredImage:
    from layerbuild.image.config import History
    from layerbuild.intake.rootfs import import_folder, import_tar

    times = layer_times(None)
    said = "layerbuild import" if str(source) == "-" else f"layerbuild import {source.name}"
    history = History(created=times.created, created_by=said, comment="layerbuild")
    if str(source) == "-":
        return import_tar(store, sys.stdin.buffer, platform=this_platform(), history=history)
    if source.is_dir():
        return import_folder(store, source, platform=this_platform(), history=history, epoch=times.epoch)
    return import_tar(store, source, platform=this_platform(), history=history)
