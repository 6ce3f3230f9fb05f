"""What each step will do, before it does it: metadata, a hit, or a miss and why.

``Progress`` is where a stage stands between two steps. A plan walks the same way as a build; only, behind a miss it
does not know the chain, and says so.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from typing import TYPE_CHECKING

from layerbuild.build.bases import Bases
from layerbuild.build.draft import Change, Draft
from layerbuild.build.imports import Found, Imports
from layerbuild.build.keys import Keys, Read, base_definition, keys, step_key
from layerbuild.build.schedule import needs
from layerbuild.build.selecting import Match, content_digest, only_folder, select
from layerbuild.build.stacks import Stacks
from layerbuild.build.times import Times
from layerbuild.build.tree import Node, Tree
from layerbuild.build.unnamed import Promise, Stack, Unnamed, chain_of, recorded
from layerbuild.digest import ChainID, DiffID
from layerbuild.errors import BuildError, LayerbuildError, SourceError
from layerbuild.frozen import frozen
from layerbuild.image.config import Platform
from layerbuild.image.image import Image
from layerbuild.layer.paths import clean
from layerbuild.steps import (
    ConfigStep,
    ContextRoot,
    CopyStep,
    GitSource,
    ImageBase,
    ImageRoot,
    PathSource,
    Root,
    RunMount,
    RunStep,
    ScratchBase,
    StageBase,
    StagePlan,
    StageRoot,
    Step,
    UrlSource,
    masked,
)
from layerbuild.store.cache import StepRecord
from layerbuild.store.layers import LayerRecord
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from layerbuild.build.explaining import Explainer, Reason
    from layerbuild.build.remote import Remote


@frozen
class Progress:
    """Where a stage stands: the image so far, the definition key, and the stack. ``known`` is False behind a miss of a
    plan: what the stack will be is not known before the step has run. ``missed`` names the first step that missed."""

    draft: Draft
    definition: str
    stack: Stack
    known: bool = True
    missed: str = ""


@frozen
class Metadata:
    """The step only changes the configuration."""


@frozen
class Hit:
    """A record says what the step makes. ``by`` is the key that found it: "definition" or "content"; ``source`` the
    cache of another machine that it stands in, empty: the store's own."""

    record: StepRecord
    keys: Keys
    by: str
    reads: tuple[Read, ...] = ()
    source: str = ""


@frozen
class Miss:
    """The step has to run. ``matches`` are the files that its sources name, by source; ``groups`` all that it reads,
    each as one listing tells it. ``keys`` None: no record can match, so nothing was read to make them; what the step
    reads will tell (``keys_of``). ``alike`` are layers that a COPY of the same made on other stacks."""

    keys: Keys | None
    reads: tuple[Read, ...] = ()
    matches: Mapping[PathSource, list[Match]] = field(default_factory=dict)
    groups: tuple[list[Match], ...] = ()
    alike: tuple[DiffID, ...] = ()


Verdict = Metadata | Hit | Miss


@frozen
class _Seen:
    """A step's reads, with what was found while looking."""

    reads: tuple[Read, ...] = ()
    matches: Mapping[PathSource, list[Match]] = field(default_factory=dict)
    groups: tuple[list[Match], ...] = ()


