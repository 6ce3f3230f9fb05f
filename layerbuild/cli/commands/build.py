"""``build``: from a recipe to an image in the store, and out of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli import recipes
from layerbuild.cli.commands.lint import check, warn
from layerbuild.cli.console import observer
from layerbuild.cli.contexts import opened
from layerbuild.cli.credentials import credentials, entitlements
from layerbuild.cli.place import inside, invocation, write_whole
from layerbuild.cli.rawjson import errors_as_events
from layerbuild.cli.registries import Bringer
from layerbuild.errors import StepFailed, UsageError
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.build.loop import Build
    from layerbuild.build.options import Options
    from layerbuild.digest import BlobDigest
    from layerbuild.events import Observer
    from layerbuild.export.formats import Output
    from layerbuild.image.annotations import Annotation
    from layerbuild.image.config import Platform
    from layerbuild.image.manifest import Descriptor
    from layerbuild.isolate.job import Network
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
@click.option("--secret", "secrets", metavar="id=…,src=…|env=…", multiple=True, help="Lend a secret to RUN --mount.")
@click.option("--ssh", "agents", metavar="ID[=SOCKET]", multiple=True, help="Lend an SSH agent to RUN --mount.")
@click.option("--allow", metavar="WHAT", multiple=True, help="Let RUN steps have it: security.insecure.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Stages at work at once.  [default: the number of cores]"
)
@click.option("--progress", default="auto", metavar="STYLE", help="auto, plain, quiet or rawjson.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the image ID.")
@click.option("--iidfile", type=click.Path(path_type=Path), help="Write the image ID (an index's digest) to this file.")
@click.option(
    "--digest-file", type=click.Path(path_type=Path), help="Write the digest of what was exported to this file."
)
@click.option("--metadata-file", type=click.Path(path_type=Path), help="Write digests and names to this file, as JSON.")
@click.option("--check", "check_only", is_flag=True, help="Build nothing; check the recipe, as `lint` does.")
@errors_as_events
def build(
    tags: tuple[str, ...],
    outputs: tuple[str, ...],
    annotations: tuple[str, ...],
    labels: tuple[str, ...],
    network: str,
    secrets: tuple[str, ...],
    agents: tuple[str, ...],
    allow: tuple[str, ...],
    jobs: int | None,
    progress: str,
    quiet: bool,
    iidfile: Path | None,
    digest_file: Path | None,
    metadata_file: Path | None,
    check_only: bool,
    **shared: Any,
) -> None:
    """Build an image from the recipe in CONTEXT."""
    from layerbuild.build.options import Options

    request = recipes.request(**shared)
    if check_only:
        check(request)
        return
    platforms = max(1, len(request.platforms))
    asked = _annotations(annotations, platforms=platforms)
    wanted = _outputs(outputs, asked, platforms=platforms)
    files = {"id": iidfile, "digest": digest_file, "metadata": metadata_file}
    _remove_stale(files.values())
    options = Options(
        names=tuple(Reference.parse(text) for text in tags),
        labels=tuple(_pair(text) for text in labels),
        no_cache=request.no_cache,
        entitlements=entitlements(allow),
        cache_namespace=request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        credentials=credentials(secrets, agents),
        jobs=jobs or len(os.sched_getaffinity(0)),
    )
    observe = observer("quiet" if quiet else progress)
    with inside() as (store, identity):
        options = replace(options, one_id=identity.one_id)
        store.supplier = Bringer(store, observe)
        reach: Network = "none" if network == "none" else "host"
        built = _build(request, options, store, identity, network=reach, annotations=asked, observe=observe)
        descriptor = _export(store, built, wanted, observe)
        _tell(files, built.found, descriptor)
    if not _uses_stdout(wanted):
        click.echo(_identifier(built.found))


@dataclass(frozen=True, slots=True)
class Built:
    """What a build came to; ``base_blobs`` are the layers that its bases brought."""

    found: StoredImage | StoredIndex
    base_blobs: frozenset[BlobDigest]


def _build(
    request: recipes.Request,
    options: Options,
    store: Store,
    identity: Identity,
    *,
    network: Network,
    annotations: tuple[Annotation, ...],
    observe: Observer,
) -> Built:
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
                    )
                )
            warn(request, found, recipe, bases.config, observe)
            try:
                return _carry_out(builds, store, options.names, annotations, observe)
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


def _export(store: Store, built: Built, outputs: list[Output], observe: Observer) -> Descriptor:
    """Write the outputs; the manifest or index of what left last (a new compression makes a new one)."""
    from layerbuild.export.package import describe

    descriptor = describe(store, built.found)
    if outputs:
        from layerbuild.events import Note
        from layerbuild.export.formats import write

        for output in outputs:
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


def _identifier(found: StoredImage | StoredIndex) -> str:
    """The image ID; an index has none, and is known by its digest."""
    return getattr(found, "image_id", found.digest)


def _tell(files: Mapping[str, Path | None], found: StoredImage | StoredIndex, descriptor: Descriptor) -> None:
    """Write the files that were asked for: for a script that waits for them, whole or not at all."""
    metadata = json.dumps(_metadata(found, descriptor), indent=2) + "\n"
    texts = {"id": _identifier(found), "digest": descriptor.digest, "metadata": metadata}
    for kind, path in files.items():
        if path is not None:
            write_whole(path, texts[kind])


def _metadata(found: StoredImage | StoredIndex, descriptor: Descriptor) -> dict[str, Any]:
    """buildx's keys, so that what reads its file reads ours. Its ``buildx.build.ref`` names a record that a daemon
    keeps of the build; there is none."""
    told: dict[str, Any] = {
        "containerimage.config.digest": getattr(found, "image_id", None),
        "containerimage.digest": descriptor.digest,
        "containerimage.descriptor": json.loads(descriptor.to_json()),
        "image.name": ",".join(found.names),
    }
    return {key: value for key, value in told.items() if value is not None}


def _remove_stale(paths: Iterable[Path | None]) -> None:
    """What an earlier build told must not be taken for what this one tells, should it fail."""
    for path in paths:
        if path is not None:
            path.unlink(missing_ok=True)
