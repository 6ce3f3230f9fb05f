"""Which files a COPY or ADD reads: its sources against a tree, and what of it counts for the cache.

A source is followed if it is a link, and keeps the link's name; links met below a folder stay links. A folder means its
contents. A pattern that matches nothing is no error, a missing literal source is. With ``--parents`` a source is a
pattern for the paths below its pivot (``/./``, or the root), and the folders that lead to a match come with it. Source:
Dockerfile reference (COPY), checked against BuildKit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from layerbuild.build import wildcard
from layerbuild.build.tree import Node, Tree
from layerbuild.errors import SourceError, Span
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.paths import clean, split
from layerbuild.recipe.ignore import IgnoreRules, Pattern, read_pattern
from layerbuild.steps import CopyStep, PathSource


@dataclass(frozen=True, slots=True)
class Below:
    """A path below a folder that is copied, relative to it. ``leads``: a folder that only leads to what is wanted."""

    path: bytes
    node: Node
    leads: bool = False


@dataclass(frozen=True)
class Match:
    """One path that a source names. ``node`` is what is there, links followed; ``name``, the source's base name, is
    what a file is called in a destination folder. ``include`` and ``exclude`` choose below a folder."""

    tree: Tree
    node: Node
    name: bytes
    literal: bool
    exclude: IgnoreRules | None = None
    include: Pattern | None = None

    @cached_property
    def below(self) -> tuple[Below, ...]:
        """For a folder: every wanted path below it, in a layer's order. The tree is walked only once."""
        return tuple(_below(self, self.node.path, b""))


def select(step: CopyStep, source: PathSource, tree: Tree) -> list[Match]:
    """What ``source`` names in ``tree``, in order. SourceError for a literal path that is not there."""
    pattern = source.pattern.encode("utf-8", "surrogateescape")
    exclude = IgnoreRules.parse("\n".join(step.exclude), file="--exclude") if step.exclude else None
    if not step.parents:
        return _named(step, pattern, tree, exclude)
    head, pivot, tail = pattern.partition(b"/./")
    include = clean(tail if pivot else pattern)
    bases = _named(step, head if pivot else b"", tree, exclude)
    return [_with_parents(step, base, include) for base in bases if base.node.entry.kind is Kind.DIRECTORY]


def content_digest(matches: list[Match]) -> tuple[str, bytes]:
    """What the cache knows of the files behind a source: the digest of their listing, and the listing.

    Names, kinds, modes, owners, link targets, extended attributes, contents and which names are one file count; times
    do not, and neither does the name of a literal source (the recipe has it already).
    """
    lines: list[bytes] = []
    for match in matches:
        name = b"" if match.literal else match.name
        if match.node.entry.kind is Kind.DIRECTORY:
            lines.append(b"d\t" + _escape(name))
            lines.extend(_lines(match))
        else:
            lines.append(_line(match.tree, name, match.node))
    listing = b"\n".join(lines)
    return "sha256:" + hashlib.sha256(listing).hexdigest(), listing


def _named(step: CopyStep, pattern: bytes, tree: Tree, exclude: IgnoreRules | None) -> list[Match]:
    path = clean(pattern)
    if not wildcard.is_pattern(path):
        return [Match(tree, _literal(step, path, tree), split(path)[1], True, exclude)]
    folder, segments = wildcard.split(path)
    start = _literal(step, folder, tree).path if folder else b""
    matches = []
    for node in wildcard.expand(tree, start, segments):
        followed = tree.get(node.path) if node.entry.kind is Kind.SYMLINK else node
        if followed is None:
            raise _missing(step.origin.span, node.path, tree)
        matches.append(Match(tree, followed, split(node.path)[1], False, exclude))
    return matches


def _with_parents(step: CopyStep, base: Match, include: bytes) -> Match:
    if not include:
        return base
    text = include.decode("utf-8", "surrogateescape")
    match = Match(base.tree, base.node, b"", base.literal, base.exclude, read_pattern(text, file="--parents"))
    if not wildcard.is_pattern(include) and not match.below:
        raise _missing(step.origin.span, clean(base.node.path + b"/" + include), base.tree)
    return match


def _literal(step: CopyStep, path: bytes, tree: Tree) -> Node:
    node = tree.get(path)
    if node is None:
        raise _missing(step.origin.span, path, tree)
    return node


def _missing(span: Span, path: bytes, tree: Tree) -> SourceError:
    shown = path.decode("utf-8", "backslashreplace") or "."
    return SourceError(f"{shown!r} not found: {tree.why_missing(path)}", span=span)


def _below(match: Match, folder: bytes, rel: bytes, *, wanted: bool = False) -> Iterator[Below]:
    """Below ``folder``, which is ``rel`` of the match's folder. ``wanted``: ``include`` has matched on the way."""
    for node in match.tree.children(folder):
        name = split(node.path)[1]
        path = rel + b"/" + name if rel else name
        included = wanted or match.include is None or match.include.matches(path.decode("utf-8", "surrogateescape"))
        excluded = match.exclude is not None and match.exclude.verdict(path).ignored
        if node.entry.kind is Kind.DIRECTORY:
            yield from _folder(match, Below(path, node, leads=not included), excluded=excluded)
        elif included and not excluded:
            yield Below(path, node)


def _folder(match: Match, folder: Below, *, excluded: bool) -> Iterator[Below]:
    inner = _below(match, folder.node.path, folder.path, wanted=not folder.leads)
    if folder.leads or excluded:
        # It comes only if something below it does. A folder that --exclude empties is made all the same.
        first = next(inner, None)
        if first is None:
            return
        yield folder
        yield first
    else:
        yield folder
    yield from inner


def _lines(match: Match) -> Iterator[bytes]:
    first: dict[object, bytes] = {}
    for below in match.below:
        line = _line(match.tree, below.path, below.node)
        if below.node.inode is not None:
            same = first.setdefault(below.node.inode, below.path)
            line = line if same is below.path else line + b"\t=" + _escape(same)
        yield line


def _line(tree: Tree, path: bytes, node: Node) -> bytes:
    entry = node.entry
    digest = tree.digest(node) if entry.kind is Kind.FILE else ""
    xattrs = b",".join(key + b"=" + value.hex().encode() for key, value in entry.xattrs) if entry.xattrs else b""
    facts = f"{entry.kind.value}\t{entry.mode:o}\t{entry.uid}\t{entry.gid}\t{_size(entry)}\t{entry.device}\t{digest}"
    return b"\t".join((_escape(path), facts.encode(), _escape(entry.target), xattrs))


def _size(entry: Entry) -> int:
    return entry.size if entry.kind is Kind.FILE else 0


def _escape(text: bytes) -> bytes:
    return text.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")
