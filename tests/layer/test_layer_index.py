"""The index: what goes in comes out, in order, by lookup and by folder; later statements win; memory is bounded."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import StoreError
from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.layer.index import Index, IndexWriter, from_line, to_line

names = st.binary(min_size=1, max_size=4).filter(lambda name: b"/" not in name and b"\0" not in name)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)
found = st.builds(
    Entry,
    paths,
    st.sampled_from([kind for kind in Kind if kind is not Kind.WHITEOUT]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 1 << 32),
    size=st.integers(0, 1 << 50),
    mtime=st.integers(-(1 << 40), 1 << 40),
    mtime_ns=st.integers(0, 999_999_999),
    target=st.binary(max_size=5),
    device=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    xattrs=st.lists(st.tuples(st.binary(min_size=1, max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
    digest=st.sampled_from(["", "ab" * 32]),
    opaque=st.booleans(),
)


def write(path: Path, entries: list[Entry], run: int = 1 << 15) -> Index:
    with IndexWriter(path, run=run) as writer:
        for entry in entries:
            writer.add(entry)
        writer.finish()
    return Index.open(path)


@given(found)
def test_a_line_holds_an_entry(entry: Entry) -> None:
    assert from_line(to_line(entry)) == entry


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(found, max_size=25), run=st.integers(1, 9))
def test_lookup_children_subtree_and_order(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], run: int
) -> None:
    last = {entry.path: entry for entry in entries}
    expected = [last[path] for path in sorted(last, key=sort_key)]
    with write(tmp_path_factory.mktemp("index") / "i", entries, run) as index:
        assert list(index) == expected
        for folder in {b"", b"nothing", *last, *(path.rpartition(b"/")[0] for path in last)}:
            assert index.lookup(folder) == last.get(folder)
            inside = [entry for entry in expected if entry.path.rpartition(b"/")[0] == folder and entry.path]
            assert list(index.children(folder)) == inside
            prefix = folder + b"/" if folder else b""
            below = [entry for entry in expected if entry.path == folder or entry.path.startswith(prefix)]
            assert list(index.subtree(folder)) == below


@pytest.mark.parametrize("run", [1, 2, 100])
def test_later_statements_win(tmp_path: Path, run: int) -> None:
    folder = Entry(b"d", Kind.DIRECTORY, 0o755)
    with IndexWriter(tmp_path / "i", run=run) as writer:
        writer.add(Entry(b"d/old", Kind.FILE))
        writer.add(folder)
        writer.remove(b"d")
        writer.add(Entry(b"d/new", Kind.FILE))
        writer.add(folder)
        writer.opaque(b"e")
        writer.add(replace(folder, path=b"e"))
        writer.add(Entry(b"f", Kind.WHITEOUT))
        writer.add(Entry(b"f", Kind.FILE))
        writer.add(replace(folder, path=b"g"))
        writer.add(Entry(b"g", Kind.WHITEOUT))
        writer.add(Entry(b"h", Kind.WHITEOUT))
        assert writer.finish() == 6
    with Index.open(tmp_path / "i") as index:
        kinds = {entry.path: (entry.kind, entry.opaque) for entry in index}
    assert kinds == {
        b"d": (Kind.DIRECTORY, False),
        b"d/new": (Kind.FILE, False),
        b"e": (Kind.DIRECTORY, True),
        b"f": (Kind.FILE, False),
        b"g": (Kind.DIRECTORY, True),
        b"h": (Kind.WHITEOUT, False),
    }


def test_an_unfinished_index_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), IndexWriter(tmp_path / "i", run=1) as writer:
        writer.add(Entry(b"a", Kind.FILE))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(b"layerbuild-index\t9\n")
    with pytest.raises(StoreError, match="version 1"):
        Index.open(tmp_path / "i")


@pytest.mark.slow
def test_the_writer_needs_little_memory(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import IndexWriter
with IndexWriter(Path(sys.argv[1])) as writer:
    for number in range(400_000):
        writer.add(Entry(b"usr/share/%d/%d" % (number * 7919 % 1000, number), Kind.FILE, digest="0" * 64))
    assert writer.finish() == 400_000
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "i"], check=True, capture_output=True)
    assert int(done.stdout) < 80_000  # KiB; held as objects the entries would take three times as much
