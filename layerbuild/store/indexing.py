"""What a layer holds, told without its folder: by the index of a base that came as blobs, and by the blob itself.

::

    blob ─▶ tar, its digest held against the diff ID ─▶ index          a lookup, a COPY, an export of blobs
      └──▶ ``unpack`` ─▶ folder                                        a RUN, or many files' content
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO, cast

from layerbuild.digest import ChainID, DiffID, chain_id
from layerbuild.errors import DigestMismatch, FormatError
from layerbuild.layer import codecs
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.tarreader import TarReader
from layerbuild.layer.union import in_folder
from layerbuild.store.arrivals import ComesAgain
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.overlay import new_id, new_link
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.store import Store
from layerbuild.store.unpack import Opener, add_blob, add_from_blob, blobs_here, ensure_unpacked, read_tar, supplied

_SMALL = 1 << 20  # bytes of a file that is worth looking for in a blob


def add_indexed(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord) -> Snapshot:
    """The snapshot of ``diff_id`` on top of ``parent``, with its index; its folder is for who asks for it.

    Records the layer. FormatError or DigestMismatch if the blob, which is in the store, is not what was said.
    """
    chain = chain_id(parent, diff_id)
    if not is_indexed(store, diff_id):
        _index(store, parent, diff_id, blob, lambda: store.blobs.open(blob.digest))
    elif not any(known.digest == blob.digest for known in blobs_here(store, diff_id)):
        add_blob(store, diff_id, blob)  # the same layer, compressed in another way
    return store.snapshots.get(chain) or add_known(store, parent, diff_id)


def add_known(store: Store, parent: ChainID | None, diff_id: DiffID) -> Snapshot:
    """The snapshot of a layer that is recorded, on one more parent; without a folder, if it is new."""
    chain = chain_id(parent, diff_id)
    with store.database.transaction():
        known = store.snapshots.get(chain)
        if known is None:
            made = Snapshot(
                overlay=store.overlay,
                id=new_id(),
                link=new_link(),
                chain=chain,
                parent=parent,
                diff_id=diff_id,
                created=time.time(),
            )
            store.snapshots.insert(made)
            store.unsynced.expect(made.folder)
    return known or made


def ensure_indexed(store: Store, chain: ChainID | None) -> tuple[Snapshot, ...]:
    """The stack of ``chain``, bottom first, with every index in its place; folders may be absent.

    Layers that have not come are brought side by side. NotFoundError for one that is lost, and can be had nowhere.
    """
    stack = store.snapshots.stack(chain)
    index_missing(store, stack)
    return stack


def index_missing(store: Store, stack: Sequence[Snapshot]) -> None:
    """Put the index of each of ``stack``, bottom first, in its place. Errors as for ``ensure_indexed``."""
    if not all(is_indexed(store, snapshot.diff_id) for snapshot in stack):
        with store.unpacking:
            lost = [snapshot for snapshot in stack if not is_indexed(store, snapshot.diff_id)]
            with supplied(store, lost) as found:
                for snapshot in lost:
                    while not is_indexed(store, snapshot.diff_id):
                        with suppress(ComesAgain):
                            _index(store, snapshot.parent, snapshot.diff_id, *found(snapshot))


def open_file(store: Store, snapshot: Snapshot, entry: Entry) -> BinaryIO:
    """The content of ``entry``, a FILE of this layer: of its folder, or if there is none a small one of its blob. A
    large one has the layer unpacked."""
    if not snapshot.unpacked:
        content = _in_blob(store, snapshot, entry) if entry.size <= _SMALL else None
        if content is not None:
            return io.BytesIO(content)
        ensure_unpacked(store, snapshot.chain)
    return in_folder(snapshot.diff)(entry)


def _in_blob(store: Store, snapshot: Snapshot, entry: Entry) -> bytes | None:
    """The content, from the tar; None if it is not there under that name (a hard link may lead into a layer below), or
    no blob is here."""
    for blob in blobs_here(store, snapshot.diff_id)[:1]:
        with store.blobs.open(blob.digest) as file:
            stream = codecs.named(blob.codec).decompressor(cast(BinaryIO, file))
            reader = TarReader(stream, name=f"layer {blob.digest}")
            for member in reader:
                if member.kind is Kind.FILE and member.path == entry.path and member.size == entry.size:
                    content = b"".join(reader.pieces())
                    if hashlib.sha256(content).hexdigest() == entry.digest:  # a later member may replace an earlier
                        return content
    return None


def is_indexed(store: Store, diff_id: DiffID) -> bool:
    """Whether the layer has come, and can be looked through."""
    return store.layers.get(diff_id) is not None and store.layers.index_path(diff_id).is_file()


def _index(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord, source: Opener) -> None:
    index = store.layers.temporary_index()
    try:
        try:
            applied = read_tar(store, blob, None, source, parent=parent, index=index)
        except FormatError:
            # Only its folder can tell: it has a hard link to a file below, or it is broken, which is told there.
            index.unlink(missing_ok=True)
            add_from_blob(store, parent, diff_id, blob)
            return
        if applied.diff_id != diff_id:
            raise DigestMismatch(f"blob {blob.digest} holds the layer {applied.diff_id} instead of {diff_id}")
        store.layers.adopt_index(index, diff_id)
        store.layers.add(LayerRecord(diff_id, applied.tar_size, applied.entries, (blob,)))
    finally:
        index.unlink(missing_ok=True)
