"""Stacks of the store's layers as trees; each layer's index is opened once."""

from __future__ import annotations

from collections.abc import Callable

from layerbuild.build.tree import StackTree
from layerbuild.digest import ChainID, DiffID
from layerbuild.layer.index import Index
from layerbuild.layer.union import LayerView, Union
from layerbuild.store.store import Store


class Stacks:
    """Trees by chain ID. ``bring`` fetches a stack that is not in the store, if it can be had."""

    def __init__(self, store: Store, *, bring: Callable[[ChainID | None], None] = lambda chain: None) -> None:
        self._store = store
        self._bring = bring
        self._indexes: dict[DiffID, Index] = {}

    def tree(self, chain: ChainID | None, *, name: str) -> StackTree:
        """The stack ``chain`` (None: the empty one) as a tree; ``name`` is what messages call it."""
        self._bring(chain)
        snapshots = self._store.snapshots.stack(chain) if chain else ()
        views = [LayerView(self._index(snapshot.diff_id), snapshot.diff) for snapshot in reversed(snapshots)]
        return StackTree(Union(views), name=name, chain=chain)

    def _index(self, diff_id: DiffID) -> Index:
        if diff_id not in self._indexes:
            self._indexes[diff_id] = Index.open(self._store.layers.index_path(diff_id))
        return self._indexes[diff_id]
