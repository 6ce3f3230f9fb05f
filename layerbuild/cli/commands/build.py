"""``build``: from a recipe to an image in the store, and out of it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from layerbuild.cli import recipes
from layerbuild.cli.caches import Caches
from layerbuild.cli.commands.lint import check, warn
from layerbuild.cli.console import observing, told_all
from layerbuild.cli.contexts import opened
from layerbuild.cli.credentials import lent
from layerbuild.cli.options import caches, checks, isolation, limits, outputs, progress, sources
from layerbuild.cli.options.command import Command
from layerbuild.cli.options.platforms import this_platform
from layerbuild.cli.place import driver, inside, invocation, settings_driver
from layerbuild.cli.pushing import Pushing, deliver, pushable
from layerbuild.cli.rawjson import errors_as_events
from layerbuild.cli.registries import Bringer
from layerbuild.cli.results import identifier, remove_stale, write_files
from layerbuild.errors import StepFailed, UsageError
from layerbuild.frozen import frozen
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.build.drivers.table import Choice
    from layerbuild.build.loop import Build
    from layerbuild.build.options import Options
    from layerbuild.build.running import Runner
    from layerbuild.cli.options.caches import Asked
    from layerbuild.cli.options.checks import Checks
    from layerbuild.cli.options.isolation import Way
    from layerbuild.cli.options.outputs import Wanted
    from layerbuild.cli.options.progress import Telling
    from layerbuild.cli.options.sources import Request
    from layerbuild.digest import BlobDigest
    from layerbuild.events import Observer
    from layerbuild.export.formats import Output
    from layerbuild.image.annotations import Annotation
    from layerbuild.image.config import Platform
    from layerbuild.image.manifest import Descriptor
    from layerbuild.isolate.backends import Backend, Isolation
    from layerbuild.isolate.fork import Helper
    from layerbuild.isolate.limits import Limits
    from layerbuild.isolate.namespaces import Identity
    from layerbuild.store.images import StoredImage, StoredIndex
    from layerbuild.store.store import Store


@click.command(cls=Command)
@errors_as_events
@sources.options
@outputs.options
@caches.options
@isolation.options
@limits.options
@checks.options
@progress.options
@click.option("--rehearse", "clock", type=int, hidden=True, help="For `verify`: the time that it is; remember nothing.")
def build(
    request: Request,
    wanted: Wanted,
    caches: Asked,
    way: Way,
    most: Limits,
    checks: Checks,
    telling: Telling,
    clock: int | None,
) -> None:
    """Build an image from the recipe in CONTEXT, and print its ID.

    CONTEXT is a folder, a tar, a URL (of a tar, of a recipe, or of a git repository: URL#REF:FOLDER), or `-`: a tar or
    a recipe on standard input.

    \b
    layerbuild build -t app .
    layerbuild build -f Dockerfile.ci --target test --build-arg VERSION=1.2 .
    layerbuild build -o type=oci,dest=app.tar --metadata-file app.json .
    layerbuild build --secret id=token,env=TOKEN --push -t registry/app:1 .
    """
    from layerbuild.build.options import Options

    if checks.only:
        check(request)
        return
    asked = Caches.of(caches, request)
    leaving = wanted.checked(platforms=max(1, len(request.platforms)))
    remove_stale(wanted.files)
    options = Options(
        names=wanted.names,
        labels=wanted.labels,
        no_cache=request.no_cache,
        no_cache_stages=request.no_cache_stages,
        entitlements=way.entitlements,
        cache_namespace=request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        inline_cache=asked.inline,
        jobs=1 if telling.teach else way.jobs,
        step_by_step=telling.teach,
        fail_on_miss=checks.fail_on_miss,
        gate=checks.gate,
        allowed=checks.allowed,
        request=sources.noted(request),
        remember=clock is None,
    )
    options = replace(options, level=_level(leaving, options.codec))
    destinations = [_destinations(output, options) for output in leaving]
    with (
        observing(telling.style) as observe,
        lent(request.secrets, request.agents) as credentials,
        inside() as (store, identity),
        ExitStack() as going_on,
    ):
        options = replace(options, one_id=identity.one_id, credentials=credentials)
        store.is_last = True
        store.supplier = Bringer(store, observe)
        if identity.lack:  # told once: it is empty where the store was made so
            from layerbuild.events import Note

            what = "owners of files are noted, since there is one id for all"
            observe(Note(f"{what} ({identity.lack}); layers are the same"))
        pushes = [going_on.enter_context(Pushing(store, names, observe)) if names else None for names in destinations]
        early = [push.watch for push, out in zip(pushes, leaving, strict=True) if push and not out.wishes.compression]
        choice = driver(store, identity) if settings_driver() else None
        built = _build(
            request,
            options,
            asked,
            store,
            lambda helper: way.backend.start(identity, helper, most),
            lambda sandbox: _runner(way.backend, sandbox, store, identity, choice),
            annotations=wanted.annotations,
            observe=told_all(observe, *([_teacher(store)] if telling.teach else []), *early),
            clock=clock,
        )
        write_files(wanted.files, built.found, _export(store, built, leaving, pushes, observe))
    if not wanted.to_stdout:
        click.echo(identifier(built.found))


def _level(outputs: Sequence[Output], codec: str) -> int | None:
    """The level that all outputs wish for of ``codec``, in which layers are made; None: its usual one.

    Another codec is for what leaves: whoever asks for none is to get ``codec``, whatever was built before.
    """
    wished = {output.wishes.compression for output in outputs}
    one = wished.pop() if len(wished) == 1 else None
    return one.level if one is not None and one.codec == codec else None


@frozen
class Built:
    """What a build came to; ``base_blobs`` are the layers that its bases brought."""

    found: StoredImage | StoredIndex
    base_blobs: frozenset[BlobDigest]


def _build(
    request: Request,
    options: Options,
    caches: Caches,
    store: Store,
    start: Callable[[Helper], Isolation],
    begin: Callable[[Isolation], Runner],
    *,
    annotations: tuple[Annotation, ...],
    observe: Observer,
    clock: int | None,
) -> Built:
    from layerbuild.isolate.fork import Helper

    # The helper comes first: it is a fork of this process, and the smaller that is, the cheaper is every step.
    with Helper.fork() as helper:
        from layerbuild.build.loop import Build

        sandbox = functools.cache(partial(start, helper))
        runner = functools.cache(lambda: begin(sandbox()))
        bases = recipes.make_bases(request, store, observe)
        with opened(request, store, options.credentials) as found:
            recipe = found.place.read_recipe()
            times = recipes.build_times(request, recipe, named=found.named, modified=found.modified)
            times = times if clock is None else replace(times, now=clock)
            here = this_platform()
            builds: list[Build] = []
            for platform in request.platforms or (None,):
                plan = recipes.make_plan(request, recipe, bases, named=found.named, times=times, platform=platform)
                own = _options_for(platform, options, annotations, several=len(request.platforms) > 1)
                builds.append(
                    Build(
                        plan,
                        store,
                        bases,
                        found.trees,
                        found.remote,
                        runner,
                        prepare=sandbox,
                        options=own,
                        times=times,
                        here=here,
                        observe=observe,
                        caches=caches.sources(store, platform or here, observe),
                        every_stage=any(target.every_stage for target in caches.given),
                    )
                )
            warn(request, found, recipe, bases.config, observe)
            try:
                built = _carry_out(builds, store, options.names, annotations, observe)
                caches.write(store, builds, observe)
                return built
            except StepFailed as error:
                error.hint = _way_back(error)
                raise


def _options_for(
    platform: Platform | None, options: Options, annotations: tuple[Annotation, ...], *, several: bool
) -> Options:
    """The options of the build for one platform. With several, the names are the index's."""
    names = () if several else options.names
    options = replace(options, names=names, platform=platform)
    if not annotations:
        return options
    from layerbuild.image.annotations import MANIFEST, chosen_for

    said = chosen_for(annotations, MANIFEST, platform or this_platform())
    return replace(options, annotations=said)


def _carry_out(
    builds: list[Build],
    store: Store,
    names: tuple[Reference, ...],
    annotations: tuple[Annotation, ...],
    observe: Observer,
) -> Built:
    from layerbuild.build.platforms import build_each, write_index
    from layerbuild.events import IndexWritten

    images = build_each(builds)
    blobs = frozenset(blob for build in builds for blob in build.base_blobs)
    if len(images) == 1:
        return Built(images[0], blobs)
    index = write_index(store, images, names, annotations)
    platforms = tuple(image.config.platform for image in images)
    observe(IndexWritten(index.digest, platforms, tuple(name.familiar for name in names)))
    return Built(index, blobs)


def _runner(backend: Backend, sandbox: Isolation, store: Store, identity: Identity, choice: Choice | None) -> Runner:
    """What executes RUN steps, by the driver of ``choice``; None: by whichever works."""
    from layerbuild.build.drivers.table import choose
    from layerbuild.build.running import Runner

    choice = choice or choose(None, store.root, identity)
    return Runner(sandbox, choice.driver, unusual=tuple(_unusual(choice, identity, backend.name)))


def _teacher(store: Store) -> Observer:
    from layerbuild.cli.teaching import Teacher

    return Teacher(store)


def _unusual(choice: Choice, identity: Identity, isolation: str) -> Iterator[str]:
    """What a person should know about how this build goes, where that is not the best way."""
    if choice.driver.name != "overlay":
        yield str(choice)
    if identity.one_id and isolation != "namespaces":
        yield f"in containers of {isolation} there is one id: RUN can give no file to another user"


def _way_back(error: StepFailed) -> str:
    """The hint of ``error``, and the line that enters the workspace where it came up."""
    if not error.workspace:
        return error.hint
    line = f"look around in it: {invocation()} shell {error.workspace[:12]}"
    return f"{error.hint}; {line}" if error.hint else line


def _destinations(output: Output, options: Options) -> tuple[Reference, ...]:
    """The names that ``output`` is pushed to; UsageError if there are none where there should be."""
    if not output.push:
        return ()
    names = output.wishes.names or options.names
    if not names:
        raise UsageError("nothing says where to push to", hint="build --tag NAME, or -o type=registry,name=NAME")
    return tuple(pushable(name) for name in names)


def _export(
    store: Store, built: Built, outputs: Sequence[Output], pushes: list[Pushing | None], observe: Observer
) -> Descriptor:
    """Write the outputs; the manifest or index of what left last (a new compression makes a new one)."""
    descriptor = store.images.describe(built.found)
    if outputs:
        from layerbuild.events import Note
        from layerbuild.export.formats import write

        for output, pushing in zip(outputs, pushes, strict=True):
            if output.stays:
                descriptor = deliver(store, built.found, output.keeping(built.base_blobs), pushing, observe)
                continue
            exported = write(store, built.found, output.keeping(built.base_blobs), stdout=sys.stdout.buffer)
            for note in exported.notes:
                observe(Note(f"{exported.dest}: {note}"))
            descriptor = exported.descriptor
    return descriptor
