"""What does not hold of an image, and what differs between two builds of one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from layerbuild.frozen import frozen
from layerbuild.store.builds import Difference, StepAccount
from layerbuild.views.diff import PathDifference
from layerbuild.views.diff import as_text as paths_text
from layerbuild.views.explain import named
from layerbuild.views.text import count, shorten


@frozen
class Broken:
    """A claim that does not hold; a ``remark`` breaks nothing."""

    subject: str
    text: str
    remark: bool


@frozen
class StepDifference:
    """A step whose layer is another one in the second build."""

    step: StepAccount
    paths: tuple[PathDifference, ...]


@frozen
class Repeated:
    """Two builds of a recipe. ``varied`` and ``same`` tell what was other in the second one, and what could not be;
    ``several``: the recipe has more than one stage."""

    images: tuple[str, str]
    several: bool
    varied: tuple[str, ...]
    same: tuple[str, ...]
    config: tuple[Difference, ...]
    steps: tuple[StepDifference, ...]

    @property
    def differs(self) -> bool:
        """Whether the two images are not the same bytes."""
        return self.images[0] != self.images[1] or bool(self.steps)


def image_json(image: str, broken: Sequence[Broken]) -> dict[str, Any]:
    """The result for an image as plain data."""
    whole = all(found.remark for found in broken)
    return {"image": image, "whole": whole, "mismatches": [asdict(found) for found in broken]}


def image_text(image: str, broken: Sequence[Broken]) -> str:
    """The result for an image, for people."""
    lines = [f"{'remark: ' * found.remark}{found.subject}: {found.text}" for found in broken]
    wrong = sum(not found.remark for found in broken)
    verdict = count(wrong, "claim does", "claims do") + " not hold" if wrong else "every claim holds"
    return "\n".join([*lines, f"{image}: {verdict}"])


def repeated_json(found: Repeated) -> dict[str, Any]:
    """The result for a recipe as plain data."""
    return {
        "reproducible": not found.differs,
        "images": found.images,
        "varied": found.varied,
        "same": found.same,
        "config": [asdict(difference) for difference in found.config],
        "steps": [_step_json(step) for step in found.steps],
    }


def _step_json(found: StepDifference) -> dict[str, Any]:
    step = found.step
    told = {"stage": step.stage, "number": step.number, "line": step.line, "instruction": step.instruction}
    return told | {"paths": [asdict(path) for path in found.paths]}


def repeated_text(found: Repeated) -> str:
    """The result for a recipe, for people."""
    lines = [f"varied: {text}" for text in found.varied] + [f"not varied: {text}" for text in found.same]
    for difference in found.steps:
        step = difference.step
        name = named(step, stage=found.several)
        lines.append(f"step {name}  line {step.line}  {shorten(step.instruction, 90)}")
        lines += [f"    {line}" for line in paths_text((), difference.paths).splitlines()]
    lines += [f"config: {change}" for change in found.config]
    if found.differs:
        steps = count(len(found.steps), "step differs", "steps differ")
        return "\n".join([*lines, f"{steps}: {found.images[0][:19]} and {found.images[1][:19]}"])
    return "\n".join([*lines, f"the same bytes twice: {found.images[0]}"])
