"""Images from registries into the store: first what they are, and only when somebody needs them, their layers.

::

    name ─▶ manifest, or index ─▶ the manifest for the platform ─▶ configuration ─▶ the image is in the store
                                                                                      │ its layers are *expected*
    a RUN, a lookup, an export ─▶ Store.ensure_unpacked ─▶ Puller.supply ─▶ blobs side by side, unpacked as they come

Where one place fails, a mirror say, the next goes on from the byte where that one stopped; where one sends something
else, the next begins again. A blob that this or another
process is fetching already is not fetched again (``store.arrivals``).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from layerbuild.digest import BlobDigest
from layerbuild.errors import DigestMismatch, FormatError, NotFoundError, RegistryError
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.manifest import INDEX_TYPES, Descriptor, Index, Manifest, layer_codec, read_manifest
from layerbuild.image.platforms import best, distance
from layerbuild.reference import Reference
from layerbuild.registry.client import Client, Repository
from layerbuild.store.arrivals import Arrival
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord
from layerbuild.store.sources import Source
from layerbuild.store.store import Store

#: Hears of a blob: its digest, the repository, how many bytes have come, and of how many.
Told = Callable[[BlobDigest, str, int, int], None]

_PARALLEL = 4  # more take nothing from a slow line, and from registries that count requests
_PIECE = 1 << 18  # bytes that are waited for at once: what breaks or is killed loses less than that
_MOST_NESTED = 8  # indexes in each other
_PATIENCE = 2.0  # seconds for all transfers to notice that nobody waits for them


@frozen
class _Found:
    """An image as a registry has it."""

    manifest: Manifest
    manifest_bytes: bytes
    config: ImageConfig
    config_bytes: bytes


class Puller:
    """Pulls into one store. ``tell`` hears of every blob's progress, on the threads that fetch; ``note`` of what its
    reader should know."""

    def __init__(self, store: Store, client: Client, *, tell: Told, note: Callable[[str], None]) -> None:
        self._store = store
        self._client = client
        self._tell = tell
        self._note = note

    def pull(self, reference: Reference, platform: Platform, *, tag: bool = True) -> StoredImage:
        """The image, in the store, with its layers expected. ``tag`` gives it the name; it is found under name and
        platform in any case. RegistryError if no place has it, or has it for ``platform``."""
        found = self._client.first(reference, lambda place: self._found(place, reference, platform), note=self._note)
        self._store.sources.expect(self._sources(found, reference))
        image = self._store.images.put(found.manifest_bytes, found.config_bytes)
        if tag:
            self._store.images.tag(reference, image.manifest_digest)
        self._store.images.remember(reference, platform, image.manifest_digest)
        return self._store.images.resolve(image.manifest_digest)

    # -- what it is

    def _found(self, repository: Repository, reference: Reference, platform: Platform) -> _Found:
        with blamed(repository, reference):
            manifest, _, data = manifest_for(repository, reference, platform)
            return self._image(repository, reference, platform, manifest, data)

    def _image(
        self, repository: Repository, reference: Reference, platform: Platform, manifest: Manifest, data: bytes
    ) -> _Found:
        if not manifest.is_image:
            hint = "an artifact (a chart, a signature) has no root file system"
            raise FormatError(f"it is no image: its configuration is a {manifest.config.media_type}", hint=hint)
        described = manifest.config
        config_bytes = described.data or self._here(described.digest)
        config_bytes = config_bytes or repository.small_blob(described.digest, described.size)
        config = ImageConfig.from_json(config_bytes)
        if len(manifest.layers) != len(config.diff_ids):
            raise FormatError(
                f"its manifest has {len(manifest.layers)} layers, its configuration {len(config.diff_ids)}"
            )
        if distance(config.platform, platform) is None:
            self._note(f"{reference.familiar} is for {config.platform}, not for {platform}; there is no other")
        return _Found(manifest, data, config, config_bytes)

    def _here(self, digest: BlobDigest) -> bytes:
        try:
            return self._store.blobs.read(digest)
        except (NotFoundError, DigestMismatch):
            return b""

    def _sources(self, found: _Found, reference: Reference) -> list[Source]:
        pairs = zip(found.manifest.layers, found.config.diff_ids, strict=True)
        return [
            Source(BlobRecord(layer.digest, layer.size, layer_codec(layer.media_type)), diff_id, reference.name)
            for layer, diff_id in pairs
        ]

    # -- its layers

    @contextmanager
    def supply(self, wanted: Sequence[Sequence[Source]]) -> Iterator[Mapping[BlobDigest, Arrival]]:
        """As ``store.sources.Supplier`` has it."""
        arrivals: dict[BlobDigest, Arrival] = {}
        todo: queue.SimpleQueue[tuple[Arrival, Sequence[Source]]] = queue.SimpleQueue()
        for sources in wanted:
            blob = sources[0].blob
            if blob.digest not in arrivals:
                arrivals[blob.digest] = self._store.arrivals.expect(blob.digest, blob.size)
                same = [source for source in sources if source.blob.digest == blob.digest]
                todo.put((arrivals[blob.digest], same))
        # Daemons: one that waits for a silent server must not keep a failed program alive.
        threads = [
            threading.Thread(target=self._work, args=(todo,), name="blob-fetcher", daemon=True)
            for _ in range(min(_PARALLEL, len(arrivals)))
        ]
        for thread in threads:
            thread.start()
        try:
            yield arrivals
        except BaseException:
            for arrival in arrivals.values():
                arrival.fail(RegistryError("given up, since something else failed"))
            raise
        finally:
            deadline = time.monotonic() + _PATIENCE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, todo: queue.SimpleQueue[tuple[Arrival, Sequence[Source]]]) -> None:
        while True:
            try:
                arrival, sources = todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._fetch(arrival, sources)
            except Exception as error:  # readers of the arrival raise it
                arrival.fail(error)

    def _fetch(self, arrival: Arrival, sources: Sequence[Source]) -> None:
        with self._store.arrivals.writing(arrival) as begun:
            if arrival.is_complete:
                return
            self._bring(arrival, sources, begun)

    def _bring(self, arrival: Arrival, sources: Sequence[Source], done: int) -> None:
        names = dict.fromkeys(source.repository for source in sources)
        places = [place for name in names for place in self._client.pull(Reference.parse(f"{name}@{arrival.digest}"))]
        while places:
            place, start = places[0], done
            try:
                with place.blob(arrival.digest, arrival.size, start=done) as reader:
                    while data := reader.read(_PIECE):
                        arrival.write(data)
                        done += len(data)
                        self._tell(arrival.digest, str(place.endpoint), done, arrival.size)
                arrival.finish()
                return
            except DigestMismatch as error:
                if start == 0:  # else what was there before may be what is wrong: the same place is asked for all of it
                    places.pop(0)
                if not places:
                    arrival.discard()
                    hint = "something between here and there changes it, or the registry is damaged"
                    raise RegistryError(f"{place.host}: {error.message}; it was thrown away", hint=hint) from error
                self._note(f"{place.endpoint}: {error.message}; it was thrown away, and comes again")
                arrival.restart()
                done = 0
            except RegistryError as error:
                places.pop(0)
                self._client.leave(place, error)
                if not places:
                    raise
                self._note(f"{place.endpoint} failed, the next place goes on: {error.message}")


def manifest_for(
    repository: Repository, reference: Reference, platform: Platform
) -> tuple[Manifest, Descriptor, bytes]:
    """The manifest for ``platform`` that a name leads to in ``repository``, through indexes; what its index, or the
    registry, says of it, and its bytes. RegistryError, FormatError if there is none."""
    fetched = repository.manifest(reference.digest or reference.tag)
    document = read_manifest(fetched.data)
    described = Descriptor(document.media_type, fetched.digest, len(fetched.data))
    seen: list[Index] = []
    while len(seen) <= _MOST_NESTED:
        if isinstance(document, Manifest):
            return document, described, fetched.data
        seen.append(document)
        described = _chosen(seen, reference, platform)
        fetched = repository.manifest(described.digest)
        document = read_manifest(fetched.data)
    raise FormatError(f"it nests more than {_MOST_NESTED} indexes in each other")


@contextmanager
def blamed(repository: Repository, reference: Reference) -> Iterator[None]:
    """What a registry sends is the registry's affair: a FormatError becomes a RegistryError that names it."""
    try:
        yield
    except FormatError as error:
        raise RegistryError(f"{reference.familiar} at {repository.host}: {error.message}", hint=error.hint) from error


def _chosen(indexes: Sequence[Index], reference: Reference, platform: Platform) -> Descriptor:
    """The manifest for ``platform`` in the last of ``indexes``, each of which is in the one before. RegistryError if
    there is none."""
    candidates = [entry for entry in indexes[-1].manifests if not entry.is_attestation]
    fitting = best(((entry.platform, entry) for entry in candidates), platform)
    untold = [entry for entry in candidates if entry.platform is None]
    nested = [entry for entry in untold if entry.media_type in INDEX_TYPES] or untold
    if fitting is None and len(nested) != 1:
        entries = [entry for index in indexes for entry in index.manifests if not entry.is_attestation]
        known = sorted({str(entry.platform) for entry in entries if entry.platform})
        hint = f"it has {', '.join(known)}; --platform chooses one" if known else ""
        if untold and not known:
            hint = f"it has {len(untold)} without a platform; {reference.name}@DIGEST chooses one"
        raise RegistryError(f"{reference.familiar} has no image for {platform}", hint=hint)
    return fitting or nested[0]
