"""``build``: from a recipe to an image in the store, and out of it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli import recipes
from layerbuild.cli.commands.lint import check, warn
from layerbuild.cli.console import observer
from layerbuild.cli.contexts import opened
from layerbuild.cli.credentials import allow_list, credentials, entitlements
from layerbuild.cli.place import inside, invocation
from layerbuild.cli.registries import Bringer
from layerbuild.errors import StepFailed, UsageError
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.build.options import Options
    from layerbuild.events import Observer
    from layerbuild.export.formats import Output
    from layerbuild.image.manifest import Descriptor
    from layerbuild.isolate.job import Network
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
@click.option("--secret", "secrets", metavar="id=…,src=…|env=…", multiple=True, help="Lend a secret to RUN --mount.")
@click.option("--ssh", "agents", metavar="ID[=SOCKET]", multiple=True, help="Lend an SSH agent to RUN --mount.")
@click.option("--allow", metavar="WHAT", multiple=True, help="Let RUN steps have it: security.insecure.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Stages at work at once.  [default: the number of cores]"
)
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
@click.option("--check", "check_only", is_flag=True, help="Build nothing; check the recipe, as `lint` does.")
def build(
    tags: tuple[str, ...],
    outputs: tuple[str, ...],
    labels: tuple[str, ...],
    network: str,
    secrets: tuple[str, ...],
    agents: tuple[str, ...],
    allow: tuple[str, ...],
    jobs: int | None,
    progress: str,
    quiet: bool,
    iidfile: Path | None,
    metadata_file: Path | None,
    fail_on_miss: bool,
    gate: str,
    allowed: Path | None,
    clock: int | None,
    check_only: bool,
    **shared: Any,
) -> None:
    """Build an image from the recipe in CONTEXT."""
    from layerbuild.build.options import Gate, Options

    request = recipes.request(**shared)
    if check_only:
        check(request)
        return
    wanted = _outputs(outputs)
    options = Options(
        names=tuple(Reference.parse(text) for text in tags),
        labels=tuple(_pair(text) for text in labels),
        no_cache=request.no_cache,
        entitlements=entitlements(allow),
        cache_namespace=request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        credentials=credentials(secrets, agents),
        jobs=jobs or len(os.sched_getaffinity(0)),
        fail_on_miss=fail_on_miss,
        gate=Gate(gate),
        allowed=allow_list(allowed),
        request=recipes.noted(request),
        remember=clock is None,
    )
    observe = observer("quiet" if quiet else progress)
    with inside() as (store, identity):
        options = replace(options, one_id=identity.one_id)
        store.supplier = Bringer(store, observe)
        reach: Network = "none" if network == "none" else "host"
        image = _build(request, options, store, identity, network=reach, observe=observe, clock=clock)
        exported = _export(store, image, wanted)
        if iidfile is not None:
            _write(iidfile, image.image_id)
        if metadata_file is not None:
            _write(metadata_file, json.dumps(_metadata(image, exported), indent=2) + "\n")
    if not _uses_stdout(wanted):
        click.echo(image.image_id)


def _build(
    request: recipes.Request,
    options: Options,
    store: Store,
    identity: Identity,
    *,
    network: Network,
    observe: Observer,
    clock: int | None,
) -> StoredImage:
    from layerbuild.isolate.sandbox import Sandbox

    # The helper comes first: it is a fork of this process, and the smaller that is, the cheaper is every step.
    with Sandbox.start(identity) as sandbox:
        from layerbuild.build.loop import Build
        from layerbuild.build.running import Runner

        bases = recipes.make_bases(request, store, observe)
        runner = Runner(sandbox, network=network)
        with opened(request, store) as found:
            recipe = found.place.read_recipe()
            times = recipes.build_times(request, recipe, named=found.named)
            times = times if clock is None else replace(times, now=clock)
            plan = recipes.make_plan(request, recipe, bases, named=found.named, times=times)
            warn(request, found, recipe, bases.config, observe)
            build = Build(
                plan, store, bases, found.trees, found.remote, runner, options=options, times=times, observe=observe
            )
            try:
                return build.run()
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


def _export(store: Store, image: StoredImage, outputs: list[Output]) -> Descriptor:
    """Write the outputs; the manifest of what left last (a new compression makes a new one)."""
    from layerbuild.image.manifest import Descriptor

    digest = image.manifest_digest
    manifest = Descriptor(image.manifest.media_type, digest, store.blobs.size(digest))
    if outputs:
        from layerbuild.export.formats import write

        for output in outputs:
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
