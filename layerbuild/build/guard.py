"""The guard at the door of a layer: what looks like a credential is told before the layer is recorded, or stops it.

What was found in a layer is kept with it, so that a cached layer is judged too, and is read only once. A layer is
judged by itself: that a later step deletes a file takes it out of sight, and leaves it in the layer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerbuild.build.options import Gate
from layerbuild.digest import DiffID
from layerbuild.errors import BuildError, Span
from layerbuild.image.config import ImageConfig, RuntimeConfig
from layerbuild.layer.entry import Entry, Kind
from layerbuild.leaks import LIMIT, AllowList, Finding, in_file, in_history, in_variable
from layerbuild.steps import LayerPlan, Step
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from layerbuild.layer.union import Contents

_TOLD = 5  # findings in one message


@dataclass
class Scan:
    """What is found in one layer while it is written."""

    found: list[Finding] = field(default_factory=list)

    def take(self, entry: Entry, content: bytes) -> None:
        """Look at a file, or the beginning of a large one."""
        self.found += in_file("/" + os.fsdecode(entry.path), content)


class Guard:
    """Judges the layers and the configuration of one build. ``tell`` is told what was found."""

    def __init__(self, store: Store, *, gate: Gate, allowed: AllowList, tell: Callable[[str], None]) -> None:
        self._store = store
        self._gate = gate
        self._allowed = allowed
        self._tell = tell

    def scan(self) -> Scan | None:
        """What is to watch the files of a layer while it is written; None: nothing is."""
        return None if self._gate is Gate.OFF else Scan()

    def judge(self, step: Step, scan: Scan | None) -> None:
        """Tell what was found in the layer of ``step``, before it is recorded. BuildError if it may not be."""
        if scan is not None:
            self._judge(f"the layer of {_named(step)}", scan.found, step.origin.span)

    def keep(self, diff_id: DiffID, scan: Scan | None) -> None:
        """Remember what was found in a layer that is recorded now."""
        if scan is not None:
            self._store.findings.put(diff_id, tuple(scan.found))

    def judge_cached(self, step: Step, diff_id: DiffID | None) -> None:
        """The same for a layer from the cache, which is read if it was not looked at before."""
        if self._gate is not Gate.OFF and diff_id is not None:
            found = scanned(self._store, diff_id)
            self._judge(f"the cached layer of {_named(step)}", found, step.origin.span)

    def judge_image(self, plan: LayerPlan, image: ImageConfig) -> None:
        """Tell what the environment, the labels and the history of the target show beyond those of its base."""
        if self._gate is Gate.OFF:
            return
        stages = plan.lineage[::-1]
        known = {finding.fingerprint for finding in in_config(stages[0].start)}
        left = self._left(finding for finding in in_config(image) if finding.fingerprint not in known)
        if left:
            steps = [step for stage in stages for step in stage.steps]
            span = next((step.origin.span for step in steps if _shows(step, left)), plan.target.origin.span)
            self._refuse("the image's configuration", left, span)

    def _judge(self, where: str, found: Iterable[Finding], span: Span) -> None:
        if left := self._left(found):
            self._refuse(where, left, span)

    def _left(self, found: Iterable[Finding]) -> list[Finding]:
        return [finding for finding in found if not self._allowed.allows(finding)]

    def _refuse(self, where: str, left: Sequence[Finding], span: Span) -> None:
        """Tell of what is not allowed; BuildError if that ends the build."""
        rest = f"; and {len(left) - _TOLD} more" if len(left) > _TOLD else ""
        text = f"{where} holds what looks like a secret: {'; '.join(map(str, left[:_TOLD]))}{rest}"
        if self._gate is Gate.FAIL:
            hint = "lend it with RUN --mount=type=secret, or name it in the file of --secrets-allow"
            raise BuildError(text, hint=hint, span=span)
        self._tell(text)


def scanned(store: Store, diff_id: DiffID) -> tuple[Finding, ...]:
    """What a layer of the store shows. One that was never looked at is read in its folder; without that, names tell."""
    known = store.findings.get(diff_id)
    if known is not None:
        return known
    from layerbuild.layer.index import Index
    from layerbuild.layer.union import in_folder

    scan = Scan()
    folder = next((found.diff for found in store.snapshots.all() if found.diff_id == diff_id and found.unpacked), None)
    contents = in_folder(folder) if folder is not None else None
    with Index.open(store.layers.index_path(diff_id)) as index:
        for entry in index:
            if entry.kind is Kind.FILE and entry.size:
                scan.take(entry, _beginning(contents, entry))
    if folder is not None:
        store.findings.put(diff_id, tuple(scan.found))
    return tuple(scan.found)


def in_config(config: ImageConfig) -> Iterator[Finding]:
    """What a configuration shows, each secret once: its environment, its labels and its history."""
    marks: set[str] = set()
    for finding in _in_config(config):
        if finding.fingerprint not in marks:
            marks.add(finding.fingerprint)
            yield finding


def _in_config(config: ImageConfig) -> Iterator[Finding]:
    yield from _in_variables(config.config)
    for entry in config.history:
        yield from in_history(entry.created_by)


def _in_variables(config: RuntimeConfig) -> Iterator[Finding]:
    for name, value in config.env:
        yield from in_variable(f"ENV {name}", name, value)
    for name, value in config.labels:
        yield from in_variable(f"LABEL {name}", name, value)


def _shows(step: Step, found: Iterable[Finding]) -> bool:
    """Whether a step brought some of what was found, or one before it did."""
    marks = {finding.fingerprint for finding in (*_in_variables(step.config), *in_history(step.created_by or ""))}
    return any(finding.fingerprint in marks for finding in found)


def _beginning(contents: Contents | None, entry: Entry) -> bytes:
    """The beginning of a file; where it can't be read, bytes that tell nothing."""
    if contents is None:
        return b"\0"
    try:
        with contents(entry) as file:
            return file.read(LIMIT)
    except OSError:  # a namespace of one id can't read what another user's mode closes
        return b"\0"


def _named(step: Step) -> str:
    return f"{step.origin.keyword} at line {step.origin.span.line}"
