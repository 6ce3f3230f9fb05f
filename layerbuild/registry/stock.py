"""A store as the place that uploads take blobs from, and images of it as shipments."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from types import MappingProxyType
from typing import BinaryIO

from layerbuild.digest import BlobDigest
from layerbuild.errors import NotFoundError, RegistryError
from layerbuild.reference import Reference
from layerbuild.registry.client import Client
from layerbuild.registry.hosts import Endpoint
from layerbuild.store.sources import Source
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
        if not self._store.blobs.has(digest):
            self._bring(digest)
        try:
            file = self._store.blobs.path(digest).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFoundError(f"blob {digest} is not in the store", hint="build or import its image again") from error
        file.seek(start)
        return file

    def _bring(self, digest: BlobDigest) -> None:
        """Fetch a blob of an image that was pulled without it: no repository that has it can lend it."""
        sources = self._store.sources.of_blob(digest)
        if not sources or self._store.supplier is None:
            return
        with self._store.supplier.supply([sources]) as arrivals:
            arrivals[digest].wait()

    def check(self, digest: BlobDigest) -> None:
        if digest in self._beside:
            return
        with self._store.blobs.open(digest) as reader:
            reader.finish()

    def homes(self, digest: BlobDigest, endpoint: Endpoint) -> frozenset[str]:
        told = self._endpoints(source.repository for source in self._store.sources.of_blob(digest))
        return frozenset(
            home.repository
            for home in told | self._named.get(digest, set())
            if home.host == endpoint.host and home.repository != endpoint.repository
        )

    def delivered(self, digest: BlobDigest, endpoint: Endpoint) -> None:
        layer = self._store.layers.by_blob(digest)
        for blob in layer.blobs if layer else ():
            if layer is not None and blob.digest == digest:
                self._store.sources.add(Source(blob, layer.diff_id, str(endpoint)))

    @cached_property
    def _named(self) -> dict[BlobDigest, set[Endpoint]]:
        """Where each blob may be: in the repositories that the names of its images lead to."""
        named: dict[BlobDigest, set[Endpoint]] = {}
        for image in self._store.images.list():
            homes = self._endpoints(image.names)
            for digest in image.blobs:
                named.setdefault(digest, set()).update(homes)
        return named

    def _endpoints(self, names: Iterable[str]) -> set[Endpoint]:
        found = set()
        for name in names:
            with suppress(RegistryError):  # the configuration blocks it
                found.add(self._client.hosts.push(Reference.parse(name)))
        return found
