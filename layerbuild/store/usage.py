"""Disk use, as ``df`` shows it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.frozen import frozen
from layerbuild.store.prune import plan
from layerbuild.store.space import used_bytes

if TYPE_CHECKING:
    from layerbuild.store.store import Store


@frozen
class Usage:
    """One row: how many there are, the bytes that they take, and how many of them ``prune`` with ``all`` would free."""

    kind: str
    count: int
    bytes: int
    reclaimable: int


def disk_usage(store: Store) -> tuple[Usage, ...]:
    """A row for each kind; every file of the store is in one row, but the database.

    ::

        images       the blobs that images consist of
        snapshots    unpacked layers, and their indexes
        step cache   blobs (layers and downloads) and file listings that only the cache needs
        workspaces   kept ones, and those being written
        cache mounts what RUN --mount=type=cache shows
        leftovers    what killed processes and pruned images left behind
    """
    doomed = plan(store, all=True)
    free = frozenset((*doomed.blobs, *doomed.indexes, *doomed.folders, *doomed.leftovers, *doomed.caches))
    images = store.images.list()
    indexes_of_images = (index.digest for index in store.images.indexes())
    digests = (*(digest for image in images for digest in image.blobs), *indexes_of_images)
    of_images = frozenset(store.blobs.path(digest) for digest in digests)
    of_layers = frozenset(store.blobs.path(blob.digest) for layer in store.layers.all() for blob in layer.blobs)
    of_cache = of_layers | {store.blobs.path(digest) for digest in store.downloads.digests()}
    snapshots = store.snapshots.all()
    indexes = frozenset(store.layers.index_path(layer.diff_id) for layer in store.layers.all())
    workspaces = [store.overlay / row[0] for row in store.database.rows("SELECT id FROM workspace")]
    steps, listings = _cache_rows(store)
    claimed = of_images | of_cache | indexes
    unclaimed = [path for path in (*doomed.blobs, *doomed.indexes) if path not in claimed]
    folders = frozenset((*(snapshot.folder for snapshot in snapshots), *workspaces))
    unclaimed += [path for path in (*doomed.folders, *doomed.leftovers) if path not in folders]
    cache = _row("step cache", steps, of_cache - of_images, free)
    return (
        _row("images", len(images), of_images, free),
        _row("snapshots", len(snapshots), (*(snapshot.folder for snapshot in snapshots), *indexes), free),
        Usage(cache.kind, cache.count, cache.bytes + listings, cache.reclaimable + listings),
        _row("workspaces", len(workspaces), workspaces, free),
        _row("cache mounts", len(doomed.caches), doomed.caches, free),
        _row("leftovers", len(unclaimed), unclaimed, free),
    )


def _row(kind: str, count: int, paths: Iterable[Path], free: frozenset[Path]) -> Usage:
    sizes = {path: used_bytes(path) for path in paths}
    return Usage(kind, count, sum(sizes.values()), sum(size for path, size in sizes.items() if path in free))


def _cache_rows(store: Store) -> tuple[int, int]:
    row = store.database.row("SELECT (SELECT count(*) FROM step), (SELECT coalesce(sum(length(data)), 0) FROM listing)")
    return (row[0], row[1]) if row else (0, 0)
