"""An image goes to repositories: its blobs first, side by side; then what names them; tags last of all.

So a repository never names what it does not have, and a push that fails, or a build, leaves no tag. A blob whose upload
has begun while the image was still being built is not sent again.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from typing import BinaryIO, Protocol

from layerbuild.crew import Crew
from layerbuild.digest import BlobDigest
from layerbuild.errors import RegistryError
from layerbuild.frozen import frozen
from layerbuild.image.manifest import Descriptor, Manifest
from layerbuild.registry.client import Repository
from layerbuild.registry.hosts import Endpoint
from layerbuild.registry.upload import How, Upload

_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"  # distribution-spec, "Error Codes"
_MOST_MOUNTS = 2  # repositories that are asked to lend a blob, before it is sent

#: Hears of a blob: its descriptor, how many bytes of it have been sent, and in the end how it came there.
Told = Callable[[Descriptor, int, How | None], None]


@frozen
class Document:
    """A manifest or an index, in its exact bytes."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> BlobDigest:
        return BlobDigest.of(self.data)


@frozen
class Shipment:
    """What is pushed: blobs, and documents in an order in which each comes behind those that it names. The last one is
    what a tag means."""

    blobs: tuple[Descriptor, ...]
    documents: tuple[Document, ...]

    @classmethod
    def of(cls, manifests: Sequence[Manifest], documents: Iterable[Document]) -> Shipment:
        """All that ``manifests`` name. A configuration is over at once, and behind the layers it would come alone: so
        configurations go first. Then the largest layer: begun last, it would go on alone, on one connection, and a
        registry hashes that on one core."""
        # A layer may lie elsewhere for legal reasons: its descriptor says where (image-spec layer.md).
        layers = [layer for manifest in manifests for layer in manifest.layers if not layer.urls]
        layers.sort(key=lambda layer: layer.size, reverse=True)
        blobs = {blob.digest: blob for blob in (*(manifest.config for manifest in manifests), *layers)}
        return cls(tuple(blobs.values()), tuple(documents))

    @property
    def top(self) -> Document:
        return self.documents[-1]


class Stock(Protocol):
    """Where blobs are taken from."""

    def open(self, digest: BlobDigest, start: int) -> BinaryIO:
        """A blob's bytes from ``start`` on."""
        ...

    def check(self, digest: BlobDigest) -> None:
        """DigestMismatch if the blob is damaged here."""
        ...

    def homes(self, digest: BlobDigest, endpoint: Endpoint) -> Collection[str]:
        """Other repositories of that registry which may have the blob."""
        ...

    def delivered(self, digest: BlobDigest, endpoint: Endpoint) -> None:
        """That repository has the blob now."""
        ...


class Pusher:
    """Pushes to one repository. Uploads run in the threads of ``crew``; ``close`` stops them."""

    def __init__(
        self,
        repository: Repository,
        stock: Stock,
        crew: Crew,
        *,
        told: Told = lambda blob, sent, how: None,
    ) -> None:
        self.repository = repository
        self._stock = stock
        self._crew = crew
        self._told = told
        self._guard = threading.Lock()
        self._uploads: dict[BlobDigest, Future[How]] = {}
        self._closed = threading.Event()

    def start(self, blob: Descriptor, *, lenders: Sequence[str] = ()) -> Future[How]:
        """Begin to bring a blob there, unless that has begun already. ``lenders`` are repositories of the registry that
        have it for sure."""
        with self._guard:
            upload = self._uploads.get(blob.digest)
            if upload is None or (upload.done() and upload.exception() is not None):
                upload = self._uploads[blob.digest] = self._crew.start(lambda: self._upload(blob, lenders))
            return upload

    def send(self, shipment: Shipment, *, by_digest: bool = False, lenders: Sequence[str] = ()) -> None:
        """Bring all that ``shipment`` is made of, but for its last document; ``by_digest``: that one, too."""
        if not self.lacks(shipment):
            return  # a registry takes no manifest before what it names
        self._bring(shipment, lenders)
        for document in shipment.documents if by_digest else shipment.documents[:-1]:
            self._put(document.digest, document, shipment)

    def lacks(self, shipment: Shipment) -> bool:
        """Whether something of it is not there yet."""
        return self._has(shipment.top.digest) is None

    def tag(self, shipment: Shipment, tag: str) -> None:
        """Let ``tag`` mean the shipment, all of which is there but for the last document."""
        if self._has(tag) != shipment.top.digest:  # else it may be one that can't be overwritten
            self._put(tag, shipment.top, shipment)

    def close(self) -> None:
        """Stop what is still going on."""
        self._closed.set()

    def _has(self, target: str) -> BlobDigest | None:
        # With one scope for all that a push asks, one token does.
        return self.repository.manifest_digest(target, scopes=self.repository.pushing)

    def _bring(self, shipment: Shipment, lenders: Sequence[str] = ()) -> None:
        uploads = [self.start(blob, lenders=lenders) for blob in shipment.blobs]
        for upload in uploads:
            upload.result()

    def _put(self, target: str, document: Document, shipment: Shipment) -> None:
        """Put a manifest. A registry may miss a blob that it had: it was swept away; or somebody pushes the same blob
        right now, and distribution writes its link anew, first empty. So the blobs are looked for once more."""
        for number in itertools.count(1):
            try:
                self.repository.put_manifest(target, document.data, document.media_type)
                return
            except RegistryError as error:
                misses = _BLOB_UNKNOWN in error.message
                if not misses or not self.repository.wait(number, error, passing=True):
                    raise
                with self._guard:
                    self._uploads.clear()
                self._bring(shipment)

    def _upload(self, blob: Descriptor, lenders: Sequence[str]) -> How:
        homes = [*lenders, *sorted(self._stock.homes(blob.digest, self.repository.endpoint))][:_MOST_MOUNTS]
        upload = Upload(
            self.repository,
            blob,
            lambda start: self._stock.open(blob.digest, start),
            mounts=homes,
            told=lambda sent: self._sent(blob, sent),
        )
        try:
            how = upload.run()
        except RegistryError as error:
            if error.status == HTTPStatus.BAD_REQUEST:  # it takes the digest for wrong
                self._stock.check(blob.digest)
            raise
        self._stock.delivered(blob.digest, self.repository.endpoint)
        self._told(blob, blob.size, how)
        return how

    def _sent(self, blob: Descriptor, sent: int) -> None:
        if self._closed.is_set():
            raise RegistryError("the push was stopped")
        if sent < blob.size:
            self._told(blob, sent, None)


def push(shipment: Shipment, pushers: Sequence[tuple[Pusher, Sequence[str]]], *, by_digest: bool = False) -> None:
    """Push ``shipment`` to several repositories, each with its tags; ``by_digest``: under no tag.

    Registries get it side by side; of one, the other repositories borrow from the first. Tags are set when all of it
    has come to all of them.
    """
    firsts = {pusher.repository.host: pusher for pusher, _ in reversed(pushers)}
    if len(firsts) > 1:
        lacking = [pusher for pusher in firsts.values() if pusher.lacks(shipment)]
        for blob in shipment.blobs:
            for pusher in lacking:
                pusher.start(blob)
    for number, (pusher, tags) in enumerate(pushers):
        before = [other.repository.endpoint for other, _ in pushers[:number]]
        lenders = [place.repository for place in before if place.host == pusher.repository.host]
        pusher.send(shipment, by_digest=by_digest or not tags, lenders=lenders[:1])
    for pusher, tags in () if by_digest else pushers:
        for tag in tags:
            pusher.tag(shipment, tag)
