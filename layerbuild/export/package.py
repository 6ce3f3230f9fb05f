"""An image as it leaves: the exact bytes of its documents, its blobs, and the names that it gets.

::

    Parcel ─ Package             one image: configuration, manifest, layers
           └ Package … and index one image for each of several platforms, and the index over them

What leaves is what the store has, byte for byte, unless ``Wishes`` ask for other bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, cast

from layerbuild.digest import BlobDigest, DiffID, chain_ids
from layerbuild.errors import UsageError
from layerbuild.frozen import frozen
from layerbuild.image.annotations import (
    INDEX,
    INDEX_DESCRIPTOR,
    MANIFEST,
    MANIFEST_DESCRIPTOR,
    Annotation,
    chosen,
    chosen_for,
    refuse_index,
    with_pairs,
)
from layerbuild.image.config import MOST_LAYERS, ImageConfig, Pairs
from layerbuild.image.manifest import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    docker_layer_type,
    layer_codec,
    layer_media_type,
    oci_layer_type,
)
from layerbuild.image.manifest import Index as ImageIndex
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.layers import BlobRecord
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from layerbuild.layer.union import Union

PIECE = 1 << 20


@frozen
class Compression:
    """How layers are to be compressed: the codec's name, its level (None: its usual one).

    A layer that is in that form already stays as it is, whatever its level, unless ``force`` is set.
    """

    codec: str
    level: int | None = None
    force: bool = False


@frozen
class Wishes:
    """How an image is to leave. ``names`` empty: under those that it has. ``compression`` None: as it is.

    ``oci_types`` tells whose media types the documents bear, OCI's or Docker's; None: those that they have. The layers
    in ``kept`` keep their bytes, unless the compression is forced: a base's, which others have under that digest.
    An image with more than ``most_layers`` (None: than others run) does not leave as an image.
    """

    names: tuple[Reference, ...] = ()
    compression: Compression | None = None
    oci_types: bool | None = None
    annotations: tuple[Annotation, ...] = ()
    kept: frozenset[BlobDigest] = frozenset()
    most_layers: int | None = None


AS_IT_IS = Wishes()


@frozen
class Package:
    """One image. ``manifest_bytes`` are those that ``digest`` names, ``origin`` is the digest that it has in
    the store; ``annotations`` are for whatever names it."""

    store: Store
    config: ImageConfig
    manifest: Manifest
    manifest_bytes: bytes
    origin: BlobDigest
    names: tuple[Reference, ...] = ()
    annotations: Pairs = ()

    @property
    def digest(self) -> BlobDigest:
        """The manifest's digest."""
        return BlobDigest.of(self.manifest_bytes)

    @property
    def image_id(self) -> BlobDigest:
        return self.manifest.config.digest

    @property
    def descriptor(self) -> Descriptor:
        """What an index says of it, without a name."""
        return Descriptor(
            self.manifest.media_type,
            self.digest,
            len(self.manifest_bytes),
            annotations=self.annotations,
            platform=self.config.platform,
        )

    @property
    def stored_blobs(self) -> tuple[BlobDigest, ...]:
        """Configuration and layers, each once; the manifest is not among them, it may be new."""
        return tuple(dict.fromkeys((self.image_id, *(layer.digest for layer in self.manifest.layers))))

    @contextmanager
    def tree(self) -> Iterator[Union]:
        """The image's files, as a container would see them."""
        from layerbuild.layer.index import Index
        from layerbuild.layer.union import LayerView, Union, in_folder

        chains = chain_ids(self.config.diff_ids)
        snapshots = self.store.ensure_unpacked(chains[-1] if chains else None)
        with ExitStack() as stack:
            views = []
            for snapshot in reversed(snapshots):
                index = stack.enter_context(Index.open(self.store.layers.index_path(snapshot.diff_id)))
                views.append(LayerView(index, in_folder(snapshot.diff)))
            yield Union(views)


