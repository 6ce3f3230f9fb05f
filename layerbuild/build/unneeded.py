"""Stages that need not be carried out, since another machine's cache tells what every step that is needed read of them.

Decided before anything runs, from the target backwards. A walk tells each stage by definition, as a plan does; where it
does not know what a stage makes, a record of the same definition may say what was copied from it (``Lookup.verdict``).
That counts only if all who look into the stage are told so, by one cache: as soon as one of them has to see the stage
itself, it is carried out, and for the others too its content decides. So one image never mixes two results of a step
that makes something else each time it runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from layerbuild.build.imports import CacheSource, Imports
from layerbuild.build.lookup import Hit, Lookup, Metadata, Miss, Progress, located
from layerbuild.build.schedule import needs
from layerbuild.build.unnamed import Promise
from layerbuild.errors import LayerbuildError
from layerbuild.frozen import frozen
from layerbuild.steps import LayerPlan, StageBase, StagePlan


@frozen
class _Told:
    """A step that hits by what a record of the cache ``source`` says of ``stages``, which are not known here."""

    source: CacheSource
    stages: frozenset[int]


@frozen
class _Walked:
    """A stage: how it ends, the stages that it must see, and those that it is told of. ``vouched`` is the cache whose
    record makes the same of its definition; ``bare``: it is what its base is, whoever asks."""

    progress: Progress
    sees: frozenset[int]
    told: tuple[_Told, ...]
    vouched: CacheSource | None
    bare: bool


def unneeded(
    plan: LayerPlan, lookup: Lookup, imports: Imports, *, known: Collection[int] = ()
) -> Mapping[int, Progress]:
    """The stages of ``plan`` that need not be carried out, with what is known of them: the definition. ``lookup`` only
    looks, and is this function's own; ``known`` are stages that have been carried out already."""
    kept = {stage.index for stage in plan.lineage} | set(known)
    kept |= {stage.index for stage in plan.stages if lookup.unasked(stage)}
    every = {stage.index for stage in plan.stages}
    try:
        while imports.has_records and kept < every:
            walked = _walk(plan, lookup, imports, unneeded=frozenset(every - kept))
            more = _needed(plan, walked, kept) - kept
            kept |= more
            if all(walked[index].progress.known for index in more):
                return {index: replace(walked[index].progress, stack=None, known=False) for index in every - kept}
    except LayerbuildError:
        pass  # the build comes to the same place, and tells it there
    return {}


def _walk(plan: LayerPlan, lookup: Lookup, imports: Imports, *, unneeded: frozenset[int]) -> Mapping[int, _Walked]:
    lookup.unneeded = unneeded
    walked: dict[int, _Walked] = {}
    for stage in plan.stages:
        walked[stage.index] = found = _stage(stage, lookup, imports, walked)
        lookup.results[stage.index] = Promise.kept(found.progress)
    return walked


def _stage(stage: StagePlan, lookup: Lookup, imports: Imports, walked: Mapping[int, _Walked]) -> _Walked:
    progress = lookup.start(stage)
    base = stage.base.stage if isinstance(stage.base, StageBase) else None
    vouched = None if base is None else walked[base].vouched
    bare = base is None or walked[base].bare
    sees = set() if base is None else {base}
    told: list[_Told] = []
    for step in stage.steps:
        with located(step):
            verdict = lookup.verdict(stage, step, progress)
        read = needs(step)
        unknown = frozenset(index for index in read if not walked[index].progress.known)
        if isinstance(verdict, Metadata):
            continue
        keys = verdict.keys
        assert keys is not None  # nothing is copied here
        found = imports.by_definition(keys.definition)
        match verdict:
            case Hit(record):
                stack = progress.stack if record.diff_id is None else record.chain
                progress = replace(progress, definition=keys.definition, stack=stack)
                if unknown:
                    assert found is not None  # a record of this definition told it
                    told.append(_Told(found.source, unknown))
                sees |= read - unknown
            case Miss():
                progress = replace(progress, definition=keys.definition, known=False)
                sees |= read
        vouched = found.source if found is not None and found.step.chain == progress.stack else None
        bare = False
    return _Walked(progress, frozenset(sees), tuple(told), vouched, bare)


def _needed(plan: LayerPlan, walked: Mapping[int, _Walked], kept: Collection[int]) -> frozenset[int]:
    """``kept``, and all stages that those need in turn."""
    needed = set(kept)
    size = 0
    while len(needed) > size:
        size = len(needed)
        told = [told for stage in plan.stages if stage.index in needed for told in walked[stage.index].told]
        source = told[0].source if told else None
        for stage in plan.stages:
            found = walked[stage.index]
            if stage.index in needed:
                needed |= found.sees
                for other in found.told:
                    needed |= other.stages if other.source is not source else set()
            elif not all(_agrees(walked[index], source) for index in _below(found) & needed):
                needed.add(stage.index)  # what the cache tells may have been made of something else than is here
    return frozenset(needed)


def _below(stage: _Walked) -> frozenset[int]:
    return stage.sees.union(*(told.stages for told in stage.told))


def _agrees(stage: _Walked, source: CacheSource | None) -> bool:
    return stage.progress.known and (stage.bare or (stage.vouched is not None and stage.vouched is source))
