"""``shell``: a failed step's workspace entered again, the state after a step, or an image."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from layerbuild.cli import recipes
from layerbuild.cli.commands.run import exit_code_of_docker
from layerbuild.cli.console import observer
from layerbuild.cli.contexts import opened
from layerbuild.cli.credentials import lent
from layerbuild.cli.options import sources
from layerbuild.cli.options.command import Container
from layerbuild.cli.place import driver, inside
from layerbuild.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from layerbuild.build.credentials import Credentials
    from layerbuild.build.mounting import Mounted
    from layerbuild.build.running import Command
    from layerbuild.digest import ChainID
    from layerbuild.isolate.namespaces import Identity
    from layerbuild.steps import RunStep, StagePlan
    from layerbuild.store.builds import BuildRecord, StepAccount
    from layerbuild.store.store import Store
    from layerbuild.store.workspaces import KeptWorkspace

_SHELL = ("/bin/sh",)


@click.command(cls=Container)
@click.option("--failed", is_flag=True, help="Enter the workspace of the step that failed last, with its mounts.")
@click.option("--step", "step", metavar="N", help="Enter the state after a step of the last build: N, or STAGE:N.")
@click.option("--secret", "secrets", metavar="id=…,src=…|env=…", multiple=True, help="With --failed: as for `build`.")
@click.option("--ssh", "agents", metavar="ID[=SOCKET]", multiple=True, help="With --failed: as for `build`.")
@click.argument("words", metavar="[WORKSPACE|IMAGE] [COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def shell(
    ctx: click.Context,
    failed: bool,
    step: str | None,
    secrets: tuple[str, ...],
    agents: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    """Start a shell, or COMMAND, in what a step left, with its user, environment and folder.

    A kept WORKSPACE (of a failed step, or of `run --keep`) is entered as it is, and what is written there stays. On an
    IMAGE, and after a step, it is a container layer that is thrown away.
    """
    if failed and step is not None:
        raise UsageError("--failed and --step name two different places")
    if not words and not failed and step is None:
        raise UsageError("say what to enter", hint="a kept workspace, an image, --failed or --step N")
    with exit_code_of_docker(ctx), lent(secrets, agents) as credentials, inside() as (store, identity):
        if failed:
            code = _failed(store, identity, words or _SHELL, credentials)
        elif step is not None:
            chain, command = _after(store.builds.get(), step, words or _SHELL)
            code = _container(store, identity, chain, command)
        else:
            code = _named(store, identity, words[0], words[1:] or _SHELL)
    ctx.exit(code)


def _named(store: Store, identity: Identity, name: str, argv: tuple[str, ...]) -> int:
    from layerbuild.build.containers import reenter
    from layerbuild.build.running import Command

    try:
        kept = store.workspaces.find(name)
    except NotFoundError:
        try:
            image = store.images.resolve(name)
        except NotFoundError as error:
            raise NotFoundError(f"there is no image and no kept workspace {name!r}", hint=error.hint) from None
        config = image.config.config
        command = Command(argv, config.env, config.working_dir or "/", config.user)
        return _container(store, identity, image.top, command)
    click.echo(f"{kept.meta['instruction']}", err=True)
    by = driver(store, identity).driver
    return reenter(store, identity, by, kept, argv, terminal=sys.stdin.isatty())


def _container(store: Store, identity: Identity, chain: ChainID | None, command: Command) -> int:
    from layerbuild.build.containers import container
    from layerbuild.isolate.limits import Limits

    by = driver(store, identity).driver
    code, _ = container(store, identity, by, chain, command, limits=Limits(), keep=False, terminal=sys.stdin.isatty())
    return code


def _after(build: BuildRecord, text: str, argv: tuple[str, ...]) -> tuple[ChainID | None, Command]:
    """The stack after a step of ``build``, and ``argv`` in that step's surroundings."""
    from layerbuild.build.running import Command
    from layerbuild.views.explain import chain_after

    step, chain = chain_after(build, text)
    click.echo(step.instruction, err=True)
    return chain, Command(argv, step.after.env, step.after.cwd, step.after.user)


# -- the step that failed last -----------------------------------------------------------------------------------------


def _failed(store: Store, identity: Identity, argv: tuple[str, ...], credentials: Credentials) -> int:
    from layerbuild.build.containers import reenter

    kept = _last_failed(store)
    click.echo(f"{kept.meta['instruction']}", err=True)
    found = _account(store, kept)
    by = driver(store, identity).driver
    if found is None or not any(name.startswith(("mount ", "file ")) for name in found[1].inputs):
        return reenter(store, identity, by, kept, argv, terminal=sys.stdin.isatty())
    with _mounted(store, *found, credentials) as mounted:
        return reenter(store, identity, by, kept, argv, terminal=sys.stdin.isatty(), mounted=mounted)


def _last_failed(store: Store) -> KeptWorkspace:
    failed = [kept for kept in store.workspaces.kept() if "failed" in kept.meta]
    if not failed:
        raise NotFoundError("no step has failed whose workspace is still kept", hint="`layerbuild logs` tells what was")
    return failed[-1]


def _account(store: Store, kept: KeptWorkspace) -> tuple[BuildRecord, StepAccount] | None:
    """The build that left the workspace, and its step; None if its record is gone."""
    for build in store.builds.all():
        for step in build.steps:
            if step.verdict == "miss" and step.ended is None and step.instruction == kept.meta["instruction"]:
                return build, step
    return None


@contextmanager
def _mounted(store: Store, build: BuildRecord, account: StepAccount, credentials: Credentials) -> Iterator[Mounted]:
    """What the step's mounts bring: its build is planned again for it, as the files are now."""
    from dataclasses import replace

    from layerbuild.build.mounting import Mounter
    from layerbuild.build.options import Options
    from layerbuild.build.preview import preview
    from layerbuild.build.running import script_files

    request = sources.recalled(build.request)
    with opened(request, store, credentials) as found:
        planned = recipes.planned(request, store, found, observer("quiet"), look_only=False)
        forecasts = list(preview(planned.plan, planned.lookup))
        stage, step = _again([(known.stage, known.step) for known in forecasts], account)
        options = Options(
            credentials=credentials, cache_namespace=request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
        )
        tell = lambda text: click.echo(f"note: {text}", err=True)  # noqa: E731
        with Mounter(store, planned.lookup, options, tell=tell) as mounter, mounter.mounted(stage, step) as mounted:
            yield replace(mounted, mounts=(*script_files(step), *mounted.mounts))


def _again(steps: list[tuple[StagePlan, object]], account: StepAccount) -> tuple[StagePlan, RunStep]:
    from layerbuild.steps import RunStep

    for stage, step in steps:
        if isinstance(step, RunStep) and (stage.title, step.origin.text) == (account.stage, account.instruction):
            return stage, step
    hint = "build again, or enter it without mounts by its id"
    raise UsageError(f"the recipe has no step {account.instruction!r} any more", hint=hint)
