"""Whether rows and files agree. Every disagreement is told, not only the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerbuild.digest import BlobDigest, chain_id
from layerbuild.errors import FormatError, LayerbuildError, StoreError
from layerbuild.frozen import frozen
from layerbuild.store import overlay
from layerbuild.store.images import StoredIndex
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.prune import plan
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.unpack import blobs_here

if TYPE_CHECKING:
    from layerbuild.store.store import Store

_CHUNK = 1 << 20


@frozen
class Mismatch:
    """``subject`` is what a row or a file names, ``text`` what is wrong with it."""

    subject: str
    text: str


def verify(store: Store, *, contents: bool = False) -> tuple[Mismatch, ...]:
    """Compare all rows with all files; ``contents`` reads every layer blob and recomputes its digest.

    Files that no row claims are told too. They are harmless: a process was killed, and ``prune`` will remove them, or a
    build is just writing them.
    """
    found = [*_layout(store), *_images(store)]
    for layer in store.layers.all():
        found += _layer(store, layer, contents=contents)
    for snapshot in store.snapshots.all():
        found += _snapshot(store, snapshot)
    try:
        found += _unclaimed(store)
    except StoreError:
        pass  # a named image can't be read, as was said above: nobody can tell then what is unclaimed
    return tuple(found)


def _layout(store: Store) -> Iterator[Mismatch]:
    if not (store.root / "oci-layout").is_file():
        yield Mismatch("oci-layout", "is missing")
    if not store.images.index.is_file():
        yield Mismatch("index.json", "is missing")
    elif store.images.index.read_bytes() != store.images.index_json():
        yield Mismatch("index.json", "does not list the named images")


def _images(store: Store) -> Iterator[Mismatch]:
    for manifest, config in store.database.rows("SELECT manifest, config FROM image"):
        subject = f"image {BlobDigest(config).short}" if config else f"index {BlobDigest(manifest).short}"
        try:
            image = store.images.find(manifest)
        except LayerbuildError as error:
            yield Mismatch(subject, error.message)
            continue
        if isinstance(image, StoredIndex):
            continue  # its images have rows of their own
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            if not store.layers.claims(descriptor.digest, diff_id):
                yield Mismatch(subject, f"its layer {diff_id} as blob {descriptor.digest} is not recorded")


def _layer(store: Store, layer: LayerRecord, *, contents: bool) -> Iterator[Mismatch]:
    subject = f"layer {layer.diff_id}"
    index = store.layers.index_path(layer.diff_id)
    if not index.is_file() and not store.unsynced.expects(index):
        yield Mismatch(subject, "its index is missing")
    if not layer.blobs:
        yield Mismatch(subject, "no blob holds it")
    for blob in layer.blobs:
        if text := _blob(store, blob, contents=contents):
            yield Mismatch(subject, text)


def _blob(store: Store, blob: BlobRecord, *, contents: bool) -> str:
    if not store.blobs.has(blob.digest):
        return f"blob {blob.digest} is missing"
    if store.blobs.size(blob.digest) != blob.size:
        return f"blob {blob.digest} has {store.blobs.size(blob.digest)} bytes instead of {blob.size}"
    if contents:
        try:
            with store.blobs.open(blob.digest) as reader:
                while reader.read(_CHUNK):
                    pass
        except FormatError as error:
            return error.message
    return ""


def _snapshot(store: Store, snapshot: Snapshot) -> Iterator[Mismatch]:
    subject = f"snapshot {snapshot.chain}"
    if snapshot.chain != chain_id(snapshot.parent, snapshot.diff_id):
        yield Mismatch(subject, f"is not the chain ID of {snapshot.diff_id} on {snapshot.parent}")
    if not snapshot.unpacked and store.unsynced.expects(snapshot.folder):
        return  # it has not come, or goes on from its blob after the machine went down
    if not snapshot.unpacked:
        # One that nobody has looked into yet has none.
        can_come = blobs_here(store, snapshot.diff_id) or store.sources.absent((snapshot.diff_id,))
        if snapshot.folder.exists() or not can_come:
            yield Mismatch(subject, f"its folder {snapshot.diff} is missing")
        return
    if not overlay.is_linked(snapshot):
        yield Mismatch(subject, f"its short name {snapshot.short} does not lead to it")
    below = tuple(reversed(store.snapshots.stack(snapshot.parent)))
    for name, expected in (("link", snapshot.link), ("lower", overlay.lower_text(below))):
        file = snapshot.folder / name
        if (file.read_text() if file.is_file() else "") != expected:
            yield Mismatch(subject, f"its file {name} does not say what the rows say")


def _unclaimed(store: Store) -> Iterator[Mismatch]:
    doomed = plan(store, all=False)
    known = {store.blobs.path(blob.digest) for layer in store.layers.all() for blob in layer.blobs}
    known |= {store.blobs.path(digest) for image in store.images.list() for digest in image.blobs}
    known |= {store.blobs.path(index.digest) for index in store.images.indexes()}
    known |= {store.blobs.path(digest) for digest in store.downloads.digests()}
    known |= {store.layers.index_path(layer.diff_id) for layer in store.layers.all()}
    known |= {snapshot.folder for snapshot in store.snapshots.all()}
    for path in (*doomed.blobs, *doomed.indexes, *doomed.folders, *doomed.leftovers):
        if path not in known:
            yield Mismatch(str(path.relative_to(store.root)), "is claimed by no row")