@frozen
class Parcel:
    """What leaves under one set of names. ``index_bytes`` is None for a single image. ``notes`` are for people."""

    packages: tuple[Package, ...]
    names: tuple[Reference, ...]
    index_bytes: bytes | None = None
    index_type: str = OCI_INDEX
    annotations: Pairs = ()
    notes: tuple[str, ...] = ()

    @property
    def descriptor(self) -> Descriptor:
        """What the names mean: the manifest or the index."""
        if self.index_bytes is None:
            return self.packages[0].descriptor
        digest = BlobDigest.of(self.index_bytes)
        return Descriptor(self.index_type, digest, len(self.index_bytes), annotations=self.annotations)

    @property
    def store(self) -> Store:
        return self.packages[0].store

    @property
    def documents(self) -> dict[BlobDigest, bytes]:
        """Manifests and index by digest; they may be new, and not in the store."""
        found = {package.digest: package.manifest_bytes for package in self.packages}
        return found if self.index_bytes is None else found | {BlobDigest.of(self.index_bytes): self.index_bytes}

    def check_depth(self, most: int | None) -> None:
        """UsageError if an image in it has more layers than ``most``, None: than others run."""
        most = MOST_LAYERS if most is None else most
        deepest = max(len(package.manifest.layers) for package in self.packages)
        if deepest > most:
            limit = f"Docker runs none with more than {MOST_LAYERS}" if most == MOST_LAYERS else f"{most} are allowed"
            raise UsageError(
                f"the image has {deepest} layers: {limit}",
                hint=f"join RUNs, or copy the files into a new stage; or all the same: --max-layers {deepest}",
            )


def pack(
    store: Store,
    found: StoredImage | StoredIndex,
    wishes: Wishes = AS_IT_IS,
    *,
    unnamed: bool = False,
    bring: bool = True,
) -> Parcel:
    """The image, or the images of an index, as ``wishes`` want them; ``unnamed``: without any name; not ``bring``: a
    layer that has not come need not.

    New blobs are kept in the store, so that the same export costs nothing the next time; what has not come yet is
    brought. Of an index leaves what the
    store holds of it, with a note of what it does not hold. UsageError for wishes that contradict each other.
    """
    if wishes.annotations and wishes.oci_types is False:
        raise UsageError("Docker's media types have no annotations", hint="leave oci-mediatypes out")
    own = () if unnamed else tuple(Reference.parse(name) for name in found.names)
    names = wishes.names or own
    if isinstance(found, StoredImage):
        refuse_index(wishes.annotations)
        return Parcel((_package(store, found, names, wishes, bring=bring),), names)
    packages = tuple(_package(store, image, names, wishes, bring=bring) for image in found.images)
    note = _left_out(found)
    if not packages:
        raise UsageError("the store holds none of the images of this index", hint="pull or import one of them")
    if len(packages) == 1:
        return Parcel(packages, names, notes=note)
    annotations = chosen(wishes.annotations, INDEX_DESCRIPTOR)
    index = _index(found.index, packages, wishes)
    unchanged = index == found.index
    data = store.blobs.read(found.digest) if unchanged else index.to_json()
    return Parcel(packages, names, data, index.media_type, annotations, note)


def keep(parcel: Parcel) -> None:
    """Put the parcel's images, and its index, into the store where they are new, and give them the parcel's names."""
    store = parcel.store
    for package in parcel.packages:
        store.images.put(package.manifest_bytes, store.blobs.read(package.image_id))
    if parcel.index_bytes is not None:
        store.images.put_index(parcel.index_bytes)
    for name in parcel.names:
        store.images.tag(name, parcel.descriptor.digest)


def _left_out(found: StoredIndex) -> tuple[str, ...]:
    held = {image.manifest_digest for image in found.images}
    absent = dict.fromkeys(
        "attestations" if entry.is_attestation else str(entry.platform or entry.digest.short)
        for entry in found.index.manifests
        if entry.digest not in held
    )
    return (f"left out, as the store does not hold it: {', '.join(absent)}",) if absent else ()


