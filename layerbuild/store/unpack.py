"""From blobs to what can be read: the snapshot of a base that came as blobs, a folder that was lost, a stack's view."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from layerbuild.digest import BlobDigest, ChainID, DiffID, HashingWriter, chain_id
from layerbuild.errors import DigestMismatch, FormatError, NotFoundError
from layerbuild.layer import codecs
from layerbuild.layer.entry import Entry, RootMetadata
from layerbuild.layer.union import LayerView, Union
from layerbuild.store import overlay
from layerbuild.store.arrivals import ComesAgain
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.lease import name_lock
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
    return _unpack_once(store, parent, diff_id, lambda: (blob, lambda: store.blobs.open(blob.digest)))


def ensure_unpacked(store: Store, chain: ChainID | None) -> tuple[Snapshot, ...]:
    """The stack of ``chain``, bottom first, with every folder and index in its place.

    Layers that have not come are brought side by side, and each is unpacked while it comes. NotFoundError for one that
    is lost, and can be had nowhere.
    """
    stack = store.snapshots.stack(chain)
    if any(is_lost(store, snapshot) for snapshot in stack):
        with store.unpacking:  # stages side by side may stand on the same base
            _fill_in(store, stack)
    return stack


def _fill_in(store: Store, stack: Sequence[Snapshot]) -> None:
    lost = [snapshot for snapshot in stack if is_lost(store, snapshot)]
    with supplied(store, lost) as found:
        for snapshot in lost:
            _unpack_once(store, snapshot.parent, snapshot.diff_id, partial(found, snapshot))
    _match_roots(store, stack, lost)


@contextmanager
def supplied(store: Store, lost: Sequence[Snapshot]) -> Iterator[Callable[[Snapshot], tuple[BlobRecord, Opener]]]:
    """Begin to bring a blob for each of these layers that has none here; what tells one's blob, and opens it."""
    wanted = [store.sources.of_layer(snapshot.diff_id) for snapshot in lost if not blobs_here(store, snapshot.diff_id)]
    with _arriving(store, wanted) as arrivals:
        yield lambda snapshot: _blob_of(store, snapshot.diff_id, arrivals)


def ensure_below(store: Store, workspace: Workspace) -> None:
    """The same for all that lies below a workspace.

    It, and others that it lies on, may have been begun before any of that had come: their roots are mended.
    """
    snapshots = [folder for folder in workspace.below if isinstance(folder, Snapshot)]
    if not any(is_lost(store, snapshot) for snapshot in snapshots):
        return
    ensure_unpacked(store, snapshots[0].chain)
    begun = [workspace, *workspace.below[: len(workspace.below) - len(snapshots)], snapshots[0]]
    for below, folder in itertools.pairwise(reversed(begun)):
        overlay.match_root(folder, below)


def require_blobs(store: Store, image: StoredImage) -> None:
    """Bring those blobs of an image that are not here. NotFoundError for one that can be had nowhere; DigestMismatch
    for one that is another layer than was said."""
    if store.sources.absent(image.config.diff_ids):
        ensure_unpacked(store, image.top)
    pairs = zip(image.manifest.layers, image.config.diff_ids, strict=True)
    again = {layer.digest: diff_id for layer, diff_id in pairs if not store.blobs.has(layer.digest)}
    with _arriving(store, [store.sources.of_blob(digest) for digest in again]) as arrivals:
        for digest, diff_id in again.items():
            if digest not in arrivals:
                raise NotFoundError(f"blob {digest} is not in the store", hint=_HINT)
            arrivals[digest].wait()
            add_blob(store, diff_id, _as_it_is(store, store.sources.of_blob(digest)[0].blob))


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
def _arriving(store: Store, wanted: Sequence[Sequence[Source]]) -> Iterator[Mapping[BlobDigest, Arrival]]:
    """What is wanted, on its way; nothing for want of a supplier or of sources."""
    known = list(dict.fromkeys(tuple(sources) for sources in wanted if sources))
    if not known or store.supplier is None:
        yield {}
        return
    with store.supplier.supply(known) as arrivals:
        yield arrivals


def _blob_of(store: Store, diff_id: DiffID, arrivals: Mapping[BlobDigest, Arrival]) -> tuple[BlobRecord, Opener]:
    """A blob of the layer, that is here or on its way."""
    here = blobs_here(store, diff_id)
    if here:
        return here[0], lambda: store.blobs.open(here[0].digest)
    for source in store.sources.of_layer(diff_id):
        if source.blob.digest in arrivals:
            arrival = arrivals[source.blob.digest]
            reader = partial(arrival.reader, since=arrival.beginnings)  # one for all who look at it
            return replace(source.blob, codec=_codec(reader)), reader
    raise NotFoundError(f"no blob of layer {diff_id} is in the store", hint=_HINT)


