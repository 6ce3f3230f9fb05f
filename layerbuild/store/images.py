"""Images by name, by image ID and by manifest digest; and ``index.json``, the same names for other programs."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from layerbuild.digest import BlobDigest, ChainID, chain_ids
from layerbuild.errors import FormatError, LayerbuildError, NotFoundError, StoreError, UsageError
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.manifest import Descriptor, Index, Manifest
from layerbuild.reference import Reference
from layerbuild.store.blobs import Blobs
from layerbuild.store.database import Database, Row
from layerbuild.store.durable import replace_file
from layerbuild.store.layers import Layers
from layerbuild.store.space import disk_errors

#: image-spec annotations.md; containerd's own annotation holds the complete name, as BuildKit writes it.
REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_COLUMNS = "manifest, config, created"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image for one platform. ``names`` are complete references, sorted; none: the image is dangling.

    ``created_at`` tells when it came into the store, in seconds since 1970.
    """

    manifest_digest: BlobDigest
    image_id: BlobDigest
    config: ImageConfig
    manifest: Manifest
    names: tuple[str, ...]
    created_at: float

    @property
    def chains(self) -> tuple[ChainID, ...]:
        """The chain ID of each layer, bottom first."""
        return chain_ids(self.config.diff_ids)

    @property
    def top(self) -> ChainID | None:
        """The chain ID of its whole stack; None: no layers."""
        return self.chains[-1] if self.config.diff_ids else None

    @property
    def blobs(self) -> frozenset[BlobDigest]:
        """Every blob that it consists of."""
        layers = (layer.digest for layer in self.manifest.layers)
        return frozenset((self.manifest_digest, self.image_id, *layers))


@dataclass(frozen=True, slots=True)
class Removed:
    """What ``remove`` did: the names taken away, and the image that went, None if it has other names."""

    untagged: tuple[str, ...]
    deleted: BlobDigest | None


