"""The record of a build, written while it goes on: it listens to the events, and is told each step's verdict.

What is known is written whenever a step begins to run, so that a build that is killed has said all that it knew, and a
cached build writes once. Output is kept as it was shown, secrets masked: of a very long one the beginning and the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, assert_never

from layerbuild import events
from layerbuild.build.keys import Keys
from layerbuild.build.lookup import Hit, Metadata, Miss, Verdict
from layerbuild.build.unnamed import Stack, Unnamed, chain_of, recorded
from layerbuild.digest import BlobDigest, ChainID
from layerbuild.errors import LayerbuildError
from layerbuild.steps import ConfigStep, CopyStep, LayerPlan, RunStep, StageBase, StagePlan, Step, arguments_of, masked
from layerbuild.store.builds import BuildRecord, Log, StageAccount, StepAccount, Surroundings, recipe_name
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from layerbuild.build.explaining import Reason
    from layerbuild.build.preview import Forecast

_HEAD = 1 << 20  # bytes of a step's output that are kept, of its beginning
_TAIL = 3 << 20  # and of its end


class Why(Protocol):
    """Tells why a step has to run on the stack ``chain``."""

    def __call__(
        self, stage: StagePlan, step: RunStep | CopyStep, miss: Miss, *, chain: ChainID | None, keys: Keys | None
    ) -> Reason: ...


@dataclass
class _Step:
    """A step on its way on ``stack``; ``settle`` tells all of it as soon as that has a name. ``head`` and ``tail`` are
    what is kept of its output."""

    position: int
    account: StepAccount
    stack: Stack
    settle: Callable[[ChainID | None, Keys | None], StepAccount]
    settled: bool = False
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    dropped: int = 0

    def said(self, data: bytes) -> None:
        room = _HEAD - len(self.head)
        self.head += data[:room]
        self.tail += data[room:] if room < len(data) else b""
        if len(self.tail) > 2 * _TAIL:
            self._trim()

    def log(self) -> Log:
        self._trim()
        return Log(bytes(self.head + self.tail), len(self.head), self.dropped)

    def _trim(self) -> None:
        surplus = max(0, len(self.tail) - _TAIL)
        del self.tail[:surplus]
        self.dropped += surplus


class Recorder:
    """The record of one build of ``plan``: a context manager around it. ``request`` is what plans it again."""

    def __init__(self, store: Store, plan: LayerPlan, *, request: Mapping[str, Any]) -> None:
        self._store = store
        self._plan = plan
        self._request = request
        self._recipe = recipe_name(plan.target.origin.span.file)
        self._lock = threading.RLock()
        self._steps: dict[tuple[int, int], _Step] = {}
        self._unwritten: dict[int, _Step] = {}
        self._written: events.ImageWritten | None = None
        self._number = 0
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._number = self._store.builds.begin(recipe=self._recipe, request=self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for step in self._steps.values():
                self._settle_late(step)
            self._write()
            self._store.builds.finish(self._record(error))

    def observing(self, observe: events.Observer) -> events.Observer:
        """An observer that listens, and passes everything on to ``observe``."""

        def both(event: events.Event) -> None:
            self._hear(event)
            observe(event)

        return both

    def decided(self, stage: StagePlan, number: int, step: Step, verdict: Verdict, *, stack: Stack, why: Why) -> None:
        """Record what was found out about a step before it is carried out on ``stack``. Of a miss the reason takes the
        stack's name, which is not waited for: ``why`` is asked when that is known."""
        with self._lock:
            account = _account(stage, number, step, verdict, began=self._now)

            def settle(below: ChainID | None, keys: Keys | None) -> StepAccount:
                """What is known now, and all that the name of the stack tells."""
                known = self._steps[stage.index, number].account
                known = replace(known, below=below, chain=known.chain or below)
                if not isinstance(verdict, Miss) or isinstance(step, ConfigStep):
                    return known
                keys = keys or verdict.keys
                inputs = keys.inputs(below) if keys else {}
                return _explained(replace(known, inputs=inputs), why(stage, step, verdict, chain=below, keys=keys))

            before = self._steps.get((stage.index, number))  # of an attempt that was given up
            position = before.position if before else len(self._steps) + 1
            found = self._steps[stage.index, number] = _Step(position, account, stack, settle)
            if isinstance(verdict, Hit):  # so the stack has a name
                self.settle(stage, number, below=chain_of(stack))
            else:
                self._put(found)

    def settle(self, stage: StagePlan, number: int, *, below: ChainID | None, keys: Keys | None = None) -> None:
        """The stack that a step lies on has a name, ``below``; asked before the step itself is in the cache. ``keys``
        are those of a step that told them only when it ran."""
        with self._lock:
            self._settle(self._steps[stage.index, number], below, keys)

    def _settle(self, step: _Step, below: ChainID | None, keys: Keys | None = None) -> None:
        if not step.settled:
            step.settled = True
            step.account = step.settle(below, keys)
            self._put(step)

    def _settle_late(self, step: _Step) -> None:
        """At the end of the build: of a step that failed, or that only changed the configuration."""
        if isinstance(step.stack, Unnamed) and not step.stack.recorded.given:
            return
        try:
            below = recorded(step.stack)
        except BaseException:  # what lies below was never made; the build's own error is the one to tell
            return
        self._settle(step, below)

    # -- listening -----------------------------------------------------------------------------------------------------

    def _hear(self, event: events.Event) -> None:
        with self._lock:
            match event:
                case events.StepStarted():
                    self._write()
                case events.StepOutput(stage, number, data):
                    step = self._steps[stage.index, number]
                    step.said(data)
                    self._put(step)
                case events.CacheHit(stage, number):
                    self._change(stage, number, chain=event.chain, source=event.source, ended=self._now)
                case events.LayerSealed(stage, number):
                    layer = {name: getattr(event, name) for name in ("diff_id", "chain", "size", "tar_size", "entries")}
                    self._change(stage, number, **layer, sealed=self._now)
                case events.StepFinished(stage, number):
                    self._change(stage, number, ended=self._now)
                case events.ImageWritten():
                    self._written = event
                case _:
                    pass

    def _change(self, stage: StagePlan, number: int, **facts: Any) -> None:
        step = self._steps[stage.index, number]
        step.account = replace(step.account, **facts)
        self._put(step)

    def _put(self, step: _Step) -> None:
        self._unwritten[step.position] = step

    def _write(self) -> None:
        if not self._unwritten:
            return
        accounts = {position: step.account for position, step in self._unwritten.items()}
        self._store.builds.put(self._number, accounts)
        for position, step in self._unwritten.items():
            if step.head:
                self._store.builds.put_log(self._number, position, step.log())
        self._unwritten.clear()

    @property
    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _record(self, error: BaseException | None) -> BuildRecord:
        written = self._written
        return BuildRecord(
            number=self._number,
            began=0.0,
            seconds=self._now,
            outcome="failed" if error else "done",
            recipe=self._recipe,
            image=BlobDigest(written.manifest) if written and not error else None,
            names=written.names if written else (),
            error=masked(_told(error)) if error else "",
            platform=str(self._plan.target.platform),
            stages=tuple(_stage(self._plan, stage) for stage in self._plan.stages),
            request=self._request,
        )


