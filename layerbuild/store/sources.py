"""Where the blobs of layers can be had: repositories that have them, and layers that have not come yet.

::

    layer with tar_size -1        it belongs to an image here, and neither blob nor index of it has come
    snapshot without a folder     its place in a stack; ``ensure_unpacked`` fills it, from the blob or from a source
    source                        a repository that said it has a blob, and that the blob is that layer

A claim is believed only so far that the blob is asked for there: what comes is held against its digest and diff ID.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from layerbuild.digest import BlobDigest, DiffID, chain_ids
from layerbuild.frozen import frozen
from layerbuild.store.arrivals import Arrival
from layerbuild.store.database import Database, Row
from layerbuild.store.layers import BlobRecord
from layerbuild.store.overlay import new_id, new_link
from layerbuild.store.snapshots import Snapshot, Snapshots
from layerbuild.store.unsynced import Unsynced

_COLUMNS = "digest, diff_id, size, codec, repository"
_UNKNOWN = -1


@frozen
class Source:
    """A repository (registry and name, without a tag) that has ``blob``, which is the layer ``diff_id``."""

    blob: BlobRecord
    diff_id: DiffID
    repository: str


class Supplier(Protocol):
    """Brings blobs from where they can be had."""

    def supply(self, wanted: Sequence[Sequence[Source]]) -> AbstractContextManager[Mapping[BlobDigest, Arrival]]:
        """Begin to bring one blob for each element of ``wanted``, from any of its sources; they come side by side, the
        first soonest. Leaving the context ends what is still going on."""


class Sources:
    """The sources of a store, and the layers that have not come."""

    def __init__(self, database: Database, snapshots: Snapshots, unsynced: Unsynced) -> None:
        self._database = database
        self._snapshots = snapshots
        self._unsynced = unsynced

    def expect(self, sources: Sequence[Source]) -> None:
        """Record the layers of an image, bottom first, with where each can be had. What is here already stays."""
        chains = chain_ids(source.diff_id for source in sources)
        with self._database.transaction():
            self._database.executemany(
                "INSERT OR IGNORE INTO layer (diff_id, tar_size, entries) VALUES (?, ?, ?)",
                [(source.diff_id, _UNKNOWN, _UNKNOWN) for source in sources],
            )
            self._database.executemany(
                f"INSERT OR REPLACE INTO source ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
                [
                    (source.blob.digest, source.diff_id, source.blob.size, source.blob.codec, source.repository)
                    for source in sources
                ],
            )
            for parent, chain, source in zip((None, *chains), chains, sources, strict=False):
                if self._snapshots.get(chain) is None:
                    expected = Snapshot(
                        overlay=self._snapshots.overlay,
                        id=new_id(),
                        link=new_link(),
                        chain=chain,
                        parent=parent,
                        diff_id=source.diff_id,
                        created=time.time(),
                    )
                    self._snapshots.insert(expected)
                    self._unsynced.expect(expected.folder)

    def of_layer(self, diff_id: DiffID) -> tuple[Source, ...]:
        """Where a layer can be had, in whatever compression."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM source WHERE diff_id = ? ORDER BY size", (diff_id,))
        return tuple(map(_source, rows))

    def of_blob(self, digest: BlobDigest) -> tuple[Source, ...]:
        """Which repositories have a blob; those of its own registry can lend it to each other (a mount)."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM source WHERE digest = ? ORDER BY repository", (digest,))
        return tuple(map(_source, rows))

    def add(self, source: Source) -> None:
        """Remember that a repository has a blob of a layer that the store knows, as after a push."""
        self._database.execute(
            f"INSERT OR REPLACE INTO source ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
            (source.blob.digest, source.diff_id, source.blob.size, source.blob.codec, source.repository),
        )

    def absent(self, diff_ids: Collection[DiffID]) -> frozenset[DiffID]:
        """Those of ``diff_ids`` that belong to images here and have not come."""
        rows = self._database.rows("SELECT diff_id FROM layer WHERE tar_size = ?", (_UNKNOWN,))
        return frozenset(DiffID(diff_id) for (diff_id,) in rows) & frozenset(diff_ids)


def _source(row: Row) -> Source:
    digest, diff_id, size, codec, repository = row
    return Source(BlobRecord(BlobDigest(digest), size, codec), DiffID(diff_id), repository)
