"""Where files are read from: a folder of the context, or a stack of layers, behind one contract.

Both answer with entries whose paths are relative bytes, resolve links inside their own root and never outside, and
hide what an ignore file or a whiteout hides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

from layerbuild.errors import SourceError
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.union import Found, Union


@dataclass(frozen=True, slots=True)
class Node:
    """One path of a tree. ``entry`` is never a hard link or a whiteout; ``inode`` is equal for all names of one file
    that may have several, None for one that has not."""

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
    """A file tree that can be read. ``name`` is what messages call it."""

    name: str

    def get(self, path: bytes, *, follow: bool = True) -> Node | None:
        """What is at ``path``, links on the way followed inside the tree (the last one too, if ``follow``)."""

    def look(self, path: bytes) -> Node | None:
        """What is at exactly this path, whose folders hold no link: one that ``resolve`` or a node gave."""

    def resolve(self, path: bytes) -> bytes:
        """The path that ``path`` means after all links, whether something is there or not."""

    def children(self, folder: bytes) -> Iterator[Node]:
        """What is directly below ``folder`` (not through a link), sorted by name; nothing if it is no folder."""

    def open(self, node: Node) -> BinaryIO:
        """The content of a regular file, unbuffered. SourceError if it is no such file any more."""

    def digest(self, node: Node) -> str:
        """sha256 (hex) of a regular file's content; for one path it is the same as long as the tree is in use."""

    def why_missing(self, path: bytes) -> str:
        """A clause that says why ``path`` is not there, for the end of an error message."""


class StackTree:
    """A stack of layers, read without mounting it."""

    def __init__(self, union: Union, *, name: str) -> None:
        self._union = union
        self.name = name

    def get(self, path: bytes, *, follow: bool = True) -> Node | None:
        found = self._union.get(path, follow=follow)
        return None if found is None else _node(found)

    def look(self, path: bytes) -> Node | None:
        found = self._union.lookup(path)
        return None if found is None else _node(found)

    def resolve(self, path: bytes) -> bytes:
        return self._union.resolve(path)

    def children(self, folder: bytes) -> Iterator[Node]:
        return map(_node, self._union.children(folder))

    def open(self, node: Node) -> BinaryIO:
        found = self._union.lookup(node.path)
        assert found is not None, node.path  # the node came from here, and no layer changes
        try:
            return self._union.content(found)
        except OSError as error:
            name = node.path.decode("utf-8", "backslashreplace")
            raise SourceError(f"can't read {name!r} of {self.name}: {error.strerror}") from error

    def digest(self, node: Node) -> str:
        return node.entry.digest

    def why_missing(self, path: bytes) -> str:
        return f"{self.name} has no such file"


def _node(found: Found) -> Node:
    entry, inode = found.entry, found.inode
    if inode is not entry:
        entry = replace(inode, path=entry.path)
    # The layer and the first of its names there tell a file; which files have only one name is not known.
    return Node(entry.path, entry, (found.layer, inode.path) if entry.kind is Kind.FILE else None)
