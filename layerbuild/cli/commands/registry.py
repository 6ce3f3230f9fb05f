"""``pull``, ``push``, ``login``, ``logout``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.console import observing
from layerbuild.cli.options.outputs import max_layers
from layerbuild.cli.options.platforms import PLATFORM_VARIABLE, chosen_platform, platform_option, this_platform
from layerbuild.cli.place import inside
from layerbuild.cli.pushing import Pushing, pushable, send
from layerbuild.cli.rawjson import errors_as_events
from layerbuild.cli.registries import Bringer, client, keychain
from layerbuild.digest import BlobDigest
from layerbuild.errors import RegistryError, UsageError
from layerbuild.reference import DEFAULT_REGISTRY, Reference

if TYPE_CHECKING:
    from layerbuild.store.images import StoredImage, StoredIndex


@click.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@platform_option(
    envvar=PLATFORM_VARIABLE, help=f"Of an image for several.  [default: this machine's; env: {PLATFORM_VARIABLE}]"
)
@click.option("--progress", default="auto", metavar="STYLE", help="auto, tty, plain, quiet or rawjson.")
@click.option("-q", "--quiet", is_flag=True, help="Print only image IDs.")
@errors_as_events
def pull(names: tuple[str, ...], platform: str | None, progress: str, quiet: bool) -> None:
    """Bring images from registries into the store, under their names."""
    wanted = chosen_platform(platform) or this_platform()
    references = [Reference.parse(name) for name in names]
    with observing("quiet" if quiet else progress) as observe, inside() as (store, _):
        store.unsynced.confirm_earlier()
        bringer = store.supplier = Bringer(store, observe)
        for reference in references:
            image = bringer.pull(reference, wanted)
            store.require_blobs(image)
            store.ensure_unpacked(image.top)
            click.echo(image.image_id if quiet else f"{reference.familiar}: {image.image_id}")


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@platform_option(help="Of an image for several, only the one for this.  [default: all]")
@max_layers
@click.option("--progress", default="auto", metavar="STYLE", help="auto, tty, plain, quiet or rawjson.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what was pushed.")
@errors_as_events
def push(names: tuple[str, ...], platform: str | None, max_layers: int | None, progress: str, quiet: bool) -> None:
    """Send images to the registries that their names lead to. What a registry has already is not sent."""
    chosen = chosen_platform(platform)
    wanted: dict[BlobDigest, tuple[StoredImage | StoredIndex, list[Reference]]] = {}
    with observing("quiet" if quiet else progress) as observe, inside() as (store, _):
        store.supplier = Bringer(store, observe)
        for name in dict.fromkeys(pushable(Reference.parse(name)) for name in names):
            found = store.images.resolve(str(name), platform=chosen) if chosen else store.images.find(str(name))
            wanted.setdefault(found.digest, (found, []))[1].append(name)
        for found, references in wanted.values():
            with Pushing(store, references, observe) as pushing:
                pushed = send(store, found, pushing, observe, most_layers=max_layers)
            for reference in references:
                click.echo(f"{reference.familiar}@{pushed.digest}")


@click.command()
@click.argument("registry", default=DEFAULT_REGISTRY)
@click.option("-u", "--username", metavar="NAME", help="[default: asked for]")
@click.option("-p", "--password", metavar="TEXT", help="Others can see it in the list of processes; better none.")
@click.option("--password-stdin", is_flag=True, help="Take the password from standard input.")
def login(registry: str, username: str | None, password: str | None, password_stdin: bool) -> None:
    """Keep a user and a password for REGISTRY, once it has taken them.  [default registry: docker.io]"""
    from http import HTTPStatus

    from layerbuild.registry.credentials import Credential, login_file

    host = _registry(registry)
    if password is not None and password_stdin:
        raise UsageError("--password and --password-stdin contradict each other")
    if password is not None:
        click.echo("note: other users can see --password while it runs; --password-stdin is safer", err=True)
    username, password = _asked(username, password, from_stdin=password_stdin)
    credential = Credential(username, password)
    try:
        client().check(host, credential)
    except RegistryError as error:
        if error.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise
        hint = "nothing was kept; some registries want a token in place of the password"
        raise RegistryError(f"{host} does not take this user and password", hint=hint, status=error.status) from error
    place = keychain().store(host, credential, file=login_file(dict(os.environ), home=Path.home()))
    click.echo(f"{host}: login succeeded, kept in {place}", err=True)


@click.command()
@click.argument("registry", default=DEFAULT_REGISTRY)
def logout(registry: str) -> None:
    """Forget the user and the password for REGISTRY.  [default registry: docker.io]"""
    host = _registry(registry)
    places = keychain().erase(host)
    said = f"removed from {', '.join(places)}" if places else "nothing was kept"
    click.echo(f"{host}: {said}", err=True)


def _registry(text: str) -> str:
    """The registry that ``text`` means: a host, or a URL of one as Docker takes it."""
    from layerbuild.registry.credentials import DOCKER_HOSTS

    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in DOCKER_HOSTS:
        return DEFAULT_REGISTRY
    with suppress(UsageError):
        # "localhost" alone would be the name of an image: a repository makes a host of it.
        if Reference.parse(f"{host}/x").registry == host:
            return host
    raise UsageError(f"{text!r} names no registry", hint="a host with a dot or a port: registry.example.com")


def _asked(username: str | None, password: str | None, *, from_stdin: bool) -> tuple[str, str]:
    if from_stdin:
        if not username:
            raise UsageError("--password-stdin needs --username")
        return username, sys.stdin.read().rstrip("\r\n")
    if (username is None or password is None) and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for user and password", hint="--username, --password-stdin")
    user = username or click.prompt("Username", err=True)
    return user, password if password is not None else click.prompt("Password", hide_input=True, err=True)
