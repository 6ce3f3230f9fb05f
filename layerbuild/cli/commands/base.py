"""``base``: a base image without a registry, from this machine or from Debian's packages."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.options.platforms import this_platform
from layerbuild.cli.place import inside
from layerbuild.cli.recipes import layer_times
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.build.times import Times
    from layerbuild.image.config import History, RuntimeConfig


@click.group()
def base() -> None:
    """Make a base image without a registry."""


def _split(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for text in texts for word in text.replace(",", " ").split())


@base.command()
@click.option("--with", "programs", metavar="PROGRAM,…", multiple=True, help="Which; `default` for the usual ones.")
@click.option("-t", "--tag", default="base:host", show_default=True, metavar="NAME")
def host(programs: tuple[str, ...], tag: str) -> None:
    """Assemble a base from this machine's programs and the shared libraries that they load. Works offline."""
    from layerbuild.intake.host import collect
    from layerbuild.intake.rootfs import import_items

    name = Reference.parse(tag)
    times = layer_times(None)
    search = os.environ.get("PATH", "").split(":")
    found = collect(_split(programs), search=[folder for folder in search if folder], epoch=times.made)
    with inside() as (store, _):
        image = import_items(
            store,
            found.items,
            platform=this_platform(),
            history=_history(found.command, times),
            config=found.config,
        )
        store.images.tag(name, image.manifest_digest)
    click.echo(f"{name.familiar}: {len(found.programs)} programs, {image.image_id}")


@base.command()
@click.option("--suite", default="bookworm", show_default=True, help="Debian's release.")
@click.option("--include", metavar="PACKAGE,…", multiple=True, help="Packages to install beside the smallest system.")
@click.option("--variant", default="minbase", show_default=True, help="As mmdebstrap(1) has it.")
@click.option("--mirror", "mirrors", metavar="URI", multiple=True, help="Where from.  [default: this machine's]")
@click.option("-t", "--tag", metavar="NAME", help="[default: debian:SUITE]")
def debian(suite: str, include: tuple[str, ...], variant: str, mirrors: tuple[str, ...], tag: str | None) -> None:
    """Let mmdebstrap make a base from Debian's packages, reproducibly."""
    from layerbuild.intake.debian import DebianBase, machine_mirrors, make_debian_tar
    from layerbuild.intake.rootfs import import_tar

    name = Reference.parse(tag or f"debian:{suite}")
    times = layer_times(None)
    wanted = DebianBase(suite, _split(include), mirrors or machine_mirrors(suite), variant)
    # mmdebstrap makes namespaces of its own, so it runs before we enter ours.
    with tempfile.TemporaryDirectory(prefix="layerbuild-") as folder:
        tar = Path(folder) / "rootfs.tar"
        make_debian_tar(
            wanted,
            tar,
            epoch=times.made,
            environment=dict(os.environ),
            progress=lambda line: click.echo(line, err=True),
        )
        with inside() as (store, _):
            image = import_tar(
                store,
                tar,
                platform=this_platform(),
                history=_history(wanted.command, times),
                config=_shell_config(),
            )
            store.images.tag(name, image.manifest_digest)
    click.echo(f"{name.familiar}: {image.image_id}")


def _history(command: str, times: Times) -> History:
    from layerbuild.image.config import History

    return History(created=times.created, created_by=command, comment="layerbuild")


def _shell_config() -> RuntimeConfig:
    from layerbuild.image.config import ImageConfig

    return replace(ImageConfig.scratch(this_platform()).config, cmd=("/bin/sh",))
