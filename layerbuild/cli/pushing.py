"""What this run pushes: where to, with which threads, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import click

from layerbuild.cli.registries import client
from layerbuild.digest import BlobDigest
from layerbuild.errors import UsageError
from layerbuild.events import BlobMoved, BuildStarted, ImagePushed, LayerSealed, Note, Observer

if TYPE_CHECKING:
    from layerbuild.events import Event
    from layerbuild.export.formats import Output
    from layerbuild.export.package import Parcel
    from layerbuild.image.manifest import Descriptor
    from layerbuild.reference import Reference
    from layerbuild.registry.push import Pusher, Shipment, Told
    from layerbuild.registry.upload import How
    from layerbuild.store.images import StoredImage, StoredIndex
    from layerbuild.store.store import Store

_AT_ONCE = 4  # blobs under way; more take nothing from a slow line


class Pushing:
    """Pushes from a store. A context manager: what is still going on when it is left is stopped.

    ``names`` are where to, ``beside`` are blobs that the store does not have.
    """

    def __init__(
        self,
        store: Store,
        names: Sequence[Reference],
        observe: Observer,
        *,
        beside: Mapping[BlobDigest, bytes] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self.names = names
        self._observe = observe
        self._beside = beside
        self._context = click.get_current_context()  # threads have none of their own
        self._stack = ExitStack()
        self._stages: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def push(self, shipment: Shipment, *, by_digest: bool = False) -> None:
        """Push to every name; ``by_digest``: to no tag."""
        from layerbuild.registry.push import push

        push(shipment, self._pushers, by_digest=by_digest)

    def watch(self, event: Event) -> None:
        """An observer of a build: a layer of the image starts on its way as soon as it is sealed."""
        match event:
            case BuildStarted(plan):
                self._stages |= {stage.index for stage in plan.lineage}
            case LayerSealed(stage) if stage.index in self._stages:
                self._start(event)

    def _start(self, sealed: LayerSealed) -> None:
        from layerbuild.image.manifest import Descriptor

        hosts: set[str] = set()
        for pusher, _ in self._pushers:
            # The other repositories of a registry borrow from the first.
            if pusher.repository.host not in hosts:
                hosts.add(pusher.repository.host)
                pusher.start(Descriptor("application/octet-stream", sealed.digest, sealed.size))

    @cached_property
    def _pushers(self) -> list[tuple[Pusher, list[str]]]:
        """One for each repository, with its tags. Not before something is to be pushed: a build starts small."""
        from layerbuild.crew import Crew
        from layerbuild.registry.push import Pusher
        from layerbuild.registry.stock import StoreStock

        found = client(self._context)
        stock = StoreStock(self._store, found, beside=self._beside)
        crew = self._stack.enter_context(Crew(_AT_ONCE, name="pusher"))
        pushers: dict[str, tuple[Pusher, list[str]]] = {}
        for name in self.names:
            if name.name not in pushers:
                pusher = Pusher(found.push(name), stock, crew, told=self._teller(name.name))
                self._stack.callback(pusher.close)
                pushers[name.name] = (pusher, [])
            pushers[name.name][1].append(name.tag)
        return list(pushers.values())

    def _teller(self, place: str) -> Told:
        def told(blob: Descriptor, sent: int, how: How | None) -> None:
            self._observe(BlobMoved(blob.digest, "push", place, sent, blob.size, how.value if how else ""))

        return told


def deliver(
    store: Store, found: StoredImage | StoredIndex, output: Output, pushing: Pushing | None, observe: Observer
) -> Descriptor:
    """What ``-o type=image`` and ``registry`` ask for: the image (or index) in the store, in the form and under the
    names that ``output`` says, and sent if it says so; its manifest (or the index)."""
    from layerbuild.export.package import keep, pack

    parcel = pack(store, found, output.wishes, bring=False)
    _tell(parcel, observe)
    if pushing is not None:
        parcel.check_depth(output.wishes.most_layers)
        pushing.push(_shipment(parcel), by_digest=output.by_digest)
        for name in pushing.names:
            told = name.untagged if output.by_digest else name
            observe(ImagePushed(told.familiar, parcel.descriptor.digest))
    if output.wishes.names and not output.by_digest:
        keep(parcel)
    return parcel.descriptor


def send(
    store: Store,
    found: StoredImage | StoredIndex,
    pushing: Pushing,
    observe: Observer,
    *,
    most_layers: int | None = None,
) -> Descriptor:
    """Push an image, or an index with its images, as the store has it; what was pushed.

    UsageError if one has more layers than ``most_layers``, None: than others run.
    """
    from layerbuild.export.package import pack

    parcel = pack(store, found, bring=False)  # a layer that has not come need not
    _tell(parcel, observe)
    parcel.check_depth(most_layers)
    pushing.push(_shipment(parcel))
    return parcel.descriptor


def _tell(parcel: Parcel, observe: Observer) -> None:
    for note in parcel.notes:
        observe(Note(note))


def _shipment(parcel: Parcel) -> Shipment:
    """Blobs, then the manifests, then the index over them, if there is one."""
    from layerbuild.registry.push import Document, Shipment

    documents = {
        package.digest: Document(package.manifest.media_type, package.manifest_bytes) for package in parcel.packages
    }
    index = () if parcel.index_bytes is None else (Document(parcel.index_type, parcel.index_bytes),)
    return Shipment.of([package.manifest for package in parcel.packages], (*documents.values(), *index))


def pushable(name: Reference) -> Reference:
    """A name under which something can be pushed: UsageError for one with a digest, which decides itself."""
    if name.digest is not None:
        raise UsageError(f"{name.familiar} can't be pushed to: a digest names one content only", hint="leave it out")
    return name
