"""Advice against a slow recomputation of its own, over stacks that hypothesis makes; and what is said of layers that no
recorded build made."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from layer_stacks import Layer, hides, indexes, resolved, seen_at, stacks
from test_views_versions import slow_invisible

from layerbuild.layer.entry import Entry, Kind
from layerbuild.views.advise import Advice, Lines, advise
from layerbuild.views.layers import LayerRow
from layerbuild.views.versions import changed_facts, versions

Costs = Counter[tuple[str, int]]  # bytes by kind of advice and layer


def advised(stack: list[Layer], *instructions: str) -> list[Advice]:
    rows = [LayerRow(text, "") for text in instructions or [""] * len(stack)]
    with tempfile.TemporaryDirectory() as folder:
        return advise(versions(indexes(stack, Path(folder))), Lines(rows, None), least=1)


def slow_costs(stack: list[Layer]) -> Costs:
    costs: Costs = Counter()
    copied = set()
    for number, layer in enumerate(stack):
        for entry in layer:
            before = seen_at(stack, number, entry.path)
            if entry.kind is not Kind.FILE or not entry.size or before is None:
                continue
            if hides(layer, entry.path, below_only=True) is None:
                facts = changed_facts(resolved(stack[before[0]], before[1]), entry)
                if facts and set(facts) <= {"mode", "owner", "time", "attributes"}:
                    costs["copied up", number + 1] += entry.size
                    copied.add((before[0] + 1, entry.path))
    for layer_number, path in slow_invisible(stack):
        if (layer_number, path) not in copied:
            deleted = slow_deleted(stack, layer_number, path)
            entry = next(found for found in stack[layer_number - 1] if found.path == path)
            costs["deleted later" if deleted else "replaced later", layer_number] += entry.size
    shown: dict[str, list[tuple[int, int]]] = {}
    for path in {entry.path for layer in stack for entry in layer}:
        top = seen_at(stack, len(stack), path)
        if top is not None and top[1].kind is Kind.FILE and top[1].size:
            shown.setdefault(top[1].digest, []).append((top[0] + 1, top[1].size))
    for same in shown.values():
        if len(same) > 1:
            costs["duplicates", max(layer for layer, _ in same)] += same[0][1] * (len(same) - 1)
    return costs


def slow_deleted(stack: list[Layer], number: int, path: bytes) -> bool:
    """Whether the first layer above ``number`` that hides ``path`` has no other version of it."""
    above = next((layer for layer in stack[number:] if hides(layer, path) is not None), ())
    same = next((entry for entry in above if entry.path == path), None)
    return hides(above, path, below_only=True) is not None or same is None or same.kind is Kind.WHITEOUT


@settings(max_examples=200, deadline=None)
@given(stacks)
def test_each_byte_is_told_once_and_where_it_is(stack: list[Layer]) -> None:
    found: Costs = Counter()
    for advice in advised(stack):
        found[advice.kind, advice.layer] += advice.bytes
    assert found == slow_costs(stack)


# -- what is said of images of which no build is recorded --------------------------------------------------------------


def file(path: str, content: str, mode: int = 0o644) -> Entry:
    digest = content.encode().hex().rjust(64, "0")
    return Entry(path.encode(), Kind.FILE, mode, size=9, digest=digest)


GONE = Entry(b"a", Kind.WHITEOUT)


@pytest.mark.parametrize(
    ("below", "above", "remedy"),
    [
        ("COPY a /a # buildkit", file("a", "x", 0o600), "use --chmod=600 on the COPY of layer 1: saves 9B"),
        ("/bin/sh -c #(nop) ADD file:12 in /a", GONE, "leave them out on the ADD of layer 1: .dockerignore, "),
        ("RUN /bin/sh -c make # buildkit", GONE, "delete them in the RUN of layer 1"),
        ("|1 V=1 /bin/sh -c make", file("a", "x", 0o600), "do it in the RUN of layer 1, where the files are made"),
        ("", GONE, "leave them out of the step that made layer 1"),
        ("bazel build", file("a", "y"), "bring them once, in the step that made layer 1"),
        ("bazel build", file("a", "x", 0o600), "do it in the step that made layer 1, which brought the files"),
    ],
)
def test_the_history_says_what_made_a_layer(below: str, above: Entry, remedy: str) -> None:
    (found,) = advised([(file("a", "x"),), (above,)], below, "RUN /bin/sh -c true")
    assert found.remedy.startswith(remedy)
