"""Where files are read from: a folder of the context, or a stack of layers, behind one contract.

Both answer with entries whose paths are relative bytes, resolve links inside their own root and never outside, and
hide what an ignore file or a whiteout hides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.union import Found, Union


@dataclass(frozen=True, slots=True)
class Node:
    """One path of a tree. ``entry`` is never a hard link or a whiteout; ``inode`` is the same object for all names of
    one file that has several, None for a file with one."""

    path: bytes
    entry: Entry
    inode: object | None = None


def file_digest(file: BinaryIO) -> str:
    """sha256 (hex) of what is left to read of ``file``."""
    found = hashlib.sha256()
    while piece := file.read(1 << 20):
        found.update(piece)
    return found.hexdigest()


class Tree(Protocol):
    """A file tree that can be read."""

    def get(self, path: bytes, *, follow: bool = True) -> Node | None:
        """What is at ``path``, links on the way followed inside the tree (the last one too, if ``follow``)."""

    def resolve(self, path: bytes) -> bytes:
        """The path that ``path`` means after all links, whether something is there or not."""

    def children(self, path: bytes) -> Iterator[Node]:
        """What is directly below the folder ``path`` (not through a link), sorted by name."""

    def open(self, node: Node) -> BinaryIO:
        """The content of a regular file."""

    def digest(self, node: Node) -> str:
        """sha256 (hex) of a regular file's content."""

    def why_missing(self, path: bytes) -> str:
        """A clause that says why ``path`` is not there, for the end of an error message."""


class StackTree:
    """A stack of layers, read without mounting it."""

    def __init__(self, union: Union, *, name: str) -> None:
        self._union = union
        self._name = name

    def get(self, path: bytes, *, follow: bool = True) -> Node | None:
        found = self._union.get(path, follow=follow)
        return self._node(found) if found else None

    def resolve(self, path: bytes) -> bytes:
        return self._union.resolve(path)

    def children(self, path: bytes) -> Iterator[Node]:
        return (self._node(found) for found in self._union.children(path))

    def open(self, node: Node) -> BinaryIO:
        return self._union.open(node.path)

    def digest(self, node: Node) -> str:
        return node.entry.digest

    def why_missing(self, path: bytes) -> str:
        return f"{self._name} has no such file"

    @staticmethod
    def _node(found: Found) -> Node:
        # A file's inode is told by the layer and the first of its names there; most have no other.
        entry = replace(found.inode, path=found.entry.path)
        return Node(entry.path, entry, (found.layer, found.inode.path) if entry.kind is Kind.FILE else None)