def _index(index: ImageIndex, packages: Sequence[Package], wishes: Wishes) -> ImageIndex:
    """``index`` with what it says of ``packages`` made true, and without the rest."""
    held = [entry for entry in index.manifests if any(entry.digest == package.origin for package in packages)]
    entries = tuple(
        replace(
            entry,
            media_type=package.manifest.media_type,
            digest=package.digest,
            size=len(package.manifest_bytes),
            annotations=with_pairs(entry.annotations, package.annotations),
        )
        for entry, package in zip(held, packages, strict=True)
    )
    media_type = index.media_type
    if wishes.oci_types is not None:
        media_type = OCI_INDEX if wishes.oci_types else DOCKER_LIST
    annotations = with_pairs(index.annotations, chosen(wishes.annotations, INDEX))
    return replace(index, manifests=entries, media_type=media_type, annotations=annotations)


def _package(store: Store, image: StoredImage, names: tuple[Reference, ...], wishes: Wishes, *, bring: bool) -> Package:
    if bring or wishes.compression is not None:
        store.require_blobs(image)
    manifest, platform = image.manifest, image.config.platform
    if wishes.compression is not None:
        manifest = _compressed_manifest(store, image, wishes)
    if wishes.oci_types is not None:
        manifest = _typed(manifest, oci=wishes.oci_types)
    of_manifest = chosen_for(wishes.annotations, MANIFEST, platform)
    manifest = replace(manifest, annotations=with_pairs(manifest.annotations, of_manifest))
    of_entry = chosen_for(wishes.annotations, MANIFEST_DESCRIPTOR, platform)
    unchanged = manifest == image.manifest
    data = store.blobs.read(image.manifest_digest) if unchanged else manifest.to_json()
    return Package(store, image.config, manifest, data, image.manifest_digest, names, of_entry)


def _compressed_manifest(store: Store, image: StoredImage, wishes: Wishes) -> Manifest:
    assert wishes.compression is not None  # its caller has asked
    layers = tuple(
        converted(store, descriptor, diff_id, wishes.compression, kept=descriptor.digest in wishes.kept)
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True)
    )
    config = replace(image.manifest.config, media_type=OCI_CONFIG)
    return replace(image.manifest, config=config, layers=layers, media_type=OCI_MANIFEST)


def _typed(manifest: Manifest, *, oci: bool) -> Manifest:
    layers = tuple(replace(layer, media_type=_layer_type(layer, oci=oci)) for layer in manifest.layers)
    config = replace(manifest.config, media_type=OCI_CONFIG if oci else DOCKER_CONFIG)
    return replace(manifest, config=config, layers=layers, media_type=OCI_MANIFEST if oci else DOCKER_MANIFEST)


def _layer_type(layer: Descriptor, *, oci: bool) -> str:
    return oci_layer_type(layer.media_type) if oci else docker_layer_type(layer_codec(layer.media_type))


def converted(
    store: Store, layer: Descriptor, diff_id: DiffID, wanted: Compression, *, kept: bool = False
) -> Descriptor:
    """The layer in the form that is ``wanted``; the store keeps its new blob. ``kept``: as it is, unless forced."""
    record = store.layers.get(diff_id)
    assert record is not None, diff_id  # an image in the store has its layers recorded
    if not wanted.force:
        if kept or layer_codec(layer.media_type) == wanted.codec:
            return replace(layer, media_type=oci_layer_type(layer.media_type))
        for blob in record.blobs:
            if blob.codec == wanted.codec and store.blobs.has(blob.digest):
                return _described(layer, blob)
    source = next(blob for blob in record.blobs if blob.digest == layer.digest)
    blob = _compressed(store, source, wanted)
    store.layers.add(replace(record, blobs=(blob,)))
    return _described(layer, blob)


def _described(layer: Descriptor, blob: BlobRecord) -> Descriptor:
    return replace(layer, media_type=layer_media_type(blob.codec), digest=blob.digest, size=blob.size)


def _compressed(store: Store, source: BlobRecord, wanted: Compression) -> BlobRecord:
    import shutil

    from layerbuild.layer.codecs import compress, named

    with store.blobs.open(source.digest) as reader, store.blobs.writer() as writer:
        compressor = compress(named(wanted.codec), writer, level=wanted.level)
        shutil.copyfileobj(named(source.codec).decompressor(cast(BinaryIO, reader)), compressor, PIECE)
        reader.finish()
        compressor.close()
        digest, size = writer.commit()
    return BlobRecord(digest, size, wanted.codec)