def _codec(source: Opener) -> str:
    """How a blob is compressed, by its own bytes: a media type may be wrong. FormatError if no layer may be so."""
    with source() as reader:
        start = b""
        while len(start) < codecs.MAGIC_SIZE and (data := reader.read(codecs.MAGIC_SIZE - len(start))):
            start += data
        codec = codecs.detect(start)
        if codec.name not in codecs.WRITTEN:
            reader.finish()  # bytes that are not those of the digest are the better reason
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


def _unpack_once(
    store: Store, parent: ChainID | None, diff_id: DiffID, found: Callable[[], tuple[BlobRecord, Opener]]
) -> Snapshot:
    """Unpack what ``found`` gives, unless it is here already: a second process waits for the first."""
    chain = chain_id(parent, diff_id)
    known = store.snapshots.get(chain)
    if known is not None and not is_lost(store, known):
        return known
    with name_lock(store.temporary / f"unpacking-{chain.hex}"):
        while True:
            known = store.snapshots.get(chain)
            if known is not None and not is_lost(store, known):
                return known
            with suppress(ComesAgain):
                return _unpack(store, parent, diff_id, *found())


def _unpack(store: Store, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord, source: Opener) -> Snapshot:
    below = store.snapshots.stack(parent)[-1:]
    unseen = [snapshot for snapshot in below if not snapshot.unpacked]
    workspace = store.workspaces.begin(parent)
    index = store.layers.temporary_index()
    try:
        with disk_errors(workspace.diff):
            applied = read_tar(store, blob, workspace.diff, source, parent=parent, index=index)
        if applied.diff_id != diff_id:
            raise DigestMismatch(f"blob {blob.digest} holds the layer {applied.diff_id} instead of {diff_id}")
        store.layers.adopt_index(index, diff_id)
        made = store.workspaces.commit(workspace, LayerRecord(diff_id, applied.tar_size, applied.entries, (blob,)))
        _match_roots(store, (*unseen, made), [snapshot for snapshot in unseen if snapshot.unpacked])
        return made
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
    return LayerView(index, partial(store.open_file, snapshot))


def is_lost(store: Store, snapshot: Snapshot) -> bool:
    """Whether its folder or its index is not here, or not yet."""
    return not (snapshot.unpacked and store.layers.index_path(snapshot.diff_id).is_file())


def read_tar(
    store: Store, blob: BlobRecord, folder: Path | None, source: Opener, *, parent: ChainID | None, index: Path
) -> Applied:
    """Read a blob to its end: into ``folder``, if it is given, and into the index."""
    from layerbuild.layer.apply import apply

    with ExitStack() as opened, source() as reader:
        below = _Below(store, parent, opened)
        try:
            applied = apply(
                codecs.named(blob.codec).decompressor(cast(BinaryIO, reader)),
                folder,
                index=index,
                user_xattr=store.user_xattr,
                root=RootMetadata.of(folder) if folder is not None else None,
                below=below.entry,
                opened=below.open,
                name=f"layer {blob.digest}",
            )
        except FormatError:
            reader.finish()  # bytes that are not those of the digest are the better reason
            raise
        reader.finish()
        return applied


class _Below:
    """What lies below a layer that is being unpacked, for the few questions that come up: it is brought with the first
    of them, and a base that nobody looks into stays where it is."""

    def __init__(self, store: Store, parent: ChainID | None, opened: ExitStack) -> None:
        self._store = store
        self._parent = parent
        self._opened = opened

    def entry(self, path: bytes) -> Entry | None:
        """The entry of ``path``, a hard link told as the file that it is."""
        found = self._union.lookup(path)
        if found is None or found.inode is found.entry:
            return found.entry if found else None
        return replace(found.inode, path=path)

    def open(self, path: bytes) -> BinaryIO:
        """The content of the file ``path``."""
        return self._union.open(path)

    @cached_property
    def _union(self) -> Union:
        self._store.ensure_indexed(self._parent)
        return self._opened.enter_context(open_stack(self._store, self._parent))


def blobs_here(store: Store, diff_id: DiffID) -> tuple[BlobRecord, ...]:
    """The blobs of a layer that are in the store, each with the codec that it really has."""
    layer = store.layers.get(diff_id)
    if layer is not None:
        return tuple(blob for blob in layer.blobs if store.blobs.has(blob.digest))
    claimed = [source.blob for source in store.sources.of_layer(diff_id)]
    here = [blob for blob in claimed if store.blobs.has(blob.digest)]  # it came, and then something went wrong
    return tuple(_as_it_is(store, blob) for blob in here)


def _as_it_is(store: Store, blob: BlobRecord) -> BlobRecord:
    """A blob that is here, with the codec that it really has."""
    return replace(blob, codec=_codec(partial(store.blobs.open, blob.digest)))
