"""Workspaces: layer folders while a step writes them.

::

    begin ─▶ a step writes, the result is sealed ─┬─▶ commit ─▶ a Snapshot
                                                  ├─▶ discard     it changed nothing, or it failed
                                                  └─▶ keep        for its user to look into

A sealed workspace can be the parent of the next one before it is committed, so that a step need not wait until the one
before it is compressed. What a process began and did not finish carries its lease, and is removed when it closes the
store or, if it was killed, by the next process that writes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from layerbuild.digest import ChainID, chain_id
from layerbuild.errors import NotFoundError, SpaceError, StoreError, UsageError
from layerbuild.frozen import frozen
from layerbuild.image.config import canonical_json
from layerbuild.store import overlay
from layerbuild.store.database import Database, Row
from layerbuild.store.layers import LayerRecord, Layers
from layerbuild.store.lease import folder_claim
from layerbuild.store.overlay import LayerFolder, StackedFolder
from layerbuild.store.snapshots import Snapshot, Snapshots
from layerbuild.store.space import disk_errors
from layerbuild.store.unsynced import Unsynced


@frozen(kw_only=True)
class Workspace(StackedFolder):
    """A folder to write into. ``parent`` is what ``begin`` was given."""

    parent: ChainID | Workspace | None


@frozen(kw_only=True)
class KeptWorkspace(StackedFolder):
    """A workspace that stays until it is removed. ``meta`` is what its keeper wrote down: command, environment…

    ``created`` in seconds since 1970.
    """

    parent: ChainID | None
    meta: Mapping[str, str]
    created: float


class Workspaces:
    """The workspaces of one process, and all kept ones. ``lease`` gives the id of the process's lease."""

    def __init__(
        self,
        database: Database,
        snapshots: Snapshots,
        layers: Layers,
        unsynced: Unsynced,
        *,
        lease: Callable[[], str],
    ) -> None:
        self._database = database
        self._unsynced = unsynced
        self._snapshots = snapshots
        self._layers = layers
        self._lease = lease
        self._lock = threading.RLock()
        self._committed: dict[str, ChainID] = {}
        self._open: dict[str, Workspace] = {}
        self._superseded: dict[str, Workspace] = {}
        self._spare: list[Workspace] = []

    def begin(self, parent: ChainID | Workspace | None) -> Workspace:
        """A new, empty folder on top of ``parent``: a snapshot that is unpacked, a sealed workspace, or nothing.

        NotFoundError if the store does not know the parent. Costs no fsync.
        """
        with self._lock:
            below = self._below(parent)
            spare = self._spare.pop() if self._spare else None
            workspace = Workspace(
                overlay=self._snapshots.overlay,
                id=spare.id if spare else overlay.new_id(),
                link=spare.link if spare else overlay.new_link(),
                parent=parent,
                below=below,
            )
            # The row comes first: a folder that no row claims may be swept at any time.
            self._database.execute(
                "INSERT OR REPLACE INTO workspace (id, link, parent, lease, created) VALUES (?, ?, ?, ?, ?)",
                (workspace.id, workspace.link, self._base(parent), self._lease(), time.time()),
            )
            self._open[workspace.id] = workspace
        try:
            with disk_errors(workspace.folder):
                self._make(workspace, spare)
        except BaseException:
            self._remove(workspace)
            self._finished(workspace)
            raise
        return workspace

    def discard(self, workspace: Workspace) -> None:
        """Give it up, with all that was written; one that is finished already is left alone.

        What a step left empty serves the next one: to make six inodes and to remove them takes 1 to 2 ms on ext4,
        nearly all that a step costs the store.
        """
        with self._lock:
            if self._open.get(workspace.id) is not workspace:
                return
            del self._open[workspace.id]  # whoever closes the store meanwhile leaves it to this thread
        try:
            workspace.diff.rmdir()
        except OSError:
            self._remove(workspace)
            self._finished(workspace)
        else:
            self._finished(workspace)  # first, since from then on another thread may begin in this folder
            self._spare.append(workspace)

    def commit(self, workspace: Workspace, layer: LayerRecord) -> Snapshot:
        """Make a sealed workspace the snapshot of its chain, and record its layer; its parent must be committed.

        The layer's blobs and index must be in the store. Costs no fsync: what has not reached the disk is marked. If
        the chain is known already, its snapshot is returned, and the workspace goes as soon as no other workspace lies
        on it.
        """
        parent = self._settled(workspace.parent)
        self._layers.require_files(layer)
        chain = chain_id(parent, layer.diff_id)
        below = tuple(reversed(self._snapshots.stack(parent)))
        with disk_errors(workspace.folder):
            self._tidy(workspace, below)
        self._unsynced.begin()
        with self._lock:  # nobody begins on this workspace while it turns out where its folder will be
            snapshot = self._record(workspace, layer, chain=chain, parent=parent)
            self._committed[workspace.id] = chain
            if snapshot.id == workspace.id:
                self._finished(workspace)
            else:
                self._supersede(workspace)
        return snapshot

    def keep(self, workspace: Workspace, meta: Mapping[str, str]) -> KeptWorkspace:
        """Let it stay after the process has ended, with ``meta`` beside it; what lies below must be committed."""
        parent = self._settled(workspace.parent)
        below = tuple(reversed(self._snapshots.stack(parent)))
        with disk_errors(workspace.folder):
            self._tidy(workspace, below)
        self._database.execute(
            "UPDATE workspace SET parent = ?, lease = '', meta = ? WHERE id = ?",
            (parent, canonical_json(dict(meta)).decode(), workspace.id),
        )
        self._finished(workspace)
        return self.find(workspace.id)

    def kept(self) -> tuple[KeptWorkspace, ...]:
        """All kept workspaces of the store, oldest first."""
        rows = self._database.rows(f"{_KEPT} ORDER BY created")
        return tuple(self._kept(row) for row in rows)

    def find(self, text: str) -> KeptWorkspace:
        """The kept workspace whose id begins with ``text``; NotFoundError, or UsageError if several do."""
        rows = self._database.rows(f"{_KEPT} AND substr(id, 1, ?) = ?", (len(text), text))
        if not rows or not text:
            raise NotFoundError(f"the store keeps no workspace {text!r}", hint="`layerbuild df` counts the kept ones")
        if len(rows) > 1:
            raise UsageError(f"{len(rows)} kept workspaces begin with {text!r}", hint="give more digits")
        return self._kept(rows[0])

    @contextmanager
    def entered(self, kept: KeptWorkspace) -> Iterator[None]:
        """Have a kept workspace for oneself while something runs in it; StoreError if somebody else has it."""
        # Overlay leaves undefined what two mounts with one upperdir do (Documentation/filesystems/overlayfs.rst).
        with folder_claim(kept.folder) as free:
            if not free:
                raise StoreError(f"workspace {kept.id[:12]} is entered by another process", hint="leave that one first")
            yield

    def remove(self, kept: KeptWorkspace) -> bool:
        """Remove a kept workspace with all that is in it; False, and it stays, if something runs in it."""
        with folder_claim(kept.folder) as free:
            if free:
                self._database.execute("DELETE FROM workspace WHERE id = ?", (kept.id,))
                overlay.remove(kept)
        return free

    def drop_spares(self) -> None:
        """Remove the folders that wait for a next step."""
        with self._lock:
            while self._spare:
                self._remove(self._spare.pop())

    def close(self) -> None:
        """Remove what this process began and did not finish, and the folders that wait for a next step."""
        with self._lock:
            for workspace in (*self._open.values(), *self._superseded.values(), *self._spare):
                # On a full disk the row may stay, and a step that has not ended may write on: leftovers of no process.
                with suppress(SpaceError, OSError):
                    self._remove(workspace)
            self._open.clear()
            self._superseded.clear()
            self._spare.clear()

    # -- what lies below -----------------------------------------------------------------------------------------------

    def _below(self, parent: ChainID | Workspace | None) -> tuple[LayerFolder, ...]:
        if isinstance(parent, Workspace):
            committed = self._committed.get(parent.id)
            if committed is None:
                return (parent, *self._below(parent.parent))
            parent = committed
        return tuple(reversed(self._snapshots.stack(parent)))

    def _base(self, parent: ChainID | Workspace | None) -> ChainID | None:
        while isinstance(parent, Workspace):
            parent = self._committed.get(parent.id) or parent.parent
        return parent

    def _settled(self, parent: ChainID | Workspace | None) -> ChainID | None:
        if not isinstance(parent, Workspace):
            return parent
        try:
            return self._committed[parent.id]
        except KeyError:
            raise ValueError(f"workspace {parent.id} must be committed before what lies on it") from None

    # -- from workspace to snapshot ------------------------------------------------------------------------------------

    def _tidy(self, workspace: Workspace, below: Sequence[LayerFolder]) -> None:
        overlay.clear_work(workspace)
        # A parent that another build committed first has been superseded by that build's folder, of the same content.
        if overlay.lower_text(below) != workspace.lower:
            overlay.write_lower(workspace, below)

    def _record(self, workspace: Workspace, layer: LayerRecord, *, chain: ChainID, parent: ChainID | None) -> Snapshot:
        made = Snapshot(
            overlay=workspace.overlay,
            id=workspace.id,
            link=workspace.link,
            chain=chain,
            parent=parent,
            diff_id=layer.diff_id,
            created=time.time(),
        )
        with self._database.transaction():
            self._layers.insert(layer)
            known = self._snapshots.get(chain)
            if known is None:
                self._snapshots.insert(made)
                self._unsynced.settle(workspace.folder, name=workspace.folder)
                self._database.execute("DELETE FROM workspace WHERE id = ?", (workspace.id,))
            elif not known.unpacked and not self._carries(workspace):
                self._refill(known, workspace)
        return known or made

    def _carries(self, workspace: Workspace) -> bool:
        """Whether an open workspace lies on it, and needs its folder where that is."""
        return any(folder.id == workspace.id for found in self._open.values() for folder in found.below)

    def _refill(self, known: Snapshot, workspace: Workspace) -> None:
        """Put the workspace's folder where a snapshot's has been lost: others say its id and short name."""
        overlay.remove(known)
        with disk_errors(known.folder):
            self._unsynced.settle(workspace.folder, name=known.folder)
            (workspace.folder / "link").write_text(known.link)
            workspace.folder.rename(known.folder)
            overlay.link_to(known)

    # -- the end of a workspace ----------------------------------------------------------------------------------------

    def _supersede(self, workspace: Workspace) -> None:
        self._open.pop(workspace.id, None)
        self._superseded[workspace.id] = workspace
        self._drop_superseded()

    def _finished(self, workspace: Workspace) -> None:
        with self._lock:
            self._open.pop(workspace.id, None)
            self._drop_superseded()

    def _drop_superseded(self) -> None:
        in_use = {folder.id for workspace in self._open.values() for folder in workspace.below}
        for workspace in [found for found in self._superseded.values() if found.id not in in_use]:
            self._remove(workspace)
            del self._superseded[workspace.id]

    def _make(self, workspace: Workspace, spare: Workspace | None) -> None:
        if spare is None:
            overlay.make(workspace, workspace.below)
            return
        overlay.clear_work(workspace)
        if spare.lower != workspace.lower:
            overlay.write_lower(workspace, workspace.below)
        overlay.make_diff(workspace, workspace.below)

    def _remove(self, workspace: Workspace) -> None:
        overlay.remove(workspace)
        self._database.execute("DELETE FROM workspace WHERE id = ?", (workspace.id,))

    def _kept(self, row: Row) -> KeptWorkspace:
        folder, link, parent, created, meta = row
        chain = ChainID(parent) if parent else None
        return KeptWorkspace(
            overlay=self._snapshots.overlay,
            id=folder,
            link=link,
            parent=chain,
            below=tuple(reversed(self._snapshots.stack(chain))),
            meta=json.loads(meta),
            created=created,
        )


_KEPT = "SELECT id, link, parent, created, meta FROM workspace WHERE meta IS NOT NULL"
