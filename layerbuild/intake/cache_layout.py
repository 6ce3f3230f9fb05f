"""A build cache from a folder: an OCI layout that ``--cache-to type=local`` wrote, or one with an image that carries a
cache in its configuration."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from layerbuild.digest import BlobDigest, VerifyingReader
from layerbuild.errors import FormatError, NotFoundError
from layerbuild.image.manifest import INDEX_TYPES, OCI_MANIFEST, Descriptor, Index, Manifest
from layerbuild.intake.members import FolderMembers, Members, read_small
from layerbuild.intake.oci_layout import INDEX_FILE, blob_name
from layerbuild.store import buildcache
from layerbuild.store.blobs import Blobs
from layerbuild.store.buildcache import BuildCache
from layerbuild.store.images import REF_NAME

_PIECE = 1 << 20


class CacheLayout:
    """The cache in ``folder`` that ``tag`` or, where given, ``digest`` (its manifest's) names."""

    def __init__(self, folder: Path, *, tag: str, digest: BlobDigest | None = None) -> None:
        self._members: Members = FolderMembers(folder)
        self._tag = tag
        self._digest = digest

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._members.origin

    def read(self) -> BuildCache:
        """Its records; NotFoundError, FormatError."""
        if not self._members.has(INDEX_FILE):
            raise NotFoundError("there is no cache yet")
        index = Index.from_json(read_small(self._members, INDEX_FILE))
        manifest = Manifest.from_json(self._read(self._chosen(index)))
        return buildcache.read_cache(manifest, self._read)

    def fetch(self, layer: Descriptor, blobs: Blobs, told: Callable[[int], None]) -> None:
        """Bring a layer's blob into ``blobs``; FormatError where it is absent or not what its digest says. Nothing is
        told: it comes from this machine."""
        with self._open(layer) as reader, blobs.writer() as writer:
            shutil.copyfileobj(reader, writer, _PIECE)
            writer.commit(layer.digest)

    def _chosen(self, index: Index) -> Descriptor:
        if self._digest is not None:
            return Descriptor(OCI_MANIFEST, self._digest, self._members.size(blob_name(self._digest)))
        found = [entry for entry in index.manifests if entry.annotation(REF_NAME) == self._tag]
        if not found:
            raise NotFoundError(f"it has nothing tagged {self._tag!r}")
        if found[-1].media_type in INDEX_TYPES:
            raise FormatError("it is an index, as BuildKit writes its cache, and none of layerbuild's")
        return found[-1]

    def _read(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > buildcache.SIZE_LIMIT:
            raise FormatError(
                f"{descriptor.digest} claims {descriptor.size} bytes; {buildcache.SIZE_LIMIT} is the limit"
            )
        with self._open(descriptor) as reader:
            return reader.read()

    def _open(self, descriptor: Descriptor) -> VerifyingReader:
        source = self._members.open(blob_name(descriptor.digest))
        return VerifyingReader(source, descriptor.digest, size=descriptor.size, name=f"blob {descriptor.digest}")
