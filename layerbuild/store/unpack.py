"""From blobs to what can be read: the snapshot of a base that came as blobs, a folder that was lost, a stack's view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from layerbuild.digest import ChainID, DiffID, chain_id
from layerbuild.errors import DigestMismatch, FormatError, NotFoundError
from layerbuild.layer import codecs
from layerbuild.layer.entry import Entry, RootMetadata
from layerbuild.layer.union import LayerView, Union
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.space import disk_errors
from layerbuild.store.workspaces import Workspace

if TYPE_CHECKING:
    from layerbuild.layer.apply import Applied
    from layerbuild.store.store import Store

_HINT = "build or import its image again"


def add_from_blob(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord) -> Snapshot:
    """The snapshot of ``diff_id`` on top of ``parent``, made from ``blob`` unless it is here already.

    Records the layer and writes its index; its folder is made when somebody needs it (``ensure_unpacked``). FormatError
    or DigestMismatch if the blob is not what was said.
    """
    known = store.snapshots.get(chain_id(parent, diff_id))
    if known is not None and store.layers.index_path(diff_id).is_file():
        return known
    index = store.layers.temporary_index()
    try:
        with disk_errors(store.layers.folder):
            applied = _apply(store, blob, None, parent=parent, index=index)
    except DigestMismatch:
        raise
    except FormatError:  # what can't be indexed may still be unpacked: a file that is replaced after a link to it, say
        ensure_unpacked(store, parent)
        return _unpack(store, parent, diff_id, blob)
    _check(applied, diff_id, blob, index)
    store.layers.adopt_index(index, diff_id)
    store.layers.add(LayerRecord(diff_id, applied.tar_size, applied.entries, (blob,)))
    return store.snapshots.add(parent, diff_id)


def _check(applied: Applied, diff_id: DiffID, blob: BlobRecord, index: Path) -> None:
    if applied.diff_id != diff_id:
        index.unlink(missing_ok=True)
        raise DigestMismatch(f"blob {blob.digest} holds the layer {applied.diff_id} instead of {diff_id}")


def _unpack(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord) -> Snapshot:
    """The snapshot with its folder, on a parent that has its own."""
    workspace = store.workspaces.begin(parent)
    index = store.layers.temporary_index()
    try:
        with disk_errors(workspace.diff):
            applied = _apply(store, blob, workspace, parent=parent, index=index)
        _check(applied, diff_id, blob, index)
        store.layers.adopt_index(index, diff_id)
        return store.workspaces.commit(workspace, LayerRecord(diff_id, applied.tar_size, applied.entries, (blob,)))
    except BaseException:
        index.unlink(missing_ok=True)
        store.workspaces.discard(workspace)
        raise


def ensure_unpacked(store: Store, chain: ChainID | None) -> tuple[Snapshot, ...]:
    """The stack of ``chain``, bottom first, with every folder and index in its place.

    NotFoundError if a lost one has no blob.
    """
    stack = store.snapshots.stack(chain)
    for snapshot in stack:
        if _lost(store, snapshot):
            _unpack(store, snapshot.parent, snapshot.diff_id, _blob_of(store, snapshot.diff_id))
    return stack


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
    store: Store, blob: BlobRecord, workspace: Workspace | None, *, parent: ChainID | None, index: Path
) -> Applied:
    """Read ``blob`` into the index, and into the folder of ``workspace`` if there is one."""
    from layerbuild.layer.apply import apply

    with open_stack(store, parent) as union, store.blobs.open(blob.digest) as reader:

        def below(path: bytes) -> Entry | None:
            found = union.lookup(path)
            return found.entry if found else None

        applied = apply(
            codecs.named(blob.codec).decompressor(cast(BinaryIO, reader)),
            workspace.diff if workspace else None,
            index=index,
            user_xattr=store.user_xattr,
            root=RootMetadata.of(workspace.diff) if workspace else None,
            below=below,
            name=f"layer {blob.digest}",
        )
        reader.finish()
        return applied


def _blob_of(store: Store, diff_id: DiffID) -> BlobRecord:
    layer = store.layers.get(diff_id)
    for blob in layer.blobs if layer else ():
        if store.blobs.has(blob.digest):
            return blob
    raise NotFoundError(f"no blob of layer {diff_id} is in the store", hint=_HINT)
