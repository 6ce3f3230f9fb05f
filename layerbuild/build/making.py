"""A step that no record knows is carried out: its layer is made, or found to be here, recorded, and told of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from layerbuild import events
from layerbuild.build.captures import Captures
from layerbuild.build.guard import Guard
from layerbuild.build.imports import Imports
from layerbuild.build.keys import Keys
from layerbuild.build.lookup import Lookup, Miss, Progress, read_name
from layerbuild.build.options import Options
from layerbuild.build.recording import Recorder
from layerbuild.build.schedule import Abandoned
from layerbuild.build.selecting import listing
from layerbuild.build.trail import Trail
from layerbuild.build.tree import changed_meanwhile
from layerbuild.build.unnamed import Promise, Stack, Unnamed, recorded
from layerbuild.build.workers import Workers
from layerbuild.digest import ChainID, DiffID
from layerbuild.frozen import frozen
from layerbuild.steps import CopyStep, RunStep, StagePlan
from layerbuild.store.cache import StepRecord
from layerbuild.store.layers import LayerRecord
from layerbuild.store.store import Store
from layerbuild.store.workspaces import Workspace

if TYPE_CHECKING:
    from layerbuild.build.layers import Copied

_OFTEN = 0.25  # seconds between two events about a layer that is being made


@frozen
class Made:
    """What a step leaves: its definition key, the stack as it is then, and the layer that is new on it, None: none."""

    definition: str
    stack: Stack
    layer: DiffID | Promise[DiffID] | None


@frozen
class Making:
    """Carries out the steps of one build, each on the thread of its stage; what is made behind a step is recorded and
    told of on those of ``captures``."""

    store: Store
    lookup: Lookup
    workers: Workers
    captures: Captures
    imports: Imports
    guard: Guard
    recorder: Recorder
    trail: Trail
    options: Options
    observe: events.Observer

    def carry_out(
        self, stage: StagePlan, number: int, step: RunStep | CopyStep, progress: Progress, miss: Miss, *, began: float
    ) -> Made:
        """Carry ``step`` out on ``progress``; ``began`` is when it was first looked at (time.perf_counter)."""
        again = self._made_again(stage, number, step, progress, miss, began)
        return self._make(stage, number, step, progress, miss, began) if again is None else again

    def _made_again(
        self, stage: StagePlan, number: int, step: RunStep | CopyStep, progress: Progress, miss: Miss, began: float
    ) -> Made | None:
        """The same for a COPY whose layer is here already, made on another stack; None: it is not."""
        keys = miss.keys
        if not isinstance(step, CopyStep) or keys is None or not miss.alike:
            return None
        parent = recorded(progress.stack)  # its name has been waited for already: there is a record of the same step
        self.imports.bring(parent)
        layer = self.workers.maker().known(step, parent, miss)
        if layer is None:
            return None
        self.guard.judge_cached(step, layer.diff_id)
        chain = self.store.add_known(parent, layer.diff_id).chain
        seconds = time.perf_counter() - began
        self.observe(events.StepFinished(stage, number, step, seconds, layer=True))
        self.recorder.settle(stage, number, below=parent, keys=keys)
        made = self._record(step, keys, seconds, parent=parent, layer=layer, chain=chain)
        self.trail.add(stage.index, number, made, miss.reads)
        self._sealed(stage, number, layer, chain)
        return Made(keys.definition, chain, layer.diff_id)

    def _make(
        self, stage: StagePlan, number: int, step: RunStep | CopyStep, progress: Progress, miss: Miss, began: float
    ) -> Made:
        """Its layer, if it makes one, is made and recorded in the background. For some steps the keys are known only
        when they have run."""
        if not isinstance(progress.stack, Unnamed):
            self.imports.bring(progress.stack, unpacked=isinstance(step, RunStep))
        tell = self._growing(stage, number)
        after = next((later for later in stage.steps[number:] if isinstance(later, RunStep)), None)
        match step:
            case RunStep():

                def output(data: bytes) -> None:
                    self.observe(events.StepOutput(stage, number, data))

                def watch(workspace: Workspace, *, written: bool) -> None:
                    if not written or self.options.step_by_step:
                        self._show(stage, number, workspace, written=written)

                runner = self.workers.runner()
                self._keep_listings(miss)
                with self.workers.mounter().mounted(stage, step) as mounted:
                    sealed = self.workers.maker().run(
                        step, progress.stack, runner, mounted, after=after, output=output, watch=watch, tell=tell
                    )
                keys, reads = miss.keys, miss.reads
                assert keys is not None
            case CopyStep():
                soon = after is not None
                if soon:
                    self.workers.prepare()
                copied = self.workers.maker().copy(step, progress.stack, miss.matches, mounted_soon=soon, tell=tell)
                sealed = copied.sealed
                keys, reads = miss.keys, miss.reads
                if keys is None:
                    keys, reads = self.lookup.keys_of(stage, step, progress, copied.digests)
                _check(keys, miss, copied)
        seconds = time.perf_counter() - began
        self.observe(events.StepFinished(stage, number, step, seconds, layer=sealed is not None))

        def record(parent: ChainID | None, layer: LayerRecord | None, chain: ChainID | None) -> None:
            self.recorder.settle(stage, number, below=parent, keys=keys)
            made = self._record(step, keys, seconds, parent=parent, layer=layer, chain=chain)
            self.trail.add(stage.index, number, made, reads)
            if layer is not None and chain is not None:
                self._sealed(stage, number, layer, chain)

        if sealed is None:
            self.captures.after(step, progress.stack, then=record)
            return Made(keys.definition, progress.stack, None)
        unnamed = self.captures.add(step, progress.stack, sealed, then=record)
        return Made(keys.definition, unnamed, unnamed.diff_id)

    def _keep_listings(self, miss: Miss) -> None:
        """Keep what the files that a RUN mounts are, so that a later miss can be told as a difference."""
        for group in miss.groups if self.options.remember else ():
            self.store.cache.put_listing(*listing(group).finish())

    # -- what is told while it goes on

    def _show(self, stage: StagePlan, number: int, workspace: Workspace, *, written: bool) -> None:
        lowers, upper = tuple(str(below.diff) for below in workspace.below), str(workspace.diff)
        if written:
            self.observe(events.UpperWritten(stage, number, lowers, upper))
            return
        work, merged = str(workspace.work), str(workspace.merged)
        runner = self.workers.runner()
        user_xattr = self.store.user_xattr
        mount = runner.mount_line(workspace, user_xattr=user_xattr) if self.options.step_by_step else ""
        tree = runner.tree(workspace)
        self.observe(events.RootMounting(stage, number, runner.driver, lowers, upper, work, merged, mount, tree))

    def _growing(self, stage: StagePlan, number: int) -> Callable[[int], None]:
        """Takes the size of a layer's tar whenever it has grown, and tells the observer at times."""
        told = time.monotonic()

        def tell(done: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _OFTEN:
                told = now
                self.observe(events.LayerProgress(stage, number, done))

        return tell

    # -- what is known when a layer is whole

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
            image=self.options.names[0].familiar if self.options.names else "",
            seconds=seconds,
            created=time.time(),
            step_key=keys.step,
        )
        if self.options.remember:
            self.store.cache.put(record)
        return record

    def _sealed(self, stage: StagePlan, number: int, layer: LayerRecord, chain: ChainID) -> None:
        blob = layer.blobs[0]
        self.observe(
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


def _check(keys: Keys, miss: Miss, copied: Copied) -> None:
    """SourceError if what a COPY read is not any more what the keys took it for."""
    inputs = keys.inputs(None)
    for source, digest in copied.digests.items():
        if inputs[read_name(source)] != digest:
            if copied.sealed is not None:
                copied.sealed.drop(Abandoned())
            match = miss.matches[source][0]
            raise changed_meanwhile(match.tree.name, match.node.path)
