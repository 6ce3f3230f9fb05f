"""Why the steps of a build hit or missed, and what differs between two builds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from layerbuild.digest import ChainID
from layerbuild.errors import NotFoundError
from layerbuild.frozen import frozen
from layerbuild.steps import masked
from layerbuild.store.builds import BuildRecord, Difference, StepAccount
from layerbuild.views.text import count, rfc3339, seconds, shorten

_SHOWN = 40  # differences of one step, in the text


@frozen
class Explained:
    """A step and why: ``because`` tells why it hit, or what the other steps tell of it (why the layers below changed,
    say)."""

    step: StepAccount
    because: str = ""


@frozen
class Pair:
    """A step in two builds; None: that build has none like it. ``more`` differences were left out."""

    before: StepAccount | None
    after: StepAccount | None
    differences: tuple[Difference, ...] = ()
    more: int = 0

    @property
    def is_other(self) -> bool:
        """Whether the step made another layer than before, or is new."""
        return self.before is None or (self.after is not None and self.before.diff_id != self.after.diff_id)


def explained(build: BuildRecord) -> list[Explained]:
    """Each step of the build with its reason in full."""
    return [Explained(step, _why(build, step)) for step in build.steps]


def _why(build: BuildRecord, step: StepAccount) -> str:
    if step.verdict == "hit":
        return _why_hit(build, step)
    return _because(build, step, step.differences, _made_other, "ran again")


def _why_hit(build: BuildRecord, step: StepAccount) -> str:
    """Which key found a step in the cache, in words. By content it is found too where nothing ran: on a base for
    another platform, say, that has the same layers."""
    if step.by != "content":
        return f"every input is as it was{f', says the cache from {step.source}' if step.source else ''}"
    earlier = itertools.takewhile(lambda other: other is not step, build.steps)
    if any(other.verdict == "miss" for other in earlier):
        return "an earlier step ran again and gave the same"
    return "the layers below are the same, though they were made in another way"


def select(steps: Sequence[Explained], text: str, *, target: str) -> list[Explained]:
    """The step that ``text`` means: ``NUMBER`` of the ``target`` stage, or ``STAGE:NUMBER``; none if there is none."""
    stage, _, number = text.rpartition(":")
    return [found for found in steps if (found.step.stage, str(found.step.number)) == (stage or target, number)]


def chain_after(build: BuildRecord, text: str) -> tuple[StepAccount, ChainID | None]:
    """The step that ``text`` means, as for ``select``, and the stack after it. NotFoundError if there is none, or if it
    has not ended."""
    found = next(iter(select(explained(build), text, target=build.target)), None)
    if found is not None and (found.step.verdict != "miss" or found.step.ended is not None):
        return found.step, found.step.chain
    raise NotFoundError(f"the last build did not get past a step {text!r}", hint=those_there(build))


def those_there(build: BuildRecord) -> str:
    """A hint that names the steps of ``build`` as the lists do."""
    several = len(build.stages) > 1
    known = ", ".join(named(step, stage=several) for step in build.steps)
    return f"its steps are {known}" if known else "it decided none"


def as_json(build: BuildRecord, steps: Sequence[Explained], *, planned: bool = False) -> dict[str, Any]:
    """The explanation as plain data, with every input of each step."""
    return {
        "build": None if planned else build.number,
        "outcome": "planned" if planned else build.outcome,
        "recipe": build.recipe,
        "platform": build.platform,
        "began": None if planned else rfc3339(build.began),
        "seconds": build.seconds,
        "steps": [_step_json(found) for found in steps],
    }


def as_text(build: BuildRecord, steps: Sequence[Explained], *, planned: bool = False) -> str:
    """The explanation for people: one line for each step that could hit, and below it what differs."""
    told = [found for found in steps if found.step.verdict != "metadata"] or list(steps)
    hits = sum(found.step.verdict == "hit" for found in told)
    platform = f" for {build.platform}" if build.platform and build.request.get("platforms") else ""
    if planned:
        head = f"a build of {build.recipe}{platform}"
    else:
        ended = {"done": "done", "failed": f"failed: {build.error}", "running": "not ended"}[build.outcome]
        head = f"build {build.number} of {build.recipe}{platform}, {rfc3339(int(build.began))}: {shorten(ended, 200)}"
    counted = f"{count(hits, 'hit')}, {count(len(told) - hits, 'miss', 'misses')}"
    lines = [head, counted] if len(steps) > 1 else [head]
    several = len(build.stages) > 1
    for found in told:
        lines += _step_lines(found, stage=several)
    return "\n".join(lines)


def pairs_text(before: BuildRecord, after: BuildRecord, pairs: Sequence[Pair]) -> str:
    """What differs between two builds, step by step, for people."""
    lines = [f"build {before.number} → build {after.number}"]
    several = max(len(before.stages), len(after.stages)) > 1
    others = frozenset((pair.after.stage, pair.after.number) for pair in pairs if pair.after and pair.is_other)

    def is_other(step: StepAccount) -> bool:
        return (step.stage, step.number) in others

    for pair in pairs:
        step = pair.after or pair.before
        assert step is not None
        head = f"step {named(step, stage=several)}  {shorten(step.instruction, 80)}"
        if pair.before is None or pair.after is None:
            lines.append(f"{head}\n    only in build {after.number if pair.before is None else before.number}")
        elif pair.differences:
            because = _because(after, step, pair.differences, is_other, "made another layer")
            lines += [head, *_difference_lines(pair.differences, pair.more, because=because)]
    return "\n".join(lines if len(lines) > 1 else [*lines, "the same inputs everywhere"])


def pairs_json(before: BuildRecord, after: BuildRecord, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "before": before.number,
        "after": after.number,
        "steps": [
            {
                "before": pair.before and pair.before.number,
                "after": pair.after and pair.after.number,
                "instruction": (pair.after or pair.before).instruction,  # type: ignore[union-attr]
                "differences": [asdict(found) for found in pair.differences],
                "more": pair.more,
            }
            for pair in pairs
        ],
    }


def match_steps(before: BuildRecord, after: BuildRecord) -> list[tuple[StepAccount | None, StepAccount | None]]:
    """The steps of two builds side by side: the same text in the same stage, else the same number there."""
    left = [step for step in before.steps if step.inputs]
    pairs: list[tuple[StepAccount | None, StepAccount | None]] = []
    for step in (step for step in after.steps if step.inputs):
        same = [old for old in left if old.stage == step.stage and old.kind == step.kind]
        exact = [old for old in same if old.instruction == step.instruction]
        found = next(iter(exact or [old for old in same if old.number == step.number]), None)
        if found is not None:
            left.remove(found)
        pairs.append((found, step))
    return [*pairs, *((step, None) for step in left)]


def _step_json(found: Explained) -> dict[str, Any]:
    inputs = {name: masked(value) for name, value in found.step.inputs.items()}
    return {**asdict(found.step), "inputs": inputs, "because": found.because}


def _step_lines(found: Explained, *, stage: bool) -> list[str]:
    step = found.step
    name = named(step, stage=stage)
    verdict = {"hit": "hit ", "miss": "miss"}.get(step.verdict, "    ")
    took = f"  ({seconds(step.seconds)})" if step.verdict == "miss" and step.ended is not None else ""
    lines = [f"{name:>4}  {verdict}  {shorten(step.instruction, 100)}{took}"]
    if step.verdict == "hit":
        return [*lines, f"        {found.because}"]
    if step.differences:
        return [*lines, *_difference_lines(step.differences, step.more, because=found.because)]
    return [*lines, f"        {found.because or step.reason}"] if step.verdict == "miss" else lines


def named(step: StepAccount, *, stage: bool) -> str:
    """What a step is called, with its ``stage`` where there are several: ``select`` takes it."""
    return f"{step.stage}:{step.number}" if stage else str(step.number)


def _difference_lines(differences: Sequence[Difference], more: int, *, because: str = "") -> list[str]:
    lines = [f"        {because if found.change == 'below' and because else found}" for found in differences[:_SHOWN]]
    rest = len(differences) - _SHOWN + more
    return [*lines, f"        and {rest} more"] if rest > 0 else lines


def _because(
    build: BuildRecord,
    step: StepAccount,
    differences: Sequence[Difference],
    is_other: Callable[[StepAccount], bool],
    did: str,
) -> str:
    """Why the layers below ``step`` are others: the step before it that ``is_other``, in its stage or in those below,
    and what that ``did``."""
    below = next((found for found in differences if found.change == "below"), None)
    if below is None:
        return ""
    bases = {stage.title: stage for stage in build.stages}
    title, number = step.stage, step.number
    while True:
        others = [other for other in build.steps if other.stage == title and other.number < number and is_other(other)]
        if others:
            last = others[-1]
            which = f"step {last.number}{'' if title == step.stage else f' of stage {title}'}"
            return f"{below}, because {which} ({shorten(last.instruction, 60)}) {did}"
        stage = bases.get(title)
        if stage is None or not stage.base:
            break
        title, number = stage.base, 1 << 30
    if below.subject == "base":
        return f"{below}: the base is another one{f' ({shorten(stage.instruction, 60)})' if stage else ''}"
    if below.subject == "steps":
        return f"{below}: a step before it was taken out, put in or moved, or hit what an older build made"
    return ""


def _made_other(step: StepAccount) -> bool:
    return step.verdict == "miss" and (step.diff_id is not None or step.ended is None)
