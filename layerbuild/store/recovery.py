"""After the machine went down: what bears a mark of an earlier boot is checked, or made anew when it is needed.

A blob tells by its digest whether it is whole. A folder and an index do not, but both can be made from their blob: they
go, and ``ensure_unpacked`` brings them again. A layer whose blob is gone has not come yet, if a repository has it; if
none has, the steps that made it are forgotten, so that the next build runs them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.digest import BlobDigest
from layerbuild.errors import DigestMismatch, FormatError
from layerbuild.store import overlay
from layerbuild.store.lease import folder_lock
from layerbuild.store.unsynced import ABSENT, AGAIN, WHOLE

if TYPE_CHECKING:
    from layerbuild.store.store import Store

_PIECE = 1 << 20


def recover(store: Store) -> None:
    """Make the rows name only what is whole. Processes that come at once take turns, and the first one does it."""
    with folder_lock(store.root):
        if not store.unsynced.is_doubtful:
            return
        marked = store.unsynced.marked()
        for part in store.arrivals.parts():
            part.unlink(missing_ok=True)
        wrong = _check_blobs(store, marked)
        _remove_indexes(store, marked)
        _remove_folders(store, marked)
        _mend_rows(store, wrong, blobs=[path for path in marked if path.parent == store.blobs.folder])


def _check_blobs(store: Store, marked: frozenset[Path]) -> list[BlobDigest]:
    """Remove the blobs that are not what they are called; the digests of all that are not here."""
    claims = ("SELECT digest FROM layer_blob", "SELECT manifest FROM image", "SELECT config FROM image")
    rows = [row for query in (*claims, "SELECT digest FROM download") for row in store.database.rows(query)]
    claimed = {store.blobs.path(BlobDigest(digest)) for (digest,) in rows if digest}
    doubtful = marked & claimed | {path for path in store.blobs.folder.iterdir() if path not in claimed}
    wrong = []
    for path in doubtful:
        try:
            digest = BlobDigest.parse(f"sha256:{path.name}")
        except FormatError:
            continue
        if not _is_whole(store, digest):
            path.unlink(missing_ok=True)
            wrong.append(digest)
    return wrong


def _is_whole(store: Store, digest: BlobDigest) -> bool:
    if not store.blobs.has(digest):
        return False
    try:
        with store.blobs.open(digest) as reader:
            while reader.read(_PIECE):
                pass
    except (DigestMismatch, OSError):
        return False
    return True


def _remove_indexes(store: Store, marked: frozenset[Path]) -> None:
    claimed = {store.layers.index_path(diff_id) for diff_id in store.layers.diff_ids()}
    for path in store.layers.folder.iterdir():
        if path in marked or path not in claimed:
            path.unlink()


def _remove_folders(store: Store, marked: frozenset[Path]) -> None:
    for snapshot in store.snapshots.all():
        if snapshot.folder in marked:
            overlay.remove(snapshot)


def _mend_rows(store: Store, wrong: Iterable[BlobDigest], *, blobs: Iterable[Path]) -> None:
    database = store.database
    gone = [(digest,) for digest in wrong]
    with database.transaction(durable=True):
        database.executemany("DELETE FROM layer_blob WHERE digest = ?", gone)
        database.executemany("DELETE FROM image WHERE manifest = ?", gone)
        database.executemany("DELETE FROM image WHERE config = ?", gone)
        lost = database.rows("SELECT diff_id FROM layer WHERE diff_id NOT IN (SELECT diff_id FROM layer_blob)")
        database.executemany("UPDATE layer SET tar_size = -1, entries = -1 WHERE diff_id = ?", lost)
        database.executemany(
            "DELETE FROM step WHERE diff_id = ?1 AND NOT EXISTS (SELECT 1 FROM source WHERE diff_id = ?1)", lost
        )
        store.unsynced.forget((*blobs, store.root / WHOLE))
        database.execute("UPDATE unsynced SET boot = ? WHERE boot != ?", (AGAIN, ABSENT))
    store.restore_layout()
