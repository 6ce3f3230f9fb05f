"""What a build went through, step by step: what it can give to the caches of other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from layerbuild.build.keys import FORMAT, Read
from layerbuild.digest import DiffID
from layerbuild.image.manifest import Descriptor
from layerbuild.layer.tar import TAR_FORMAT_VERSION
from layerbuild.steps import LayerPlan, masked
from layerbuild.store.buildcache import BuildCache, CachedStep, StackRead, value_digest
from layerbuild.store.cache import StepRecord


class Trail:
    """The steps of one build that have keys, whether they ran or were found."""

    def __init__(self) -> None:
        self._steps: dict[tuple[int, int], CachedStep] = {}

    def add(self, stage: int, number: int, record: StepRecord, reads: Iterable[Read]) -> None:
        """Note step ``number`` of the stage with that index."""
        stacks = {read.name: StackRead(read.chain, str(read.content)) for read in reads if read.of_stack}
        self._steps[stage, number] = CachedStep(
            definition_key=record.definition_key,
            content_key=record.content_key,
            parent=record.parent,
            chain=record.chain,
            diff_id=record.diff_id,
            instruction=masked(record.instruction),
            inputs={name: value_digest(value) for name, value in record.inputs.items()},
            stacks=stacks,
            seconds=record.seconds,
        )

    def take(self, stage: int, other: Trail) -> None:
        """Note what another build has gone through in the stage with that index."""
        self._steps |= {place: step for place, step in other._steps.items() if place[0] == stage}

    def cache(
        self, plan: LayerPlan, *, every_stage: bool, describe: Callable[[DiffID], Descriptor | None]
    ) -> BuildCache:
        """The records of the target and of the stages that it is built upon, or of ``every_stage``; ``describe`` tells
        a layer's blob, None: a record that needs it is left out."""
        stages = {stage.index for stage in (plan.stages if every_stage else plan.lineage)}
        steps = tuple(step for (stage, _), step in sorted(self._steps.items()) if stage in stages)
        blobs = {step.diff_id: describe(step.diff_id) for step in steps if step.diff_id is not None}
        layers = {diff_id: blob for diff_id, blob in blobs.items() if blob is not None}
        held = tuple(step for step in steps if step.diff_id is None or step.diff_id in layers)
        return BuildCache(FORMAT, TAR_FORMAT_VERSION, held, layers)
