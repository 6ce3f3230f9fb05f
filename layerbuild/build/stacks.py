"""Stacks of the store's layers as trees; each layer's index is opened once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from layerbuild.build.tree import StackTree
from layerbuild.digest import ChainID, DiffID
from layerbuild.store.snapshots import Snapshot

if TYPE_CHECKING:
    from layerbuild.layer.entry import Owner
    from layerbuild.layer.index import Index
    from layerbuild.layer.union import LayerView, Union
    from layerbuild.store.overlay import LayerFolder
    from layerbuild.store.store import Store
    from layerbuild.store.workspaces import Workspace


class Stacks:
    """Trees of stacks. A stack is brought and indexed when something in it is looked up for the first time: by
    ``bring``, if a cache has it, else by the store; only the content of large files has it unpacked. ``look_only``:
    never, and only stacks that are here can be looked into."""

    def __init__(
        self, store: Store, *, look_only: bool = False, bring: Callable[[ChainID | None], None] = lambda chain: None
    ) -> None:
        self._store = store
        self._look_only = look_only
        self._bring = bring
        self._indexes: dict[DiffID, Index] = {}
        self._owners: dict[str, Owner] = {}

    def tree(self, chain: ChainID | None, *, name: str) -> StackTree:
        """The stack ``chain`` (None: the empty one) as a tree; ``name`` is what messages call it."""
        return StackTree(lambda: self._recorded(chain), name=name, chain=chain)

    def can_look(self, chain: ChainID | None) -> bool:
        """Whether a tree of ``chain`` can answer."""
        return not self._look_only or self._store.is_here(chain)

    def below(self, workspace: Workspace, *, name: str) -> StackTree:
        """What lies below ``workspace``; nothing of it goes as long as that is open, named or not."""
        return StackTree(lambda: self._below(workspace), name=name)

    def owned(self, workspace: Workspace, owner: Owner) -> None:
        """Note that the folder of ``workspace`` can't tell owners, and ``owner`` can."""
        self._owners[workspace.id] = owner

    def _recorded(self, chain: ChainID | None) -> Union:
        if not self._look_only:
            self._bring(chain)
        snapshots = self._store.snapshots.stack(chain) if self._look_only else self._store.ensure_indexed(chain)
        return self._union(tuple(reversed(snapshots)))

    def _below(self, workspace: Workspace) -> Union:
        snapshots = (folder for folder in reversed(workspace.below) if isinstance(folder, Snapshot))
        self._store.index_missing([snapshot for snapshot in snapshots if snapshot.diff_id not in self._indexes])
        return self._union(workspace.below)

    def _union(self, folders: Sequence[LayerFolder]) -> Union:
        from layerbuild.layer.union import Union

        return Union([self._view(folder) for folder in folders])

    def _view(self, folder: LayerFolder) -> LayerView:
        from layerbuild.layer.folder import SealedFolder
        from layerbuild.layer.union import LayerView, in_folder

        if isinstance(folder, Snapshot):
            return LayerView(self._index(folder.diff_id), partial(self._store.open_file, folder))
        return LayerView(SealedFolder(folder.diff, owner=self._owners.get(folder.id)), in_folder(folder.diff))

    def _index(self, diff_id: DiffID) -> Index:
        from layerbuild.layer.index import Index

        if diff_id not in self._indexes:
            self._indexes[diff_id] = Index.open(self._store.layers.index_path(diff_id))
        return self._indexes[diff_id]
