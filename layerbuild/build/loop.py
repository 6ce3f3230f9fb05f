"""A build: the needed stages in order, and in each its steps, until the image is in the store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from layerbuild import events
from layerbuild.build.bases import Bases
from layerbuild.build.guard import Guard
from layerbuild.build.layers import LayerMaker, Made
from layerbuild.build.lookup import Hit, Lookup, Metadata, Miss, Progress, located
from layerbuild.build.mounting import Mounter
from layerbuild.build.options import Options
from layerbuild.build.recording import Recorder
from layerbuild.build.remote import Remote
from layerbuild.build.running import Runner, check_entitlements
from layerbuild.build.times import Times
from layerbuild.build.tree import Tree
from layerbuild.digest import ChainID
from layerbuild.errors import BuildError
from layerbuild.image.config import History, ImageConfig
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_media_type
from layerbuild.steps import ConfigStep, CopyStep, ImageBase, LayerPlan, RunStep, StageBase, StagePlan, Step
from layerbuild.store.cache import StepRecord
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store

COMMENT = "layerbuild"  # of each history entry that a build adds: who made it


class Build:
    """One build. ``runner`` executes RUN steps; ``observe`` is told everything as it happens."""

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
        self._recorder = Recorder(store, plan, request=options.request)
        self._observe = observe = self._recorder.observing(observe)
        self._lookup = Lookup(store, bases, contexts, remote, times=times, no_cache=options.no_cache)
        self._mounter = Mounter(store, self._lookup, options, tell=lambda text: observe(events.Note(text)))
        self._guard = Guard(
            store,
            gate=options.gate,
            allowed=options.allowed,
            tell=lambda text: observe(events.Note(text)),
        )
        self._maker = LayerMaker(
            store, self._lookup, runner, self._guard, times=times, codec=options.codec, one_id=options.one_id
        )

    def run(self) -> StoredImage:
        """Build the target and return its image, with the names that the options give it.

        A failed build leaves every finished step in the cache, and the workspace of the RUN that failed.
        """
        with self._recorder:
            return self._run()

    def _run(self) -> StoredImage:
        self._observe(events.BuildStarted(self._plan))
        for note in self._plan.notes:
            self._observe(events.Note(note))
        for skipped in self._plan.skipped:
            self._observe(events.StageSkipped(skipped))
        check_entitlements(self._plan, self._options.entitlements)
        with self._mounter:
            for stage in self._plan.stages:
                self._lookup.results[stage.index] = self._stage(stage)
        return self._commit(self._plan.target)

    def _stage(self, stage: StagePlan) -> Progress:
        progress = self._lookup.start(stage)
        self._observe(events.StageStarted(stage, len(progress.image.config.diff_ids)))
        for number, step in enumerate(stage.steps, start=1):
            with located(step):
                progress = self._step(stage, number, step, progress)
        return progress

    def _step(self, stage: StagePlan, number: int, step: Step, progress: Progress) -> Progress:
        began = time.perf_counter()
        verdict = self._lookup.verdict(stage, step, progress)
        self._recorder.decided(stage, number, step, verdict, below=progress.chain)
        match verdict:
            case Metadata():
                assert isinstance(step, ConfigStep)
                after = replace(progress, image=self._configured(step, progress))
                made_layer = False
            case Hit(record, keys, by):
                assert not isinstance(step, ConfigStep)
                self._guard.judge_cached(step, record.diff_id)
                after = self._grown(step, progress, keys.definition, record)
                self._observe(events.CacheHit(stage, number, step, by, after.chain))
                if by == "content":
                    self._store.cache.put(replace(record, definition_key=keys.definition))
                return after
            case Miss():
                assert not isinstance(step, ConfigStep)
                if self._options.fail_on_miss:
                    raise _missed(step, verdict)
                self._observe(events.StepStarted(stage, number, step))
                record = self._make(stage, number, step, progress, verdict, began)
                after = self._grown(step, progress, verdict.keys.definition, record)
                made_layer = record.diff_id is not None
        self._observe(events.StepFinished(stage, number, step, time.perf_counter() - began, made_layer))
        return after

    def _make(
        self, stage: StagePlan, number: int, step: RunStep | CopyStep, progress: Progress, miss: Miss, began: float
    ) -> StepRecord:
        match step:
            case RunStep():

                def output(data: bytes) -> None:
                    self._observe(events.StepOutput(stage, number, data))

                with self._mounter.mounted(stage, step) as mounted:
                    made = self._maker.run(step, progress.chain, mounted, output=output)
            case CopyStep():
                made = self._maker.copy(step, progress.chain, miss.matches)
        if made is not None:
            self._sealed(stage, number, made)
        assert miss.keys.content is not None  # a build knows the parent and every source of the step at hand
        for listing in miss.listings if self._options.remember else ():
            self._store.cache.put_listing(listing)
        record = StepRecord(
            definition_key=miss.keys.definition,
            content_key=miss.keys.content,
            parent=progress.chain,
            chain=made.snapshot.chain if made else progress.chain,
            diff_id=made.layer.diff_id if made else None,
            inputs=miss.keys.inputs,
            instruction=step.origin.text,
            image=self._options.names[0].familiar if self._options.names else "",
            seconds=time.perf_counter() - began,
            created=time.time(),
        )
        if self._options.remember:
            self._store.cache.put(record)
        return record

    def _sealed(self, stage: StagePlan, number: int, made: Made) -> None:
        blob = made.layer.blobs[0]
        self._observe(
            events.LayerSealed(
                stage,
                number,
                diff_id=made.layer.diff_id,
                digest=blob.digest,
                chain=made.snapshot.chain,
                size=blob.size,
                tar_size=made.layer.tar_size,
                entries=made.layer.entries,
            )
        )

    # -- the image

    def _configured(self, step: ConfigStep, progress: Progress) -> Image:
        history = None if step.created_by is None else self._history(step.created_by)
        return progress.image.with_step(history, step.config, author=step.author)

    def _grown(self, step: RunStep | CopyStep, progress: Progress, definition: str, record: StepRecord) -> Progress:
        image = progress.image.with_step(self._history(step.created_by), step.config, layer=record.diff_id)
        chain: ChainID | None = progress.chain if record.diff_id is None else record.chain
        return Progress(image, definition, chain)

    def _history(self, created_by: str) -> History:
        return History(created=self._times.created, created_by=created_by, comment=COMMENT)

    def _commit(self, stage: StagePlan) -> StoredImage:
        image = self._lookup.results[stage.index].image
        if self._options.labels:
            runtime = image.config.config
            labels = tuple(sorted({**dict(runtime.labels), **dict(self._options.labels)}.items()))
            image = image.with_step(None, replace(runtime, labels=labels))
        self._guard.judge_image(stage.start, image.config, stage.origin.span)
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


def _missed(step: Step, miss: Miss) -> BuildError:
    return BuildError(
        f"{step.origin.keyword} would have to run: {miss.reason.text}",
        hint="`layerbuild explain` tells more; without --fail-on-miss it is run",
        span=step.origin.span,
    )
