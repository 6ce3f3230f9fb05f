"""Source patterns of COPY and ADD: Go's filepath.Match, one path segment at a time.

``*`` and ``?`` stay within a segment, ``[set]`` and ``[^set]`` are classes, a backslash takes the next character
literally. ``**`` is a ``*``. A malformed pattern matches nothing. Source: Go path/filepath ("Match").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from layerbuild.build.tree import Node, Tree
from layerbuild.layer.entry import Kind
from layerbuild.recipe.ignore import to_regex


def is_pattern(text: bytes) -> bool:
    """Whether ``text`` has a wildcard that no backslash takes away."""
    return re.search(rb"[*?\[]", re.sub(rb"\\.", b"", text, flags=re.DOTALL)) is not None


def split(pattern: bytes) -> tuple[bytes, list[bytes]]:
    """The literal folders that ``pattern`` begins with, and the segments from the first wildcard on.

    >>> split(b"a/b/*.c/d")
    (b'a/b', [b'*.c', b'd'])
    """
    parts = [part for part in pattern.split(b"/") if part not in (b"", b".")]
    first = next((index for index, part in enumerate(parts) if is_pattern(part)), len(parts))
    return b"/".join(parts[:first]), parts[first:]


def expand(tree: Tree, folder: bytes, segments: list[bytes]) -> Iterator[Node]:
    """The nodes below ``folder`` that ``segments`` name, in order; links on the way are not followed."""
    head, rest = segments[0], segments[1:]
    matcher = _compile(head)
    if matcher is None:
        return
    for node in tree.children(folder):
        if not matcher.fullmatch(_text(node.path.rpartition(b"/")[2])):
            continue
        if not rest:
            yield node
        elif node.entry.kind is Kind.DIRECTORY:
            yield from expand(tree, node.path, rest)


def _compile(segment: bytes) -> re.Pattern[str] | None:
    # Ignore files have the same language, in which only `**` means more.
    single = re.sub(r"(\\.)|\*+", lambda found: found[1] or "*", _text(segment), flags=re.DOTALL)
    try:
        return re.compile(to_regex(single), re.DOTALL)
    except (ValueError, re.error):
        return None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
