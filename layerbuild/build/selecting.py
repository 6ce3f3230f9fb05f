"""Which files a COPY or ADD reads: its sources against a tree, and what of it counts for the cache.

A source is followed if it is a link, and keeps the link's name; links met below a folder stay links. A folder means its
contents. A pattern that matches nothing is no error, a missing literal source is. Source: Dockerfile reference (COPY),
checked against BuildKit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from layerbuild.build import wildcard
from layerbuild.build.tree import Node, Tree
from layerbuild.errors import SourceError, Span
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.paths import clean, split
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.steps import CopyStep, PathSource


@dataclass(frozen=True, slots=True)
class Match:
    """One path that a source names. ``node`` is what is there, links followed; ``name`` is where it goes below a
    destination folder: the source's base name, or with ``--parents`` its path."""

    tree: Tree
    node: Node
    name: bytes
    literal: bool
    exclude: IgnoreRules | None = None

    def below(self) -> Iterator[tuple[bytes, Node]]:
        """For a folder: every path below it, relative to it, parents first; excluded ones left out."""
        return _below(self.tree, self.node.path, b"", self.exclude)


def select(step: CopyStep, source: PathSource, tree: Tree) -> list[Match]:
    """What ``source`` names in ``tree``, in order. SourceError for a literal path that is not there."""
    pattern = source.pattern.encode("utf-8", "surrogateescape")
    exclude = IgnoreRules.parse("\n".join(step.exclude), file="--exclude") if step.exclude else None
    if step.parents:
        return list(_with_parents(step, pattern, tree, exclude))
    if not wildcard.is_pattern(pattern):
        return [Match(tree, _literal(step, pattern, tree), split(clean(pattern))[1], True, exclude)]
    folder, segments = wildcard.split(clean(pattern))
    start = _literal(step, folder, tree) if folder else None
    matches = []
    for node in wildcard.expand(tree, start.path if start else b"", segments):
        followed = tree.get(node.path) if node.entry.kind is Kind.SYMLINK else node
        if followed is None:
            raise _missing(step.origin.span, node.path, tree)
        matches.append(Match(tree, followed, split(node.path)[1], False, exclude))
    return matches


def content_digest(matches: list[Match]) -> tuple[str, bytes]:
    """What the cache knows of the files behind a source: the digest of their listing, and the listing.

    Names, kinds, modes, owners, link targets, extended attributes and contents count; times do not, and neither does
    the name of a literal source (the recipe has it already).
    """
    lines: list[bytes] = []
    for match in matches:
        name = b"" if match.literal else match.name
        if match.node.entry.kind is Kind.DIRECTORY:
            lines.append(b"d\t" + _escape(name))
            lines.extend(_line(match.tree, rel, node) for rel, node in match.below())
        else:
            lines.append(_line(match.tree, name, match.node))
    listing = b"\n".join(lines)
    return "sha256:" + hashlib.sha256(listing).hexdigest(), listing


def _with_parents(step: CopyStep, pattern: bytes, tree: Tree, exclude: IgnoreRules | None) -> Iterator[Match]:
    head, pivot, rest = pattern.partition(b"/./")
    base, tail = (clean(head), rest) if pivot else (b"", pattern)
    start = _literal(step, base, tree).path if base else b""
    skip = len(start) + 1 if start else 0
    if not wildcard.is_pattern(tail):
        path = clean(tail)
        node = _literal(step, start + b"/" + path, tree)
        yield Match(tree, node, path, True, exclude)
        return
    segments = clean(tail).split(b"/")
    for node in wildcard.expand(tree, start, segments, deep=True):
        yield Match(tree, node, node.path[skip:], False, exclude)


def _literal(step: CopyStep, path: bytes, tree: Tree) -> Node:
    node = tree.get(clean(path))
    if node is None:
        raise _missing(step.origin.span, clean(path), tree)
    return node


def _missing(span: Span, path: bytes, tree: Tree) -> SourceError:
    shown = path.decode("utf-8", "backslashreplace") or "."
    return SourceError(f"{shown!r} not found: {tree.why_missing(path)}", span=span)


def _below(tree: Tree, folder: bytes, rel: bytes, exclude: IgnoreRules | None) -> Iterator[tuple[bytes, Node]]:
    for node in tree.children(folder):
        name = split(node.path)[1]
        path = rel + b"/" + name if rel else name
        excluded = exclude is not None and exclude.verdict(path).ignored
        if node.entry.kind is Kind.DIRECTORY:
            # A folder left empty by --exclude is created all the same; an excluded one only if something below is not.
            inner = _below(tree, node.path, path, exclude)
            if not excluded:
                yield path, node
                yield from inner
            else:
                yield from _reincluded(path, node, inner)
        elif not excluded:
            yield path, node


def _reincluded(path: bytes, node: Node, inner: Iterator[tuple[bytes, Node]]) -> Iterator[tuple[bytes, Node]]:
    first = next(inner, None)
    if first is not None:
        yield path, node
        yield first
        yield from inner


def _line(tree: Tree, path: bytes, node: Node) -> bytes:
    entry = node.entry
    digest = tree.digest(node) if entry.kind is Kind.FILE else ""
    xattrs = b",".join(key + b"=" + value.hex().encode() for key, value in entry.xattrs)
    facts = f"{entry.kind.value}\t{entry.mode:o}\t{entry.uid}\t{entry.gid}\t{_size(entry)}\t{entry.device}\t{digest}"
    return b"\t".join((_escape(path), facts.encode(), _escape(entry.target), xattrs))


def _size(entry: Entry) -> int:
    return entry.size if entry.kind is Kind.FILE else 0


def _escape(text: bytes) -> bytes:
    return text.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")
