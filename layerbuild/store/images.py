"""Images by name, by image ID and by manifest digest; and ``index.json``, the same names for other programs.

A name means an image, or an index: one image for each of several platforms. Both are rows of one table, so whatever
holds for names (taking, giving, listing) holds for both; an index has no configuration of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from layerbuild.digest import BlobDigest, ChainID, chain_ids
from layerbuild.errors import FormatError, LayerbuildError, NotFoundError, StoreError, UsageError, alike
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.manifest import Descriptor, Index, Manifest
from layerbuild.image.platforms import best, distance
from layerbuild.reference import Reference
from layerbuild.store.blobs import Blobs
from layerbuild.store.database import Database, Row
from layerbuild.store.layers import Layers
from layerbuild.store.space import disk_errors

#: image-spec annotations.md; containerd's own annotation holds the complete name, as BuildKit writes it.
REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_COLUMNS = "manifest, config, created"
_NO_CONFIG = ""  # what the row of an index has in place of an image ID


@frozen
class StoredImage:
    """An image for one platform. ``names`` are complete references, sorted; none: the image is dangling.

    ``created_at`` tells when it came into the store, in seconds since 1970. ``index`` is the digest of the index
    through which it was found, None: none; the names are that index's then.
    """

    manifest_digest: BlobDigest
    image_id: BlobDigest
    config: ImageConfig
    manifest: Manifest
    names: tuple[str, ...]
    created_at: float
    index: BlobDigest | None = None

    @property
    def digest(self) -> BlobDigest:
        """Its manifest's digest, by which it is known elsewhere."""
        return self.manifest_digest

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


@frozen
class StoredIndex:
    """One image for each of several platforms, under the same names. ``images`` are those that the store holds, in the
    index's order: others may have stayed where the index came from."""

    digest: BlobDigest
    index: Index
    images: tuple[StoredImage, ...]
    names: tuple[str, ...]
    created_at: float

    @property
    def complete(self) -> bool:
        """Whether the store holds all that the index names."""
        return len(self.images) == len(self.index.manifests)

    def choose(self, platform: Platform) -> StoredImage | None:
        """The image that does best on ``platform``; None: there is none that would do."""
        return best(((image.config.platform, image) for image in self.images), platform)


@frozen
class Removed:
    """What ``remove`` did: the names taken away, and the image that went, None if it has other names."""

    untagged: tuple[str, ...]
    deleted: BlobDigest | None


