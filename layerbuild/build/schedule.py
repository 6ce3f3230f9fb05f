"""The stages of a plan beside each other, each on a thread of its own, at most ``jobs`` of them at work.

A stage waits for another one only at the step that needs it, and holds no place meanwhile. Of those that could go on,
the one with the longest way before it comes first: its own steps, and those of the stages that wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from layerbuild.steps import ConfigStep, CopyStep, LayerPlan, RunStep, StageBase, StagePlan, StageRoot, Step

_GRACE = 0.3  # seconds that a stage gets to end when the build does; what then still waits (a server, say) is left


class Abandoned(Exception):
    """This part of a build ends because another one failed, or because the build was stopped."""


class Schedule:
    """Carries out the stages of ``plan``. ``seconds`` guesses how long a step takes."""

    def __init__(self, plan: LayerPlan, *, jobs: int, seconds: Callable[[Step], float]) -> None:
        self._plan = plan
        self._free = jobs
        # One stage has nothing to be compared with.
        self._urgency = urgency(plan, seconds) if len(plan.stages) > 1 else {}
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int]] = []
        self._unfinished = {stage.index for stage in plan.stages}
        self._failure: Exception | None = None
        self._stopped = False

    def run(self, carry_out: Callable[[StagePlan], None], *, stop: Callable[[Exception], None]) -> None:
        """Call ``carry_out`` for each stage; raises the first failure. ``stop`` ends what the others are waiting for or
        doing, after a failure and when this thread is told to stop."""
        threads = [
            threading.Thread(target=self._carry, args=(carry_out, stage), name=f"stage {stage.title}", daemon=True)
            for stage in self._plan.stages
        ]
        try:
            for thread in threads:
                thread.start()
            with self._changed:
                while self._unfinished and self._failure is None:
                    self._changed.wait()
        finally:
            if self._unfinished:
                self._stop(stop)
            end = time.monotonic() + _GRACE
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        if self._failure is not None:
            raise self._failure

    def fail(self, error: Exception) -> None:
        """End the build with ``error``, unless it failed already. From any thread."""
        with self._changed:
            if self._failure is None and not self._stopped:
                self._failure = error
                self._changed.notify_all()

    @contextmanager
    def turn(self, stage: StagePlan, number: int) -> Iterator[None]:
        """A place among those at work, for the step ``number`` (from 1) of ``stage``. Abandoned."""
        # Equals take turns in the recipe's order.
        place = (-self._urgency.get((stage.index, number), 0.0), stage.index)
        with self._changed:
            self._waiting.append(place)
            while not self._stopped and not (self._free and place == min(self._waiting)):
                self._changed.wait()
            self._waiting.remove(place)
            if self._stopped:
                raise Abandoned
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def _stop(self, stop: Callable[[Exception], None]) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        stop(Abandoned())

    def _carry(self, carry_out: Callable[[StagePlan], None], stage: StagePlan) -> None:
        try:
            carry_out(stage)
        except Abandoned:
            pass
        except Exception as error:  # raised again by ``run``
            self.fail(error)
        finally:
            with self._changed:
                self._unfinished.discard(stage.index)
                self._changed.notify_all()


def needs(step: Step) -> frozenset[int]:
    """The stages that ``step`` reads."""
    match step:
        case ConfigStep():
            return frozenset()
        case CopyStep(root=root):
            return frozenset((root.stage,)) if isinstance(root, StageRoot) else frozenset()
        case RunStep():
            return frozenset(mount.root.stage for mount in step.mounts if isinstance(mount.root, StageRoot))


def urgency(plan: LayerPlan, seconds: Callable[[Step], float]) -> Mapping[tuple[int, int], float]:
    """The seconds of the longest way from each step to the end of the build, by stage and the step's number."""
    found: dict[tuple[int, int], float] = {}
    behind = {stage.index: 0.0 for stage in plan.stages}  # the longest way of the stages that wait for this one
    for stage in reversed(plan.stages):
        way = behind[stage.index]
        for number, step in reversed(list(enumerate(stage.steps, start=1))):
            way += seconds(step)
            found[stage.index, number] = way
            for needed in needs(step):
                behind[needed] = max(behind[needed], way)
        if isinstance(stage.base, StageBase):
            behind[stage.base.stage] = max(behind[stage.base.stage], way)
    return found
