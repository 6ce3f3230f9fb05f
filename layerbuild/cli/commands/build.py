"""``build``: from a recipe to an image in the store, and out of it."""

from __future__ import annotations

import json
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
from layerbuild.cli.console import observer, told_all
from layerbuild.cli.contexts import opened
from layerbuild.cli.credentials import allow_list, entitlements, lent
from layerbuild.cli.place import inside, invocation
from layerbuild.cli.pushing import Pushing, deliver, pushable
from layerbuild.cli.registries import Bringer
from layerbuild.errors import StepFailed, UsageError
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.build.options import Options
    from layerbuild.events import Observer
    from layerbuild.export.formats import Output
    from layerbuild.image.manifest import Descriptor
    from layerbuild.isolate.backends import Isolation
    from layerbuild.isolate.job import Limits, Network
    from layerbuild.isolate.namespaces import Identity
    from layerbuild.store.images import StoredImage
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
@click.option("--label", "labels", metavar="K=V", multiple=True, help="Add a label.")
@click.option("--network", type=click.Choice(["default", "host", "none"]), default="default", help="For RUN steps.")
@click.option("--allow", metavar="WHAT", multiple=True, help="Let RUN steps have it: security.insecure.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Stages at work at once.  [default: the number of cores]"
)
@click.option("--isolation", metavar="WAY", default="namespaces", help="namespaces, or an OCI runtime: runc, crun.")
@limits.options
@click.option("--progress", default="auto", metavar="STYLE", help="auto, plain, quiet or rawjson.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the image ID.")
@click.option("--iidfile", type=click.Path(path_type=Path), help="Write the image ID to this file.")
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
def build(
    tags: tuple[str, ...],
    outputs: tuple[str, ...],
    labels: tuple[str, ...],
    network: str,
    allow: tuple[str, ...],
    jobs: int | None,
    isolation: str,
    progress: str,
    quiet: bool,
    iidfile: Path | None,
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
    from layerbuild.isolate.rlimits import forbid_core_dumps

    request = recipes.request(**shared)
    if check_only:
        check(request)
        return
    wanted = _outputs((*outputs, *(("type=registry",) if push else ())))
    caches = Caches.parse(cache_from, cache_to, request)
    options = Options(
        names=tuple(Reference.parse(text) for text in tags),
        labels=tuple(_pair(text) for text in labels),
        no_cache=request.no_cache,
        no_cache_stages=request.no_cache_stages,
        entitlements=entitlements(allow),
        cache_namespace=request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        inline_cache=caches.inline,
        jobs=jobs or len(os.sched_getaffinity(0)),
        fail_on_miss=fail_on_miss,
        gate=Gate(gate),
        allowed=allow_list(allowed),
        request=recipes.noted(request),
        remember=clock is None,
    )
    destinations = [_destinations(output, options) for output in wanted]
    way = backend(isolation)
    if options.credentials.secrets:
        forbid_core_dumps()  # of this process, which holds them
    observe = observer("quiet" if quiet else progress)
    with (
        lent(request.secrets, request.agents) as credentials,
        inside() as (store, identity),
        ExitStack() as going_on,
    ):
        options = replace(options, one_id=identity.one_id, credentials=credentials)
        store.supplier = Bringer(store, observe)
        reach: Network = "none" if network == "none" else "host"
        pushes = [going_on.enter_context(Pushing(store, names, observe)) if names else None for names in destinations]
        early = [push.watch for push, output in zip(pushes, wanted, strict=True) if push and not output.compression]
        image = _build(
            request,
            options,
            caches,
            store,
            identity,
            start=lambda identity: way.start(identity, most),
            network=reach,
            observe=told_all(observe, *early),
            clock=clock,
        )
        exported = _export(store, image, wanted, pushes)
        if iidfile is not None:
            _write(iidfile, image.image_id)
        if metadata_file is not None:
            _write(metadata_file, json.dumps(_metadata(image, exported), indent=2) + "\n")
    if not _uses_stdout(wanted):
        click.echo(image.image_id)


def _build(
    request: recipes.Request,
    options: Options,
    caches: Caches,
    store: Store,
    identity: Identity,
    *,
    start: Callable[[Identity], Isolation],
    network: Network,
    observe: Observer,
    clock: int | None,
) -> StoredImage:
    # The helper comes first: it is a fork of this process, and the smaller that is, the cheaper is every step.
    with start(identity) as sandbox:
        from layerbuild.build.loop import Build
        from layerbuild.build.running import Runner

        bases = recipes.make_bases(request, store, observe)
        runner = Runner(sandbox, network=network)
        with opened(request, store, options.credentials) as found:
            recipe = found.place.read_recipe()
            times = recipes.build_times(request, recipe, named=found.named, modified=found.modified)
            times = times if clock is None else replace(times, now=clock)
            plan = recipes.make_plan(request, recipe, bases, named=found.named, times=times)
            warn(request, found, recipe, bases.config, observe)
            build = Build(
                plan,
                store,
                bases,
                found.trees,
                found.remote,
                runner,
                options=options,
                times=times,
                observe=observe,
                caches=caches.sources(store),
            )
            try:
                image = build.run()
                caches.write(store, build, observe)
                return image
            except StepFailed as error:
                error.hint = _way_back(error)
                raise


def _way_back(error: StepFailed) -> str:
    """The hint of ``error``, and the line that enters the workspace where it came up."""
    if not error.workspace:
        return error.hint
    line = f"look around in it: {invocation()} shell {error.workspace[:12]}"
    return f"{error.hint}; {line}" if error.hint else line


def _outputs(texts: tuple[str, ...]) -> list[Output]:
    if not texts:
        return []
    from layerbuild.export.formats import Output

    return [Output.parse(text) for text in texts]


def _uses_stdout(outputs: list[Output]) -> bool:
    return any(output.dest == "-" for output in outputs)


def _destinations(output: Output, options: Options) -> tuple[Reference, ...]:
    """The names that ``output`` is pushed to; UsageError if there are none where there should be."""
    if not output.push:
        return ()
    names = output.names or options.names
    if not names:
        raise UsageError("nothing says where to push to", hint="build --tag NAME, or -o type=registry,name=NAME")
    return tuple(pushable(name) for name in names)


def _export(store: Store, image: StoredImage, outputs: list[Output], pushes: list[Pushing | None]) -> Descriptor:
    """Write the outputs; the manifest of what left last (a new compression makes a new one)."""
    from layerbuild.image.manifest import Descriptor

    digest = image.manifest_digest
    manifest = Descriptor(image.manifest.media_type, digest, store.blobs.size(digest))
    if outputs:
        from layerbuild.export.formats import write

        for output, pushing in zip(outputs, pushes, strict=True):
            if output.stays:
                manifest = deliver(store, image, output, pushing)
                continue
            exported = write(store, image, output, stdout=sys.stdout.buffer)
            for note in exported.notes:
                click.echo(f"{exported.dest}: {note}", err=True)
            manifest = exported.manifest
    return manifest


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key:
        raise UsageError(f"--label {text!r} has no key", hint="--label KEY=VALUE")
    return key, value if equals else ""


def _metadata(image: StoredImage, manifest: Descriptor) -> dict[str, Any]:
    """buildx's keys, so that what reads its file reads ours."""
    return {
        "containerimage.config.digest": image.image_id,
        "containerimage.digest": manifest.digest,
        "containerimage.descriptor": {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.size,
        },
        "image.name": ",".join(image.names),
    }


def _write(path: Path, text: str) -> None:
    # Whole or not at all: a script may wait for the file to appear.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
