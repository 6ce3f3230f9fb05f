"""A build: the needed stages in order, and in each its steps, until the image is in the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from layerbuild import events
from layerbuild.build.bases import Bases
from layerbuild.build.captures import Captures
from layerbuild.build.draft import Change
from layerbuild.build.keys import Keys
from layerbuild.build.layers import Copied, LayerMaker
from layerbuild.build.lookup import Hit, Lookup, Metadata, Miss, Progress, located, read_name
from layerbuild.build.mounting import Mounter
from layerbuild.build.options import Options
from layerbuild.build.remote import Remote
from layerbuild.build.running import Runner, check_entitlements
from layerbuild.build.schedule import Abandoned, Schedule, needs
from layerbuild.build.times import Times
from layerbuild.build.tree import Tree, changed_meanwhile
from layerbuild.build.unnamed import Promise, Stack, Unnamed, recorded
from layerbuild.digest import ChainID, DiffID
from layerbuild.image.config import History, ImageConfig
from layerbuild.image.manifest import Descriptor, layer_media_type
from layerbuild.steps import ConfigStep, CopyStep, ImageBase, LayerPlan, RunStep, StageBase, StagePlan, Step
from layerbuild.store.cache import StepRecord
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import LayerRecord
from layerbuild.store.store import Store

COMMENT = "layerbuild"  # of each history entry that a build adds: who made it


class Build:
    """One build. ``runner`` executes RUN steps; ``observe`` is told everything as it happens, by one thread at a time.

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
        runner: Runner,
        *,
        options: Options,
        times: Times,
        observe: events.Observer,
    ) -> None:
        self._plan = plan
        self._store = store
        self._bases = bases
        self._options = options
        self._times = times
        self._observer = observe
        self._telling = threading.Lock()
        self._lookup = Lookup(
            store, bases, contexts, remote, times=times, no_cache=options.no_cache, copies_unread=True
        )
        self._lookup.results.update((stage.index, Promise()) for stage in plan.stages)
        self._mounter = Mounter(store, self._lookup, options, tell=lambda text: self._observe(events.Note(text)))
        self._maker = LayerMaker(store, self._lookup, runner, times=times, codec=options.codec, one_id=options.one_id)
        self._schedule = Schedule(plan, jobs=options.jobs, seconds=self._seconds)
        self._captures = Captures(store, threads=options.jobs, failed=self._schedule.fail)

    def run(self) -> StoredImage:
        """Build the target and return its image, with the names that the options give it.

        A failed build leaves every finished step in the cache, and the workspace of the RUN that failed.
        """
        self._observe(events.BuildStarted(self._plan))
        for note in self._plan.notes:
            self._observe(events.Note(note))
        for skipped in self._plan.skipped:
            self._observe(events.StageSkipped(skipped))
        check_entitlements(self._plan, self._options.entitlements)
        with self._mounter, self._captures:
            self._schedule.run(self._stage, stop=self._stop)
        return self._commit(self._plan.target)

    def _observe(self, event: events.Event) -> None:
        with self._telling:
            self._observer(event)

    def _stop(self, error: Exception) -> None:
        for promise in self._lookup.results.values():
            promise.fail(error)
        self._maker.stop(error)

    def _seconds(self, step: Step) -> float:
        """How long ``step`` took when it last ran; who never ran is taken for a second."""
        if isinstance(step, ConfigStep):
            return 0.0
        return self._store.cache.seconds(step.origin.text, default=1.0)

    # -- stages and steps, on the threads of the schedule

    def _stage(self, stage: StagePlan) -> None:
        progress = self._lookup.start(stage)
        self._observe(events.StageStarted(stage, progress.draft.layers))
        for number, step in enumerate(stage.steps, start=1):
            with located(step):
                for needed in needs(step):
                    recorded(self._lookup.results[needed].get().stack)
                with self._schedule.turn(stage, number):
                    progress = self._step(stage, number, step, progress)
        self._lookup.results[stage.index].keep(progress)

    def _step(self, stage: StagePlan, number: int, step: Step, progress: Progress) -> Progress:
        began = time.perf_counter()
        verdict = self._lookup.verdict(stage, step, progress)
        match verdict:
            case Metadata():
                assert isinstance(step, ConfigStep)
                change = Change(step.config, self._created(step), author=step.author)
                self._observe(events.StepFinished(stage, number, step, time.perf_counter() - began, layer=False))
                return replace(progress, draft=progress.draft.then(change))
            case Hit(record, keys, by):
                assert not isinstance(step, ConfigStep)
                stack = progress.stack if record.diff_id is None else record.chain
                self._observe(events.CacheHit(stage, number, step, by, record.chain))
                if by == "content":
                    self._store.cache.put(replace(record, definition_key=keys.definition, step_key=keys.step))
                return self._grown(step, progress, keys.definition, stack, record.diff_id)
            case Miss():
                assert not isinstance(step, ConfigStep)
                self._observe(events.StepStarted(stage, number, step))
                unnamed, keys = self._make(stage, number, step, progress, verdict, began)
                layer = unnamed.diff_id if unnamed else None
                return self._grown(step, progress, keys.definition, unnamed or progress.stack, layer)

    def _make(
        self, stage: StagePlan, number: int, step: RunStep | CopyStep, progress: Progress, miss: Miss, began: float
    ) -> tuple[Unnamed | None, Keys]:
        """Carry the step out; its layer, if it made one, is made and recorded in the background. With its keys, which
        for some steps are known only now."""
        match step:
            case RunStep():

                def output(data: bytes) -> None:
                    self._observe(events.StepOutput(stage, number, data))

                with self._mounter.mounted(stage, step) as mounted:
                    sealed = self._maker.run(step, progress.stack, mounted, output=output)
                keys = miss.keys
                assert keys is not None
            case CopyStep():
                copied = self._maker.copy(step, progress.stack, miss.matches)
                sealed = copied.sealed
                keys = miss.keys or self._lookup.keys_of(step, progress, copied.digests)
                _check(keys, miss, copied)
        seconds = time.perf_counter() - began
        self._observe(events.StepFinished(stage, number, step, seconds, layer=sealed is not None))

        def record(parent: ChainID | None, layer: LayerRecord | None, chain: ChainID | None) -> None:
            self._record(step, keys, seconds, parent=parent, layer=layer, chain=chain)
            if layer is not None and chain is not None:
                self._sealed(stage, number, layer, chain)

        if sealed is not None:
            return self._captures.add(step, progress.stack, sealed, then=record), keys
        self._captures.after(step, progress.stack, then=record)
        return None, keys

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
    ) -> None:
        self._store.cache.put(
            StepRecord(
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
        )

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
        image = self._lookup.results[stage.index].get().draft.image()
        if self._options.labels:
            runtime = image.config.config
            labels = tuple(sorted({**dict(runtime.labels), **dict(self._options.labels)}.items()))
            image = image.with_step(None, replace(runtime, labels=labels))
        manifest = image.manifest(self._descriptors(image.config))
        stored = self._store.images.put(manifest.to_json(), image.config.to_json())
        for name in self._options.names:
            self._store.images.tag(name, stored.manifest_digest)
        names = tuple(name.familiar for name in self._options.names)
        self._observe(events.ImageWritten(stored.image_id, stored.manifest_digest, names))
        return replace(stored, names=tuple(sorted(str(name) for name in self._options.names)))

    def _descriptors(self, config: ImageConfig) -> list[Descriptor]:
        """The blob of each layer: a base's as its own manifest names it, ours as the store has it."""
        known = self._base_descriptors()
        descriptors = []
        for position, diff_id in enumerate(config.diff_ids):
            if position < len(known) and known[position][0] == diff_id:
                descriptors.append(known[position][1])
                continue
            layer = self._store.layers.get(diff_id)
            assert layer is not None, diff_id  # a snapshot's layer outlives it
            blob = next((blob for blob in layer.blobs if blob.codec == self._options.codec), layer.blobs[0])
            descriptors.append(Descriptor(layer_media_type(blob.codec), blob.digest, blob.size))
        return descriptors

    def _base_descriptors(self) -> list[tuple[str, Descriptor]]:
        stage = self._plan.target
        while isinstance(stage.base, StageBase):
            stage = self._plan.stage(stage.base.stage)
        if not isinstance(stage.base, ImageBase):
            return []
        base = self._bases.image(stage.base.reference, stage.platform)
        return list(zip(base.config.diff_ids, base.manifest.layers, strict=True))


def _check(keys: Keys, miss: Miss, copied: Copied) -> None:
    """SourceError if what a COPY read is not any more what the keys took it for."""
    inputs = keys.inputs(None)
    for source, digest in copied.digests.items():
        if inputs[read_name(source)] != digest:
            if copied.sealed is not None:
                copied.sealed.drop(Abandoned())
            match = miss.matches[source][0]
            raise changed_meanwhile(match.tree.name, match.node.path)
