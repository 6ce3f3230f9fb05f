"""From blobs to what can be read: the snapshot of a base that came as blobs, a folder that was lost, a stack's view."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from layerbuild.digest import BlobDigest, ChainID, DiffID, HashingWriter, chain_id
from layerbuild.errors import DigestMismatch, FormatError, NotFoundError
from layerbuild.layer import codecs
from layerbuild.layer.entry import Entry, RootMetadata
from layerbuild.layer.union import LayerView, Union
from layerbuild.store import overlay
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.space import disk_errors
from layerbuild.store.workspaces import Workspace

if TYPE_CHECKING:
    from layerbuild.digest import VerifyingReader
    from layerbuild.layer.apply import Applied
    from layerbuild.store.arrivals import Arrival, ArrivalReader
    from layerbuild.store.images import StoredImage
    from layerbuild.store.sources import Source
    from layerbuild.store.store import Store

_HINT = "build, pull or import its image again"
_PIECE = 1 << 20


Opener = Callable[[], "VerifyingReader | ArrivalReader"]


def add_from_blob(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord) -> Snapshot:
    """The snapshot of ``diff_id`` on top of ``parent``, unpacked from ``blob`` unless it is here already.

    Records the layer and writes its index. FormatError or DigestMismatch if the blob is not what was said.
    """
    known = store.snapshots.get(chain_id(parent, diff_id))
    if known is not None and not _lost(store, known):
        return known
    return _unpack(store, parent, diff_id, blob, lambda: store.blobs.open(blob.digest))


def ensure_unpacked(store: Store, chain: ChainID | None) -> tuple[Snapshot, ...]:
    """The stack of ``chain``, bottom first, with every folder and index in its place.

    Layers that have not come are brought side by side, and each is unpacked while it comes. NotFoundError for one that
    is lost, and can be had nowhere.
    """
    stack = store.snapshots.stack(chain)
    lost = [snapshot for snapshot in stack if _lost(store, snapshot)]
    if lost:
        wanted = [store.sources.of_layer(snapshot.diff_id) for snapshot in lost if not _blobs_here(store, snapshot)]
        with _supplied(store, wanted) as arrivals:
            for snapshot in lost:
                _refill(store, snapshot, arrivals)
        _match_roots(store, stack, lost)
    return stack


def require_blobs(store: Store, image: StoredImage) -> None:
    """Bring those blobs of an image that are not here. NotFoundError for one that can be had nowhere; DigestMismatch
    for one that is another layer than was said."""
    absent = [layer.digest for layer in image.manifest.layers if not store.blobs.has(layer.digest)]
    if not absent:
        return
    if store.sources.absent(image.config.diff_ids):
        ensure_unpacked(store, image.top)
    pairs = zip(image.manifest.layers, image.config.diff_ids, strict=True)
    again = {layer.digest: diff_id for layer, diff_id in pairs if not store.blobs.has(layer.digest)}
    with _supplied(store, [store.sources.of_blob(digest) for digest in again]) as arrivals:
        for digest, diff_id in again.items():
            if digest not in arrivals:
                raise NotFoundError(f"blob {digest} is not in the store", hint=_HINT)
            arrivals[digest].wait()
            add_blob(store, diff_id, next(source.blob for source in store.sources.of_blob(digest)))


def add_blob(store: Store, diff_id: DiffID, blob: BlobRecord) -> None:
    """Record one more blob, which is in the store, of a layer that is here; DigestMismatch if it is another layer."""
    found = diff_id_of(store, blob)
    record = store.layers.get(diff_id)
    if found != diff_id or record is None:
        raise DigestMismatch(f"layer {blob.digest} has diff ID {found} instead of {diff_id}")
    store.layers.add(replace(record, blobs=(blob,)))


def diff_id_of(store: Store, blob: BlobRecord) -> DiffID:
    """The digest of what is in a blob of the store."""
    hashing = HashingWriter()
    with store.blobs.open(blob.digest) as reader:
        shutil.copyfileobj(codecs.named(blob.codec).decompressor(cast(BinaryIO, reader)), hashing, _PIECE)
        reader.finish()
    return DiffID(hashing.digest())


@contextmanager
def _supplied(store: Store, wanted: Sequence[Sequence[Source]]) -> Iterator[Mapping[BlobDigest, Arrival]]:
    """What is wanted, on its way; nothing for want of a supplier or of sources."""
    known = list(dict.fromkeys(tuple(sources) for sources in wanted if sources))
    if not known or store.supplier is None:
        yield {}
        return
    with store.supplier.supply(known) as arrivals:
        yield arrivals


def _refill(store: Store, snapshot: Snapshot, arrivals: Mapping[BlobDigest, Arrival]) -> None:
    here = _blobs_here(store, snapshot)
    if here:
        add_from_blob(store, snapshot.parent, snapshot.diff_id, here[0])
        return
    for source in store.sources.of_layer(snapshot.diff_id):
        if source.blob.digest in arrivals:
            reader = arrivals[source.blob.digest].reader
            blob = replace(source.blob, codec=_codec(reader))
            _unpack(store, snapshot.parent, snapshot.diff_id, blob, reader)
            return
    raise NotFoundError(f"no blob of layer {snapshot.diff_id} is in the store", hint=_HINT)


def _codec(source: Opener) -> str:
    """How a blob is compressed, by its own bytes: a media type may be wrong. FormatError if no layer may be so."""
    with source() as reader:
        start = b""
        while len(start) < codecs.MAGIC_SIZE and (data := reader.read(codecs.MAGIC_SIZE - len(start))):
            start += data
    codec = codecs.detect(start)
    if codec.name not in codecs.WRITTEN:
        raise FormatError(f"a layer is compressed with {codec.name}", hint="OCI knows gzip and zstd only")
    return codec.name


def _match_roots(store: Store, stack: Sequence[Snapshot], lost: Sequence[Snapshot]) -> None:
    """A layer that was made before what lies below it had come has a root of no particular metadata: mend it."""
    came = {snapshot.chain for snapshot in lost}
    for below, snapshot in itertools.pairwise(stack):
        if below.chain in came and snapshot.chain not in came and not _tells_root(store, snapshot):
            overlay.match_root(snapshot, below)
            came.add(snapshot.chain)


def _tells_root(store: Store, snapshot: Snapshot) -> bool:
    from layerbuild.layer.index import Index

    with Index.open(store.layers.index_path(snapshot.diff_id)) as index:
        return index.lookup(b"") is not None


def _unpack(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord, source: Opener) -> Snapshot:
    workspace = store.workspaces.begin(parent)
    index = store.layers.temporary_index()
    try:
        with disk_errors(workspace.diff):
            applied = _apply(store, blob, workspace, source, parent=parent, index=index)
        if applied.diff_id != diff_id:
            raise DigestMismatch(f"blob {blob.digest} holds the layer {applied.diff_id} instead of {diff_id}")
        store.layers.adopt_index(index, diff_id)
        return store.workspaces.commit(workspace, LayerRecord(diff_id, applied.tar_size, applied.entries, (blob,)))
    except BaseException:
        index.unlink(missing_ok=True)
        store.workspaces.discard(workspace)
        raise


@contextmanager
def open_stack(store: Store, chain: ChainID | None) -> Iterator[Union]:
    """The merged tree of a stack, without a mount. NotFoundError for an index that was lost."""
    with ExitStack() as opened:
        yield Union([_view(store, snapshot, opened) for snapshot in reversed(store.snapshots.stack(chain))])


def _view(store: Store, snapshot: Snapshot, opened: ExitStack) -> LayerView:
    from layerbuild.layer.index import Index

    try:
        index = opened.enter_context(Index.open(store.layers.index_path(snapshot.diff_id)))
    except FileNotFoundError as error:
        raise NotFoundError(f"the index of layer {snapshot.diff_id} is not in the store", hint=_HINT) from error
    return LayerView(index, snapshot.diff)


def _lost(store: Store, snapshot: Snapshot) -> bool:
    return not (snapshot.unpacked and store.layers.index_path(snapshot.diff_id).is_file())


def _apply(
    store: Store, blob: BlobRecord, workspace: Workspace, source: Opener, *, parent: ChainID | None, index: Path
) -> Applied:
    from layerbuild.layer.apply import apply

    with open_stack(store, parent) as union, source() as reader:

        def below(path: bytes) -> Entry | None:
            found = union.lookup(path)
            return found.entry if found else None

        try:
            applied = apply(
                codecs.named(blob.codec).decompressor(cast(BinaryIO, reader)),
                workspace.diff,
                index=index,
                user_xattr=store.user_xattr,
                root=RootMetadata.of(workspace.diff),
                below=below,
                name=f"layer {blob.digest}",
            )
        except FormatError:
            reader.finish()  # bytes that are not those of the digest are the better reason
            raise
        reader.finish()
        return applied


def _blobs_here(store: Store, snapshot: Snapshot) -> tuple[BlobRecord, ...]:
    layer = store.layers.get(snapshot.diff_id)
    if layer is not None:
        return tuple(blob for blob in layer.blobs if store.blobs.has(blob.digest))
    claimed = [source.blob for source in store.sources.of_layer(snapshot.diff_id)]
    here = [blob for blob in claimed if store.blobs.has(blob.digest)]  # it came, and then something went wrong
    return tuple(replace(blob, codec=_codec(partial(store.blobs.open, blob.digest))) for blob in here)
