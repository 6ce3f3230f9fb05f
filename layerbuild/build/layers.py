"""From a step that has to run to a sealed folder: workspace, changes, seal. The layer is made of it in captures.py."""

from __future__ import annotations

import os
import shlex
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, assert_never

from layerbuild.build.accounts import names_account, owner
from layerbuild.build.archives import Archive, unpacked
from layerbuild.build.captures import Sealed
from layerbuild.build.copying import told_stream, write, write_stream
from layerbuild.build.guard import Guard, Scan
from layerbuild.build.lookup import Lookup, Miss
from layerbuild.build.mounting import Mounted
from layerbuild.build.placement import Placement
from layerbuild.build.running import Command, Ended, Runner, remembered
from layerbuild.build.selecting import Listing, Match, State, listing, only_folder
from layerbuild.build.times import Times
from layerbuild.build.tree import StackTree, Tree
from layerbuild.build.unnamed import Stack, Unnamed, recorded
from layerbuild.digest import ChainID
from layerbuild.errors import SpaceError, StepFailed
from layerbuild.frozen import frozen
from layerbuild.layer import codecs
from layerbuild.layer.capture import LayerWriter, capture
from layerbuild.layer.changes import seal
from layerbuild.layer.entry import Entry, Kind, Owner, RootMetadata, kind_of
from layerbuild.layer.index import Index, to_line
from layerbuild.layer.owners import NOBODY, Owners
from layerbuild.steps import CopyStep, EmptyDirectory, GitSource, InlineSource, PathSource, RunStep, UrlSource, masked
from layerbuild.store.layers import LayerRecord
from layerbuild.store.store import Store
from layerbuild.store.workspaces import KeptWorkspace, Workspace

Tell = Callable[[int], None]  # takes the size of a tar that grows


class Unchanged(Exception):
    """Why a layer that was begun is given up: nothing is in it."""


@frozen
class Copied:
    """What a COPY leaves, None: it changed no file; and the digests of what it read, as cache keys tell it."""

    sealed: Sealed | None
    digests: Mapping[PathSource, str]


class Watch(Protocol):
    """Is shown the workspace of a RUN."""

    def __call__(self, workspace: Workspace, *, written: bool) -> None: ...


