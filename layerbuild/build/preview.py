"""What a build would do, step by step, without doing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from layerbuild.build.explaining import Reason
from layerbuild.build.lookup import Hit, Lookup, Metadata, Miss, Verdict, located
from layerbuild.build.unnamed import Promise, chain_of
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind
from layerbuild.layer.paths import clean, split
from layerbuild.steps import ConfigStep, CopyStep, EmptyDirectory, LayerPlan, RunStep, StagePlan, Step


@frozen
class Forecast:
    """What is known of one step: a cache hit or not, whether it makes a layer (None: it will turn out), and why.

    ``seconds``, ``size`` and ``tar_size`` (bytes) are what a step that will run took and made when it last ran; None:
    it never ran here.
    """

    stage: StagePlan
    number: int
    step: Step
    verdict: Verdict
    layer: bool | None
    reason: Reason
    seconds: float | None = None
    size: int | None = None
    tar_size: int | None = None

    @property
    def hit(self) -> bool:
        """Whether a record says what it makes."""
        return isinstance(self.verdict, Hit)


def preview(plan: LayerPlan, lookup: Lookup) -> Iterator[Forecast]:
    """Walk the plan as a build would. Behind a miss nothing is known of the files, so all that follows is a miss."""
    for stage in plan.stages:
        walk = _Walk(lookup, stage)
        for number, step in enumerate(stage.steps, start=1):
            yield walk.step(number, step)
        lookup.results[stage.index] = Promise.kept(walk.progress)


class _Walk:
    """One stage. ``_made`` are the folders that steps behind a miss will have made, as far as can be told."""

    def __init__(self, lookup: Lookup, stage: StagePlan) -> None:
        self._lookup = lookup
        self._stage = stage
        self.progress = lookup.start(stage)
        self._made: set[bytes] = set()

    def step(self, number: int, step: Step) -> Forecast:
        with located(step):
            verdict = self._lookup.verdict(self._stage, step, self.progress)
        match verdict:
            case Metadata():
                return Forecast(self._stage, number, step, verdict, False, Reason(""))
            case Hit(record, keys, by):
                layer = record.diff_id is not None
                stack = record.chain if layer else self.progress.stack
                self.progress = replace(self.progress, definition=keys.definition, stack=stack)
                reason = "an earlier step would run again, and give the same" if by == "content" else ""
                return Forecast(self._stage, number, step, verdict, layer, Reason(reason))
            case Miss():
                assert not isinstance(step, ConfigStep)
                return self._missed(number, step, verdict)

    def _missed(self, number: int, step: RunStep | CopyStep, miss: Miss) -> Forecast:
        layer = self._makes_folder(step)
        missed, chain = "" if self.progress.known else self.progress.missed, chain_of(self.progress.stack)
        reason = self._lookup.reason(self._stage, step, miss, chain=chain, missed=missed)
        assert miss.keys is not None  # nothing is copied here
        self.progress = replace(self.progress, definition=miss.keys.definition)
        if layer is not False:
            missed = self.progress.missed or f"{step.origin.keyword} at line {step.origin.span.line}"
            self.progress = replace(self.progress, known=False, missed=missed)
        if isinstance(step, CopyStep):
            self._note_folders(step, miss)
        seconds, record = self._lookup.last_run(step)
        made = (record.blobs[0].size, record.tar_size) if record and record.blobs else (0, 0)
        size, tar_size = (None, None) if seconds is None else made
        return Forecast(self._stage, number, step, miss, layer, reason, seconds, size, tar_size)

    def _makes_folder(self, step: Step) -> bool | None:
        """Whether a WORKDIR has to make its folder; None where that can't be told, and for every other step."""
        if not isinstance(step, CopyStep) or step.sources != (EmptyDirectory(),):
            return None
        path = _destination(step)
        if path in self._made:
            return False
        chain = chain_of(self.progress.stack)
        if not self.progress.known or not self._lookup.stacks.can_look(chain):
            return None
        node = self._lookup.stacks.tree(chain, name="the image").get(path)
        return node is None or node.entry.kind is not Kind.DIRECTORY

    def _note_folders(self, step: CopyStep, miss: Miss) -> None:
        matches = [match for found in miss.matches.values() for match in found]
        into = step.dest.endswith(("/", "/.")) or step.sources == (EmptyDirectory(),)
        if into or any(match.node.entry.kind is Kind.DIRECTORY for match in matches):
            path = _destination(step)
            while path:
                self._made.add(path)
                path = split(path)[0]


def _destination(step: CopyStep) -> bytes:
    return clean(step.dest.encode("utf-8", "surrogateescape"))
