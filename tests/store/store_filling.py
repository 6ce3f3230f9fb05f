"""What can be put into a store without running anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import zstandard

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.image.config import History, ImageConfig, Platform, RuntimeConfig
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_media_type
from layerbuild.reference import Reference
from layerbuild.store.cache import StepRecord
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.space import disk_errors
from layerbuild.store.store import Store

LINUX = Platform("linux", "amd64")


@dataclass(frozen=True)
class Fill:
    """Puts things into a store. A layer is named by a text, which stands in for its tar."""

    store: Store

    def layer(self, text: str) -> LayerRecord:
        data = f"tar of {text}".encode()
        diff_id = DiffID.of(data)
        index = self.store.layers.temporary_index()
        with disk_errors(index):
            index.write_text(f"index of {text}\n")
        self.store.layers.adopt_index(index, diff_id)
        blob = BlobRecord(self.store.blobs.add(data), len(data), "none")
        return LayerRecord(diff_id, len(data), 1, (blob,))

    def snapshot(self, parent: ChainID | None, text: str) -> Snapshot:
        workspace = self.store.workspaces.begin(parent)
        (workspace.diff / text).write_text(text)
        return self.store.workspaces.commit(workspace, self.layer(text))

    def image(self, *texts: str, names: tuple[str, ...] = (), label: str = "") -> StoredImage:
        """An image with a snapshot for each of ``texts``, bottom first."""
        image, chain, blobs = Image.of_base(ImageConfig(LINUX)), None, []
        for text in texts:
            chain = self.snapshot(chain, text).chain
            layer = self.layer(text)
            image = image.with_step(History(created_by=f"RUN {text}"), RuntimeConfig(), layer=layer.diff_id)
            blobs.append(Descriptor(layer_media_type("none"), layer.blobs[0].digest, layer.blobs[0].size))
        image = image.with_step(History(created_by="LABEL"), RuntimeConfig(labels=(("label", label),)))
        stored = self.store.images.put(image.manifest(blobs).to_json(), image.config.to_json())
        for name in names:
            self.store.images.tag(Reference.parse(name), stored.manifest_digest)
        return self.store.images.resolve(stored.manifest_digest)


def keep_listing(store: Store, text: bytes) -> BlobDigest:
    """Put a listing into the step cache."""
    digest = BlobDigest.of(text)
    store.cache.put_listing(digest, zstandard.ZstdCompressor().compress(text))
    return digest


def record(snapshot: Snapshot, **changes: Any) -> StepRecord:
    made = StepRecord(
        definition_key="definition",
        content_key="content",
        parent=snapshot.parent,
        chain=snapshot.chain,
        diff_id=snapshot.diff_id,
        inputs={"command": "make", "env PATH": "/bin"},
        instruction="RUN make",
        image="app",
        seconds=1.5,
        created=100.0,
    )
    return replace(made, **changes)
