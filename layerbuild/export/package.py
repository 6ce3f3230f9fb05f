"""An image as it leaves: the exact bytes of its manifest and configuration, its blobs, and the names that it gets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from layerbuild.digest import BlobDigest, DiffID, chain_ids
from layerbuild.image.config import ImageConfig
from layerbuild.image.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, layer_codec, layer_media_type
from layerbuild.layer.codecs import compress, named
from layerbuild.layer.index import Index
from layerbuild.layer.union import LayerView, Union
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord
from layerbuild.store.store import Store

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Compression:
    """How layers are to be compressed: the codec's name, its level (None: its usual one).

    A layer that is in that form already stays as it is, whatever its level, unless ``force`` is set.
    """

    codec: str
    level: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Package:
    """What an exporter writes. ``manifest_bytes`` are those that ``digest`` names."""

    store: Store
    config: ImageConfig
    manifest: Manifest
    manifest_bytes: bytes
    names: tuple[Reference, ...]

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
            self.manifest.media_type, self.digest, len(self.manifest_bytes), platform=self.config.platform
        )

    @property
    def stored_blobs(self) -> tuple[BlobDigest, ...]:
        """Configuration and layers, each once; the manifest is not among them, it may be new."""
        return tuple(dict.fromkeys((self.image_id, *(layer.digest for layer in self.manifest.layers))))

    @contextmanager
    def tree(self) -> Iterator[Union]:
        """The image's files, as a container would see them."""
        chains = chain_ids(self.config.diff_ids)
        snapshots = self.store.ensure_unpacked(chains[-1] if chains else None)
        with ExitStack() as stack:
            views = []
            for snapshot in reversed(snapshots):
                index = stack.enter_context(Index.open(self.store.layers.index_path(snapshot.diff_id)))
                views.append(LayerView(index, snapshot.diff))
            yield Union(views)


def pack(
    store: Store, image: StoredImage, *, names: tuple[Reference, ...], compression: Compression | None = None
) -> Package:
    """The image as it is in the store, byte for byte; with ``compression``, under a new manifest for its new blobs.

    The new blobs are kept in the store, so that the same export costs nothing the next time. What is not here yet is
    brought.
    """
    store.require_blobs(image)
    if compression is None:
        return Package(store, image.config, image.manifest, store.blobs.read(image.manifest_digest), names)
    layers = tuple(
        converted(store, descriptor, diff_id, compression)
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True)
    )
    config = Descriptor(OCI_CONFIG, image.image_id, store.blobs.size(image.image_id))
    manifest = replace(image.manifest, config=config, layers=layers, media_type=OCI_MANIFEST)
    return Package(store, image.config, manifest, manifest.to_json(), names)


def converted(store: Store, layer: Descriptor, diff_id: DiffID, wanted: Compression) -> Descriptor:
    """The layer in the form that is ``wanted``; the store keeps its new blob."""
    record = store.layers.get(diff_id)
    assert record is not None, diff_id  # an image in the store has its layers recorded
    if not wanted.force:
        if layer_codec(layer.media_type) == wanted.codec:
            return replace(layer, media_type=layer_media_type(wanted.codec))
        for blob in record.blobs:
            if blob.codec == wanted.codec and store.blobs.has(blob.digest):
                return replace(layer, media_type=layer_media_type(blob.codec), digest=blob.digest, size=blob.size)
    source = next(blob for blob in record.blobs if blob.digest == layer.digest)
    blob = _compressed(store, source, wanted)
    store.layers.add(replace(record, blobs=(blob,)))
    return replace(layer, media_type=layer_media_type(blob.codec), digest=blob.digest, size=blob.size)


def _compressed(store: Store, source: BlobRecord, wanted: Compression) -> BlobRecord:
    with store.blobs.open(source.digest) as reader, store.blobs.writer() as writer:
        compressor = compress(named(wanted.codec), writer, level=wanted.level)
        shutil.copyfileobj(named(source.codec).decompressor(cast(BinaryIO, reader)), compressor, PIECE)
        reader.finish()
        compressor.close()
        digest, size = writer.commit()
    return BlobRecord(digest, size, wanted.codec)