class LayerMaker:
    """Runs the steps that the cache does not know.

    ``one_id``: in this user namespace every file is root's, whatever its owner in the image. Several threads may make
    layers at once.
    """

    def __init__(
        self,
        store: Store,
        lookup: Lookup,
        guard: Guard,
        *,
        times: Times,
        codec: str,
        level: int | None,
        one_id: bool,
    ) -> None:
        self._store = store
        self._secrets = guard
        self._lookup = lookup
        self._times = times
        self._codec = codec
        self._level = level
        self._one_id = one_id
        self._guard = threading.Lock()
        self._writing: set[LayerWriter] = set()
        self._stopped: Exception | None = None
        self._on_folders: set[str] = set()  # workspaces that lie on unpacked layers alone, which stay with them

    def stop(self, error: Exception) -> None:
        """From another thread: end what is going on, and whatever is begun from now on."""
        with self._guard:
            self._stopped = error
            for writer in self._writing:
                writer.abort(error)

    def run(
        self,
        step: RunStep,
        stack: Stack,
        runner: Runner,
        mounted: Mounted,
        *,
        after: RunStep | None,
        output: Callable[[bytes], None],
        watch: Watch,
        tell: Tell,
    ) -> Sealed | None:
        """Have ``runner`` execute the process in an overlay mount, and seal its upperdir; None: it changed no file.

        ``watch`` is shown the workspace before the process, and after it; ``tell`` is told how large the tar is
        while it grows. StepFailed keeps the workspace.
        """
        workspace = self._begin(stack)
        try:
            watch(workspace, written=False)
            root = RootMetadata.of(workspace.diff)
            tree = self._lookup.stacks.below(workspace, name="the image")
            ended = runner.run(step, tree, workspace, mounted, after=after, output=output)
            if ended.code:
                raise self._failed(step, stack, workspace, runner.command(step), ended)
            watch(workspace, written=True)
            lowers = [below.diff for below in workspace.below]
            owners = Owners.beside(workspace.diff) if self._one_id else NOBODY
            sealed = seal(
                workspace.diff,
                lowers,
                epoch=self._times.epoch,
                spaces=runner.spaces(user_xattr=self._store.user_xattr),
                trust_notes=runner.trusts_notes,
                root=root,
                owners=owners,
                owners_below=Owners.of(lowers) if owners.known else NOBODY,
            )
            if not sealed.entries:
                self._store.workspaces.discard(workspace)
                return None
            owner_of = _owner(tree, workspace.diff, owners) if self._one_id else None
            if owner_of is not None:
                self._lookup.stacks.owned(workspace, owner_of)
            scan = self._secrets.scan()
            blob, index, writer = self._writer(workspace, scan, tell, folder=False)
            return Sealed(workspace, blob, index, writer, lambda to: capture(workspace.diff, to, owner=owner_of), scan)
        except StepFailed:
            raise
        except BaseException:
            self._store.workspaces.discard(workspace)
            raise

    def copy(
        self,
        step: CopyStep,
        stack: Stack,
        matches: Mapping[PathSource, list[Match]],
        *,
        mounted_soon: bool,
        tell: Tell,
    ) -> Copied:
        """Write the files that the sources name into a fresh diff folder and its tar, in one read of each; ``tell`` as
        in ``run``. ``mounted_soon``: a RUN will need all that lies below, so what has to be brought is unpacked at
        once."""
        sources = [match for found in matches.values() for match in found]
        for match in sources:
            if isinstance(match.tree, StackTree) and (len(sources) > 1 or match.node.entry.kind is not Kind.FILE):
                self._store.ensure_unpacked(match.tree.chain)
        looks_below = _looks_below(step)
        workspace = self._begin(stack, empty_handed=not (looks_below and mounted_soon))
        try:
            if looks_below:
                self._match_root(workspace)
            folder = only_folder(step, matches)
            if folder:
                copied = self._stream(step, workspace, *folder, tell)
            else:
                copied = self._copy(step, workspace, matches, tell)
        except BaseException:
            self._store.workspaces.discard(workspace)
            raise
        if copied.sealed is None:
            self._store.workspaces.discard(workspace)
        return copied

    def known(self, step: CopyStep, chain: ChainID | None, miss: Miss) -> LayerRecord | None:
        """The layer that the step would make on the stack ``chain``, if one that is here is that very layer. No file
        is read for it whose digest is remembered."""
        if not all(isinstance(source, PathSource) for source in step.sources) or step.unpack is not False:
            return None
        for diff_id in miss.alike:
            layer, place = self._store.layers.get(diff_id), self._store.layers.index_path(diff_id)
            whole = layer is not None and any(self._store.blobs.has(blob.digest) for blob in layer.blobs)
            if not whole or not place.is_file():
                continue
            with Index.open(place) as index:
                if index.consists_of(self._told(step, chain, miss)):
                    return layer
        return None

    def _told(self, step: CopyStep, chain: ChainID | None, miss: Miss) -> Iterator[bytes]:
        """The lines of the index of what the step would make."""
        placement = self._placement(step, self._lookup.stacks.tree(chain, name="the image"))
        folder = only_folder(step, miss.matches)
        if folder is not None:
            yield from told_stream(placement, folder[1])
            return
        for source in step.sources:
            assert isinstance(source, PathSource)
            for match in miss.matches[source]:
                placement.add(match)
        yield from (to_line(item.entry) for item in placement.items())

    def _stream(self, step: CopyStep, workspace: Workspace, source: PathSource, match: Match, tell: Tell) -> Copied:
        """One folder, in memory that does not depend on how much is in it."""
        placement = self._placement(step, self._below(workspace))
        state = State.of([match])
        with self._filled(workspace, tell) as sealed:
            count, told = write_stream(placement, match, sealed.writer)
        digest = self._keep_listing(told)
        state.remember(digest, self._store.digests)
        if not count:
            sealed.drop(Unchanged())
        return Copied(sealed if count else None, {source: digest})

    def _copy(
        self, step: CopyStep, workspace: Workspace, matches: Mapping[PathSource, list[Match]], tell: Tell
    ) -> Copied:
        digests = {source: self._keep_listing(listing(found)) for source, found in matches.items()}
        with ExitStack() as cleaning:
            items = self._place(step, workspace, matches, cleaning).items()
            if not items:
                return Copied(None, digests)
            with self._filled(workspace, tell) as sealed:
                write(items, sealed.writer)
        return Copied(sealed, digests)

    def _keep_listing(self, told: Listing) -> str:
        """Keep what the files read are, so that a later miss can be told as a difference."""
        digest, packed = told.finish()
        self._store.cache.put_listing(digest, packed)
        return digest

    @contextmanager
    def _filled(self, workspace: Workspace, tell: Tell) -> Iterator[Sealed]:
        """A layer to write, with its folder; what the tar still lacks then is its end, and what waits in memory."""
        scan = self._secrets.scan()
        blob, index, writer = self._writer(workspace, scan, tell, folder=True)
        sealed = Sealed(workspace, blob, index, writer, LayerWriter.finish, scan)
        try:
            with self._stoppable(writer):
                yield sealed
                writer.finish_folder()
        except BaseException as error:
            sealed.drop(error)
            raise

    def _begin(self, stack: Stack, *, empty_handed: bool = False) -> Workspace:
        """A workspace on ``stack``, which is unpacked if it is not, or (``empty_handed``) may stay where it is."""
        if isinstance(stack, Unnamed):
            if not empty_handed and stack.workspace.id not in self._on_folders:
                self._store.ensure_below(stack.workspace)
            begun = self._store.workspaces.begin(stack.workspace)
        else:
            if not empty_handed:
                self._store.ensure_unpacked(stack)
            begun = self._store.workspaces.begin(stack)
        if not empty_handed:
            self._on_folders.add(begun.id)
        return begun

    def _match_root(self, workspace: Workspace) -> None:
        """Give the workspace the root that the stack below shows, also where that has no folder yet."""
        root = self._below(workspace).look(b"")
        if root is not None and workspace.below and not workspace.below[0].unpacked:
            entry = root.entry
            time = entry.mtime * 1_000_000_000 + entry.mtime_ns
            RootMetadata(entry.mode, entry.uid, entry.gid, time).put(workspace.diff)

    @contextmanager
    def _stoppable(self, writer: LayerWriter) -> Iterator[None]:
        with self._guard:
            if self._stopped is not None:
                raise self._stopped
            self._writing.add(writer)
        try:
            yield
        finally:
            with self._guard:
                self._writing.discard(writer)

    def _below(self, workspace: Workspace) -> StackTree:
        return self._lookup.stacks.below(workspace, name="the image")

    def _placement(self, step: CopyStep, below: StackTree) -> Placement:
        target = self._lookup.stacks.tree(None, name="the image") if _stands_alone(step) else below
        owned_by = owner(below, step.owner) if step.owner else None
        return Placement(step, target, owner=owned_by, times=self._times)

    def _place(
        self,
        step: CopyStep,
        workspace: Workspace,
        matches: Mapping[PathSource, list[Match]],
        cleaning: ExitStack,
    ) -> Placement:
        placement = self._placement(step, self._below(workspace))
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

    def _failed(self, step: RunStep, stack: Stack, workspace: Workspace, command: Command, ended: Ended) -> StepFailed:
        """The error for a failed RUN; its workspace stays, with all that is needed to enter it again."""
        recorded(stack)  # it can only stay on what stays
        kept = self._keep(step, command, workspace)
        return StepFailed(
            f"process {masked(shlex.join(step.argv))!r} did not complete successfully: {ended.how}",
            exit_code=ended.code,
            hint=ended.hint,
            output=ended.tail,
            workspace=kept.id if kept else "",
            span=step.origin.span,
        )

    def _keep(self, step: RunStep, command: Command, workspace: Workspace) -> KeptWorkspace | None:
        """Keep the workspace in place of the one that the same instruction of the same recipe left when it failed
        before: who builds again and again should not fill the disk. None if the disk is full already."""
        workspaces = self._store.workspaces
        mark = f"{step.origin.span.file}: {step.origin.text}"
        meta = {**remembered(command, step.origin.text), "failed": mark}
        try:
            for earlier in workspaces.kept():
                if earlier.meta.get("failed") == mark:
                    workspaces.remove(earlier)
            return workspaces.keep(workspace, meta)
        except SpaceError:  # what the command said about it tells more
            workspaces.discard(workspace)
            return None

    def _writer(
        self, workspace: Workspace, scan: Scan | None, tell: Tell, *, folder: bool
    ) -> tuple[Path, Path, LayerWriter]:
        """Names for the blob and the index of a layer, and what writes them; ``folder``: and fills the diff folder.
        ``scan`` watches what is written."""
        blob, index = self._store.blobs.temporary(), self._store.layers.temporary_index()
        try:
            writer = LayerWriter(
                blob,
                index,
                codec=codecs.named(self._codec),
                level=self._level,
                folder=workspace.diff if folder else None,
                user_xattr=self._store.user_xattr,
                root=RootMetadata.of(workspace.diff),
                watch=scan.take if scan else None,
                tell=tell,
            )
        except BaseException:
            blob.unlink(missing_ok=True)
            raise
        return blob, index, writer


