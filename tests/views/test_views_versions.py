"""Blame and diff against a slow recomputation of their own, over stacks that hypothesis makes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from layer_stacks import Layer, hides, indexes, merged, resolved, seen_at, stacks

from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.union import Found, LayerView, Union
from layerbuild.views.diff import PathDifference, Thing, compare
from layerbuild.views.efficiency import efficiency
from layerbuild.views.versions import Version, changed_facts, invisible, versions

EXAMPLES = settings(max_examples=60, deadline=None)


def found_versions(stack: list[Layer]) -> list[Version]:
    with tempfile.TemporaryDirectory() as folder:
        return versions(indexes(stack, Path(folder)))


def slow_action(stack: list[Layer], number: int, entry: Entry) -> tuple[str, tuple[str, ...]]:
    """What layer ``number`` (from 0) does to a path, and in what the path differs from what it was."""
    if entry.kind is Kind.WHITEOUT:
        return "deleted", ()
    before = seen_at(stack, number, entry.path)
    if before is None or hides(stack[number], entry.path, below_only=True) is not None:
        return "created", ()
    facts = changed_facts(resolved(stack[before[0]], before[1]), resolved(stack[number], entry))
    if not facts and entry.kind is Kind.DIRECTORY:
        return "kept", ()
    return "changed", facts


def slow_invisible(stack: list[Layer]) -> Iterator[tuple[int, bytes]]:
    """Layer (from 1) and path of each file whose content no path of the whole shows."""
    for number, layer in enumerate(stack):
        for entry in layer:
            if entry.kind is not Kind.FILE or not entry.size:
                continue
            names = [
                other.path
                for other in layer
                if other is entry or (other.kind is Kind.HARDLINK and other.target == entry.path)
            ]
            if not any(all(hides(above, name) is None for above in stack[number + 1 :]) for name in names):
                yield number + 1, entry.path


@EXAMPLES
@given(stacks)
def test_each_version_has_its_action(stack: list[Layer]) -> None:
    found = {(version.layer, version.path): (version.action, version.facts) for version in found_versions(stack)}
    assert found == {
        (number + 1, entry.path): slow_action(stack, number, entry)
        for number, layer in enumerate(stack)
        for entry in layer
    }


@EXAMPLES
@given(stacks)
def test_what_shows_is_the_merged_tree(stack: list[Layer]) -> None:
    shown = {version.path: version.entry for version in found_versions(stack) if version.visible}
    wanted = merged(stack)
    assert set(shown) == set(wanted)
    for path, entry in wanted.items():
        assert changed_facts(entry, shown[path]) == (), path


@EXAMPLES
@given(stacks)
def test_what_hides_a_version(stack: list[Layer]) -> None:
    for version in found_versions(stack):
        if version.action in ("deleted", "kept") or version.entry.kind is Kind.DIRECTORY:
            continue
        above = range(version.layer, len(stack))
        wanted = next((number + 1 for number in above if hides(stack[number], version.path) is not None), 0)
        assert version.hidden_by == wanted, version
        if wanted:
            same = next((entry for entry in stack[wanted - 1] if entry.path == version.path), None)
            outer = hides(stack[wanted - 1], version.path, below_only=True)
            assert version.deleted == (outer is not None or same is None or same.kind is Kind.WHITEOUT), version


@EXAMPLES
@given(stacks)
def test_the_bytes_that_are_shipped_though_invisible(stack: list[Layer]) -> None:
    found = {(version.layer, version.path) for version in invisible(found_versions(stack))}
    assert found == set(slow_invisible(stack))


@EXAMPLES
@given(stacks, stacks)
def test_diff_is_the_difference_of_the_merged_trees(first: list[Layer], second: list[Layer]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        sides = [things(first, Path(one)), things(second, Path(two))]
        found = {
            difference.path: _told(difference) for difference in compare(sides[0], sides[1], times=True, text=False)
        }
    before, after = merged(first), merged(second)
    wanted = {}
    for path in {*before, *after}:
        name = "/" + path.decode()
        if path not in before or path not in after:
            wanted[name] = ("added" if path in after else "deleted", ())
        elif facts := changed_facts(before[path], after[path]):
            wanted[name] = ("changed", facts)
    assert found == wanted


@EXAMPLES
@given(stacks)
def test_no_image_differs_from_itself(stack: list[Layer]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        assert list(compare(things(stack, Path(one)), things(stack, Path(two)), times=True, text=False)) == []


@EXAMPLES
@given(stacks)
def test_efficiency_is_a_share_and_one_layer_wastes_nothing(stack: list[Layer]) -> None:
    measure = efficiency(found_versions(stack))
    assert 0 <= measure.score <= 1 and measure.wasted_bytes >= 0
    alone = efficiency(found_versions(stack[:1]))
    assert (alone.score, alone.wasted_bytes, alone.user_bytes) == (1.0, 0, 0)


def things(stack: list[Layer], folder: Path) -> list[Thing]:
    """The merged tree as ``diff`` sees it; links among files are not compared here."""
    views = [LayerView(index) for index in reversed(indexes(stack, folder))]
    return [_thing(found) for found in Union(views).walk()]


def _thing(found: Found) -> Thing:
    from dataclasses import replace

    return Thing(replace(found.inode, path=found.entry.path))


def _told(difference: PathDifference) -> tuple[str, tuple[str, ...]]:
    return difference.change, tuple(fact.change for fact in difference.facts)
