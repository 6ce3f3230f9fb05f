"""One recipe for several platforms: a build for each, in which what is the same for all is built once; and what a RUN
for another platform than this machine's needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.build.lookup import Lookup, located
from layerbuild.build.schedule import needs
from layerbuild.image.config import Platform
from layerbuild.image.manifest import Descriptor, Index
from layerbuild.reference import Reference
from layerbuild.steps import LayerPlan, RunStep, StageBase, StagePlan
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from layerbuild.build.loop import Build
    from layerbuild.image.annotations import Annotation


def build_each(builds: Sequence[Build]) -> tuple[StoredImage, ...]:
    """Carry out ``builds``, plans of one recipe for different platforms; the image of each.

    What can be known to fail is known before the first of them begins.
    """
    for build in builds:
        build.check()
    images: list[StoredImage] = []
    for position, build in enumerate(builds):
        known: dict[int, Build] = {}
        for earlier in builds[:position]:
            known |= dict.fromkeys(shared(build.plan, earlier.plan), earlier)
        images.append(build.run(known))
    return tuple(images)


def shared(plan: LayerPlan, other: LayerPlan) -> frozenset[int]:
    """The stages of ``plan`` that are the same in ``other``, and so is all that they read."""
    found: set[int] = set()
    theirs = {stage.index: stage for stage in other.stages}
    for stage in plan.stages:
        if theirs.get(stage.index) == stage and found >= _stages_read(stage):
            found.add(stage.index)
    return frozenset(found)


def _stages_read(stage: StagePlan) -> set[int]:
    read = {index for step in stage.steps for index in needs(step)}
    return read | {stage.base.stage} if isinstance(stage.base, StageBase) else read


def write_index(
    store: Store, images: Sequence[StoredImage], names: Sequence[Reference], annotations: Sequence[Annotation] = ()
) -> StoredIndex:
    """Put ``images`` under one index, in their order, and give it ``names``. ``annotations``: see there."""
    from layerbuild.image.annotations import INDEX, MANIFEST_DESCRIPTOR, chosen, chosen_for

    entries = tuple(
        Descriptor(
            image.manifest.media_type,
            image.manifest_digest,
            store.blobs.size(image.manifest_digest),
            annotations=chosen_for(annotations, MANIFEST_DESCRIPTOR, image.config.platform),
            platform=image.config.platform,
        )
        for image in images
    )
    index = Index(entries, annotations=chosen(annotations, INDEX))
    stored = store.images.put_index(index.to_json())
    for name in names:
        store.images.tag(name, stored.digest)
    return replace(stored, names=tuple(sorted(str(name) for name in names)))


def check_platforms(plan: LayerPlan, lookup: Lookup, *, here: Platform, place: Path) -> None:
    """MachineError for the first RUN that would have to be executed, and is for a platform whose programs this machine
    (``here``) can't execute. A cached step is not executed. ``place``: see ``isolate.emulation``."""
    if not any(_foreign_runs(plan.stages, here)):
        return
    from layerbuild.build.preview import preview

    for forecast in preview(plan, lookup):
        step, platform = forecast.step, forecast.stage.platform
        executed = not forecast.hit and forecast.stage.index not in lookup.unneeded
        if isinstance(step, RunStep) and executed:
            with located(step):
                require_platform(platform, here=here, place=place)


def require_platform(platform: Platform, *, here: Platform, place: Path) -> None:
    """MachineError unless programs of an image for ``platform`` can be executed on this machine, ``here``."""
    if platform.architecture and _is_foreign(platform, here):
        from layerbuild.isolate.emulation import require

        require(platform.architecture, system=platform.os, place=place)


def _foreign_runs(stages: Iterable[StagePlan], here: Platform) -> Iterator[bool]:
    return (
        _is_foreign(stage.platform, here) and any(isinstance(step, RunStep) for step in stage.steps) for stage in stages
    )


def _is_foreign(platform: Platform, here: Platform) -> bool:
    return (platform.os, platform.architecture) != (here.os, here.architecture)
