"""From a step that has to run to a layer in the store: workspace, changes, seal, capture, commit."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import assert_never

from layerbuild.build.accounts import owner
from layerbuild.build.archives import Archive, unpacked
from layerbuild.build.copying import Placement, write
from layerbuild.build.guard import Guard
from layerbuild.build.lookup import Lookup
from layerbuild.build.mounting import Mounted
from layerbuild.build.running import Ended, Runner, remembered
from layerbuild.build.selecting import Match
from layerbuild.build.times import Times
from layerbuild.build.tree import StackTree, Tree
from layerbuild.digest import ChainID
from layerbuild.errors import SpaceError, StepFailed
from layerbuild.layer import codecs
from layerbuild.layer.capture import Captured, LayerWriter, Owner, capture
from layerbuild.layer.changes import seal
from layerbuild.layer.entry import Kind, RootMetadata, kind_of
from layerbuild.steps import CopyStep, EmptyDirectory, GitSource, InlineSource, PathSource, RunStep, UrlSource
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.store import Store
from layerbuild.store.workspaces import KeptWorkspace, Workspace


@dataclass(frozen=True, slots=True)
class Made:
    """What a step made: its layer, and the snapshot in which it is the topmost one."""

    layer: LayerRecord
    snapshot: Snapshot


class LayerMaker:
    """Runs the steps that the cache does not know. Each method returns None for a step that changed no file.

    ``one_id``: in this user namespace every file is root's, whatever its owner in the image.
    """

    def __init__(
        self, store: Store, lookup: Lookup, runner: Runner, guard: Guard, *, times: Times, codec: str, one_id: bool
    ) -> None:
        self._store = store
        self._guard = guard
        self._lookup = lookup
        self._runner = runner
        self._times = times
        self._codec = codec
        self._one_id = one_id

    def run(
        self, step: RunStep, chain: ChainID | None, mounted: Mounted, *, output: Callable[[bytes], None]
    ) -> Made | None:
        """Execute the process in an overlay mount, and make a layer of its upperdir. StepFailed keeps the workspace."""
        self._store.ensure_unpacked(chain)
        workspace = self._store.workspaces.begin(chain)
        try:
            root = RootMetadata.of(workspace.diff)
            tree = self._lookup.stacks.tree(chain, name="the image")
            ended = self._runner.run(step, tree, workspace, mounted, output=output)
            if ended.code:
                raise self._failed(step, workspace, ended)
            lowers = [below.diff for below in workspace.below]
            sealed = seal(workspace.diff, lowers, epoch=self._times.epoch, root=root)
            if not sealed.entries:
                self._store.workspaces.discard(workspace)
                return None
            owner_of = _owner_below(tree) if self._one_id else None
            return self._capture(step, workspace, lambda writer: capture(workspace.diff, writer, owner=owner_of))
        except StepFailed:
            raise
        except BaseException:
            self._store.workspaces.discard(workspace)
            raise

    def copy(self, step: CopyStep, chain: ChainID | None, matches: Mapping[PathSource, list[Match]]) -> Made | None:
        """Write the files that the sources name into a fresh diff folder and its tar, in one read of each."""
        for match in (match for found in matches.values() for match in found):
            if isinstance(match.tree, StackTree):
                self._store.ensure_unpacked(match.tree.chain)
        with ExitStack() as cleaning:
            placement = self._place(step, chain, matches, cleaning)
            items = placement.items()
            if not items:
                return None
            workspace = self._store.workspaces.begin(chain)
            try:
                return self._capture(step, workspace, lambda writer: write(items, writer), folder=True)
            except BaseException:
                self._store.workspaces.discard(workspace)
                raise

    def _place(
        self,
        step: CopyStep,
        chain: ChainID | None,
        matches: Mapping[PathSource, list[Match]],
        cleaning: ExitStack,
    ) -> Placement:
        target = self._lookup.stacks.tree(None if step.link and not step.mode else chain, name="the image")
        owned_by = owner(self._lookup.stacks.tree(chain, name="the image"), step.owner) if step.owner else None
        placement = Placement(step, target, owner=owned_by, times=self._times)
        for source in step.sources:
            match source:
                case PathSource():
                    for found in matches[source]:
                        _add(placement, found, self._archive(step, found, cleaning))
                case InlineSource(name, content):
                    placement.add_inline(name.encode("utf-8", "surrogateescape"), content)
                case EmptyDirectory():
                    placement.add_folder_itself()
                case UrlSource() | GitSource():
                    found = self._lookup.remote.match(step, source, cleaning)
                    # Unlike a local archive, one from elsewhere is unpacked only where the recipe says so.
                    archive = self._archive(step, found, cleaning) if step.unpack else None
                    _add(placement, found, archive)
                case _:
                    assert_never(source)
        return placement

    def _archive(self, step: CopyStep, match: Match, cleaning: ExitStack) -> Archive | None:
        """The contents of an archive that ADD is to unpack; None for any other file."""
        if step.unpack is False or match.node.entry.kind is not Kind.FILE:
            return None
        return unpacked(match, self._store, cleaning)

    def _failed(self, step: RunStep, workspace: Workspace, ended: Ended) -> StepFailed:
        """The error for a failed RUN; its workspace stays, with all that is needed to enter it again."""
        kept = self._keep(step, workspace)
        return StepFailed(
            f"process {shlex.join(step.argv)!r} did not complete successfully: {ended.how}",
            exit_code=ended.code,
            hint=ended.hint,
            output=ended.tail,
            workspace=kept.id if kept else "",
            span=step.origin.span,
        )

    def _keep(self, step: RunStep, workspace: Workspace) -> KeptWorkspace | None:
        """Keep the workspace in place of the one that the same instruction of the same recipe left when it failed
        before: who builds again and again should not fill the disk. None if the disk is full already."""
        workspaces = self._store.workspaces
        mark = f"{step.origin.span.file}: {step.origin.text}"
        meta = {**remembered(self._runner.command(step), step.origin.text), "failed": mark}
        try:
            for earlier in workspaces.kept():
                if earlier.meta.get("failed") == mark:
                    workspaces.remove(earlier)
            return workspaces.keep(workspace, meta)
        except SpaceError:  # what the command said about it tells more
            workspaces.discard(workspace)
            return None

    def _capture(
        self,
        step: RunStep | CopyStep,
        workspace: Workspace,
        write: Callable[[LayerWriter], Captured],
        *,
        folder: bool = False,
    ) -> Made:
        """Make the blob and the index of a layer by ``write``, and commit its workspace; ``folder``: fill that too.
        BuildError for a layer that the guard does not let pass."""
        scan = self._guard.scan()
        blob, index = self._store.blobs.temporary(), self._store.layers.temporary_index()
        try:
            with LayerWriter(
                blob,
                index,
                codec=codecs.named(self._codec),
                folder=workspace.diff if folder else None,
                user_xattr=self._store.user_xattr,
                root=RootMetadata.of(workspace.diff),
                watch=scan.take if scan else None,
            ) as writer:
                captured = write(writer)
            self._guard.judge(step, scan)
            self._store.layers.adopt_index(index, captured.diff_id)
            self._store.blobs.adopt(blob, captured.digest)
        finally:
            blob.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
        record = BlobRecord(captured.digest, captured.size, captured.codec)
        layer = LayerRecord(captured.diff_id, captured.tar_size, captured.entries, (record,))
        made = Made(layer, self._store.workspaces.commit(workspace, layer))
        self._guard.keep(captured.diff_id, scan)
        return made


def _add(placement: Placement, found: Match, archive: Archive | None) -> None:
    if archive is None:
        placement.add(found)
    else:
        placement.add_archive(archive)


def _owner_below(tree: Tree) -> Owner:
    """In a namespace with one id no owner can be changed: what was there before has the owner that its index tells."""

    def owner_of(path: bytes, found: os.stat_result) -> tuple[int, int]:
        node = tree.get(path, follow=False)
        if node is None or node.entry.kind is not kind_of(found.st_mode):
            return found.st_uid, found.st_gid
        return node.entry.uid, node.entry.gid

    return owner_of
