"""``build``: from a recipe to an image in the store, and out of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli import limits, recipes
from layerbuild.cli.caches import Caches
from layerbuild.cli.commands.lint import check, warn
from layerbuild.cli.console import observing, told_all
from layerbuild.cli.contexts import opened
from layerbuild.cli.credentials import allow_list, entitlements, lent
from layerbuild.cli.place import driver, inside, invocation
from layerbuild.cli.pushing import Pushing, deliver, pushable
from layerbuild.cli.rawjson import errors_as_events
from layerbuild.cli.registries import Bringer
from layerbuild.cli.results import identifier, remove_stale, write_files
from layerbuild.cli.teaching import Teacher
from layerbuild.errors import StepFailed, UsageError
from layerbuild.events import Note
from layerbuild.frozen import frozen
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.build.drivers.driver import Driver
    from layerbuild.build.drivers.table import Choice
    from layerbuild.build.loop import Build
    from layerbuild.build.options import Options
    from layerbuild.digest import BlobDigest
    from layerbuild.events import Observer
    from layerbuild.export.formats import Output
    from layerbuild.image.annotations import Annotation
    from layerbuild.image.config import Platform
    from layerbuild.image.manifest import Descriptor
    from layerbuild.isolate.backends import Isolation
    from layerbuild.isolate.job import Limits, Network
    from layerbuild.isolate.namespaces import Identity
    from layerbuild.store.images import StoredImage, StoredIndex
    from layerbuild.store.store import Store


@click.command(cls=recipes.Command)
@recipes.options
@click.option("-t", "--tag", "tags", metavar="NAME", multiple=True, help="Name the image.")
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="type=…,dest=…",
    multiple=True,
    help="Export it: oci, docker, tar, local or layers.",
)
@click.option(
    "--annotation",
    "annotations",
    metavar="[KIND:]K=V",
    multiple=True,
    help="Annotate the manifest, or what KIND says: index, manifest-descriptor, index-descriptor.",
)
@click.option("--label", "labels", metavar="K=V", multiple=True, help="Add a label.")
@click.option("--network", type=click.Choice(["default", "host", "none"]), default="default", help="For RUN steps.")
@click.option("--allow", metavar="WHAT", multiple=True, help="Let RUN steps have it: security.insecure.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Stages at work at once.  [default: the number of cores]"
)
@click.option("--isolation", metavar="WAY", default="namespaces", help="namespaces, or an OCI runtime: runc, crun.")
@limits.options
@click.option("--teach", is_flag=True, help="Explain each step: mounts, upper folder, tar, names.")
@click.option("--progress", default="auto", metavar="STYLE", help="auto, tty, plain, quiet or rawjson.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the image ID.")
@click.option("--iidfile", type=click.Path(path_type=Path), help="Write the image ID (an index's digest) to this file.")
@click.option(
    "--digest-file", type=click.Path(path_type=Path), help="Write the digest of what was exported to this file."
)
@click.option("--metadata-file", type=click.Path(path_type=Path), help="Write digests and names to this file, as JSON.")
@click.option("--fail-on-miss", is_flag=True, help="End the build where a step would have to run.")
@click.option(
    "--secrets",
    "gate",
    type=click.Choice(["warn", "fail", "off"]),
    default="warn",
    help="What to do about what looks like a secret in a layer, the environment or the history.",
)
@click.option(
    "--secrets-allow",
    "allowed",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What may look like a secret: globs over paths, or fingerprints, one on each line.",
)
@click.option("--rehearse", "clock", type=int, hidden=True, help="For `verify`: the time that it is; remember nothing.")
@click.option("--push", is_flag=True, help="Send the image to the registries that its names lead to.")
@click.option("--cache-from", metavar="NAME|type=…", multiple=True, help="Ask the cache of another machine, too.")
@click.option(
    "--cache-to", metavar="NAME|type=…", multiple=True, help="Give steps and layers away: registry, local, inline."
)
@click.option("--check", "check_only", is_flag=True, help="Build nothing; check the recipe, as `lint` does.")
@errors_as_events
def build(
    tags: tuple[str, ...],
    outputs: tuple[str, ...],
    annotations: tuple[str, ...],
    labels: tuple[str, ...],
    network: str,
    allow: tuple[str, ...],
    jobs: int | None,
    isolation: str,
    teach: bool,
    progress: str,
    quiet: bool,
    iidfile: Path | None,
    digest_file: Path | None,
    metadata_file: Path | None,
    fail_on_miss: bool,
    gate: str,
    allowed: Path | None,
    clock: int | None,
    push: bool,
    cache_from: tuple[str, ...],
    cache_to: tuple[str, ...],
    check_only: bool,
    most: Limits,
    **shared: Any,
) -> None:
    """Build an image from the recipe in CONTEXT."""
    from layerbuild.build.options import Gate, Options
    from layerbuild.isolate.backends import backend

    request = recipes.request(**shared)
    if check_only:
        check(request)
        return
    platforms = max(1, len(request.platforms))
    asked = _annotations(annotations, platforms=platforms)
    wanted = _outputs((*outputs, *(("type=registry",) if push else ())), asked, platforms=platforms)
    caches = Caches.parse(cache_from, cache_to, request)
    files = {"id": iidfile, "digest": digest_file, "metadata": metadata_file}
    remove_stale(files)
    options = Options(
        names=tuple(Reference.parse(text) for text in tags),
        labels=tuple(_pair(text) for text in labels),
        no_cache=request.no_cache,
        no_cache_stages=request.no_cache_stages,
        entitlements=entitlements(allow),
        cache_namespace=request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        inline_cache=caches.inline,
        jobs=1 if teach else jobs or len(os.sched_getaffinity(0)),
        step_by_step=teach,
        fail_on_miss=fail_on_miss,
        gate=Gate(gate),
        allowed=allow_list(allowed),
        request=recipes.noted(request),
        remember=clock is None,
    )
    destinations = [_destinations(output, options) for output in wanted]
    way = backend(isolation)
    style = "plain" if teach and progress in ("auto", "tty") else progress  # an area would cut what is taught in two
    with (
        observing("quiet" if quiet else style) as observe,
        lent(request.secrets, request.agents) as credentials,
        inside() as (store, identity),
        ExitStack() as going_on,
    ):
        options = replace(options, one_id=identity.one_id, credentials=credentials)
        store.supplier = Bringer(store, observe)
        choice = driver(store, identity)
        for note in _unusual(choice, identity):
            observe(Note(note))
        reach: Network = "none" if network == "none" else "host"
        pushes = [going_on.enter_context(Pushing(store, names, observe)) if names else None for names in destinations]
        early = [push.watch for push, out in zip(pushes, wanted, strict=True) if push and not out.wishes.compression]
        built = _build(
            request,
            options,
            caches,
            store,
            identity,
            choice.driver,
            start=lambda identity: way.start(identity, most),
            network=reach,
            annotations=asked,
            observe=told_all(observe, *([Teacher(store)] if teach and not quiet else []), *early),
            clock=clock,
        )
        write_files(files, built.found, _export(store, built, wanted, pushes, observe))
    if not _uses_stdout(wanted):
        click.echo(identifier(built.found))


@frozen
class Built:
    """What a build came to; ``base_blobs`` are the layers that its bases brought."""

    found: StoredImage | StoredIndex
    base_blobs: frozenset[BlobDigest]


def _build(
    request: recipes.Request,
    options: Options,
    caches: Caches,
    store: Store,
    identity: Identity,
    driver: Driver,
    *,
    start: Callable[[Identity], Isolation],
    network: Network,
    annotations: tuple[Annotation, ...],
    observe: Observer,
    clock: int | None,
) -> Built:
    # The helper comes first: it is a fork of this process, and the smaller that is, the cheaper is every step.
    with start(identity) as sandbox:
        from layerbuild.build.loop import Build
        from layerbuild.build.running import Runner

        bases = recipes.make_bases(request, store, observe)
        runner = Runner(sandbox, driver, network=network)
        with opened(request, store, options.credentials) as found:
            recipe = found.place.read_recipe()
            times = recipes.build_times(request, recipe, named=found.named, modified=found.modified)
            times = times if clock is None else replace(times, now=clock)
            here = recipes.this_platform()
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
                        options=own,
                        times=times,
                        here=here,
                        observe=observe,
                        caches=caches.sources(store),
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
    from layerbuild.image.annotations import MANIFEST, chosen_for

    names = () if several else options.names
    said = chosen_for(annotations, MANIFEST, platform or recipes.this_platform())
    return replace(options, names=names, platform=platform, annotations=said)


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


def _unusual(choice: Choice, identity: Identity) -> tuple[str, ...]:
    """What a person should know about how this build goes, where that is not the best way."""
    found = (str(choice),) if choice.driver.name != "overlay" else ()
    return (*found, f"one id for all files: {identity.lack}") if identity.one_id and identity.lack else found


def _way_back(error: StepFailed) -> str:
    """The hint of ``error``, and the line that enters the workspace where it came up."""
    if not error.workspace:
        return error.hint
    line = f"look around in it: {invocation()} shell {error.workspace[:12]}"
    return f"{error.hint}; {line}" if error.hint else line


def _annotations(texts: tuple[str, ...], *, platforms: int) -> tuple[Annotation, ...]:
    if not texts:
        return ()
    from layerbuild.image.annotations import read_option, refuse_index

    found = tuple(annotation for text in texts for annotation in read_option(text))
    if platforms == 1:
        refuse_index(found)
    return found


def _outputs(texts: tuple[str, ...], annotations: tuple[Annotation, ...], *, platforms: int) -> list[Output]:
    """What -o asks for; what a layout says of its images is said by --annotation, too."""
    if not texts:
        return []
    from layerbuild.export.formats import Output

    outputs = [Output.parse(text).annotated(annotations) for text in texts]
    for output in outputs:
        output.check(platforms)
    return outputs


def _uses_stdout(outputs: list[Output]) -> bool:
    return any(output.dest == "-" for output in outputs)


def _destinations(output: Output, options: Options) -> tuple[Reference, ...]:
    """The names that ``output`` is pushed to; UsageError if there are none where there should be."""
    if not output.push:
        return ()
    names = output.wishes.names or options.names
    if not names:
        raise UsageError("nothing says where to push to", hint="build --tag NAME, or -o type=registry,name=NAME")
    return tuple(pushable(name) for name in names)


def _export(
    store: Store, built: Built, outputs: list[Output], pushes: list[Pushing | None], observe: Observer
) -> Descriptor:
    """Write the outputs; the manifest or index of what left last (a new compression makes a new one)."""
    from layerbuild.export.package import describe

    descriptor = describe(store, built.found)
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


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key:
        raise UsageError(f"--label {text!r} has no key", hint="--label KEY=VALUE")
    return key, value if equals else ""
