"""The plan as a table: what each instruction will make, from the cache or not, and why; nothing runs for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, assert_never

from layerbuild.frozen import frozen
from layerbuild.steps import ConfigStep, CopyStep, EmptyDirectory, LayerPlan, RunStep, Step
from layerbuild.views.text import count, seconds, shorten, size, table

_METADATA = {
    "ARG": "a build-time variable; only the steps that run see it",
    "CMD": "what a container runs by default: configuration",
    "ENTRYPOINT": "what a container always runs: configuration",
    "ENV": "an environment variable: configuration",
    "EXPOSE": "a port that the image documents: configuration",
    "HEALTHCHECK": "how a container is probed: configuration",
    "LABEL": "a label: configuration",
    "MAINTAINER": "the author: configuration",
    "ONBUILD": "kept for the images built on this one",
    "SHELL": "the shell of later steps: configuration",
    "STOPSIGNAL": "the signal that stops a container: configuration",
    "USER": "the user of later steps and of a container: configuration",
    "VOLUME": "a mount point of a container: configuration",
    "WORKDIR": "the root is there already: configuration",
}


@frozen
class PlanRow:
    """One line. ``makes`` is "layer", "no layer" or "metadata"; ``cache`` is "hit", "miss" or, for metadata, "".

    ``seconds``, ``size`` and ``tar_size`` (the blob's and the tar's bytes) are what a miss took and made when it last
    ran; None: nobody knows.
    """

    stage: str
    number: int
    line: int
    instruction: str
    makes: str
    why: str
    cache: str
    reason: str
    seconds: float | None = None
    size: int | None = None
    tar_size: int | None = None


@frozen
class Cost:
    """What the steps that miss will take, as far as they ran before: ``unknown`` of them never did."""

    steps: int
    seconds: float
    size: int
    tar_size: int
    unknown: int


def cost(rows: Sequence[PlanRow]) -> Cost:
    """The sum over the rows that miss."""
    missed = [row for row in rows if row.cache == "miss"]
    return Cost(
        steps=len(missed),
        seconds=sum(row.seconds or 0 for row in missed),
        size=sum(row.size or 0 for row in missed),
        tar_size=sum(row.tar_size or 0 for row in missed),
        unknown=sum(row.seconds is None for row in missed),
    )


def describe(
    stage: str,
    number: int,
    step: Step,
    *,
    hit: bool,
    layer: bool | None,
    reason: str,
    seconds: float | None = None,
    size: int | None = None,
    tar_size: int | None = None,
) -> PlanRow:
    """The row for ``step``. ``layer`` tells whether it makes a layer, as far as an earlier build knows; None: it will
    turn out when it runs. ``seconds`` and the sizes are those of the last time that it ran."""
    makes, why = _effect(step, layer)
    cache = "" if isinstance(step, ConfigStep) else "hit" if hit else "miss"
    origin = step.origin
    text = f"ONBUILD {origin.text}" if origin.trigger else origin.text
    line = origin.span.line
    return PlanRow(stage, number, line, text, makes, why, cache, reason, seconds, size, tar_size)


def as_json(
    plan: LayerPlan, rows: Sequence[PlanRow], *, changed: Sequence[str] = (), before: Sequence[PlanRow] = ()
) -> dict[str, Any]:
    """The plan as plain data; ``changed`` are the files that are taken to be edited, ``before`` the rows if
    they are not."""
    return {
        **({"changed": list(changed), "runs_anyway": cost(before).steps} if changed else {}),
        "target": plan.target.title,
        "steps": [asdict(row) for row in rows],
        "predicted": asdict(cost(rows)),
        "skipped": [{"stage": stage.title, "reason": stage.reason} for stage in plan.skipped],
        "notes": list(plan.notes),
    }


def as_text(
    plan: LayerPlan,
    rows: Sequence[PlanRow],
    *,
    width: int,
    changed: Sequence[str] = (),
    before: Sequence[PlanRow] = (),
) -> str:
    """The plan for a terminal of ``width`` columns; what steps will take is shown where an earlier build knows it.
    ``changed`` and ``before`` as for ``as_json``."""
    several = len(plan.stages) > 1
    told = any(row.seconds is not None for row in rows)
    header = ["STEP", "INSTRUCTION", "MAKES", "CACHE", *(["TAKES", "TAR"] if told else []), "WHY"]
    shown = max(24, min(44, width - 38))  # so that all but the reason stand side by side at 80 columns
    lines: list[str] = []
    for stage in plan.stages:
        base = stage.opening
        lines.append(f"stage {stage.title}: {base}" if several else base)
        cells = [
            [
                *(str(row.number), shorten(row.instruction, shown), row.makes, row.cache or "-"),
                *(_prediction(row) if told else ()),
                _remark(row),
            ]
            for row in rows
            if row.stage == stage.title
        ]
        if cells:
            lines.append(table(header, cells, width=width, right=frozenset((4, 5)) if told else frozenset()))
        lines.append("")
    lines += [f"stage {stage.title}: skipped, {stage.reason}" for stage in plan.skipped]
    lines += [f"note: {note}" for note in plan.notes]
    if told or changed:
        lines.append(_cost_text(cost(rows), changed, cost(before)))
    return "\n".join(lines).rstrip()


def _prediction(row: PlanRow) -> list[str]:
    if row.cache != "miss":
        return ["", ""]
    if row.seconds is None:
        return ["?", "?"]
    return [seconds(row.seconds), size(row.tar_size or 0)]


def _cost_text(total: Cost, changed: Sequence[str], before: Cost) -> str:
    edited = f"an edit of {', '.join(changed)}: " if changed else ""
    if not total.steps:
        return f"{edited}no step runs"
    anyway = f"; {before.steps} of them without the edit, too" if changed and before.steps else ""
    unknown = f"; of {count(total.unknown, 'step')} nothing is known" if total.unknown else ""
    sizes = f"{size(total.tar_size)} of layers, {size(total.size)} compressed"
    run = count(total.steps, "step runs", "steps run")
    return f"{edited}{run}: about {seconds(total.seconds)}, {sizes}{unknown}{anyway}"


def _remark(row: PlanRow) -> str:
    told = row.cache == "miss" and row.makes == "layer" and row.reason
    return f"{row.why}; {row.reason}" if told else row.why


def metadata_effect(step: ConfigStep) -> str:
    """What an instruction that makes no layer changes."""
    return _METADATA.get(step.origin.keyword.upper(), "configuration")


def _effect(step: Step, layer: bool | None) -> tuple[str, str]:
    match step:
        case ConfigStep():
            return "metadata", metadata_effect(step)
        case RunStep():
            return _made(layer, "the files that the command changes")
        case CopyStep(sources=(EmptyDirectory(),)):
            if layer is False:
                return "no layer", "the folder is there already: configuration"
            return "layer", "the folder has to be made" if layer else "unless an earlier step makes the folder"
        case CopyStep():
            return _made(layer, "the files copied")
        case _:
            assert_never(step)


def _made(layer: bool | None, what: str) -> tuple[str, str]:
    if layer is False:
        return "no layer", "it changed no file"
    return "layer", what
