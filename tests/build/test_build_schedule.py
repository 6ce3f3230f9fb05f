"""Stages beside each other: who goes first, who waits for whom, and how all of it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from build_trees import ORIGIN

from layerbuild.build.schedule import Abandoned, Schedule, needs, urgency
from layerbuild.errors import BuildError
from layerbuild.image.config import ImageConfig, Platform, RuntimeConfig
from layerbuild.steps import (
    CopyStep,
    LayerPlan,
    PathSource,
    RunMount,
    RunStep,
    ScratchBase,
    StageBase,
    StagePlan,
    StageRoot,
    Step,
)

LINUX = Platform("linux", "amd64")


def run(text: str, *, mounts: tuple[RunMount, ...] = ()) -> RunStep:
    return RunStep(ORIGIN, RuntimeConfig(), text, ("/bin/sh", "-c", text), (), "/", "", mounts=mounts)


def copy(stage: int) -> CopyStep:
    return CopyStep(ORIGIN, RuntimeConfig(), f"COPY {stage}", StageRoot(stage), (PathSource("/x"),), "/x")


def plan(*stages: tuple[Step, ...], bases: dict[int, int] | None = None) -> LayerPlan:
    def base(index: int) -> ScratchBase | StageBase:
        return StageBase((bases or {})[index]) if index in (bases or {}) else ScratchBase()

    made = [
        StagePlan(index, "", ORIGIN, base(index), LINUX, ImageConfig(LINUX), steps)
        for index, steps in enumerate(stages)
    ]
    return LayerPlan(tuple(made))


def seconds(step: Step) -> float:
    return float(step.created_by) if isinstance(step, RunStep) else 1.0


def test_the_longest_way_is_the_most_urgent() -> None:
    wide = plan((run("1"), run("2")), (run("10"),), (run("5"), copy(0), copy(1), run("3")))
    found = urgency(wide, seconds)
    assert found[2, 4] == 3 and found[2, 3] == 4 and found[2, 2] == 5 and found[2, 1] == 10
    assert found[1, 1] == 10 + 4
    assert found[0, 2] == 2 + 5 and found[0, 1] == 1 + 2 + 5


def test_a_stage_that_another_begins_with_is_as_urgent_as_all_of_that() -> None:
    assert urgency(plan((run("1"),), (run("7"), run("2")), bases={1: 0}), seconds)[0, 1] == 10


def test_what_a_step_needs() -> None:
    assert needs(copy(3)) == {3}
    assert needs(run("1")) == frozenset()


def carried_out(schedule: Schedule, stages: LayerPlan, work: Callable[[StagePlan, int], None]) -> None:
    def stage(found: StagePlan) -> None:
        for number, _ in enumerate(found.steps, start=1):
            with schedule.turn(found, number):
                work(found, number)

    schedule.run(stage, stop=lambda error: None)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_no_more_than_so_many_are_at_work(jobs: int) -> None:
    stages = plan(*[(run("1"),) * 5] * 4)
    at_work, most, done = 0, 0, 0
    lock = threading.Lock()

    def work(stage: StagePlan, number: int) -> None:
        nonlocal at_work, most, done
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.002)
        with lock:
            at_work -= 1
            done += 1

    carried_out(Schedule(stages, jobs=jobs, seconds=seconds), stages, work)
    assert done == 20 and most <= jobs


def test_with_one_place_the_most_urgent_stage_gets_it() -> None:
    stages = plan((run("1"), run("1")), (run("50"), run("50")), (run("5"),))
    order: list[int] = []
    ready = threading.Barrier(3)
    schedule = Schedule(stages, jobs=1, seconds=seconds)

    def stage(found: StagePlan) -> None:
        for number, _ in enumerate(found.steps, start=1):
            if number == 2 or found.index == 2:
                ready.wait()  # all three want a place now; nobody holds one
            with schedule.turn(found, number):
                if number == 2 or found.index == 2:
                    threading.Event().wait(0.05)
                    order.append(found.index)

    schedule.run(stage, stop=lambda error: None)
    assert order.index(1) <= 1 and sorted(order) == [0, 1, 2]
    assert order.index(2) < order.index(0) or order[0] == 0


def test_the_first_failure_ends_the_others_and_is_raised() -> None:
    stages = plan((run("1"),), (run("1"), run("1")))
    stopped = threading.Event()
    reached: list[int] = []
    schedule = Schedule(stages, jobs=2, seconds=seconds)

    def stage(found: StagePlan) -> None:
        with schedule.turn(found, 1):
            if found.index == 0:
                raise BuildError("it failed")
            stopped.wait(5)
        with schedule.turn(found, 2):
            reached.append(2)

    def stop(error: Exception) -> None:
        assert isinstance(error, Abandoned)
        stopped.set()

    with pytest.raises(BuildError, match="it failed"):
        schedule.run(stage, stop=stop)
    assert reached == []


def test_a_failure_from_elsewhere_counts_too() -> None:
    stages = plan((run("1"),))
    schedule = Schedule(stages, jobs=1, seconds=seconds)
    ended = threading.Event()

    def stage(found: StagePlan) -> None:
        schedule.fail(BuildError("a capture failed"))
        ended.wait(5)

    with pytest.raises(BuildError, match="a capture failed"):
        schedule.run(stage, stop=lambda error: ended.set())
