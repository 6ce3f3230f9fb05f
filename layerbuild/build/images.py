"""The image that a build comes to: what the request adds to it, its manifest, and its names in the store."""

from __future__ import annotations

from dataclasses import replace

from layerbuild.build.bases import Bases
from layerbuild.build.options import Options
from layerbuild.digest import BlobDigest, DiffID
from layerbuild.image.config import ImageConfig
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_media_type, oci_layer_type
from layerbuild.steps import ImageBase, LayerPlan
from layerbuild.store.buildcache import BuildCache, with_inline
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store


class ImageWriter:
    """Writes the image of the target of ``plan``."""

    def __init__(self, plan: LayerPlan, store: Store, bases: Bases, options: Options) -> None:
        self._plan = plan
        self._store = store
        self._bases = bases
        self._options = options

    @property
    def base_blobs(self) -> frozenset[BlobDigest]:
        """The layers that the base brings, as blobs: what is exported has them in these bytes."""
        return frozenset(descriptor.digest for _, descriptor in self._of_base())

    def as_asked(self, image: Image) -> Image:
        """``image`` with the platform and the labels that were asked for."""
        if self._options.platform is not None:
            # As BuildKit: an image says that it is for the platform that was asked for, whatever its base says.
            asked = self._options.platform
            platform = replace(
                image.config.platform, os=asked.os, architecture=asked.architecture, variant=asked.variant
            )
            image = Image.of_base(replace(image.config, platform=platform))
        if self._options.labels:
            runtime = image.config.config
            labels = tuple(sorted({**dict(runtime.labels), **dict(self._options.labels)}.items()))
            image = image.with_step(None, replace(runtime, labels=labels))
        return image

    def write(self, image: Image, records: BuildCache) -> StoredImage:
        """Put ``image`` into the store, with the names of the options; ``records`` go into its configuration if an
        inline cache is asked for."""
        image = replace(image, config=with_inline(image.config, records if self._options.inline_cache else None))
        manifest = image.manifest(self._descriptors(image.config), annotations=self._options.annotations)
        stored = self._store.images.put(manifest.to_json(), image.config.to_json())
        for name in self._options.names:
            self._store.images.tag(name, stored.manifest_digest)
        return replace(stored, names=tuple(sorted(str(name) for name in self._options.names)))

    def descriptor(self, diff_id: DiffID) -> Descriptor | None:
        """The blob of a layer, compressed as asked for if there is one; None: the store does not know the layer."""
        layer = self._store.layers.get(diff_id)
        if layer is None:
            return None
        blob = next((blob for blob in layer.blobs if blob.codec == self._options.codec), layer.blobs[0])
        return Descriptor(layer_media_type(blob.codec), blob.digest, blob.size)

    def _descriptors(self, config: ImageConfig) -> list[Descriptor]:
        """The blob of each layer: a base's as its own manifest names it, ours as the store has it."""
        known = self._of_base()
        descriptors = []
        for position, diff_id in enumerate(config.diff_ids):
            if position < len(known) and known[position][0] == diff_id:
                base = known[position][1]
                descriptors.append(replace(base, media_type=oci_layer_type(base.media_type)))
                continue
            descriptor = self.descriptor(diff_id)
            assert descriptor is not None, diff_id  # a snapshot's layer outlives it
            descriptors.append(descriptor)
        return descriptors

    def _of_base(self) -> list[tuple[str, Descriptor]]:
        stage = self._plan.lineage[-1]
        if not isinstance(stage.base, ImageBase):
            return []
        base = self._bases.image(stage.base.reference, stage.platform)
        return list(zip(base.config.diff_ids, base.manifest.layers, strict=True))
