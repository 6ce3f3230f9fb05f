"""Stacks of the store's layers as trees; each layer's index is opened once."""

from __future__ import annotations

from layerbuild.build.tree import StackTree
from layerbuild.digest import ChainID, DiffID
from layerbuild.layer.index import Index
from layerbuild.layer.union import LayerView, Union
from layerbuild.store.store import Store


class Stacks:
    """Trees by chain ID. A stack is brought and unpacked when something in it is looked up for the first time;
    ``look_only``: never, and only stacks that are here can be looked into."""

    def __init__(self, store: Store, *, look_only: bool = False) -> None:
        self._store = store
        self._look_only = look_only
        self._indexes: dict[DiffID, Index] = {}

    def tree(self, chain: ChainID | None, *, name: str) -> StackTree:
        """The stack ``chain`` (None: the empty one) as a tree; ``name`` is what messages call it."""
        return StackTree(lambda: self._union(chain), name=name, chain=chain)

    def can_look(self, chain: ChainID | None) -> bool:
        """Whether a tree of ``chain`` can answer."""
        return not self._look_only or self._store.is_here(chain)

    def _union(self, chain: ChainID | None) -> Union:
        snapshots = self._store.snapshots.stack(chain) if self._look_only else self._store.ensure_unpacked(chain)
        return Union([LayerView(self._index(snapshot.diff_id), snapshot.diff) for snapshot in reversed(snapshots)])

    def _index(self, diff_id: DiffID) -> Index:
        if diff_id not in self._indexes:
            self._indexes[diff_id] = Index.open(self._store.layers.index_path(diff_id))
        return self._indexes[diff_id]
