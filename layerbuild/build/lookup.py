"""What each step will do, before it does it: metadata, a hit, or a miss and why.

``Progress`` is where a stage stands between two steps. A plan walks the same way as a build; only, behind a miss it
does not know the chain, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from layerbuild.build.bases import Bases
from layerbuild.build.draft import Change, Draft
from layerbuild.build.keys import Keys, Read, base_definition, keys, step_key
from layerbuild.build.remote import Remote
from layerbuild.build.selecting import Match, content_digest, only_folder, select
from layerbuild.build.stacks import Stacks
from layerbuild.build.times import Times
from layerbuild.build.tree import Node, Tree
from layerbuild.build.unnamed import Promise, Stack, Unnamed, chain_of, recorded
from layerbuild.errors import BuildError, LayerbuildError, SourceError
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
from layerbuild.store.store import Store


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a stage stands: the image so far, the definition key, and the stack. ``known`` is False behind a miss of a
    plan: what the stack will be is not known before the step has run. ``missed`` names the first step that missed."""

    draft: Draft
    definition: str
    stack: Stack
    known: bool = True
    missed: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The step only changes the configuration."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A record says what the step makes. ``by`` is the key that found it: "definition" or "content"."""

    record: StepRecord
    keys: Keys
    by: str


@dataclass(frozen=True, slots=True)
class Miss:
    """The step has to run. ``matches`` are the files that its sources name, by source. ``keys`` None: no record can
    match, so nothing was read to make them; what the step reads will tell (``keys_of``)."""

    keys: Keys | None
    matches: Mapping[PathSource, list[Match]] = field(default_factory=dict)


Verdict = Metadata | Hit | Miss


@dataclass(frozen=True, slots=True)
class _Seen:
    """A step's reads, with what was found while looking."""

    reads: tuple[Read, ...] = ()
    matches: Mapping[PathSource, list[Match]] = field(default_factory=dict)


class Lookup:
    """Answers for the steps of one plan. ``results`` are what the stages will have made (or a walk, in a plan)."""

    def __init__(
        self,
        store: Store,
        bases: Bases,
        contexts: Mapping[str, Tree],
        remote: Remote,
        *,
        times: Times,
        no_cache: bool = False,
        copies_unread: bool = False,
    ) -> None:
        """``copies_unread``: who asks carries steps out, so a COPY that is sure to run need not be read before."""
        self._store = store
        self._bases = bases
        self._contexts = contexts
        self.remote = remote
        self._times = times
        self._no_cache = no_cache
        self._copies_unread = copies_unread
        self.stacks = Stacks(store)
        self.results: dict[int, Promise[Progress]] = {}

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
        match step:
            case ConfigStep():
                return Metadata()
            case RunStep():
                seen = self._reads_of_mounts(stage, step)
            case CopyStep():
                unread = self._unread(stage, step)
                if unread is not None:
                    return Miss(None, unread)
                seen = self._reads_of_sources(stage, step)
        found = keys(step, parent=progress.definition, reads=seen.reads, times=self._times.key)
        hit = None if self._no_cache else self._find(found, progress)
        return hit or Miss(found, seen.matches)

    def keys_of(self, step: CopyStep, progress: Progress, digests: Mapping[PathSource, str]) -> Keys:
        """The keys of a step that read ``digests`` of a context, by source."""
        reads = tuple(Read(read_name(source), digest, digest) for source, digest in digests.items())
        return keys(step, parent=progress.definition, reads=reads, times=self._times.key)

    def _unread(self, stage: StagePlan, step: CopyStep) -> Mapping[PathSource, list[Match]] | None:
        """The one folder that ``step`` copies from a context, if it is sure to run whatever is in it."""
        if not isinstance(step.root, ContextRoot) or len(step.sources) != 1 or not self._copies_unread:
            return None
        source = step.sources[0]
        if not isinstance(source, PathSource):
            return None
        if not self._no_cache and self._store.cache.knows_step(step_key(step, times=self._times.key)):
            return None
        tree = self.tree(step.root, stage.platform)
        assert tree is not None  # a context
        matches = {source: select(step, source, tree)}
        return matches if only_folder(step, matches) else None

    def reason(self, step: Step, progress: Progress, miss: Miss) -> str:
        """Why ``step`` has to run, in words."""
        if self._no_cache:
            return "--no-cache"
        if not progress.known:
            return f"{progress.missed} runs first, and what it makes decides"
        assert miss.keys is not None  # as long as nothing is copied
        if miss.keys.own is None:
            return "what it reads is made by a step that runs first"
        chain = chain_of(progress.stack)
        record = self._store.cache.nearest(step.origin.text, parent=chain)
        if record is None or record.instruction != step.origin.text:
            return "it has not run here before"
        inputs = miss.keys.inputs(chain)
        names = sorted({*record.inputs, *inputs})
        changed = [name for name in names if record.inputs.get(name) != inputs.get(name)]
        return f"changed since it last ran: {', '.join(changed)}" if changed else "its layer was pruned"

    def tree(self, root: Root, platform: Platform) -> Tree | None:
        """The files of ``root``; None for a stage whose result is not known yet."""
        match root:
            case ContextRoot(name):
                if name not in self._contexts:
                    raise BuildError(f"there is no build context called {name!r}")
                return self._contexts[name]
            case StageRoot(index):
                result = self.results[index].get()
                return self.stacks.tree(recorded(result.stack), name=f"stage {index}") if result.known else None
            case ImageRoot(reference):
                image = Image.of_base(self._bases.config(reference, platform))
                return self.stacks.tree(image.top, name=f"image {reference}")

    # -- records

    def _find(self, found: Keys, progress: Progress) -> Hit | None:
        cache = self._store.cache
        if found.own is None or not progress.known:
            return None
        if isinstance(progress.stack, Unnamed) and not cache.may_know(found.definition, found.own):
            return None
        content = found.content(chain_of(progress.stack))
        # The definition alone is not enough: the parent may have run again since, and made other bytes.
        record = cache.by_definition(found.definition)
        if record is not None and record.content_key == content:
            return Hit(record, found, "definition")
        record = cache.by_content(content)
        return Hit(record, found, "content") if record is not None else None

    # -- what a step reads

    def _reads_of_sources(self, stage: StagePlan, step: CopyStep) -> _Seen:
        tree = self.tree(step.root, stage.platform)
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
                content = content_digest(matches[source], self._store.digests)
            definition = self._definition(step.root, stage.platform) or str(content)
            reads.append(Read(read_name(source), definition, content))
        return _Seen(tuple(reads), matches)

    def _reads_of_mounts(self, stage: StagePlan, step: RunStep) -> _Seen:
        reads = []
        for mount in step.mounts:
            if mount.root is None:
                continue
            tree = self.tree(mount.root, stage.platform)
            content = None
            if tree is not None:
                match = Match(tree, mounted_node(step, mount, tree), b"", True)
                content = content_digest([match], self._store.digests)
            definition = self._definition(mount.root, stage.platform) or str(content)
            reads.append(Read(f"mounted at {mount.target}", definition, content))
        return _Seen(tuple(reads))

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
    """An error that knows no better place came up at ``step``."""
    try:
        yield
    except LayerbuildError as error:
        error.span = error.span or step.origin.span
        raise


def read_name(source: PathSource) -> str:
    """The name that the files behind ``source`` have among a step's inputs."""
    return f"files {source.pattern}"


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
