"""Files of a tree, written into a folder: where a mount of what lies there would show too much, or be written to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from layerbuild.build.tree import Node, Tree, walk
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.paths import split
from layerbuild.layer.tree import Tree as Folder

_PIECE = 1 << 20


def extract(tree: Tree, node: Node, folder: Path) -> None:
    """Write ``node`` of ``tree`` to the empty ``folder``: a folder's contents and metadata, or a file under its name.

    Hard links hold. What the kernel refuses in a user namespace (owners, devices) is left out.
    """
    with Folder(folder, user_xattr=False) as target:
        if node.entry.kind is not Kind.DIRECTORY:
            name = split(node.path)[1]
            target.add(replace(node.entry, path=name), _pieces(tree, node))
            return
        target.dress(replace(node.entry, path=b""))
        first: dict[object, bytes] = {}
        for found in walk(tree, node.path):
            target.add(_placed(found, node, first), _pieces(tree, found))
        target.finish()


def _placed(found: Node, top: Node, first: dict[object, bytes]) -> Entry:
    """The entry of ``found`` relative to ``top``; a hard link if an earlier one was the same file."""
    path = found.path[len(top.path) + 1 if top.path else 0 :]
    if found.inode is not None and first.setdefault(found.inode, path) != path:
        return Entry(path, Kind.HARDLINK, target=first[found.inode])
    return replace(found.entry, path=path, opaque=False)


def _pieces(tree: Tree, node: Node) -> Iterator[bytes]:
    if node.entry.kind is not Kind.FILE:
        return
    with tree.open(node) as file:
        while piece := file.read(_PIECE):
            yield piece
