"""What the steps of a build said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerbuild.store.builds import BuildRecord, Log, StepAccount
from layerbuild.views.explain import named
from layerbuild.views.text import shorten, size

Logged = Sequence[tuple[StepAccount, Log]]


def as_json(build: BuildRecord, logs: Logged) -> dict[str, Any]:
    """The logs as plain data; bytes that are no UTF-8 become U+FFFD."""
    return {
        "build": build.number,
        "steps": [
            {
                "stage": step.stage,
                "number": step.number,
                "instruction": step.instruction,
                "output": log.data.decode("utf-8", "replace"),
                "dropped_bytes": log.dropped,
            }
            for step, log in logs
        ],
    }


def as_text(logs: Logged, *, alone: bool, stage: bool) -> str:
    """The logs for people; of one step ``alone`` nothing but its output. ``stage``: each is called with its stage."""
    parts = []
    for step, log in logs:
        if not alone:
            parts.append(f"== {named(step, stage=stage)}  {shorten(step.instruction, 100)}")
        parts.append(_text(log))
    return "\n".join(part for part in parts if part)


def silence(build: BuildRecord, steps: Sequence[StepAccount], *, alone: bool) -> str:
    """Why there is nothing to show of ``steps``, one of them ``alone`` or all."""
    cached = sum(step.verdict == "hit" for step in steps)
    if alone:
        return f"the step said nothing in build {build.number}{': it came from the cache' if cached else ''}"
    return f"no step said anything in build {build.number}{f': {cached} came from the cache' if cached else ''}"


def _text(log: Log) -> str:
    text = log.data.decode("utf-8", "replace").rstrip("\n")
    if not log.dropped:
        return text
    head = log.data[: log.kept].decode("utf-8", "replace").rstrip("\n")
    tail = log.data[log.kept :].decode("utf-8", "replace").rstrip("\n")
    return f"{head}\n… {size(log.dropped)} left out …\n{tail}"
