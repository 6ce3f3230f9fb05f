"""What a store can do without, and how it is removed.

A *plan* says what goes, and changes nothing; ``prune`` carries it out. Both begin with what is live:

::

    named images ─┐                    ┌─▶ layers ─▶ their blobs and indexes
    workspaces  ──┼─▶ chains, with all ┤
    step cache  ──┘   that lies below  └─▶ snapshots ─▶ their folders
    downloads   ─────────────────────────▶ their blobs

A kill at any point leaves a whole store: the rows go first, in one durable transaction, and what they named is then
unclaimed. An unclaimed folder is moved into ``tmp`` before it is taken apart, so that no half of one is ever seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.errors import SpaceError
from layerbuild.frozen import frozen
from layerbuild.store import lease, overlay
from layerbuild.store.images import StoredImage
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.space import disk_errors, used_bytes

if TYPE_CHECKING:
    from layerbuild.store.store import Store

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@frozen
class PruneReport:
    """What went, or would go: bytes on the disk, and how many of each kind."""

    bytes: int
    counts: Mapping[str, int]


@frozen
class Plan:
    """What is to go: rows by their keys, files and folders by their paths."""

    images: tuple[BlobDigest, ...]
    steps: tuple[str, ...]
    listings: tuple[str, ...]
    downloads: tuple[str, ...]
    snapshots: tuple[ChainID, ...]
    workspaces: tuple[str, ...]
    layers: tuple[DiffID, ...]
    blobs: tuple[Path, ...]
    indexes: tuple[Path, ...]
    folders: tuple[Path, ...]
    links: tuple[Path, ...]
    leftovers: tuple[Path, ...]
    caches: tuple[Path, ...]
    builds: tuple[int, ...]

    @property
    def report(self) -> PruneReport:
        """Its size and counts. Takes a look at every file, so it is asked for before they go."""
        files = (*self.blobs, *self.indexes, *self.folders, *self.leftovers, *self.caches)
        counts = {
            "images": len(self.images),
            "steps": len(self.steps),
            "build records": len(self.builds),
            "snapshots": len(self.snapshots),
            "workspaces": len(self.workspaces),
            "layers": len(self.layers),
            "blobs": len(self.blobs),
            "leftovers": len(self.leftovers),
            "cache mounts": len(self.caches),
        }
        return PruneReport(sum(used_bytes(path) for path in files), counts)


def prune(store: Store, *, all: bool = False, dry_run: bool = False) -> PruneReport:
    """Remove dangling images, leftovers, and whatever neither a named image nor the step cache needs.

    ``all`` removes the step cache, downloads, build records, kept workspaces and cache mounts too: only what named
    images need remains. ``dry_run`` only tells. StoreError while another process uses the store, or if a named image is
    damaged, since nobody can tell then what it needs.
    """
    if dry_run:
        return plan(store, all=all).report
    with store.alone():
        found = plan(store, all=all)
        report = found.report
        # No row has ever named these; on a full disk they make room for the rows' own journal.
        for path in found.leftovers:
            overlay.remove_any(path)
        with store.database.room():
            _delete_rows(store, found)
            if all:
                store.digests.forget()
            trash = _take_away(store, found)
            with suppress(SpaceError):  # the marks may stay
                store.unsynced.confirm()
    # Others may use the store again while the folders are taken apart.
    for path in trash:
        overlay.remove_any(path)
    return report


def plan(store: Store, *, all: bool) -> Plan:
    """What ``prune`` would remove now."""
    images = store.images.list()
    indexes = store.images.indexes()
    live_indexes = [index for index in indexes if index.names]
    inner = {image.manifest_digest for index in live_indexes for image in index.images}
    live_images = [image for image in images if image.names or image.manifest_digest in inner]
    live = {image.manifest_digest for image in live_images} | {index.digest for index in live_indexes}
    workspaces = _Workspaces.read(store, all=all)
    steps = _dead_steps(store, all=all)
    snapshots = {snapshot.chain: snapshot for snapshot in store.snapshots.all()}
    chains = _with_ancestors(_roots(store, live_images, workspaces, frozenset(steps)), snapshots)
    diff_ids = {diff_id for image in live_images for diff_id in image.config.diff_ids}
    diff_ids |= {snapshots[chain].diff_id for chain in chains}
    downloads = store.downloads.keys() if all else ()
    builds = store.database.rows("SELECT number FROM build") if all else ()
    claimed = {snapshots[chain].id for chain in chains} | workspaces.live
    return Plan(
        images=tuple(
            digest
            for digest in (*(image.manifest_digest for image in images), *(index.digest for index in indexes))
            if digest not in live
        ),
        steps=steps,
        listings=_dead_listings(store, frozenset(steps), all=all),
        downloads=downloads,
        snapshots=tuple(chain for chain in snapshots if chain not in chains),
        workspaces=workspaces.dead,
        layers=tuple(diff_id for diff_id in store.layers.diff_ids() if diff_id not in diff_ids),
        blobs=_dead_blobs(store, live_images, diff_ids, kept={*live, *store.downloads.digests(but=downloads)}),
        indexes=_absent(store.layers.folder, {diff_id.hex for diff_id in diff_ids}),
        folders=tuple(store.overlay / found for found in overlay.ids(store.overlay) if found not in claimed),
        links=_dead_links(store, claimed),
        leftovers=_dead_leftovers(store),
        caches=store.cache_mounts.all() if all else (),
        builds=tuple(number for (number,) in builds),
    )


# -- what is live ------------------------------------------------------------------------------------------------------


@frozen
class _Workspaces:
    live: frozenset[str]
    dead: tuple[str, ...]
    parents: frozenset[ChainID]

    @classmethod
    def read(cls, store: Store, *, all: bool) -> _Workspaces:
        """A kept one lives until ``all``; another as long as the process that began it."""
        rows = store.database.rows("SELECT id, parent, lease, meta IS NOT NULL FROM workspace")
        live = [row for row in rows if (not all if row[3] else lease.is_alive(store.leases, row[2]))]
        ids = frozenset(row[0] for row in live)
        return cls(
            live=ids,
            dead=tuple(row[0] for row in rows if row[0] not in ids),
            parents=frozenset(ChainID(row[1]) for row in live if row[1]),
        )


def _roots(
    store: Store, images: Iterable[StoredImage], workspaces: _Workspaces, dead_steps: frozenset[str]
) -> set[ChainID]:
    # Every chain of an image, not only its top: a stack that was never unpacked to the top still serves as a base.
    chains = {chain for image in images for chain in image.chains} | workspaces.parents
    steps = (record for record in store.cache.all() if record.definition_key not in dead_steps)
    return chains | {record.chain for record in steps if record.chain is not None}


def _with_ancestors(roots: Iterable[ChainID], snapshots: Mapping[ChainID, Snapshot]) -> set[ChainID]:
    live: set[ChainID] = set()
    for root in roots:
        chain: ChainID | None = root
        while chain is not None and chain in snapshots and chain not in live:
            live.add(chain)
            chain = snapshots[chain].parent
    return live


def _dead_steps(store: Store, *, all: bool) -> tuple[str, ...]:
    known = frozenset() if all else frozenset(record.definition_key for record in store.cache.all())
    rows = store.database.rows("SELECT definition_key FROM step")
    return tuple(key for (key,) in rows if key not in known)


def _dead_listings(store: Store, dead_steps: frozenset[str], *, all: bool) -> tuple[str, ...]:
    rows = store.database.rows("SELECT definition_key, inputs FROM step")
    values = [value for key, inputs in rows if key not in dead_steps for value in json.loads(inputs).values()]
    if not all:  # a build that is to be compared with the next one
        values += [value for build in store.builds.all() for step in build.steps for value in step.inputs.values()]
    named = {value for value in values if _DIGEST.fullmatch(value)}
    return tuple(digest for (digest,) in store.database.rows("SELECT digest FROM listing") if digest not in named)


def _dead_blobs(
    store: Store, images: Iterable[StoredImage], diff_ids: set[DiffID], *, kept: Iterable[BlobDigest]
) -> tuple[Path, ...]:
    live = {digest.hex for digest in kept}
    live |= {digest.hex for image in images for digest in image.blobs}
    rows = store.database.rows("SELECT digest, diff_id FROM layer_blob")
    live |= {BlobDigest(digest).hex for digest, diff_id in rows if diff_id in diff_ids}
    return _absent(store.blobs.folder, live)


def _dead_links(store: Store, claimed: set[str] | frozenset[str]) -> tuple[Path, ...]:
    folder = store.overlay / overlay.LINKS
    return tuple(folder / link for link, owner in overlay.links(store.overlay).items() if owner not in claimed)


def _dead_leftovers(store: Store) -> tuple[Path, ...]:
    """Temporary files and lock files of processes that have ended, and parts of blobs that nobody fetches."""
    owned = [(path, path.name.partition("-")[0]) for path in store.temporary.iterdir()]
    owned += [(path, path.stem) for path in store.leases.iterdir()]
    dead = tuple(path for path, owner in owned if not lease.is_alive(store.leases, owner))
    return (*dead, *store.arrivals.parts())


def _absent(folder: Path, live: set[str]) -> tuple[Path, ...]:
    return tuple(path for path in folder.iterdir() if path.name not in live)


# -- how it goes -------------------------------------------------------------------------------------------------------


def _delete_rows(store: Store, found: Plan) -> None:
    # In this order: what refers before what is referred to. (References between snapshots are checked at the commit.)
    keys: dict[str, tuple[object, ...]] = {
        "build WHERE number": found.builds,
        "step WHERE definition_key": found.steps,
        "listing WHERE digest": found.listings,
        "download WHERE url": found.downloads,
        "workspace WHERE id": found.workspaces,
        "image WHERE manifest": found.images,
        "snapshot WHERE chain": found.snapshots,
        "layer WHERE diff_id": found.layers,
    }
    doomed_chains = frozenset(found.snapshots)
    folders = [snapshot.folder for snapshot in store.snapshots.all() if snapshot.chain in doomed_chains]
    with store.database.transaction(durable=True):
        for place, doomed in keys.items():
            store.database.executemany(f"DELETE FROM {place} = ?", [(key,) for key in doomed])
        store.unsynced.forget((*found.blobs, *found.indexes, *found.folders, *folders))
        store.images.write_index()  # it should be right; if a kill has left it behind the rows, now it is
    store.snapshots.forget()


def _take_away(store: Store, found: Plan) -> list[Path]:
    """Free every name; returns what is still to be removed, in ``tmp`` under names of this process."""
    with disk_errors(store.root):
        for path in (*found.blobs, *found.indexes, *found.links):
            path.unlink(missing_ok=True)
        return [path.rename(store.temporary_name()) for path in (*found.folders, *found.caches)]
