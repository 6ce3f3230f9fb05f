"""A store as the place that uploads take blobs from, and images of it as shipments."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import BinaryIO

from layerbuild.digest import BlobDigest
from layerbuild.errors import NotFoundError
from layerbuild.image.manifest import Manifest
from layerbuild.reference import Reference
from layerbuild.registry.client import Client
from layerbuild.registry.hosts import Endpoint
from layerbuild.registry.push import Document, Shipment
from layerbuild.store.store import Store


class StoreStock:
    """The blobs of ``store``, and those in ``beside``; ``client`` knows where a name of an image leads to."""

    def __init__(
        self, store: Store, client: Client, *, beside: Mapping[BlobDigest, bytes] = MappingProxyType({})
    ) -> None:
        self._store = store
        self._client = client
        self._beside = beside

    def open(self, digest: BlobDigest, start: int) -> BinaryIO:
        if digest in self._beside:
            return io.BytesIO(self._beside[digest][start:])
        try:
            file = self._store.blobs.path(digest).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFoundError(f"blob {digest} is not in the store", hint="build or import its image again") from error
        file.seek(start)
        return file

    def check(self, digest: BlobDigest) -> None:
        if digest in self._beside:
            return
        with self._store.blobs.open(digest) as reader:
            reader.finish()

    def homes(self, digest: BlobDigest, endpoint: Endpoint) -> frozenset[str]:
        return frozenset(
            home.repository
            for home in self._known.get(digest, frozenset())
            if home.host == endpoint.host and home.repository != endpoint.repository
        )

    @cached_property
    def _known(self) -> dict[BlobDigest, set[Endpoint]]:
        """Where each blob may be: in the repositories that the names of its images lead to."""
        known: dict[BlobDigest, set[Endpoint]] = {}
        for image in self._store.images.list():
            homes = {self._client.hosts.push(Reference.parse(name)) for name in image.names}
            for digest in image.blobs:
                known.setdefault(digest, set()).update(homes)
        return known


def shipment(manifest: Manifest, data: bytes) -> Shipment:
    """An image as it is pushed; ``data`` are the manifest's exact bytes."""
    blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    return Shipment(tuple(blobs.values()), (Document(manifest.media_type, data),))
