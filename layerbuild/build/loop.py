"""A build: the needed stages in order, and in each its steps, until the image is in the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from layerbuild import events
from layerbuild.build.bases import Bases
from layerbuild.build.captures import Captures
from layerbuild.build.draft import Change
from layerbuild.build.entitlements import check_entitlements
from layerbuild.build.guard import Guard
from layerbuild.build.images import ImageWriter
from layerbuild.build.imports import CacheSource, Imports, Unusable
from layerbuild.build.keys import Keys
from layerbuild.build.lookup import Hit, Lookup, Metadata, Miss, Progress, located, read_name
from layerbuild.build.options import Options
from layerbuild.build.platforms import check_platforms
from layerbuild.build.recording import Recorder
from layerbuild.build.remote import Remote
from layerbuild.build.schedule import Abandoned, Schedule, needs
from layerbuild.build.selecting import listing
from layerbuild.build.times import Times
from layerbuild.build.trail import Trail
from layerbuild.build.tree import Tree, changed_meanwhile
from layerbuild.build.unnamed import Promise, Stack, Unnamed, chain_of, recorded
from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.errors import BuildError
from layerbuild.image.config import History, Platform
from layerbuild.steps import ConfigStep, CopyStep, LayerPlan, RunStep, SkippedStage, StagePlan, Step
from layerbuild.store.buildcache import BuildCache
from layerbuild.store.cache import StepRecord
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import LayerRecord
from layerbuild.store.store import Store
from layerbuild.store.workspaces import Workspace

if TYPE_CHECKING:
    from layerbuild.build.layers import Copied, LayerMaker
    from layerbuild.build.mounting import Mounter
    from layerbuild.build.running import Runner

_OFTEN = 0.25  # seconds between two events about a layer that is being made
COMMENT = "layerbuild"  # of each history entry that a build adds: who made it


class Unforeseen(Exception):
    """A step has to run on what was to be left out: a file or a record has changed since that was decided."""


class Build:
    """One build. ``begin`` makes what executes RUN steps, as soon as one has to run; ``prepare`` is called when that is
    to be expected, and comes back at once; ``observe`` is told everything as it happens, by one thread at a time;
    ``caches`` are those of other machines, ``here`` is this machine's platform.
    ``every_stage``: all of them are asked for when the build has ended (``cache``), so none is left out.

    Stages go on beside each other, and layers are made behind their steps (captures.py): a step runs on the sealed
    folder of the one before it, whether that has a name yet or not.
    """

    def __init__(
        self,
        plan: LayerPlan,
        store: Store,
        bases: Bases,
        contexts: Mapping[str, Tree],
        remote: Remote,
        begin: Callable[[], Runner],
        *,
        prepare: Callable[[], object],
        options: Options,
        times: Times,
        here: Platform,
        observe: events.Observer,
        caches: Sequence[CacheSource] = (),
        every_stage: bool = False,
    ) -> None:
        self._plan = plan
        self._here = here
        self._begin_runner = begin
        self._prepare_runner = prepare
        self._store = store
        self._images = ImageWriter(plan, store, bases, options)
        self._options = options
        self._times = times
        self._recorder = Recorder(store, plan, request=options.request)
        self._observer = self._recorder.observing(observe)
        self._telling = threading.Lock()
        self._imports = Imports(store, caches, observe=self._observe)
        self._every_stage = every_stage
        self._unneeded: Mapping[int, Progress] = {}
        self._unusable: Unusable | Unforeseen | None = None
        self._trail = Trail()
        self._new_lookup: Callable[..., Lookup] = partial(
            Lookup,
            store,
            bases,
            contexts,
            remote,
            times=times,
            no_cache=options.no_cache,
            no_cache_stages=options.no_cache_stages,
            imports=self._imports,
        )
        self._glances: dict[object, str] = {}
        self._lookup = self._new_lookup(copies_unread=not options.fail_on_miss, glances=self._glances)
        self._known: Mapping[int, Build] = {}
        self._common = ExitStack()
        self._guard = Guard(store, gate=options.gate, allowed=options.allowed, tell=self.note)
        self._making = threading.Lock()
        self._made: LayerMaker | None = None
        self._started: Runner | None = None
        self._mounts: Mounter | None = None
        self._stopped: Exception | None = None
        self._begin()

    @property
    def base_blobs(self) -> frozenset[BlobDigest]:
        """The layers that the base brings, as blobs: what is exported has them in these bytes."""
        return self._images.base_blobs

    @property
    def plan(self) -> LayerPlan:
        """What is to be built."""
        return self._plan

    def check(self) -> None:
        """Raise what can be known to fail before anything runs: rights that are not granted, programs that can't be
        executed here."""
        check_entitlements(self._plan, self._options.entitlements)
        self._imports.read()
        lookup = self._new_lookup(glances=self._glances)
        self._decide()
        lookup.unneeded = frozenset(self._unneeded)
        check_platforms(self._plan, lookup, here=self._here, place=self._store.temporary)

    def run(self, known: Mapping[int, Build] = MappingProxyType({})) -> StoredImage:
        """Build the target and return its image, with the names that the options give it. ``check`` has said nothing
        against it; ``known`` are the builds that have made a stage of the same already, by its index.

        A failed build leaves every finished step in the cache, and the workspace of the RUN that failed.
        """
        with self._recorder:
            return self._run(known)

    def _run(self, known: Mapping[int, Build]) -> StoredImage:
        self._observe(events.BuildStarted(self._plan, self._options.platform))
        for note in self._plan.notes:
            self.note(note)
        for skipped in self._plan.skipped:
            self._observe(events.StageSkipped(skipped))
        self._known = known
        if known:
            self._decide()
        with self._common:
            while True:
                try:
                    self._go()
                    return self._commit(self._plan.target)
                except Unusable as error:
                    self.note(f"{error}; what it was to spare is looked up again")
                    self._imports.drop(error.source)
                    self._decide()
                    self._begin()
                except Unforeseen as error:
                    self.note(f"{error}; it is carried out after all")
                    self._unneeded = {}
                    self._begin()

    def cache(self, *, every_stage: bool) -> BuildCache:
        """What the build, which has ended well, can give to caches: the records of the target's own stages, or of
        ``every_stage``, and the layers that they name. Those are in the store then."""
        for result in self._lookup.results.values():
            try:
                self._imports.bring(recorded(result.get().stack))
            except Unusable as error:
                self.note(f"{error}; it is not passed on")
        return self._trail.cache(self._plan, every_stage=every_stage, describe=self._images.descriptor)

    def note(self, text: str) -> None:
        """Tell the observer something that is no error."""
        self._observe(events.Note(text))

    def _decide(self) -> None:
        """Find the stages that need not be carried out."""
        self._unneeded = {}
        self._glances.clear()
        if self._imports.has_records and len(self._plan.stages) > 1 and not self._every_stage:
            from layerbuild.build.unneeded import unneeded

            # What another platform's build has carried out is there to be seen; what it left out is not.
            known = self._known.keys() - {index for index, build in self._known.items() if index in build._unneeded}
            lookup = self._new_lookup(look_only=True, glances=self._glances)
            self._unneeded = unneeded(self._plan, lookup, self._imports, known=known)

    def _begin(self) -> None:
        """As if nothing had been done yet; what was done is in the store."""
        self._lookup.results.update((stage.index, Promise()) for stage in self._plan.stages)
        self._unusable = None
        self._coming: list[tuple[Step, DiffID | None]] = []  # layers of other machines, judged when they are here
        self._schedule = Schedule(self._plan, jobs=self._options.jobs, seconds=self._seconds)
        self._captures = Captures(self._store, self._guard, threads=self._options.jobs, failed=self._schedule.fail)

    def _go(self) -> None:
        """Carry out all stages. Unusable, or Unforeseen, when those have ended that could."""
        self._lookup.unneeded = frozenset(self._unneeded)
        for index, progress in self._unneeded.items():
            stage = self._plan.stage(index)
            self._lookup.results[index].keep(progress)
            reason = "what is read of it is known from another machine's cache"
            self._observe(events.StageSkipped(SkippedStage(index, stage.name, stage.origin, reason)))
        with self._captures:
            self._schedule.run(self._stage, stop=self._stop)
        if self._unusable is not None:
            raise self._unusable

    def _observe(self, event: events.Event) -> None:
        with self._telling:
            self._observer(event)

    def _stop(self, error: Exception) -> None:
        for promise in self._lookup.results.values():
            promise.fail(error)
        with self._making:
            self._stopped = error
            if self._made is not None:
                self._made.stop(error)
            if self._started is not None:
                self._started.stop()

    # A build that finds all in the cache needs none of these, nor their modules.

    def _runner(self) -> Runner:
        """What executes RUN steps."""
        with self._making:
            if self._stopped is not None:
                raise self._stopped
            if self._started is None:
                self._started = self._begin_runner()
                for note in self._started.notes(self._plan):
                    self.note(note)
            return self._started

    def _mounter(self) -> Mounter:
        """What prepares the mounts of RUN steps."""
        from layerbuild.build.mounting import Mounter

        with self._making:
            if self._mounts is None:
                self._mounts = self._common.enter_context(
                    Mounter(self._store, self._lookup, self._options, tell=self.note)
                )
            return self._mounts

    def _maker(self) -> LayerMaker:
        """What carries steps out."""
        from layerbuild.build.layers import LayerMaker

        with self._making:
            if self._stopped is not None:
                raise self._stopped
            if self._made is None:
                options = self._options
                self._made = LayerMaker(
                    self._store,
                    self._lookup,
                    self._guard,
                    times=self._times,
                    codec=options.codec,
                    one_id=options.one_id,
                )
            return self._made

    def _seconds(self, step: Step) -> float:
        """How long ``step`` took when it last ran; who never ran is taken for a second."""
        if isinstance(step, ConfigStep):
            return 0.0
        return self._store.cache.seconds(step.origin.text, default=1.0)

    # -- stages and steps, on the threads of the schedule

    def _stage(self, stage: StagePlan) -> None:
        if stage.index in self._unneeded:
            return
        known = self._known.get(stage.index)
        if known is not None and stage.index not in known._unneeded:
            self.note(f"stage {stage.title}: built already, the same for another platform")
            self._trail.take(stage.index, known._trail)
            self._lookup.results[stage.index] = known._lookup.results[stage.index]
            return
        try:
            self._steps(stage)
        except (Unusable, Unforeseen) as error:  # the others go on; those that need this one come to the same end
            self._unusable = self._unusable or error
            self._lookup.results[stage.index].fail(error)

    def _steps(self, stage: StagePlan) -> None:
        progress = self._lookup.start(stage)
        self._observe(events.StageStarted(stage, progress.draft.layers))
        for number, step in enumerate(stage.steps, start=1):
            with located(step):
                for needed in needs(step):
                    recorded(self._lookup.results[needed].get().stack)
                with self._schedule.turn(stage, number):
                    progress = self._step(stage, number, step, progress)
                    if self._options.step_by_step:
                        recorded(progress.stack)
        self._lookup.results[stage.index].keep(progress)

    def _step(self, stage: StagePlan, number: int, step: Step, progress: Progress) -> Progress:
        began = time.perf_counter()
        verdict = self._lookup.verdict(stage, step, progress)
        self._recorder.decided(stage, number, step, verdict, stack=progress.stack, why=self._lookup.reason)
        match verdict:
            case Metadata():
                assert isinstance(step, ConfigStep)
                change = Change(step.config, self._created(step), author=step.author)
                self._observe(events.StepFinished(stage, number, step, time.perf_counter() - began, layer=False))
                return replace(progress, draft=progress.draft.then(change))
            case Hit(record, keys, by):
                assert not isinstance(step, ConfigStep)
                if self._imports.elsewhere(record.chain):
                    self._coming.append((step, record.diff_id))
                else:
                    self._guard.judge_cached(step, record.diff_id)
                stack = progress.stack if record.diff_id is None else record.chain
                self._observe(events.CacheHit(stage, number, step, by, record.chain, verdict.source))
                known = replace(record, definition_key=keys.definition, step_key=keys.step)
                self._trail.add(stage.index, number, known, verdict.reads)
                if by == "content" or verdict.source:
                    self._store.cache.put(known)
                return self._grown(step, progress, keys.definition, stack, record.diff_id)
            case Miss():
                assert not isinstance(step, ConfigStep)
                if not needs(step).isdisjoint(self._unneeded):
                    raise Unforeseen(f"line {step.origin.span.line} needs a stage that was skipped")
                if self._options.fail_on_miss:
                    raise self._missed(stage, step, progress, verdict)
                self._observe(events.StepStarted(stage, number, step))
                again = self._made_again(stage, number, step, progress, verdict, began)
                if again is not None:
                    return again
                unnamed, keys = self._make(stage, number, step, progress, verdict, began)
                layer = unnamed.diff_id if unnamed else None
                return self._grown(step, progress, keys.definition, unnamed or progress.stack, layer)

    def _made_again(
        self, stage: StagePlan, number: int, step: RunStep | CopyStep, progress: Progress, miss: Miss, began: float
    ) -> Progress | None:
        """Where the stage stands after a COPY whose layer is here already, made on another stack; None: it is not."""
        keys = miss.keys
        if not isinstance(step, CopyStep) or keys is None or not miss.alike:
            return None
        parent = recorded(progress.stack)  # its name has been waited for already: there is a record of the same step
        self._imports.bring(parent)
        layer = self._maker().known(step, parent, miss)
        if layer is None:
            return None
        self._guard.judge_cached(step, layer.diff_id)
        chain = self._store.add_known(parent, layer.diff_id).chain
        seconds = time.perf_counter() - began
        self._observe(events.StepFinished(stage, number, step, seconds, layer=True))
        self._recorder.settle(stage, number, below=parent, keys=keys)
        made = self._record(step, keys, seconds, parent=parent, layer=layer, chain=chain)
        self._trail.add(stage.index, number, made, miss.reads)
        self._sealed(stage, number, layer, chain)
        return self._grown(step, progress, keys.definition, chain, layer.diff_id)

    def _make(
        self, stage: StagePlan, number: int, step: RunStep | CopyStep, progress: Progress, miss: Miss, began: float
    ) -> tuple[Unnamed | None, Keys]:
        """Carry the step out; its layer, if it made one, is made and recorded in the background. With its keys, which
        for some steps are known only now."""
        if not isinstance(progress.stack, Unnamed):
            self._imports.bring(progress.stack, unpacked=isinstance(step, RunStep))
        tell = self._growing(stage, number)
        after = next((later for later in stage.steps[number:] if isinstance(later, RunStep)), None)
        match step:
            case RunStep():

                def output(data: bytes) -> None:
                    self._observe(events.StepOutput(stage, number, data))

                def watch(workspace: Workspace, *, written: bool) -> None:
                    if not written or self._options.step_by_step:
                        self._show(stage, number, workspace, written=written)

                runner = self._runner()
                self._keep_listings(miss)
                with self._mounter().mounted(stage, step) as mounted:
                    sealed = self._maker().run(
                        step, progress.stack, runner, mounted, after=after, output=output, watch=watch, tell=tell
                    )
                keys, reads = miss.keys, miss.reads
                assert keys is not None
            case CopyStep():
                soon = after is not None
                if soon:
                    with self._making:
                        self._prepare_runner()
                copied = self._maker().copy(step, progress.stack, miss.matches, mounted_soon=soon, tell=tell)
                sealed = copied.sealed
                keys, reads = miss.keys, miss.reads
                if keys is None:
                    keys, reads = self._lookup.keys_of(stage, step, progress, copied.digests)
                _check(keys, miss, copied)
        seconds = time.perf_counter() - began
        self._observe(events.StepFinished(stage, number, step, seconds, layer=sealed is not None))

        def record(parent: ChainID | None, layer: LayerRecord | None, chain: ChainID | None) -> None:
            self._recorder.settle(stage, number, below=parent, keys=keys)
            made = self._record(step, keys, seconds, parent=parent, layer=layer, chain=chain)
            self._trail.add(stage.index, number, made, reads)
            if layer is not None and chain is not None:
                self._sealed(stage, number, layer, chain)

        if sealed is not None:
            return self._captures.add(step, progress.stack, sealed, then=record), keys
        self._captures.after(step, progress.stack, then=record)
        return None, keys

    def _show(self, stage: StagePlan, number: int, workspace: Workspace, *, written: bool) -> None:
        lowers, upper = tuple(str(below.diff) for below in workspace.below), str(workspace.diff)
        if written:
            self._observe(events.UpperWritten(stage, number, lowers, upper))
            return
        work, merged = str(workspace.work), str(workspace.merged)
        runner = self._runner()
        user_xattr = self._store.user_xattr
        mount = runner.mount_line(workspace, user_xattr=user_xattr) if self._options.step_by_step else ""
        tree = runner.tree(workspace)
        self._observe(events.RootMounting(stage, number, runner.driver, lowers, upper, work, merged, mount, tree))

    def _growing(self, stage: StagePlan, number: int) -> Callable[[int], None]:
        """Takes the size of a layer's tar whenever it has grown, and tells the observer at times."""
        told = time.monotonic()

        def tell(done: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _OFTEN:
                told = now
                self._observe(events.LayerProgress(stage, number, done))

        return tell

    def _keep_listings(self, miss: Miss) -> None:
        """Keep what the files that a RUN mounts are, so that a later miss can be told as a difference."""
        for group in miss.groups if self._options.remember else ():
            self._store.cache.put_listing(*listing(group).finish())

    def _missed(self, stage: StagePlan, step: RunStep | CopyStep, progress: Progress, miss: Miss) -> BuildError:
        reason = self._lookup.reason(stage, step, miss, chain=chain_of(progress.stack))
        hint = "`layerbuild explain` tells more; without --fail-on-miss it is run"
        return BuildError(f"{step.origin.keyword} would have to run: {reason.text}", hint=hint, span=step.origin.span)

    def _grown(
        self,
        step: RunStep | CopyStep,
        progress: Progress,
        definition: str,
        stack: Stack,
        layer: DiffID | Promise[DiffID] | None,
    ) -> Progress:
        change = Change(step.config, self._history(step.created_by), layer)
        return Progress(progress.draft.then(change), definition, stack)

    # -- what is known when a layer is whole, on the threads of the captures

    def _record(
        self,
        step: RunStep | CopyStep,
        keys: Keys,
        seconds: float,
        *,
        parent: ChainID | None,
        layer: LayerRecord | None,
        chain: ChainID | None,
    ) -> StepRecord:
        record = StepRecord(
            definition_key=keys.definition,
            content_key=keys.content(parent),
            parent=parent,
            chain=chain,
            diff_id=layer.diff_id if layer else None,
            inputs=keys.inputs(parent),
            instruction=step.origin.text,
            image=self._options.names[0].familiar if self._options.names else "",
            seconds=seconds,
            created=time.time(),
            step_key=keys.step,
        )
        if self._options.remember:
            self._store.cache.put(record)
        return record

    def _sealed(self, stage: StagePlan, number: int, layer: LayerRecord, chain: ChainID) -> None:
        blob = layer.blobs[0]
        self._observe(
            events.LayerSealed(
                stage,
                number,
                diff_id=layer.diff_id,
                digest=blob.digest,
                chain=chain,
                size=blob.size,
                tar_size=layer.tar_size,
                entries=layer.entries,
            )
        )

    # -- the image

    def _created(self, step: ConfigStep) -> History | None:
        return None if step.created_by is None else self._history(step.created_by)

    def _history(self, created_by: str) -> History:
        return History(created=self._times.created, created_by=created_by, comment=COMMENT)

    def _commit(self, stage: StagePlan) -> StoredImage:
        image = self._images.as_asked(self._lookup.results[stage.index].get().draft.image())
        self._guard.judge_image(self._plan, image.config)
        self._imports.bring(image.top)
        for step, diff_id in self._coming:
            if diff_id is not None and self._store.layers.index_path(diff_id).is_file():
                self._guard.judge_cached(step, diff_id)
        records = self._trail.cache(self._plan, every_stage=False, describe=self._images.descriptor)
        stored = self._images.write(image, records)
        names = tuple(name.familiar for name in self._options.names)
        self._observe(events.ImageWritten(stored.image_id, stored.manifest_digest, names))
        return stored


def _check(keys: Keys, miss: Miss, copied: Copied) -> None:
    """SourceError if what a COPY read is not any more what the keys took it for."""
    inputs = keys.inputs(None)
    for source, digest in copied.digests.items():
        if inputs[read_name(source)] != digest:
            if copied.sealed is not None:
                copied.sealed.drop(Abandoned())
            match = miss.matches[source][0]
            raise changed_meanwhile(match.tree.name, match.node.path)
