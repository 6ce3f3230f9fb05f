"""Snapshots: sealed layer folders, named by their chain IDs. They come from ``Workspaces.commit`` and never change."""

from __future__ import annotations

from pathlib import Path

from layerbuild.digest import ChainID, DiffID
from layerbuild.errors import NotFoundError
from layerbuild.frozen import frozen
from layerbuild.store.database import Database, Row
from layerbuild.store.overlay import LayerFolder

_COLUMNS = "chain, parent, diff_id, id, link, created"


@frozen(kw_only=True)
class Snapshot(LayerFolder):
    """A layer on its place in a stack. ``created`` in seconds since 1970."""

    chain: ChainID
    parent: ChainID | None
    diff_id: DiffID
    created: float


class Snapshots:
    """Looks snapshots up."""

    def __init__(self, database: Database, overlay: Path) -> None:
        self._database = database
        self.overlay = overlay
        # A snapshot never changes, and goes only by a prune, which is alone in the store: each step of a build asks for
        # the same stack with one more layer.
        self._stacks: dict[ChainID, tuple[Snapshot, ...]] = {}

    def get(self, chain: ChainID) -> Snapshot | None:
        """The snapshot, None if it is unknown. Its folder may be gone: ``unpacked`` tells."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM snapshot WHERE chain = ?", (chain,))
        return self._snapshot(row) if row else None

    def stack(self, chain: ChainID | None) -> tuple[Snapshot, ...]:
        """All layers of a stack, bottom first; NotFoundError if its top is unknown. None is the empty stack."""
        missing: list[Snapshot] = []
        while chain is not None and chain not in self._stacks:
            snapshot = self.get(chain)
            if snapshot is None:
                raise NotFoundError(f"the store has no snapshot {chain}", hint="build or import its image again")
            missing.append(snapshot)
            chain = snapshot.parent
        stack = self._stacks[chain] if chain is not None else ()
        for snapshot in reversed(missing):
            stack = self._stacks[snapshot.chain] = (*stack, snapshot)
        return stack

    def forget(self) -> None:
        """Look everything up again: some snapshots have been pruned."""
        self._stacks.clear()

    def all(self) -> tuple[Snapshot, ...]:
        """Every snapshot, oldest first."""
        return tuple(
            self._snapshot(row) for row in self._database.rows(f"SELECT {_COLUMNS} FROM snapshot ORDER BY created")
        )

    def insert(self, snapshot: Snapshot) -> None:
        """Write the row, inside a transaction of the caller, who has seen to the folder."""
        self._database.execute(
            f"INSERT INTO snapshot ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
            (snapshot.chain, snapshot.parent, snapshot.diff_id, snapshot.id, snapshot.link, snapshot.created),
        )

    def _snapshot(self, row: Row) -> Snapshot:
        chain, parent, diff_id, folder, link, created = row
        return Snapshot(
            overlay=self.overlay,
            id=folder,
            link=link,
            chain=ChainID(chain),
            parent=ChainID(parent) if parent else None,
            diff_id=DiffID(diff_id),
            created=created,
        )
