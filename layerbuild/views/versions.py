"""Every version that a stack's paths ever had: which layer made it, what of it was new, and what took it out of sight.

Read from the layers' indexes alone, bottom first. A tree of the paths that show holds the version that each has so far;
whiteouts, opaque folders and what takes a folder's place hide whole branches of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import Index

VISIBLE = 0


@dataclass(slots=True, eq=False)
class Version:
    """One version of a path. ``layer`` counts from 1, the lowest. ``action`` is "created", "changed", "kept" (named by
    the layer on the way to something else, and as it was) or "deleted"; ``facts`` name what changed: content, mode,
    owner, time, kind, target, device, attributes.

    ``entry`` is what the path is then, of a hard link the file that it names, ``link`` that file's path. ``hidden_by``
    is the layer that put another version in its place or deleted it, ``VISIBLE`` if none did; ``deleted`` tells which.
    ``size`` counts the bytes of content that its layer ships for it: none for a hard link. ``removed`` counts those
    that the deletion of a folder hides. ``before`` is the version that was in its place.
    """

    path: bytes
    layer: int
    action: str
    entry: Entry
    facts: tuple[str, ...] = ()
    link: bytes = b""
    hidden_by: int = VISIBLE
    deleted: bool = False
    size: int = 0
    removed: int = 0
    before: Version | None = None

    @property
    def visible(self) -> bool:
        """Whether a container sees it."""
        return self.hidden_by == VISIBLE and self.action != "deleted"


@dataclass(slots=True)
class _Node:
    version: Version | None = None
    children: dict[bytes, _Node] = field(default_factory=dict)


def versions(indexes: Sequence[Index]) -> list[Version]:
    """All versions, layer by layer, each in its layer's order."""
    tree = _Node()
    return [version for number, index in enumerate(indexes, start=1) for version in _layer(tree, number, index)]


def invisible(found: Sequence[Version]) -> list[Version]:
    """The files that are shipped and that no path of the whole stack shows. A file is still seen if a hard link to it
    in its layer is."""
    linked = {(version.layer, version.link) for version in found if version.link and version.visible}
    return [
        version
        for version in found
        if version.size and not version.visible and (version.layer, version.path) not in linked
    ]


def changed_facts(before: Entry, after: Entry) -> tuple[str, ...]:
    """What two entries differ in; of another kind they differ in no more than that."""
    if before.kind is not after.kind:
        return ("kind",)
    same = {
        "content": (before.digest, before.size) == (after.digest, after.size),
        "mode": before.mode == after.mode,
        "owner": (before.uid, before.gid) == (after.uid, after.gid),
        "time": (before.mtime, before.mtime_ns) == (after.mtime, after.mtime_ns),
        "target": before.target == after.target,
        "device": before.device == after.device,
        "attributes": before.xattrs == after.xattrs,
    }
    return tuple(fact for fact, is_same in same.items() if not is_same)


def _layer(tree: _Node, number: int, index: Index) -> Iterator[Version]:
    for entry in index:
        names = entry.path.split(b"/") if entry.path else []
        if entry.kind is Kind.WHITEOUT:
            yield from _delete(tree, names, number, entry)
            continue
        node = tree
        for name in names:
            node = node.children.setdefault(name, _Node())
        yield _write(node, number, entry, _inode(entry, index))


def _write(node: _Node, number: int, entry: Entry, inode: Entry) -> Version:
    before = node.version
    link = entry.target if entry.kind is Kind.HARDLINK else b""
    size = entry.size if entry.kind is Kind.FILE else 0
    version = Version(entry.path, number, "created", inode, link=link, size=size)
    if before is not None:
        version.before = before
        version.facts = changed_facts(before.entry, inode)
        version.action = "changed" if version.facts or inode.kind is not Kind.DIRECTORY else "kept"
    if entry.opaque or inode.kind is not Kind.DIRECTORY:
        for child in node.children.values():
            _hide(child, number)
        node.children.clear()
    if version.action == "kept":  # named on the way to something else: the version below still shows
        version.hidden_by = number
        return version
    if before is not None:
        before.hidden_by = number
    node.version = version
    return version


def _delete(tree: _Node, names: list[bytes], number: int, entry: Entry) -> Iterator[Version]:
    node: _Node | None = tree
    parent = tree
    for name in names:
        parent, node = node or tree, node.children.get(name) if node else None
    version = Version(entry.path, number, "deleted", entry)
    if node is not None:
        hidden = _hide(node, number)
        version.before = node.version
        version.removed = hidden if node.version is None or node.version.entry.kind is Kind.DIRECTORY else 0
        parent.children.pop(names[-1], None)
    yield version


def _hide(node: _Node, number: int) -> int:
    """Hide a branch; the bytes of content in it."""
    hidden = 0
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if found.version is not None:
            found.version.hidden_by, found.version.deleted = number, True
            hidden += found.version.size
        waiting.extend(found.children.values())
    return hidden


def _inode(entry: Entry, index: Index) -> Entry:
    """The file that a hard link names, under the link's own path."""
    inode, seen = entry, {entry.path}
    while inode.kind is Kind.HARDLINK and inode.target not in seen:
        seen.add(inode.target)
        found = index.lookup(inode.target)
        if found is None:  # of a layer from elsewhere: the file lies below, and the link tells what it knows
            return replace(entry, kind=Kind.FILE)
        inode = found
    return entry if inode is entry else replace(inode, path=entry.path)
