"""Caches of other machines, in one build.

Their records are read before the first step, and asked where the store's own know nothing. A hit is only a statement
about a chain; the layers that it names are fetched when something must look into them (``bring``). What turns out to be
damaged then makes its whole cache ``Unusable``: the build begins again without it, and finds in its own store what it
had done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from layerbuild import events
from layerbuild.build.keys import FORMAT
from layerbuild.digest import ChainID, DiffID
from layerbuild.errors import FormatError, NotFoundError, RegistryError
from layerbuild.frozen import frozen
from layerbuild.image.manifest import Descriptor, layer_codec
from layerbuild.layer.tar import TAR_FORMAT_VERSION
from layerbuild.store.blobs import Blobs
from layerbuild.store.buildcache import BuildCache, CachedStep, value_digest
from layerbuild.store.cache import PARENT
from layerbuild.store.layers import BlobRecord
from layerbuild.store.store import Store

_AT_ONCE = 4  # blobs that are fetched at a time


class CacheSource(Protocol):
    """A place that has a cache. ``name`` is what messages call it."""

    @property
    def name(self) -> str: ...

    def read(self) -> BuildCache:
        """Its records."""
        ...

    def fetch(self, layer: Descriptor, blobs: Blobs, told: Callable[[int], None]) -> None:
        """Bring a layer's blob into ``blobs``, and tell how many bytes of it have come; DigestMismatch for other bytes
        than were promised."""
        ...


class Unusable(Exception):
    """A cache did not hold what it promised. ``source`` is where it came from."""

    def __init__(self, source: CacheSource, reason: str) -> None:
        super().__init__(f"the cache from {source.name} is of no use: {reason}")
        self.source = source


@frozen
class Found:
    """A record, and the cache that it stands in."""

    step: CachedStep
    source: CacheSource


@frozen
class _Missing:
    """A layer on its place in a stack, and where its blob is to be had."""

    parent: ChainID | None
    diff_id: DiffID
    blob: Descriptor
    source: CacheSource


class Imports:
    """The caches that a build was given. ``observe`` is told of what is wrong with them, and of what they bring."""

    def __init__(self, store: Store, sources: Sequence[CacheSource] = (), *, observe: events.Observer) -> None:
        self._store = store
        self._sources = sources
        self._observe = observe
        self._lock = threading.Lock()
        self._by_definition: dict[str, Found] = {}
        self._by_content: dict[str, Found] = {}
        self._by_chain: dict[ChainID, _Missing] = {}
        self._inputs: set[frozenset[tuple[str, str]]] = set()

    def read(self) -> None:
        """Read the records of every cache; one that can't be read is told of, and is no more than a miss."""
        for source in self._sources:
            try:
                with _verified(source):
                    self._add(source, _of_this_version(source.read()))
            except Unusable as error:
                self._tell(str(error))

    def drop(self, source: CacheSource) -> None:
        """Forget what came from ``source``, and read the others again: one may have what it stood before."""
        self._sources = [other for other in self._sources if other is not source]
        for table in (self._by_definition, self._by_content, self._by_chain, self._inputs):
            table.clear()
        self.read()

    @property
    def has_records(self) -> bool:
        """Whether there is anything to be found."""
        return bool(self._by_definition)

    def may_know(self, definition_key: str, own: Mapping[str, str]) -> bool:
        """As ``StepCache.may_know``: whether the parent can decide."""
        if not self._by_definition:
            return False
        known = frozenset((name, value_digest(value)) for name, value in own.items())
        return definition_key in self._by_definition or known in self._inputs

    def by_definition(self, key: str) -> Found | None:
        """The record with that definition key."""
        return self._by_definition.get(key)

    def by_content(self, key: str) -> Found | None:
        """A record with that content key."""
        return self._by_content.get(key)

    def elsewhere(self, chain: ChainID | None) -> bool:
        """Whether the store does not have that stack (yet), and a cache does."""
        return chain in self._by_chain and self._store.snapshots.get(chain) is None

    def bring(self, chain: ChainID | None, *, unpacked: bool = False) -> None:
        """Bring the stack ``chain`` into the store, as far as it is elsewhere, with its folders if it is to be
        ``unpacked``; Unusable if a layer can't be had."""
        with self._lock:
            missing: list[_Missing] = []
            while chain is not None and self.elsewhere(chain):
                missing.append(self._by_chain[chain])
                chain = missing[-1].parent
            missing.reverse()
            if not missing:
                return
            from layerbuild.crew import Crew

            with Crew(_AT_ONCE, name="cache-fetch") as crew:
                blobs = crew.map(self._blob, missing)
            add = self._store.add_from_blob if unpacked else self._store.add_indexed
            for layer, blob in zip(missing, blobs, strict=True):
                with _verified(layer.source):
                    add(layer.parent, layer.diff_id, blob)

    def _blob(self, missing: _Missing) -> BlobRecord:
        """The layer's blob, from the store if it has one."""
        layer = self._store.layers.get(missing.diff_id)
        for blob in layer.blobs if layer else ():
            if self._store.blobs.has(blob.digest):
                return blob
        descriptor = missing.blob
        with _verified(missing.source):
            blob = BlobRecord(descriptor.digest, descriptor.size, layer_codec(descriptor.media_type))
            if not self._store.blobs.has(blob.digest):
                missing.source.fetch(descriptor, self._store.blobs, self._teller(descriptor, missing.source))
            return blob

    def _teller(self, blob: Descriptor, source: CacheSource) -> Callable[[int], None]:
        return lambda done: self._observe(events.BlobMoved(blob.digest, "pull", source.name, done, blob.size))

    def _tell(self, text: str) -> None:
        self._observe(events.Note(text))

    def _add(self, source: CacheSource, cache: BuildCache) -> None:
        if cache.rejected:
            self._tell(f"the cache from {source.name} has {cache.rejected} records that contradict themselves")
        for step in cache.steps:
            found = Found(step, source)
            self._by_definition.setdefault(step.definition_key, found)
            self._by_content.setdefault(step.content_key, found)
            self._inputs.add(frozenset((name, value) for name, value in step.inputs.items() if name != PARENT))
            if step.chain is not None and step.diff_id is not None:
                layer = _Missing(step.parent, step.diff_id, cache.layers[step.diff_id], source)
                self._by_chain.setdefault(step.chain, layer)


def _of_this_version(cache: BuildCache) -> BuildCache:
    if cache.steps and (cache.key_format, cache.tar_format) != (FORMAT, TAR_FORMAT_VERSION):
        found = f"keys {cache.key_format} and layers {cache.tar_format}"
        raise FormatError(f"another version of layerbuild made it ({found}, not {FORMAT} and {TAR_FORMAT_VERSION})")
    return cache


@contextmanager
def _verified(source: CacheSource) -> Iterator[None]:
    """What is wrong with ``source`` makes it unusable, and fails no build; what is wrong with this machine does."""
    try:
        yield
    except (FormatError, NotFoundError, RegistryError) as error:
        raise Unusable(source, error.message) from error
    except OSError as error:
        raise Unusable(source, error.strerror or str(error)) from error
