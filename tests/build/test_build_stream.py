"""A folder that is copied as a stream gives what the same folder gives item by item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from build_trees import TIMES, context, placed, stack, step

from layerbuild.build.copying import write_stream
from layerbuild.build.placement import Item, Placement
from layerbuild.build.selecting import listing, only_folder, select
from layerbuild.build.tree import Tree
from layerbuild.errors import BuildError
from layerbuild.layer.capture import LayerWriter
from layerbuild.layer.codecs import NONE
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import Index
from layerbuild.steps import CopyStep

SOURCE = "d/a=1 d/b/ d/b/c=2 d/b/e/f=3 d/b-1=4 d/l->a d/same~d/a d/z/ d/y:755=5"

# What the image has, where to copy to, and options.
CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "an empty image": ("", "/", {}),
    "a new folder": ("x=1", "/new/er/", {}),
    "into what is there": ("a=1 q=2 b/g=6", "/", {}),
    "the same again": (SOURCE.replace("d/", ""), "/", {}),
    "below what is there": (SOURCE.replace("d/", "w/v/") + " w/o=1", "/w/v", {}),
    "one file is another": (SOURCE.replace("d/", "w/v/").replace("f=3", "f=9"), "/w/v", {}),
    "one mode is another": (SOURCE.replace("d/", "w/").replace("d/b/ ", "d/b/:700 "), "/w", {}),
    "through a link": ("real/x=1 link->real", "/link/in", {}),
    "a file in place of a link": ("w/a->elsewhere", "/w", {}),
    "with a mode": ("w/b/c=2", "/w", {"mode": "700"}),
    "with an owner": ("w/b/c=2", "/w", {"owner": "5:6"}),
}


def streamed(tree: Tree, target: Tree, asked: CopyStep, *, owner: tuple[int, int] | None) -> list[Item]:
    found = only_folder(asked, {source: select(asked, source, tree) for source in asked.sources})  # type: ignore[misc, arg-type]
    assert found is not None
    placement = Placement(asked, target, owner=owner, times=TIMES)
    return [item for _, item in placement.stream(found[1]) if item is not None]


def entries(items: list[Item]) -> list[Entry]:
    return [replace(item.entry, digest="") for item in items if item.entry.kind is not Kind.HARDLINK]


@pytest.mark.parametrize(("there", "dest", "options"), CASES.values(), ids=CASES)
def test_a_stream_gives_the_same_as_a_list(tmp_path: Path, there: str, dest: str, options: dict[str, str]) -> None:
    tree, target = context(tmp_path / "s", SOURCE), context(tmp_path / "t", there)
    asked = step("d", dest=dest, **options)
    owner = (5, 6) if "owner" in options else None
    whole = placed(tree, target, asked, owner=owner)
    flow = streamed(tree, target, asked, owner=owner)
    links = {item.entry.path for item in whole if item.entry.kind is Kind.HARDLINK}
    assert entries(whole) == [replace(e, digest="") for e in (item.entry for item in flow) if e.path not in links]
    assert [item.entry.path for item in whole] == [item.entry.path for item in flow]


@pytest.mark.parametrize(("there", "dest", "options"), CASES.values(), ids=CASES)
def test_what_is_written_and_told_is_the_same(tmp_path: Path, there: str, dest: str, options: dict[str, str]) -> None:
    tree, target = context(tmp_path / "s", SOURCE), context(tmp_path / "t", there)
    asked = step("d", dest=dest, **options)
    owner = (5, 6) if "owner" in options else None
    whole = placed(tree, target, asked, owner=owner)
    (source,) = asked.sources
    matches = select(asked, source, tree)  # type: ignore[arg-type]
    with LayerWriter(tmp_path / "blob", tmp_path / "index", codec=NONE) as writer:
        count, told = write_stream(Placement(asked, target, owner=owner, times=TIMES), matches[0], writer)
        writer.finish()
    with Index.open(tmp_path / "index") as index:
        assert list(index) == [item.entry for item in whole]
    assert count == len(whole)
    assert told.finish() == listing(matches).finish()


def test_what_is_refused_in_a_list_is_refused_in_a_stream(tmp_path: Path) -> None:
    tree = context(tmp_path / "s", SOURCE)
    for number, there in enumerate(("a/", "b=1", "b->c")):
        target = context(tmp_path / f"t{number}", there)
        asked = step("d", dest="/")
        with pytest.raises(BuildError) as whole:
            placed(tree, target, asked)
        with pytest.raises(BuildError) as flow:
            streamed(tree, target, asked, owner=None)
        assert str(flow.value) == str(whole.value)


def test_ancestors_of_a_layered_target(tmp_path: Path) -> None:
    folders = [Entry(path, Kind.DIRECTORY, 0o750, 3, 4, mtime=7) for path in (b"u", b"u/v", b"u/v/w")]
    target = stack(tmp_path / "layers", folders, [Entry(b"u/v", Kind.DIRECTORY, 0o711, mtime=9)])
    tree = context(tmp_path / "s", SOURCE)
    asked = step("d", dest="/u/v/w/x")
    assert entries(streamed(tree, target, asked, owner=None))[:4] == entries(placed(tree, target, asked))[:4]
