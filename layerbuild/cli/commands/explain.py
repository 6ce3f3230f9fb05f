"""``explain`` and ``logs``: why the steps of a build hit or missed, and what they said."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from layerbuild.cli import recipes
from layerbuild.cli.console import emit, format_option, observer
from layerbuild.cli.contexts import opened, store_for
from layerbuild.cli.credentials import lent
from layerbuild.cli.options import sources
from layerbuild.cli.options.command import Command
from layerbuild.cli.place import reading
from layerbuild.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from layerbuild.cli.options.sources import Request
    from layerbuild.store.builds import BuildRecord
    from layerbuild.store.store import Store
    from layerbuild.views.explain import Explained

build_option = click.option("--build", "number", type=int, metavar="N", help="Another build than the last one.")


@click.command(cls=Command)
@click.argument("step", required=False)
@build_option
@click.option("--plan", "context", metavar="CONTEXT", help="A build that has not run, of the recipe in CONTEXT.")
@click.option("--between", nargs=2, metavar="A B", help="What differs between two builds, by number or by image.")
@sources.settings
@format_option
def explain(
    step: str | None,
    number: int | None,
    context: str | None,
    between: tuple[str, str] | None,
    output_format: str,
    requested: Callable[[str], Request],
) -> None:
    """Tell why the steps of the last build hit the cache or missed, as a difference between their inputs.

    STEP is a number in the last stage, or STAGE:NUMBER.
    """
    if between:
        _between(*between, output_format=output_format)
        return
    if context is not None:
        build = _planned(requested(context))
    else:
        with reading() as store:
            build = store.builds.get(number)
    _show(build, step, planned=context is not None, output_format=output_format)


@click.command()
@click.argument("step", required=False)
@build_option
@format_option
def logs(step: str | None, number: int | None, output_format: str) -> None:
    """Show what the steps of the last build said. STEP is a number in the last stage, or STAGE:NUMBER."""
    from layerbuild.views import logs as view

    with reading() as store:
        build = store.builds.get(number)
        chosen = _chosen(build, step)
        positions = {id(known): position for position, known in enumerate(build.steps, start=1)}
        told = [(found.step, store.builds.log(build.number, positions[id(found.step)])) for found in chosen]
    if output_format == "table" and not any(log.data for _, log in told):
        click.echo(view.silence(build, [account for account, _ in told], alone=step is not None), err=True)
        return
    several = len(build.stages) > 1
    told = told if step else [(account, log) for account, log in told if log.data]
    emit(output_format, view.as_json(build, told), lambda: view.as_text(told, alone=step is not None, stage=several))


def _show(build: BuildRecord, step: str | None, *, planned: bool, output_format: str) -> None:
    from layerbuild.views import explain as view

    chosen = _chosen(build, step)
    emit(
        output_format,
        view.as_json(build, chosen, planned=planned),
        lambda: view.as_text(build, chosen, planned=planned),
    )


def _chosen(build: BuildRecord, step: str | None) -> list[Explained]:
    from layerbuild.views.explain import explained, select, those_there

    every = explained(build)
    if step is None:
        return every
    found = select(every, step, target=build.target)
    if not found:
        raise NotFoundError(f"the build has no step {step!r}", hint=those_there(build))
    return found


def _planned(request: Request) -> BuildRecord:
    """A build that has not run, as if it were recorded."""

    from layerbuild.build.preview import preview
    from layerbuild.build.recording import foreseen

    with (
        lent(request.secrets, request.agents) as credentials,
        store_for(request) as store,
        opened(request, store, credentials) as found,
    ):
        planned = recipes.planned(request, store, found, observer("quiet"))
        return foreseen(planned.plan, preview(planned.plan, planned.lookup))


def _between(first: str, second: str, *, output_format: str) -> None:
    from layerbuild.build.difference import differences
    from layerbuild.build.explaining import stored_listing
    from layerbuild.views import explain as view

    with reading() as store:
        before, after = _build(store, first), _build(store, second)
        pairs = []
        for old, new in view.match_steps(before, after):
            if old is None or new is None:
                pairs.append(view.Pair(old, new))
                continue
            args = frozenset((*old.args, *new.args))
            found, more = differences(old.inputs, new.inputs, partial(stored_listing, store), args=args)
            pairs.append(view.Pair(old, new, found, more))
    emit(output_format, view.pairs_json(before, after, pairs), lambda: view.pairs_text(before, after, pairs))


def _build(store: Store, text: str) -> BuildRecord:
    """The build that ``text`` means: its number, or the image that it made."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return store.builds.get(int(text))
    image = store.images.resolve(text)
    found = store.builds.of_image(image.manifest_digest)
    if found is None:
        hint = f"`layerbuild diff` compares any two images; the last {_kept()} builds are remembered"
        raise UsageError(f"no build of this store is known to have made {text!r}", hint=hint)
    return found


def _kept() -> int:
    from layerbuild.store.builds import KEPT

    return KEPT