class Lookup:
    """Answers for the steps of one plan. ``results`` are what the stages will have made (or a walk, in a plan). What
    was read of those that are ``unneeded`` is told by a record of another machine's cache.

    ``look_only``: nothing is brought for an answer, as in a plan; what is not here is not known then.
    """

    def __init__(
        self,
        store: Store,
        bases: Bases,
        contexts: Mapping[str, Tree],
        remote: Remote,
        *,
        times: Times,
        no_cache: bool = False,
        no_cache_stages: Collection[str] = (),
        look_only: bool = False,
        copies_unread: bool = False,
        imports: Imports | None = None,
        glances: dict[object, str] | None = None,
    ) -> None:
        """``copies_unread``: who asks carries steps out, so a COPY that is sure to run need not be read before.
        ``glances`` are the digests of what was seen of contexts, for walks of one plan just before it is carried out:
        a hit may be told by them, and nothing is made by them."""
        self._store = store
        self._bases = bases
        self._contexts = contexts
        self.remote = remote
        self._times = times
        self._no_cache = no_cache
        self._no_cache_stages = no_cache_stages
        self._explainer: Explainer | None = None
        self._copies_unread = copies_unread
        self._glances = glances
        self._imports = imports or Imports(store, observe=lambda event: None)
        self.stacks = Stacks(store, look_only=look_only, bring=self._imports.bring)
        self.results: dict[int, Promise[Progress]] = {}
        self.unneeded: frozenset[int] = frozenset()

    def start(self, stage: StagePlan) -> Progress:
        """Where ``stage`` begins: its base."""
        match stage.base:
            case ScratchBase():
                return Progress(Draft(Image.of_base(stage.start)), base_definition(None, stage.platform), None)
            case StageBase(index):
                parent = self.results[index].get()
                return replace(parent, draft=parent.draft.then(Change(stage.start.config)))
            case ImageBase(_):
                image = Image.of_base(stage.start)
                return Progress(Draft(image), base_definition(image.top, stage.platform), image.top)

    def verdict(self, stage: StagePlan, step: Step, progress: Progress) -> Verdict:
        """What ``step`` will do on ``progress``. Waits for a parent's name only if that can decide."""
        if isinstance(step, ConfigStep):
            return Metadata()
        always = bool(self.unasked(stage))
        unread = self._unread(stage, step, always=always)
        if unread is not None:
            return Miss(None, (), unread, tuple(unread.values()))
        hit = None if always else self._find_unseen(stage, step, progress)
        if hit is not None:
            return hit
        seen = self._seen(stage, step)
        found = self._keys(stage, step, progress, seen.reads)
        hit = None if always else self._find(step, progress, found, seen.reads)
        if hit is None and found.own is None and not always:
            hit = self._find_told(stage, step, progress, seen.reads)
        if hit is not None:
            return hit
        if self._copies_unread and self._glances:  # what is made must be what its key says
            self._glances = None
            return self.verdict(stage, step, progress)
        asked = isinstance(step, CopyStep) and found.own is not None and not always
        alike = self._store.cache.alike(found.own) if asked and found.own is not None else ()
        return Miss(found, seen.reads, seen.matches, seen.groups, alike)

    def keys_of(
        self, stage: StagePlan, step: CopyStep, progress: Progress, digests: Mapping[PathSource, str]
    ) -> tuple[Keys, tuple[Read, ...]]:
        """The keys of a step that read ``digests`` of a context, by source; and these reads."""
        reads = tuple(Read(read_name(source), digest, digest) for source, digest in digests.items())
        return self._keys(stage, step, progress, reads), reads

    def _keys(self, stage: StagePlan, step: RunStep | CopyStep, progress: Progress, reads: tuple[Read, ...]) -> Keys:
        return keys(step, parent=progress.definition, reads=reads, platform=stage.platform, times=self._times.key)

    def _unread(
        self, stage: StagePlan, step: RunStep | CopyStep, *, always: bool
    ) -> Mapping[PathSource, list[Match]] | None:
        """The one folder that ``step`` copies from a context, if it is sure to run whatever is in it."""
        if not self._copies_unread or not isinstance(step, CopyStep) or not isinstance(step.root, ContextRoot):
            return None
        source = step.sources[0]
        if len(step.sources) != 1 or not isinstance(source, PathSource):
            return None
        identity = step_key(step, platform=stage.platform, times=self._times.key)
        may_hit = self._imports.has_records or self._store.cache.knows_step(identity)
        tree = self.tree(step.root, stage.platform)
        if tree is None or (may_hit and not always):
            return None
        matches = {source: select(step, source, tree)}
        return matches if only_folder(step, matches) else None

    def unasked(self, stage: StagePlan) -> str:
        """Why the steps of ``stage`` run whatever the cache knows; empty: they don't."""
        if self._no_cache:
            return "--no-cache"
        return f"--no-cache-filter {stage.name}" if stage.name and stage.name in self._no_cache_stages else ""

    def reason(
        self,
        stage: StagePlan,
        step: RunStep | CopyStep,
        miss: Miss,
        *,
        chain: ChainID | None,
        keys: Keys | None = None,
        missed: str = "",
    ) -> Reason:
        """Why ``step`` has to run on the stack ``chain``; ``missed`` names the step that has to run first and decides
        what that is, empty: it is known. ``keys`` are those that only the run has told."""
        from layerbuild.build.explaining import Explainer, Reason

        if unasked := self.unasked(stage):
            return Reason(unasked)
        found = keys or miss.keys
        if found is None:  # it failed before it had read anything
            return Reason("")
        if self._explainer is None:
            self._explainer = Explainer(self._store)
        return self._explainer.why(stage, step, found, chain=chain, missed=missed, groups=miss.groups)

    def last_run(self, step: RunStep | CopyStep) -> tuple[float | None, LayerRecord | None]:
        """The seconds that the same instruction took when it last ran, None: never; and the layer that it made."""
        record = self._store.cache.nearest(step.origin.text, parent=None)
        if record is None:
            return None, None
        return record.seconds, self._store.layers.get(record.diff_id) if record.diff_id else None

    def tree(self, root: Root, platform: Platform) -> Tree | None:
        """The files of ``root``; None for a stage whose result is not known yet, and for what can't be looked into."""
        match root:
            case ContextRoot(name):
                if name not in self._contexts:
                    raise BuildError(f"there is no build context called {name!r}")
                return self._contexts[name]
            case StageRoot(index):
                result = self.results[index].get()
                chain = recorded(result.stack) if result.known else None
                known = result.known and self.stacks.can_look(chain)
                return self.stacks.tree(chain, name=f"stage {index}") if known else None
            case ImageRoot(reference):
                image = Image.of_base(self._bases.config(reference, platform))
                if not self.stacks.can_look(image.top):
                    return None
                return self.stacks.tree(image.top, name=f"image {reference}")

    # -- records

    def _find(self, step: RunStep | CopyStep, progress: Progress, found: Keys, reads: tuple[Read, ...]) -> Hit | None:
        cache = self._store.cache
        if found.own is None or not progress.known:
            return None
        known = cache.may_know(found.definition, found.own) or self._imports.may_know(found.definition, found.own)
        if isinstance(progress.stack, Unnamed) and not known:
            return None
        content = found.content(chain_of(progress.stack))
        # The definition alone is not enough: the parent may have run again since, and made other bytes.
        record = cache.by_definition(found.definition)
        if record is not None and record.content_key == content:
            return Hit(record, found, "definition", reads)
        record = cache.by_content(content)
        if record is not None:
            return Hit(record, found, "content", reads)
        imported = self._imports.by_definition(found.definition)
        if imported is None or imported.step.content_key != content:
            imported = self._imports.by_content(content)
        return None if imported is None else _imported(imported, step, progress, found, reads)

    def _find_unseen(self, stage: StagePlan, step: RunStep | CopyStep, progress: Progress) -> Hit | None:
        """A hit in another machine's cache without a look into stacks that are not here: what a record says that the
        step read of a stack holds for every stack of that chain ID."""
        if not any(self._imports.elsewhere(self._chain(root, stage.platform)) for root in _roots(step)):
            return None
        reads = self._seen(stage, step, unseen=True).reads
        return self._find_told(stage, step, progress, reads)

    def _find_told(
        self, stage: StagePlan, step: RunStep | CopyStep, progress: Progress, reads: tuple[Read, ...]
    ) -> Hit | None:
        """A hit in another machine's cache by definition: the record tells what was read where that can't be seen."""
        imported = self._imports.by_definition(self._keys(stage, step, progress, reads).definition)
        unknown = {index for index in needs(step) if not self.results[index].get().known}
        if imported is None or not progress.known or not unknown <= self.unneeded:
            return None
        told = tuple(_told(read, imported) for read in reads)
        found = self._keys(stage, step, progress, told)
        if found.own is None or found.content(chain_of(progress.stack)) != imported.step.content_key:
            return None
        return _imported(imported, step, progress, found, told)

    # -- what a step reads

    def _seen(self, stage: StagePlan, step: RunStep | CopyStep, *, unseen: bool = False) -> _Seen:
        """What ``step`` reads. ``unseen``: of a stack that is elsewhere the content stays unknown."""
        match step:
            case RunStep():
                return self._reads_of_mounts(stage, step, unseen=unseen)
            case CopyStep():
                return self._reads_of_sources(stage, step, unseen=unseen)

    def _reads_of_sources(self, stage: StagePlan, step: CopyStep, *, unseen: bool) -> _Seen:
        tree = self._tree(step.root, stage.platform, unseen=unseen)
        matches: dict[PathSource, list[Match]] = {}
        reads: list[Read] = []
        for source in step.sources:
            if isinstance(source, UrlSource | GitSource):
                found = self.remote.content(source)
                reads.append(Read(f"content of {_shown(source)}", found, found))
            if not isinstance(source, PathSource):
                continue
            content = None
            if tree is not None:
                matches[source] = select(step, source, tree)
                content = self._content((id(step), source), matches[source], step.root)
            reads.append(self._read(read_name(source), step.root, stage.platform, content))
        return _Seen(tuple(reads), matches, tuple(matches.values()))

    def _reads_of_mounts(self, stage: StagePlan, step: RunStep, *, unseen: bool) -> _Seen:
        reads = []
        groups: list[list[Match]] = []
        for mount in step.mounts:
            if mount.root is None:
                continue
            tree = self._tree(mount.root, stage.platform, unseen=unseen)
            content = None
            if tree is not None:
                groups.append([Match(tree, mounted_node(step, mount, tree), b"", True)])
                content = self._content((id(step), mount), groups[-1], mount.root)
            reads.append(self._read(f"mounted at {mount.target}", mount.root, stage.platform, content))
        return _Seen(tuple(reads), groups=tuple(groups))

    def _content(self, key: object, matches: list[Match], root: Root) -> str:
        known = self._store.digests
        if self._glances is None or not isinstance(root, ContextRoot):
            return content_digest(matches, known)
        content = self._glances.get(key) or content_digest(matches, known)
        if not self._copies_unread:
            self._glances[key] = content
        return content

    def _read(self, name: str, root: Root, platform: Platform, content: str | None) -> Read:
        definition = self._definition(root, platform) or str(content)
        of_stack = not isinstance(root, ContextRoot)
        return Read(name, definition, content, of_stack, self._chain(root, platform) if of_stack else None)

    def _tree(self, root: Root, platform: Platform, *, unseen: bool) -> Tree | None:
        if unseen and self._imports.elsewhere(self._chain(root, platform)):
            return None
        return self.tree(root, platform)

    def _chain(self, root: Root, platform: Platform) -> ChainID | None:
        """The stack that ``root`` is, as far as it is known and one."""
        match root:
            case ContextRoot():
                return None
            case StageRoot(index):
                result = self.results[index].get()
                return recorded(result.stack) if result.known else None
            case ImageRoot(reference):
                return Image.of_base(self._bases.config(reference, platform)).top

    def _definition(self, root: Root, platform: Platform) -> str:
        """How a definition key tells ``root``; empty for a context, which is told by its content."""
        match root:
            case ContextRoot():
                return ""
            case StageRoot(index):
                return self.results[index].get().definition
            case ImageRoot(reference):
                return base_definition(Image.of_base(self._bases.config(reference, platform)).top, platform)


