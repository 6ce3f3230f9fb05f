"""``run``: a container on top of an image."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from layerbuild.cli.failures import report
from layerbuild.cli.options import limits
from layerbuild.cli.options.command import Container
from layerbuild.cli.options.platforms import PLATFORM_VARIABLE, chosen_platform, platform_option, this_platform
from layerbuild.cli.place import driver, inside, invocation
from layerbuild.errors import StepFailed, UsageError
from layerbuild.image.config import RuntimeConfig

if TYPE_CHECKING:
    from layerbuild.isolate.limits import Limits


@click.command(cls=Container)
@click.option("--rm", "remove", is_flag=True, help="Throw the container layer away afterwards (the default).")
@click.option("--keep", is_flag=True, help="Keep the container layer, and print its id; `shell` enters it again.")
@click.option("-e", "--env", metavar="K=V", multiple=True, help="Set a variable; K alone: from the environment.")
@click.option("-u", "--user", help="User[:group] of the image.  [default: the image's]")
@click.option("-w", "--workdir", help="Working directory.  [default: the image's]")
@click.option("--entrypoint", help="In place of the image's; empty: none.")
@limits.options
@click.option(
    "--network", type=click.Choice(["host", "none"]), default="host", show_default=True, help="What it reaches."
)
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.  [default: if standard input is one]")
@platform_option(envvar=PLATFORM_VARIABLE, help=f"Which of the images under that name.  [env: {PLATFORM_VARIABLE}]")
@click.option("-i", "--interactive", is_flag=True, help="As in docker; standard input is always passed on.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    remove: bool,
    keep: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    entrypoint: str | None,
    network: str,
    tty: bool,
    platform: str | None,
    interactive: bool,
    image: str,
    command: tuple[str, ...],
    most: Limits,
) -> None:
    """Run a command in a container: a fresh layer on top of IMAGE. Its exit code is this command's."""
    from layerbuild.build.containers import container
    from layerbuild.build.platforms import require_platform
    from layerbuild.build.running import Command

    if remove and keep:
        raise UsageError("--rm and --keep contradict each other")
    chosen = chosen_platform(platform)
    with exit_code_of_docker(ctx), inside() as (store, identity):
        stored = store.images.resolve(image, platform=chosen)
        require_platform(stored.config.platform, here=this_platform(), place=store.temporary)
        config = stored.config.config
        wanted = Command(
            argv=_argv(config, entrypoint, command),
            env=(*config.env, *_variables(env)),
            cwd=workdir or config.working_dir or "/",
            user=user if user is not None else config.user,
            network="none" if network == "none" else "host",
        )
        terminal = tty or sys.stdin.isatty()
        by = driver(store, identity).driver
        code, kept = container(store, identity, by, stored.top, wanted, limits=most, keep=keep, terminal=terminal)
    if kept:
        click.echo(f"kept as {kept}; enter it again with: {invocation()} shell {kept[:12]}", err=True)
    ctx.exit(code)


def _argv(config: RuntimeConfig, entrypoint: str | None, command: tuple[str, ...]) -> tuple[str, ...]:
    """As ``docker run`` puts it together: a command replaces CMD, an entrypoint replaces ENTRYPOINT and CMD."""
    if entrypoint is not None:
        argv = (*shlex.split(entrypoint)[:1], *command) if entrypoint else command
    else:
        argv = (*(config.entrypoint or ()), *(command or config.cmd or ()))
    if not argv:
        raise UsageError("the image names no command", hint="layerbuild run IMAGE COMMAND")
    return argv


def _variables(texts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if equals or name in os.environ:
            yield name, value if equals else os.environ[name]


@contextmanager
def exit_code_of_docker(ctx: click.Context) -> Iterator[None]:
    """126 and 127 tell here, as from ``docker run`` and a shell, that the command can't be executed or is not there."""
    try:
        yield
    except StepFailed as error:
        report(error)
        ctx.exit(error.exit_code)
