"""Layers by diff ID: how large, how many entries, and the blobs that hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from layerbuild.digest import BlobDigest, DiffID
from layerbuild.errors import StoreError
from layerbuild.frozen import frozen
from layerbuild.store.blobs import Blobs
from layerbuild.store.database import Database
from layerbuild.store.space import disk_errors
from layerbuild.store.unsynced import Unsynced


@frozen
class BlobRecord:
    """One compressed (or plain: codec "none") form of a layer. ``size`` in bytes."""

    digest: BlobDigest
    size: int
    codec: str


@frozen
class LayerRecord:
    """A layer: the size of its tar in bytes, the number of its entries (whiteouts included), its blobs."""

    diff_id: DiffID
    tar_size: int
    entries: int
    blobs: tuple[BlobRecord, ...]


class Layers:
    """What the store knows of layers. A record appears when its blobs and its index are whole."""

    def __init__(
        self, database: Database, blobs: Blobs, unsynced: Unsynced, folder: Path, *, temporary: Callable[[], Path]
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._unsynced = unsynced
        self._temporary = temporary
        self.folder = folder

    def index_path(self, diff_id: DiffID) -> Path:
        """Where the layer's index is, or would be."""
        return self.folder / diff_id.hex

    def temporary_index(self) -> Path:
        """A free name to write an index to, before its diff ID is known; then ``adopt_index``."""
        return self._temporary()

    def adopt_index(self, temporary: Path, diff_id: DiffID) -> None:
        """Make a finished temporary file the index of ``diff_id``."""
        with disk_errors(self.folder):
            self._unsynced.rename(temporary, self.index_path(diff_id))

    def add(self, record: LayerRecord) -> None:
        """Record a layer, or further blobs of a known one; StoreError if a blob or the index is not here."""
        self.require_files(record)
        with self._database.transaction():
            self.insert(record)

    def require_files(self, record: LayerRecord) -> None:
        """StoreError if a file that the record names is missing."""
        absent = [str(blob.digest) for blob in record.blobs if not self._blobs.has(blob.digest)]
        if not self.index_path(record.diff_id).is_file():
            absent.append(f"its index {self.index_path(record.diff_id)}")
        if absent or not record.blobs:
            missing = ", ".join(absent) or "a blob"
            raise StoreError(f"layer {record.diff_id} can't be recorded without {missing}")

    def insert(self, record: LayerRecord) -> None:
        """Write the rows, inside a transaction of the caller, who has seen to the files."""
        self._database.execute(
            "INSERT INTO layer (diff_id, tar_size, entries) VALUES (?, ?, ?) ON CONFLICT (diff_id) DO UPDATE "
            "SET tar_size = excluded.tar_size, entries = excluded.entries WHERE tar_size < 0",
            (record.diff_id, record.tar_size, record.entries),
        )
        self._database.executemany(
            "INSERT OR IGNORE INTO layer_blob (digest, diff_id, size, codec) VALUES (?, ?, ?, ?)",
            [(blob.digest, record.diff_id, blob.size, blob.codec) for blob in record.blobs],
        )

    def get(self, diff_id: DiffID) -> LayerRecord | None:
        """The layer, None if it is unknown or has not come yet."""
        row = self._database.row("SELECT tar_size, entries FROM layer WHERE diff_id = ? AND tar_size >= 0", (diff_id,))
        if row is None:
            return None
        blobs = self._database.rows(
            "SELECT digest, size, codec FROM layer_blob WHERE diff_id = ? ORDER BY codec, digest", (diff_id,)
        )
        records = tuple(BlobRecord(BlobDigest(digest), size, codec) for digest, size, codec in blobs)
        return LayerRecord(diff_id, row[0], row[1], records)

    def by_blob(self, digest: BlobDigest) -> LayerRecord | None:
        """The layer that a blob holds, None if the store does not know the blob as a layer's."""
        row = self._database.row("SELECT diff_id FROM layer_blob WHERE digest = ?", (digest,))
        return self.get(DiffID(row[0])) if row else None

    def claims(self, digest: BlobDigest, diff_id: DiffID) -> bool:
        """Whether the blob is that layer: it is here, or a repository has it and says so."""
        query = "SELECT 1 FROM {} WHERE digest = ? AND diff_id = ?"
        return any(self._database.row(query.format(table), (digest, diff_id)) for table in ("layer_blob", "source"))

    def all(self) -> tuple[LayerRecord, ...]:
        """Every layer that is here, by diff ID."""
        found = map(self.get, self.diff_ids())
        return tuple(layer for layer in found if layer is not None)

    def diff_ids(self) -> tuple[DiffID, ...]:
        """Every layer that has a row, also those that have not come yet."""
        return tuple(DiffID(row[0]) for row in self._database.rows("SELECT diff_id FROM layer ORDER BY 1"))
