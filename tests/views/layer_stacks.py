"""Stacks of layers made by hypothesis, as values, and what they mean worked out slowly: by looking at every pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.layer.index import Index, IndexWriter

Layer = tuple[Entry, ...]

_NAMES = (b"a", b"b", b"c")
_PATHS = [
    b"/".join(parts)
    for parts in (
        *((x,) for x in _NAMES),
        *((x, y) for x in _NAMES for y in _NAMES),
        *((x, y, z) for x in _NAMES[:2] for y in _NAMES[:2] for z in _NAMES),
    )
]

_FILES = st.builds(
    lambda content, mode, uid, mtime: Entry(
        b"", Kind.FILE, mode, uid, uid, len(content), mtime, digest=content.hex().rjust(64, "0")
    ),
    st.sampled_from([b"", b"x", b"xy", b"xyz"]),
    st.sampled_from([0o644, 0o600]),
    st.sampled_from([0, 1]),
    st.sampled_from([1, 2]),
)
_FOLDERS = st.builds(
    lambda mode, opaque: Entry(b"", Kind.DIRECTORY, mode, opaque=opaque),
    st.sampled_from([0o755, 0o700]),
    st.booleans(),
)
_OTHERS = st.sampled_from(
    [
        Entry(b"", Kind.WHITEOUT),
        Entry(b"", Kind.SYMLINK, 0o777, target=b"a"),
        Entry(b"", Kind.SYMLINK, 0o777, target=b"b"),
        Entry(b"", Kind.HARDLINK),
        Entry(b"", Kind.FIFO, 0o644),
    ]
)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """One layer as an index may hold it: parents are folders of it, hard links lead to a file of it."""
    drawn = draw(st.dictionaries(st.sampled_from(_PATHS), st.one_of(_FILES, _FILES, _FOLDERS, _OTHERS), max_size=6))
    made: dict[bytes, Entry] = {}
    for path in sorted(drawn, key=sort_key):
        parents = [b"/".join(path.split(b"/")[:depth]) for depth in range(1, path.count(b"/") + 1)]
        if any(parent in made and made[parent].kind is not Kind.DIRECTORY for parent in parents):
            continue
        for parent in parents:
            made.setdefault(parent, Entry(parent, Kind.DIRECTORY, 0o755))
        made[path] = replace(drawn[path], path=path)
    files = [path for path, entry in made.items() if entry.kind is Kind.FILE]
    for path, entry in list(made.items()):
        if entry.kind is Kind.HARDLINK:
            if not files:
                del made[path]
                continue
            head = made[files[0]]
            made[path] = replace(head, path=path, kind=Kind.HARDLINK, size=0, target=head.path, digest="")
    return tuple(made[path] for path in sorted(made, key=sort_key))


stacks = st.lists(layers(), min_size=1, max_size=4)


def indexes(stack: list[Layer], folder: Path) -> list[Index]:
    """The layers as index files, the lowest first."""
    found = []
    for number, layer in enumerate(stack):
        path = folder / str(number)
        with IndexWriter(path) as writer:
            for entry in layer:
                writer.add(entry)
                if entry.opaque:
                    writer.opaque(entry.path)
            writer.finish()
        found.append(Index.open(path))
    return found


def resolved(layer: Layer, entry: Entry) -> Entry:
    """Of a hard link the file that it names, under its own path."""
    if entry.kind is not Kind.HARDLINK:
        return entry
    return replace(next(other for other in layer if other.path == entry.target), path=entry.path)


def hides(layer: Layer, path: bytes, *, below_only: bool = False) -> bytes | None:
    """The path whose entry in ``layer`` takes a lower layer's ``path`` out of sight; None if none does.
    ``below_only``: only what is above the path counts, as for a path that the layer itself has."""
    for entry in layer:
        if entry.path == path and not below_only:
            return entry.path
        if path.startswith(entry.path + b"/") and (entry.kind is not Kind.DIRECTORY or entry.opaque):
            return entry.path
    return None


def seen_at(stack: list[Layer], number: int, path: bytes) -> tuple[int, Entry] | None:
    """What ``path`` is when the first ``number`` layers lie on each other: its layer, and its entry there."""
    for lower in reversed(range(number)):
        entry = next((found for found in stack[lower] if found.path == path), None)
        if entry is None:
            if hides(stack[lower], path) is not None:
                return None
            continue
        if entry.kind is Kind.WHITEOUT:
            return None
        return lower, entry
    return None


def merged(stack: list[Layer]) -> dict[bytes, Entry]:
    """The whole tree, path by path; hard links resolved."""
    found = {path: seen_at(stack, len(stack), path) for path in {entry.path for layer in stack for entry in layer}}
    return {path: resolved(stack[at[0]], at[1]) for path, at in found.items() if at is not None}
