"""Build caches in registries: read from there record by record and layer by layer, and pushed there like an image."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import BinaryIO, cast

from layerbuild.digest import BlobDigest, VerifyingReader
from layerbuild.errors import FormatError, NotFoundError, RegistryError
from layerbuild.image.manifest import Descriptor, Index, Manifest, read_manifest
from layerbuild.reference import Reference
from layerbuild.registry.client import Client, Repository
from layerbuild.registry.push import Document, Shipment
from layerbuild.store import buildcache
from layerbuild.store.blobs import Blobs
from layerbuild.store.buildcache import EMPTY, BuildCache, write_artifact

_PIECE = 1 << 20


class RegistryCache:
    """The cache that ``reference`` names: an artifact, or an image that carries one; of an image for several platforms
    ``choose`` says which, None: none will do."""

    def __init__(
        self,
        client: Client,
        reference: Reference,
        *,
        choose: Callable[[Index], Descriptor | None],
        note: Callable[[str], None],
    ) -> None:
        self._client = client
        self._reference = reference
        self._choose = choose
        self._note = note
        self._place: Repository | None = None

    @property
    def name(self) -> str:
        return self._reference.familiar

    def read(self) -> BuildCache:
        """Its records; NotFoundError, FormatError, RegistryError."""
        try:
            self._place, manifest = self._client.first(self._reference, self._found, note=self._note)
        except RegistryError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise NotFoundError("there is no cache yet") from error
            raise
        return buildcache.read_cache(manifest, self._read)

    def fetch(self, layer: Descriptor, blobs: Blobs, told: Callable[[int], None]) -> None:
        """Bring a layer's blob into ``blobs``; ``told`` hears how many bytes have come."""
        with self._open(layer) as reader, blobs.writer() as writer:
            while data := reader.read(_PIECE):
                writer.write(data)
                told(writer.tell())
            writer.commit(layer.digest)

    def _found(self, repository: Repository) -> tuple[Repository, Manifest]:
        found = read_manifest(repository.manifest(self._reference.digest or self._reference.tag).data)
        if isinstance(found, Manifest):
            return repository, found
        entry = self._choose(found)
        if entry is None:
            raise FormatError("it is an index without an image for this platform, and no cache of layerbuild's")
        inner = read_manifest(repository.manifest(entry.digest).data)
        if isinstance(inner, Index):
            raise FormatError("it is an index of indexes, and no cache of layerbuild's")
        return repository, inner

    def _read(self, descriptor: Descriptor) -> bytes:
        with self._open(descriptor) as reader:
            return b"".join(iter(lambda: reader.read(_PIECE), b""))

    def _open(self, descriptor: Descriptor) -> VerifyingReader:
        assert self._place is not None  # it has been read
        source = cast(BinaryIO, self._place.blob(descriptor.digest, descriptor.size))
        name = f"blob {descriptor.digest}"
        return VerifyingReader(source, descriptor.digest, size=descriptor.size, name=name)


def cache_shipment(cache: BuildCache) -> tuple[Shipment, dict[BlobDigest, bytes]]:
    """``cache`` as it is pushed, and those of its blobs that no store has."""
    manifest, records = write_artifact(cache)
    data = {BlobDigest.of(data): data for data in (records, EMPTY)}
    return Shipment.of([manifest], [Document(manifest.media_type, manifest.to_json())]), data
