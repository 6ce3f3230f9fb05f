"""Where files are read from: a folder of the context, or a stack of layers, behind one contract.

Both answer with entries whose paths are relative bytes, resolve links inside their own root and never outside, and
hide what an ignore file or a whiteout hides.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Protocol

from layerbuild.digest import ChainID
from layerbuild.errors import SourceError
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Entry, Kind

if TYPE_CHECKING:
    from layerbuild.layer.union import Found, Union


@frozen
class Node:
    """One path of a tree. ``entry`` is never a hard link or a whiteout; ``inode`` is equal for all names of one file
    that may have several, None for one that has not."""

    path: bytes
    entry: Entry
    inode: object | None = None


def file_digest(file: BinaryIO, size: int) -> str:
    """sha256 (hex) of what is left to read of ``file``, about ``size`` bytes."""
    found = hashlib.sha256()
    piece = min(size + 1, 1 << 20)  # a large buffer for a small file costs more than reading it
    while data := file.read(piece):
        found.update(data)
    return found.hexdigest()


def changed_meanwhile(tree: str, path: bytes) -> SourceError:
    """The error for a file of the tree called ``tree`` that is not what it was when its digest was taken."""
    shown = path.decode("utf-8", "backslashreplace")
    hint = "nothing may write to the files that a COPY reads while it is carried out"
    return SourceError(f"{shown!r} of {tree} changed while it was read", hint=hint)


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

    def read(self, node: Node) -> tuple[bytes, os.stat_result | None]:
        """The content of a small regular file, and one byte more if it has grown; and the state in which it was before,
        if that is worth knowing (``learn``). SourceError if it is no such file any more."""

    def digest(self, node: Node) -> str:
        """sha256 (hex) of a regular file's content; for one path it is the same as long as the tree is in use."""

    def digest_now(self, node: Node) -> str:
        """The same, but not kept for the next time: for whoever asks for very many, and compares the sum of them."""

    def learn(self, found: os.stat_result, digest: str, *, looked: int) -> None:
        """Be told the digest of a file that was read after its state was ``found``, and that after ``looked``
        (nanoseconds since 1970)."""

    def state(self, node: Node, feed: Callable[[bytes], object]) -> int | None:
        """Feed what tells whether anything at ``node``, or visible below it, has changed; nothing is read for it. The
        latest time of a change, in nanoseconds since 1970. None: this tree can't tell."""

    def why_missing(self, path: bytes) -> str:
        """A clause that says why ``path`` is not there, for the end of an error message."""


def walk(tree: Tree, folder: bytes = b"") -> Iterator[Node]:
    """All below ``folder``, in a layer's order, without the folder itself; links are not followed."""
    levels = [tree.children(folder)]
    while levels:
        node = next(levels[-1], None)
        if node is None:
            levels.pop()
            continue
        yield node
        if node.entry.kind is Kind.DIRECTORY:
            levels.append(tree.children(node.path))


class StackTree:
    """A stack of layers, read without mounting it. ``chain`` names it in the store; None: it is not there.

    ``union`` opens it, when something is looked up for the first time.
    """

    def __init__(self, union: Callable[[], Union], *, name: str, chain: ChainID | None = None) -> None:
        self._open = union
        self.name = name
        self.chain = chain

    @cached_property
    def _union(self) -> Union:
        return self._open()

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
        from layerbuild.layer.union import Found

        assert isinstance(node.inode, tuple), node.path  # as _node makes it for a file: the layer is known already
        try:
            layer, first = node.inode
            entry = node.entry if node.path == first else replace(node.entry, path=first)
            return self._union.content(Found(entry, entry, layer))
        except OSError as error:
            name = node.path.decode("utf-8", "backslashreplace")
            raise SourceError(f"can't read {name!r} of {self.name}: {error.strerror}") from error

    def read(self, node: Node) -> tuple[bytes, os.stat_result | None]:
        with self.open(node) as file:
            return file.read(node.entry.size + 1), None

    def digest(self, node: Node) -> str:
        if node.entry.digest:
            return node.entry.digest
        with self.open(node) as file:  # of a layer that has no index yet
            return file_digest(file, node.entry.size)

    digest_now = digest

    def learn(self, found: os.stat_result, digest: str, *, looked: int) -> None:
        pass  # its indexes tell all digests

    def state(self, node: Node, feed: Callable[[bytes], object]) -> int | None:
        if self.chain is None:
            return None
        feed(f"{self.chain}\0".encode() + node.path)  # a stack never changes
        return 0

    def why_missing(self, path: bytes) -> str:
        return f"{self.name} has no such file"


def _node(found: Found) -> Node:
    entry, inode = found.entry, found.inode
    if inode is not entry:
        entry = replace(inode, path=entry.path)
    # The layer and the first of its names there tell a file; which files have only one name is not known.
    return Node(entry.path, entry, (found.layer, inode.path) if entry.kind is Kind.FILE else None)