@contextmanager
def located(step: Step) -> Iterator[None]:
    """An error that knows no better place came up at ``step``. A command can leave folders so deep that no path leads
    there, on which whoever looks at its files fails."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise BuildError(
            "a path of the files that this step leaves is longer than the kernel can take",
            hint="let the step make no folders so deep",
            span=step.origin.span,
        ) from error
    except LayerbuildError as error:
        error.span = error.span or step.origin.span
        raise


def read_name(source: PathSource) -> str:
    """The name that the files behind ``source`` have among a step's inputs."""
    return f"files {source.pattern}"


def _roots(step: RunStep | CopyStep) -> list[Root]:
    """Where the step reads files."""
    if isinstance(step, CopyStep):
        return [step.root]
    return [mount.root for mount in step.mounts if mount.root is not None]


def _told(read: Read, imported: Found) -> Read:
    """``read`` with the content that a record tells of its stack, if it is the same stack, or one that nobody makes."""
    known = imported.step.stacks.get(read.name)
    if read.content is not None or known is None or read.chain not in (None, known.chain):
        return read
    return replace(read, content=known.content, chain=known.chain)


def _imported(
    imported: Found, step: RunStep | CopyStep, progress: Progress, found: Keys, reads: tuple[Read, ...]
) -> Hit | None:
    """The hit, told as a record of this store; None if the record speaks of another stack than its key does."""
    cached = imported.step
    chain = chain_of(progress.stack)
    if cached.parent != chain:
        return None
    record = StepRecord(
        definition_key=found.definition,
        content_key=cached.content_key,
        parent=cached.parent,
        chain=cached.chain,
        diff_id=cached.diff_id,
        inputs=found.inputs(chain),
        instruction=step.origin.text,
        image="",
        seconds=cached.seconds,
        created=time.time(),
    )
    by = "definition" if cached.definition_key == found.definition else "content"
    return Hit(record, found, by, reads, imported.source.name)


def _shown(source: UrlSource | GitSource) -> str:
    return masked(source.url if isinstance(source, UrlSource) else source.repository)


def mounted_node(step: RunStep, mount: RunMount, tree: Tree) -> Node:
    """What ``mount`` shows of ``tree``, which its root is; its source is a path, never a pattern. SourceError."""
    path = clean(mount.source.encode("utf-8", "surrogateescape"))
    node = tree.get(path)
    if node is None:
        shown = path.decode("utf-8", "backslashreplace") or "."
        raise SourceError(f"{shown!r} not found: {tree.why_missing(path)}", span=step.origin.span)
    return node