class Images:
    """The images of a store. What is said here about a name is on the disk when the method returns."""

    def __init__(
        self, database: Database, blobs: Blobs, layers: Layers, index: Path, *, temporary: Callable[[], Path]
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._layers = layers
        self._temporary = temporary
        self.index = index

    def put(self, manifest: bytes, config: bytes) -> StoredImage:
        """Store an image, in exactly these bytes. Its layers must be recorded, as here or as expected (``Sources``);
        StoreError names those that are not.

        FormatError if the bytes are no manifest and configuration, or do not belong together.
        """
        digest, image_id = BlobDigest.of(manifest), BlobDigest.of(config)
        read, configuration = Manifest.from_json(manifest), ImageConfig.from_json(config)
        self._check(read, configuration, image_id)
        for data in (config, manifest):
            self._blobs.add(data)
        descriptor = Descriptor(read.media_type, digest, len(manifest), platform=configuration.platform)
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT OR IGNORE INTO image (manifest, config, descriptor, created) VALUES (?, ?, ?, ?)",
                (digest, image_id, descriptor.to_json(), time.time()),
            )
        return self._by_manifest(digest)

    def tag(self, reference: Reference, manifest: BlobDigest) -> None:
        """Give the image a name, taking it from whichever image had it; NotFoundError if there is no such image."""
        if self._database.row("SELECT 1 FROM image WHERE manifest = ?", (manifest,)) is None:
            raise NotFoundError(f"the store has no image with the manifest {manifest}")
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT INTO name (reference, manifest) VALUES (?, ?) "
                "ON CONFLICT (reference) DO UPDATE SET manifest = excluded.manifest",
                (str(reference), manifest),
            )
            self.write_index()

    def remember(self, reference: Reference, platform: Platform, manifest: BlobDigest) -> None:
        """Note that a name stands for this image on a platform; the name itself stays with whichever image has it."""
        self._database.execute(
            "INSERT OR REPLACE INTO variant (reference, platform, manifest) VALUES (?, ?, ?)",
            (str(reference), str(platform), manifest),
        )

    def for_platform(self, reference: Reference, platform: Platform) -> StoredImage | None:
        """What a name was last found to stand for on a platform; None: it was not asked for."""
        row = self._database.row(
            "SELECT manifest FROM variant WHERE reference = ? AND platform = ?", (str(reference), str(platform))
        )
        return self._by_manifest(row[0]) if row else None

    def untag(self, reference: Reference) -> None:
        """Take a name away; the image stays, if need be without any. NotFoundError if there is no such name."""
        with self._database.transaction(durable=True):
            if not self._database.execute("DELETE FROM name WHERE reference = ?", (str(reference),)):
                raise self._not_found(reference.familiar)
            self.write_index()

    def resolve(self, text: str) -> StoredImage:
        """The image that ``text`` means: a name (completed as usual), an image ID, a manifest digest, or at least 4
        leading digits of either. NotFoundError with the nearest names; UsageError if it means several images."""
        return self._by_manifest(self._find(text))

    def list(self) -> tuple[StoredImage, ...]:
        """All images, newest first."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM image ORDER BY number DESC")
        return tuple(self._image(row) for row in rows)

    def remove(self, text: str, *, force: bool = False) -> Removed:
        """What ``docker rmi`` does: by name, the name goes, and the image with its last name; by ID, the image goes
        with its name. UsageError by ID if it has several names, but with ``force`` all of them go.

        Layers and blobs stay until they are pruned.
        """
        manifest = self._find(text)  # and no more: a damaged image must be removable
        names, name = self._names(manifest), self._name_of(text)
        if name is None and len(names) > 1 and not force:
            familiar = ", ".join(Reference.parse(found).familiar for found in names)
            raise UsageError(f"image {text} has several names: {familiar}", hint="add --force to remove them all")
        gone = names if name is None else (name,)
        deleted = manifest if gone == names else None
        with self._database.transaction(durable=True):
            self._database.executemany("DELETE FROM name WHERE reference = ?", [(reference,) for reference in gone])
            if deleted:
                self._database.execute("DELETE FROM image WHERE manifest = ?", (deleted,))
            self.write_index()
        return Removed(gone, deleted)

    def write_index(self) -> None:
        """Make ``index.json`` say what the rows say; inside a transaction, so that processes take turns."""
        with disk_errors(self.index):
            data = self.index_json()
            if self.index.read_bytes() != data:
                replace_file(self.index, data, temporary=self._temporary())

    def index_json(self) -> bytes:
        """What ``index.json`` ought to be: a descriptor for each name, so two names of an image are two of them."""
        rows = self._database.rows(
            "SELECT reference, descriptor FROM name JOIN image USING (manifest) ORDER BY reference"
        )
        return Index(tuple(_described(name, descriptor) for name, descriptor in rows)).to_json()

    # -- finding -------------------------------------------------------------------------------------------------------

    def _find(self, text: str) -> BlobDigest:
        found = self._named(text) or self._identified(text)
        if found is None:
            raise self._not_found(text)
        return BlobDigest(found)

    def _name_of(self, text: str) -> str | None:
        """The name in the store that ``text`` spells, None if it spells none."""
        try:
            reference = str(Reference.parse(text))
        except UsageError:
            return None
        return reference if self._database.row("SELECT 1 FROM name WHERE reference = ?", (reference,)) else None

    def _named(self, text: str) -> str | None:
        try:
            reference = Reference.parse(text)
        except UsageError:
            return None
        row = self._database.row("SELECT manifest FROM name WHERE reference = ?", (str(reference),))
        if row is None and reference.digest:
            prefix = reference.name
            row = self._database.row(
                "SELECT manifest FROM name WHERE manifest = ? AND substr(reference, 1, ?) IN (?, ?)",
                (reference.digest, len(prefix) + 1, f"{prefix}:", f"{prefix}@"),
            )
        return str(row[0]) if row else None

    def _identified(self, text: str) -> str | None:
        match = _ID.fullmatch(text)
        if not match:
            return None
        prefix = f"sha256:{match[1]}"
        rows = self._database.rows(
            "SELECT manifest, config FROM image WHERE substr(config, 1, ?1) = ?2 OR substr(manifest, 1, ?1) = ?2 "
            "ORDER BY number DESC",
            (len(prefix), prefix),
        )
        # One configuration under two manifests (its layers compressed in two ways) is one image: the newest is meant.
        if len({config for _, config in rows}) > 1:
            ids = ", ".join(sorted({BlobDigest(config).short for _, config in rows}))
            raise UsageError(f"{text} is the beginning of several images: {ids}", hint="give more digits")
        return str(rows[0][0]) if rows else None

    def _not_found(self, text: str) -> NotFoundError:
        names = [Reference.parse(row[0]) for row in self._database.rows("SELECT reference FROM name")]
        # As a whole and without the tag, which people leave out.
        known = {spelled.familiar: name.familiar for name in names for spelled in (name.untagged, name)}
        near = dict.fromkeys(known[found] for found in difflib.get_close_matches(text, known, n=3))
        hint = f"did you mean {' or '.join(near)}?" if near else "`layerbuild images` lists what is there"
        return NotFoundError(f"the store has no image {text!r}", hint=hint)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _by_manifest(self, digest: str) -> StoredImage:
        row = self._database.row(f"SELECT {_COLUMNS} FROM image WHERE manifest = ?", (digest,))
        if row is None:
            raise NotFoundError(f"the store has no image with the manifest {digest}")
        return self._image(row)

    def _image(self, row: Row) -> StoredImage:
        digest, image_id, created = BlobDigest(row[0]), BlobDigest(row[1]), row[2]
        try:
            manifest = Manifest.from_json(self._blobs.read(digest))
            config = ImageConfig.from_json(self._blobs.read(image_id))
        except LayerbuildError as error:
            hint = f"`layerbuild rmi {image_id.short}` takes it away; then build or import it again"
            raise StoreError(f"image {image_id.short} is damaged: {error.message}", hint=hint) from error
        return StoredImage(digest, image_id, config, manifest, self._names(digest), created)

    def _names(self, manifest: BlobDigest) -> tuple[str, ...]:
        rows = self._database.rows("SELECT reference FROM name WHERE manifest = ? ORDER BY reference", (manifest,))
        return tuple(name for (name,) in rows)

    def _check(self, manifest: Manifest, config: ImageConfig, image_id: BlobDigest) -> None:
        if manifest.config.digest != image_id:
            raise FormatError(f"the manifest names the configuration {manifest.config.digest}, not {image_id}")
        if len(manifest.layers) != len(config.diff_ids):
            raise FormatError(f"the manifest has {len(manifest.layers)} layers, its image {len(config.diff_ids)}")
        unknown: list[str] = []
        for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            if not self._layers.claims(descriptor.digest, diff_id):
                unknown.append(f"{diff_id} as blob {descriptor.digest}")
        if unknown:
            raise StoreError(f"the image needs layers that the store does not have: {', '.join(unknown)}")


def _described(name: str, descriptor: bytes) -> Descriptor:
    annotations = ((FULL_NAME, name), (REF_NAME, Reference.parse(name).familiar))
    return replace(Descriptor.from_json(descriptor), annotations=annotations)
