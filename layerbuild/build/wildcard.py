"""Source patterns of COPY and ADD: Go's filepath.Match, one path segment at a time.

``*`` and ``?`` stay within a segment, ``[set]`` and ``[^set]`` are classes, a backslash takes the next character
literally. ``**`` is a ``*``. Source: Go path/filepath ("Match").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from layerbuild.build.tree import Node, Tree
from layerbuild.errors import RecipeError
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
    """The nodes below ``folder`` that ``segments`` name, in order; links on the way are not followed. RecipeError,
    without a place, if a segment is malformed."""
    return _expand(tree, folder, [_compile(segment) for segment in segments])


def _expand(tree: Tree, folder: bytes, segments: list[re.Pattern[str]]) -> Iterator[Node]:
    head, rest = segments[0], segments[1:]
    for node in tree.children(folder):
        if not head.fullmatch(_text(node.path.rpartition(b"/")[2])):
            continue
        if not rest:
            yield node
        elif node.entry.kind is Kind.DIRECTORY:
            yield from _expand(tree, node.path, rest)


def _compile(segment: bytes) -> re.Pattern[str]:
    # Ignore files have the same language, in which only `**` means more.
    single = re.sub(r"(\\.)|\*+", lambda found: found[1] or "*", _text(segment), flags=re.DOTALL)
    try:
        return re.compile(to_regex(single), re.DOTALL)
    except (ValueError, re.error) as error:
        shown = segment.decode("utf-8", "backslashreplace")
        hint = "close brackets, and escape nothing at the end; a JSON array needs double quotes and no last comma"
        raise RecipeError(f"syntax error in pattern: {shown}", hint=hint) from error


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
