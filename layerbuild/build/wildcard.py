"""Source patterns of COPY and ADD: Go's filepath.Match, one path segment at a time.

``*`` and ``?`` stay within a segment, ``[set]`` and ``[^set]`` are classes, a backslash takes the next character
literally. ``**`` crosses segments only for ``--parents``; elsewhere it is a ``*``. A malformed pattern matches nothing.
Source: Go path/filepath ("Match").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from layerbuild.build.tree import Node, Tree
from layerbuild.layer.entry import Kind


def is_pattern(text: bytes) -> bool:
    """Whether ``text`` has a wildcard that no backslash takes away."""
    return re.search(rb"[*?\[]", re.sub(rb"\\.", b"", text, flags=re.DOTALL)) is not None


def expand(tree: Tree, folder: bytes, segments: list[bytes], *, deep: bool = False) -> Iterator[Node]:
    """The nodes below ``folder`` that ``segments`` name, in order; a folder that matches is not searched further."""
    head, rest = segments[0], segments[1:]
    if deep and head == b"**":
        yield from _expand_deep(tree, folder, rest)
        return
    matcher = _compile(head)
    for node in tree.children(folder):
        if matcher is None or not matcher.fullmatch(node.path.rpartition(b"/")[2]):
            continue
        if not rest:
            yield node
        elif node.entry.kind is Kind.DIRECTORY:
            yield from expand(tree, node.path, rest, deep=deep)


def split(pattern: bytes) -> tuple[bytes, list[bytes]]:
    """The literal folders that ``pattern`` begins with, and the segments from the first wildcard on.

    >>> split(b"a/b/*.c/d")
    (b'a/b', [b'*.c', b'd'])
    """
    parts = [part for part in pattern.split(b"/") if part not in (b"", b".")]
    first = next((index for index, part in enumerate(parts) if is_pattern(part)), len(parts))
    return b"/".join(parts[:first]), parts[first:]


def _expand_deep(tree: Tree, folder: bytes, rest: list[bytes]) -> Iterator[Node]:
    # `**` stands for any number of folders, none included; a link is not followed.
    seen: set[bytes] = set()
    if rest:
        for node in expand(tree, folder, rest, deep=True):
            seen.add(node.path)
            yield node
    for node in tree.children(folder):
        if not rest:
            yield node
        elif node.entry.kind is Kind.DIRECTORY:
            for found in _expand_deep(tree, node.path, rest):
                if found.path not in seen:
                    seen.add(found.path)
                    yield found


def _compile(segment: bytes) -> re.Pattern[bytes] | None:
    out: list[bytes] = []
    at = 0
    while at < len(segment):
        char = segment[at : at + 1]
        if char == b"*":
            out.append(b".*")
        elif char == b"?":
            out.append(_ANY)
        elif char == b"[":
            found = _CLASS.match(segment, at)
            if found is None:
                return None
            out.append(_character_class(found))
            at = found.end()
            continue
        else:
            at += char == b"\\"
            if at == len(segment):
                return None
            out.append(re.escape(segment[at : at + 1]))
        at += 1
    try:
        return re.compile(b"".join(out), re.DOTALL)
    except re.error:
        return None


# One character, which may be several bytes of UTF-8.
_ANY = rb"(?:[\x00-\x7f]|[\xc2-\xf4][\x80-\xbf]{1,3}|[\x80-\xff])"
_CLASS = re.compile(rb"\[(\^?)((?:\\.|[^\]\\])+)\]", re.DOTALL)


def _character_class(found: re.Match[bytes]) -> bytes:
    negated, body = found.groups()
    members = re.sub(rb"\\(.)|([\[\]^&~|])", lambda member: b"\\" + (member[1] or member[2]), body, flags=re.DOTALL)
    return b"[" + negated + members + b"]"
