"""``verify``: whether an image is what it claims, and whether a recipe gives the same bytes twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from layerbuild.cli.console import emit, format_option
from layerbuild.cli.failures import trouble
from layerbuild.cli.operands import layer_things, place_of, refuse_path, tells_registry
from layerbuild.cli.options import isolation, limits, outputs, sources
from layerbuild.cli.options.command import CACHE, Command, Option
from layerbuild.cli.place import inside, reading
from layerbuild.errors import NotFoundError, UsageError
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.cli.options.isolation import Way
    from layerbuild.cli.options.sources import Request
    from layerbuild.cli.rehearsal import Twice
    from layerbuild.image.config import Platform
    from layerbuild.intake.claims import Claim
    from layerbuild.isolate.limits import Limits
    from layerbuild.store.builds import BuildRecord, StepAccount
    from layerbuild.store.images import StoredImage
    from layerbuild.store.store import Store
    from layerbuild.views.verify import Repeated, StepDifference


@click.command(cls=Command)
@sources.options
@outputs.label
@isolation.options
@limits.options
@format_option
def verify(request: Request, labels: tuple[str, ...], way: Way, most: Limits, output_format: str) -> None:
    """Recompute every claim of an image, or build a recipe twice and compare.

    CONTEXT is a folder with a recipe: then it is built twice without the cache, the second time under another clock,
    host name, umask, order of folders and number of cores. Or it is an image in the store, an OCI layout or docker
    archive on the disk, or an image named with its registry: then all digests, sizes, diff IDs, chain IDs, histories,
    media types and whiteouts are checked. The exit code is 0 if all holds, 1 if something does not, 2 and above if it
    can't be found out.
    """
    ctx = click.get_current_context()
    with trouble(ctx):
        wrong = (
            _recipe(request, _spelled(ctx), output_format) if _is_recipe(request) else _image(request, output_format)
        )
    ctx.exit(1 if wrong else 0)


def _spelled(ctx: click.Context) -> list[str]:
    """What ``build`` is to be given besides the context. Nothing of the cache, since both builds are without it."""
    words = []
    for param in ctx.command.params:
        name = str(param.name)
        if not isinstance(param, Option) or param.heading == CACHE:
            continue
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        option = next(each for each in param.opts if each.startswith("--"))
        if param.is_flag:
            words.append(option)
        else:
            words += [f"{option}={each}" for each in (value if param.multiple else (value,))]
    return words


def _is_recipe(request: Request) -> bool:
    from layerbuild.build.origins import is_url, repository

    folder = Path(request.context)
    if request.recipe is not None or is_url(request.context) or repository(request.context) is not None:
        return True
    return folder.is_dir() and any((folder / name).is_file() for name in ("Dockerfile", "dockerfile"))


# -- an image ----------------------------------------------------------------------------------------------------------


def _image(request: Request, output_format: str) -> bool:
    from layerbuild.views.verify import Broken, image_json, image_text

    text = request.context
    broken = [Broken(claim.subject, claim.text, claim.remark) for claim in _claims(text, request)]
    emit(output_format, image_json(text, broken), lambda: image_text(text, broken))
    return any(not found.remark for found in broken)


def _claims(text: str, request: Request) -> Iterator[Claim]:
    with reading() as store:
        try:
            image = store.images.resolve(text, platform=request.platform if request.platforms else None)
        except NotFoundError:
            place = place_of(text)
            if place is None and not tells_registry(text):
                refuse_path(text)
                raise
            yield from _file_claims(store, *place) if place else _registry_claims(store, text, request.platform)
            return
        if store.is_here(image.top):
            yield from _stored_claims(store, image)
            return
    with inside() as (store, _):
        store.require_blobs(image)
        yield from _stored_claims(store, image)


def _stored_claims(store: Store, image: StoredImage) -> Iterator[Claim]:
    from layerbuild.image.manifest import Descriptor
    from layerbuild.intake.claims import check_image
    from layerbuild.intake.members import FolderMembers

    # The store itself is an OCI layout.
    size = store.blobs.size(image.manifest_digest)
    manifest = Descriptor(image.manifest.media_type, image.manifest_digest, size)
    yield from check_image(FolderMembers(store.root), manifest)
    yield from _chains(store, image)


def _file_claims(store: Store, path: Path, tag: str) -> Iterator[Claim]:
    from layerbuild.intake.claims import check_archive, check_layout
    from layerbuild.intake.load import Shape, opened, shape_of

    with opened(store, path) as members:
        match shape_of(members.has):
            case Shape.OCI_LAYOUT:
                yield from check_layout(members, tag=tag)
            case Shape.DOCKER_ARCHIVE:
                yield from check_archive(members, name=tag)
            case Shape.V1_ARCHIVE:
                hint = "`layerbuild load` makes an image of it, which can be"
                raise UsageError(f"{path} is an archive of before Docker 1.10, which claims no digest", hint=hint)
            case Shape.ROOTFS:
                hint = "an OCI layout has oci-layout and index.json, a docker archive manifest.json"
                raise UsageError(f"{path} is no image that could be verified", hint=hint)


def _registry_claims(store: Store, text: str, platform: Platform) -> Iterator[Claim]:
    from layerbuild.cli.registries import client
    from layerbuild.intake.claims import check_image
    from layerbuild.registry.unverified import unverified

    folder = store.temporary_name()
    folder.mkdir()
    try:
        members, manifest = unverified(client(), Reference.parse(text), platform, folder=folder)
        yield from check_image(members, manifest)
    finally:
        shutil.rmtree(folder)


def _chains(store: Store, image: StoredImage) -> Iterator[Claim]:
    from layerbuild.intake.claims import Claim

    parent = None
    for diff_id, chain in zip(image.config.diff_ids, image.chains, strict=True):
        snapshot = store.snapshots.get(chain)
        if snapshot is not None and (snapshot.parent, snapshot.diff_id) != (parent, diff_id):
            yield Claim(f"snapshot {chain}", "is recorded as another layer, or on another one")
        record = store.layers.get(diff_id)
        if record is None:
            yield Claim(f"layer {diff_id}", "is not recorded in the store")
        parent = chain


# -- a recipe ----------------------------------------------------------------------------------------------------------


def _recipe(request: Request, arguments: list[str], output_format: str) -> bool:
    from layerbuild.cli.rehearsal import build_twice
    from layerbuild.views.verify import repeated_json, repeated_text

    if len(request.platforms) > 1:
        raise UsageError("a recipe is verified for one platform at a time", hint="name one with --platform")
    if "-" in (request.context, request.recipe):
        raise UsageError("standard input can be read once, and a recipe is built twice", hint="give it as a file")
    began = time.time()
    twice = build_twice(request, arguments)
    with reading(contents=True) as store:
        records = [_record(store, manifest) for manifest in twice.manifests]
        try:
            found = _compared(store, twice, records)
        finally:
            _forget(store, records, began)
    emit(output_format, repeated_json(found), lambda: repeated_text(found))
    return found.differs


def _record(store: Store, manifest: str) -> BuildRecord:
    """The record of the newest build that made it; of two equal ones both stay until they are forgotten."""
    image = store.images.resolve(manifest)
    record = store.builds.of_image(image.manifest_digest)
    assert record is not None, manifest  # it has just ended
    return record


def _compared(store: Store, twice: Twice, records: list[BuildRecord]) -> Repeated:
    from layerbuild.views.diff import compare_config
    from layerbuild.views.verify import Repeated

    first, second = (store.images.resolve(manifest) for manifest in twice.manifests)
    pairs = zip(records[0].steps, records[1].steps, strict=True)
    steps = tuple(_difference(store, one, two) for one, two in pairs if one.diff_id != two.diff_id)
    return Repeated(
        images=(first.image_id, second.image_id),
        several=len(records[0].stages) > 1,
        varied=twice.varied,
        same=twice.same,
        config=tuple(compare_config(first.config, second.config)),
        steps=steps,
    )


def _difference(store: Store, one: StepAccount, two: StepAccount) -> StepDifference:
    from layerbuild.views.diff import compare
    from layerbuild.views.verify import StepDifference

    with ExitStack() as cleaning:
        sides = [
            iter(()) if step.diff_id is None else layer_things(store, step.diff_id, cleaning) for step in (one, two)
        ]
        paths = tuple(compare(sides[0], sides[1], times=True, text=True))
    return StepDifference(two, paths)


def _forget(store: Store, records: list[BuildRecord], began: float) -> None:
    """Take away what a rehearsal leaves: both records, and the images, unless they were there before."""
    made = {record.image for record in records}
    for record in store.builds.all():
        if record.image in made and record.began >= began:
            store.builds.remove(record.number)
    for image in store.images.list():
        if image.manifest_digest in made and not image.names and image.created_at >= began:
            store.images.remove(image.manifest_digest)
