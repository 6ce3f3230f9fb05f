"""``load``, ``save`` and ``import``: images and root file systems as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from layerbuild.cli.options.outputs import max_layers
from layerbuild.cli.options.platforms import chosen_platform, platform_option, this_platform
from layerbuild.cli.place import inside
from layerbuild.cli.recipes import layer_times
from layerbuild.cli.results import identifier
from layerbuild.errors import UsageError
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerbuild.image.config import Platform, RuntimeConfig
    from layerbuild.store.images import StoredImage, StoredIndex
    from layerbuild.store.store import Store

STDIN = "-"


@click.command()
@click.option(
    "-i", "--input", "source", type=click.Path(path_type=Path), help="The archive.  [default: standard input]"
)
@platform_option(help="Of an image for several platforms, only the one for this.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
def load(source: Path | None, platform: str | None, quiet: bool) -> None:
    """Load images from an archive of `docker save` or `save`, old or new, or from an OCI layout (folder or tar)."""
    from layerbuild.intake.load import load as bring_in

    wanted = chosen_platform(platform)
    with inside() as (store, _):
        found = bring_in(store, _stdin() if source is None or str(source) == STDIN else source, platform=wanted)
    for each in found if not quiet else ():
        for name in each.names:
            click.echo(f"Loaded image: {Reference.parse(name).familiar}")
        if not each.names:
            click.echo(f"Loaded image ID: {identifier(each)}")


@click.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@click.option("-o", "--output", "dest", default="-", metavar="FILE", help="Where to.  [default: standard output]")
@click.option(
    "--format",
    "archive",
    type=click.Choice(["docker", "oci"]),
    default="docker",
    help="`docker load` reads both from version 25 on, and the default before.",
)
@platform_option(help="Of an image for several platforms, the one to save.")
@max_layers
def save(names: tuple[str, ...], dest: str, archive: str, platform: str | None, max_layers: int | None) -> None:
    """Save images into one file, under the names that are given."""
    from layerbuild.export.save import save as write

    if dest == "-" and sys.stdout.isatty():
        raise UsageError("an archive is nothing for a terminal", hint="-o FILE")
    wanted = chosen_platform(platform)
    with inside() as (store, _):
        stdout = sys.stdout.buffer
        notes = write(store, names, dest, form=archive, platform=wanted, stdout=stdout, most_layers=max_layers)
    for note in notes:
        click.echo(note, err=True)


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("name", required=False)
@click.option("-t", "--tag", metavar="NAME", help="Name the image; of an archive with several, this one.")
@click.option("-c", "--change", "changes", metavar="INSTRUCTION", multiple=True, help='Apply it: "CMD /bin/sh", say.')
@click.option("-m", "--message", default="", help="A comment for the image's history.")
@platform_option(help="What a root file system is for; of an image for several platforms, the one to take.")
def import_(
    source: Path, name: str | None, tag: str | None, changes: tuple[str, ...], message: str, platform: str | None
) -> None:
    """Bring an image in: the tar or folder of a root file system, or what `load` takes.

    SOURCE `-` is the tar of a root file system on standard input. A NAME behind it is the same as --tag.
    """
    from layerbuild.intake.load import Shape, identify
    from layerbuild.intake.load import load as bring_in

    if name and tag:
        raise UsageError(f"two names for one image: {name} and {tag}", hint="`tag` gives it more names")
    reference = Reference.parse(name or tag or "") if name or tag else None
    wanted = chosen_platform(platform)
    shape = Shape.ROOTFS if str(source) == STDIN else identify(source)
    if shape is not Shape.ROOTFS and (changes or message):
        raise UsageError(f"{source} is an image: --change and --message are for root file systems")
    config = _changed(changes, wanted or this_platform())
    with inside() as (store, _):
        found: Sequence[StoredImage | StoredIndex]
        if shape is Shape.ROOTFS:
            found = [_import_rootfs(store, source, config, message, wanted or this_platform())]
        else:
            found = bring_in(store, source, platform=wanted)
        if reference is not None:
            if len(found) > 1:
                raise UsageError(f"{source} holds {len(found)} images; --tag can name one only")
            store.images.tag(reference, found[0].digest)
        for each in found:
            names = {*each.names, *([str(reference)] if reference else [])}
            shown = ", ".join(Reference.parse(known).familiar for known in sorted(names)) or "<none>"
            click.echo(f"{shown}: {identifier(each)}")


def _stdin() -> BinaryIO:
    if sys.stdin.isatty():
        raise UsageError("no archive: standard input is a terminal", hint="-i FILE")
    return sys.stdin.buffer


def _changed(changes: tuple[str, ...], platform: Platform) -> RuntimeConfig | None:
    if not changes:
        return None
    from layerbuild.recipe.changes import changed

    return changed(changes, platform=platform)


def _import_rootfs(
    store: Store, source: Path, config: RuntimeConfig | None, message: str, platform: Platform
) -> StoredImage:
    from layerbuild.image.config import History
    from layerbuild.intake.rootfs import import_folder, import_tar

    times = layer_times(None)
    said = "layerbuild import" if str(source) == STDIN else f"layerbuild import {source.name}"
    history = History(created=times.created, created_by=said, comment=message or "layerbuild")
    if str(source) == STDIN:
        return import_tar(store, _stdin(), platform=platform, history=history, config=config)
    if source.is_dir():
        return import_folder(store, source, platform=platform, history=history, epoch=times.epoch, config=config)
    return import_tar(store, source, platform=platform, history=history, config=config)
