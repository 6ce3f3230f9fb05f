"""What this run pushes: where to, with which threads, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from layerbuild.cli.registries import client
from layerbuild.errors import UsageError
from layerbuild.events import BlobMoved, BuildStarted, LayerSealed, Observer

if TYPE_CHECKING:
    from layerbuild.digest import BlobDigest
    from layerbuild.events import Event
    from layerbuild.image.manifest import Descriptor
    from layerbuild.reference import Reference
    from layerbuild.registry.client import Client
    from layerbuild.registry.push import Pusher, Shipment, Told
    from layerbuild.registry.upload import How
    from layerbuild.store.store import Store

_AT_ONCE = 4  # blobs under way; more take nothing from a slow line


class Pushing:
    """Pushes from a store to ``names``. A context manager: what is still going on when it is left is stopped.

    ``beside`` are blobs that the store does not have.
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
        self._names = names
        self._observe = observe
        self._beside = beside
        self._stack = ExitStack()
        self._stages: frozenset[int] = frozenset()
        self._pushers: dict[str, tuple[Pusher, list[str]]] = {}

    def __enter__(self) -> Self:
        from layerbuild.crew import Crew
        from layerbuild.registry.push import Pusher
        from layerbuild.registry.stock import StoreStock

        found: Client = client()
        stock = StoreStock(self._store, found, beside=self._beside)
        crew = self._stack.enter_context(Crew(_AT_ONCE, name="pusher"))
        for name in self._names:
            if name.name not in self._pushers:
                pusher = Pusher(found.push(name), stock, crew, told=self._teller(name.name))
                self._stack.callback(pusher.close)
                self._pushers[name.name] = (pusher, [])
            if name.tag:
                self._pushers[name.name][1].append(name.tag)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def push(self, shipment: Shipment, *, by_digest: bool = False) -> None:
        """Push to every name; ``by_digest``: to no tag."""
        from layerbuild.registry.push import push

        push(shipment, list(self._pushers.values()), by_digest=by_digest)

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
        for pusher, _ in self._pushers.values():
            # The other repositories of a registry borrow from the first.
            if pusher.repository.host not in hosts:
                hosts.add(pusher.repository.host)
                pusher.start(Descriptor("application/octet-stream", sealed.digest, sealed.size))

    def _teller(self, place: str) -> Told:
        def told(blob: Descriptor, sent: int, how: How | None) -> None:
            self._observe(BlobMoved(blob.digest, "push", place, sent, blob.size, how.value if how else ""))

        return told


def pushable(name: Reference) -> Reference:
    """A name under which something can be pushed: UsageError for one with a digest, which decides itself."""
    if name.digest is not None:
        raise UsageError(f"{name.familiar} can't be pushed to: a digest names one content only", hint="leave it out")
    return name