def foreseen(plan: LayerPlan, forecasts: Iterable[Forecast]) -> BuildRecord:
    """A build that has not run, as its record would begin."""
    steps = [
        _explained(_account(found.stage, found.number, found.step, found.verdict, began=0.0), found.reason)
        for found in forecasts
    ]
    stages = tuple(_stage(plan, stage) for stage in plan.stages)
    return BuildRecord(0, 0.0, 0.0, "running", plan.target.origin.span.file, stages=stages, steps=tuple(steps))


def _told(error: BaseException) -> str:
    return error.message if isinstance(error, LayerbuildError) else type(error).__name__


def _stage(plan: LayerPlan, stage: StagePlan) -> StageAccount:
    base = plan.stage(stage.base.stage).title if isinstance(stage.base, StageBase) else ""
    return StageAccount(stage.title, stage.opening, base)


def _account(stage: StagePlan, number: int, step: Step, verdict: Verdict, *, began: float) -> StepAccount:
    account = StepAccount(
        stage=stage.title,
        number=number,
        line=step.origin.span.line,
        instruction=step.origin.text,
        kind=_kind(step),
        verdict="metadata",
        after=_surroundings(step),
        began=began,
    )
    if not isinstance(step, ConfigStep):
        account = replace(account, args=tuple(sorted(arguments_of(step))))
    match verdict:
        case Metadata():
            return account
        case Hit(record, keys, by):
            layer = record.diff_id is not None
            hit = replace(account, verdict="hit", by=by, inputs=keys.inputs(record.parent))
            return replace(hit, chain=record.chain if layer else None, diff_id=record.diff_id)
        case Miss(keys):
            return replace(account, verdict="miss", inputs=keys.known if keys else {})
        case _:
            assert_never(verdict)


def _explained(account: StepAccount, reason: Reason) -> StepAccount:
    return replace(account, reason=reason.text, differences=reason.differences, more=reason.more)


def _kind(step: Step) -> str:
    match step:
        case ConfigStep():
            return "metadata"
        case RunStep():
            return "run"
        case CopyStep():
            return "copy"
        case _:
            assert_never(step)


def _surroundings(step: Step) -> Surroundings:
    config = step.config
    env = step.env if isinstance(step, RunStep) else config.env
    return Surroundings(env, config.working_dir or "/", config.user)