class Images:
    """The images of a store. A name that is given reaches the disk as the layers do; that one was taken away is on the
    disk when the method returns.

    ``platform`` is what a name of several images means where nobody says which of them.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        layers: Layers,
        index: Path,
        *,
        platform: Platform | None,
        temporary: Callable[[], Path],
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._layers = layers
        self._platform = platform
        self._temporary = temporary
        self.index = index

    def put(self, manifest: bytes, config: bytes) -> StoredImage:
        """Store an image, in exactly these bytes. Its layers must be recorded, as here or as expected (``Sources``);
        StoreError names those that are not.

        FormatError if the bytes are no manifest and configuration, or do not belong together.
        """
        digest, image_id = BlobDigest.of(manifest), BlobDigest.of(config)
        if self._has(digest) and all(self._blobs.path(name).is_file() for name in (digest, image_id)):
            return self._by_manifest(digest)  # a build that found all in the cache: nothing is to be written
        read, configuration = Manifest.from_json(manifest), ImageConfig.from_json(config)
        self._check(read, configuration, image_id)
        for data in (config, manifest):
            self._blobs.add(data)
        descriptor = Descriptor(read.media_type, digest, len(manifest), platform=configuration.platform)
        self._insert(descriptor, image_id)
        return self._by_manifest(digest)

    def put_index(self, data: bytes) -> StoredIndex:
        """Store an index, in exactly these bytes. The images in it that the store does not hold may follow, or never
        come. FormatError if the bytes are no index."""
        read = Index.from_json(data)
        digest = self._blobs.add(data)
        self._insert(Descriptor(read.media_type, digest, len(data)), _NO_CONFIG)
        return self._index(self._row(digest))

    def tag(self, reference: Reference, manifest: BlobDigest) -> None:
        """Give the image a name, taking it from whichever image had it; NotFoundError if there is no such image."""
        if not self._has(manifest):
            raise NotFoundError(f"the store has no image with the manifest {manifest}")
        if self._database.row("SELECT 1 FROM name WHERE reference = ? AND manifest = ?", (str(reference), manifest)):
            return
        with self._database.transaction():
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

    def find(self, text: str) -> StoredImage | StoredIndex:
        """What ``text`` means: a name (completed as usual), an image ID, a digest of a manifest or an index, or at
        least 4 leading digits of either. NotFoundError with the nearest names; UsageError if it means several."""
        row = self._row(self._find(text))
        return self._index(row) if row[1] == _NO_CONFIG else self._image(row)

    def resolve(self, text: str, *, platform: Platform | None = None) -> StoredImage:
        """The one image that ``text`` means. Of an index it is the best for ``platform`` (None: the store's own).

        It raises what ``find`` raises, and NotFoundError if the image is for another platform than asked for.
        """
        found = self.find(text)
        if isinstance(found, StoredIndex):
            return self._chosen(found, text, platform or self._platform)
        is_for = found.config.platform
        if platform is not None and is_for.architecture and distance(is_for, platform) is None:
            hint = f"it is there for {is_for}; import one for {platform}, or build for {is_for} with --platform"
            raise NotFoundError(f"image {text!r} is not in the store for {platform}", hint=hint)
        return found

    def list(self) -> tuple[StoredImage, ...]:
        """All images, newest first; those of an index one by one."""
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM image WHERE config != ? ORDER BY number DESC", (_NO_CONFIG,)
        )
        return tuple(self._image(row) for row in rows)

    def describe(self, found: StoredImage | StoredIndex) -> Descriptor:
        """What an image or an index is, as the store has it."""
        size = self._blobs.size(found.digest)
        if isinstance(found, StoredIndex):
            return Descriptor(found.index.media_type, found.digest, size)
        return Descriptor(found.manifest.media_type, found.digest, size, platform=found.config.platform)

    def indexes(self) -> tuple[StoredIndex, ...]:
        """All indexes, newest first."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM image WHERE config = ? ORDER BY number DESC", (_NO_CONFIG,))
        return tuple(self._index(row) for row in rows)

    def all(self) -> tuple[StoredImage | StoredIndex, ...]:
        """Everything that is or could be named, newest first: the indexes, and the images that are in none."""
        indexes = self.indexes()
        inner = {image.manifest_digest for index in indexes for image in index.images}
        lone = (image for image in self.list() if image.names or image.manifest_digest not in inner)
        return tuple(sorted((*indexes, *lone), key=lambda found: found.created_at, reverse=True))

    def remove(self, text: str, *, force: bool = False) -> Removed:
        """What ``docker rmi`` does: by name, the name goes, and the image with its last name; by ID, the image goes
        with its name. UsageError by ID if it has several names, or belongs to an index that has one, but with ``force``
        it goes all the same. With an index go its images that have no other name and no other index.

        Layers and blobs stay until they are pruned.
        """
        manifest = self._find(text)  # and no more: a damaged image must be removable
        names, name = self._names(manifest), self._name_of(text)
        if name is None and not force:
            self._refuse_in_use(text, manifest, names)
        gone = names if name is None else (name,)
        deleted = manifest if gone == names else None
        with self._database.transaction(durable=True):
            self._database.executemany("DELETE FROM name WHERE reference = ?", [(reference,) for reference in gone])
            if deleted:
                self._delete(deleted)
            self.write_index()
        return Removed(gone, deleted)

    def _refuse_in_use(self, text: str, manifest: BlobDigest, names: tuple[str, ...]) -> None:
        if len(names) > 1:
            familiar = ", ".join(Reference.parse(found).familiar for found in names)
            raise UsageError(f"image {text} has several names: {familiar}", hint="add --force to remove them all")
        holders = [index for index, members in self._members().items() if manifest in members]
        named = sorted(name for index in holders for name in self._names(index))
        if named and not names:
            familiar = ", ".join(Reference.parse(found).familiar for found in named)
            raise UsageError(f"image {text} is part of {familiar}", hint="remove that, or add --force")

    def _delete(self, manifest: BlobDigest) -> None:
        members = self._members()
        gone = [manifest]
        if manifest in members:
            kept = {digest for index, inner in members.items() if index != manifest for digest in inner}
            gone += [digest for digest in members[manifest] if digest not in kept and not self._names(digest)]
        self._database.executemany("DELETE FROM image WHERE manifest = ?", [(digest,) for digest in gone])

    def _members(self) -> dict[BlobDigest, frozenset[BlobDigest]]:
        """What each index names; a damaged one names nothing."""
        found: dict[BlobDigest, frozenset[BlobDigest]] = {}
        for (digest,) in self._database.rows("SELECT manifest FROM image WHERE config = ?", (_NO_CONFIG,)):
            try:
                inner = Index.from_json(self._blobs.read(BlobDigest(digest))).manifests
            except LayerbuildError:
                inner = ()
            found[BlobDigest(digest)] = frozenset(descriptor.digest for descriptor in inner)
        return found

    def write_index(self) -> None:
        """Make ``index.json`` say what the rows say; inside a transaction, so that processes take turns."""
        with disk_errors(self.index):
            data = self.index_json()
            if self.index.read_bytes() != data:
                temporary = self._temporary()
                temporary.write_bytes(data)
                temporary.replace(self.index)  # not synced: the rows are, and ``recover`` writes it again

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
        found = {BlobDigest(config or manifest) for manifest, config in rows}
        if len(found) > 1:
            ids = ", ".join(sorted(digest.short for digest in found))
            raise UsageError(f"{text} is the beginning of several images: {ids}", hint="give more digits")
        return str(rows[0][0]) if rows else None

    def _not_found(self, text: str) -> NotFoundError:
        names = [Reference.parse(row[0]) for row in self._database.rows("SELECT reference FROM name")]
        # As a whole and without the tag, which people leave out.
        known = {spelled.familiar: name.familiar for name in names for spelled in (name.untagged, name)}
        near = dict.fromkeys(known[found] for found in alike(text, known, most=3))
        hint = f"did you mean {' or '.join(near)}?" if near else "`layerbuild images` lists what is there"
        return NotFoundError(f"the store has no image {text!r}", hint=hint)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _insert(self, descriptor: Descriptor, config: str) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO image (manifest, config, descriptor, created) VALUES (?, ?, ?, ?)",
            (descriptor.digest, config, descriptor.to_json(), time.time()),
        )

    def _has(self, manifest: BlobDigest) -> bool:
        return self._database.row("SELECT 1 FROM image WHERE manifest = ?", (manifest,)) is not None

    def _by_manifest(self, digest: str) -> StoredImage:
        return self._image(self._row(digest))

    def _row(self, digest: str) -> Row:
        row = self._database.row(f"SELECT {_COLUMNS} FROM image WHERE manifest = ?", (digest,))
        if row is None:
            raise NotFoundError(f"the store has no image with the manifest {digest}")
        return row

    def _index(self, row: Row) -> StoredIndex:
        digest = BlobDigest(row[0])
        try:
            index = Index.from_json(self._blobs.read(digest))
        except LayerbuildError as error:
            hint = f"`layerbuild rmi {digest.short}` takes it away; then build or import it again"
            raise StoreError(f"index {digest.short} is damaged: {error.message}", hint=hint) from error
        names = self._names(digest)
        held = [entry.digest for entry in index.manifests if self._holds(entry.digest)]
        images = tuple(replace(self._by_manifest(inner), names=names, index=digest) for inner in held)
        return StoredIndex(digest, index, images, names, row[2])

    def _holds(self, digest: BlobDigest) -> bool:
        found = self._database.row("SELECT 1 FROM image WHERE manifest = ? AND config != ?", (digest, _NO_CONFIG))
        return found is not None

    def _chosen(self, index: StoredIndex, text: str, platform: Platform | None) -> StoredImage:
        there = ", ".join(str(image.config.platform) for image in index.images) or "no platform"
        if platform is None:
            raise UsageError(f"{text} is an image for each of {there}", hint="--platform chooses one")
        image = index.choose(platform)
        if image is None:
            hint = f"it is there for {there}"
            raise NotFoundError(f"image {text!r} is not in the store for {platform}", hint=hint)
        return image

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