def _stands_alone(step: CopyStep) -> bool:
    """Whether what the step makes does not depend on what it is put upon."""
    return step.link and not step.mode


def _looks_below(step: CopyStep) -> bool:
    """Whether the step needs the files that it is put upon: to place its own, or to look an account up."""
    return not _stands_alone(step) or names_account(step.owner)


def _add(placement: Placement, found: Match, archive: Archive | None) -> None:
    if archive is None:
        placement.add(found)
    else:
        placement.add_archive(archive)


def _owner(tree: Tree, diff: Path, owners: Owners) -> Owner:
    """In a namespace with one id no owner can be changed. Files and folders say themselves whose they should be
    (layer/standin.py); for all else it is noted, or it was copied up from below and has the owner that it had there."""
    top = os.fsencode(diff) + b"/"

    def owner_of(path: bytes, found: os.stat_result) -> tuple[int, int]:
        if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            return found.st_uid, found.st_gid
        noted = owners.get(top + path, found)
        if noted is not None:
            return noted
        node = tree.get(path, follow=False)
        if node is None or not _copied_up(top + path, found, node.entry):
            return found.st_uid, found.st_gid
        return node.entry.uid, node.entry.gid

    return owner_of


def _copied_up(full: bytes, found: os.stat_result, below: Entry) -> bool:
    if below.kind is not kind_of(found.st_mode) or below.mtime != found.st_mtime_ns // 10**9:
        return False
    return below.kind is not Kind.SYMLINK or os.readlink(full) == below.target
