"""The classic builder's cases, as its successor takes them: builds one after the other, and the images they make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from corpus_bench import Bench, Outcome
from corpus_rows import Row, corpus, differs

pytestmark = pytest.mark.forked

_NAME = ("-t", "--tag")


@corpus("moby/classic_build_cases")
def test_classic_build(row: Row, bench: Bench) -> None:
    _refuse(row)
    images: dict[str, str] = {}
    for number, step in enumerate(row["steps"]):
        if "build" in step:
            outcome = _build(bench, number, step)
            if step["ok"] and outcome.misses(bench.folder / f"step{number}"):
                pytest.skip("corpus absent: a file of the case, which is not in the row")
            assert (outcome.code == 0) is step["ok"], outcome.text
            assert outcome.says(step.get("error_contains", "")), outcome.text
            assert step.get("output_contains", "") in outcome.text
            images[step["build"]] = outcome.image_id
        elif "inspect" in step:
            # Members that are empty are absent in an OCI configuration.
            assert (_inspected(bench, step) or None) == (step["equals"] or None)
        else:
            first, *others = (images[name] for name in step["same_image_id"])
            assert others and {*others} == {first}


def _refuse(row: Row) -> None:
    if "classic-only" in row.get("buildkit_note", ""):
        differs(row["buildkit_note"])
    for step in row["steps"]:
        if "-" in step.get("flags", ()):
            pytest.skip("corpus absent: what the case sends on standard input")
        if "FROM hello-world" in step.get("files", {}).get("Dockerfile", ""):
            pytest.skip("corpus absent: base image hello-world")


def _build(bench: Bench, number: int, step: Row) -> Outcome:
    files = [{"path": name, "type": "file", "content": text} for name, text in step["files"].items()]
    context = bench.context(f"step{number}", files)
    return bench.build("-t", step["build"], *_flags(step["flags"]), context)


def _flags(words: list[str]) -> Iterator[str]:
    """The words, without the name, which the step has, too."""
    given = iter(words)
    for word in given:
        if word in _NAME:
            next(given)
        else:
            yield word


def _inspected(bench: Bench, step: Row) -> Any:
    found: Any = json.loads(bench.layerbuild("inspect", step["inspect"]))[0]
    for part in step["field"].split("."):
        found = found.get(part)
    return found
