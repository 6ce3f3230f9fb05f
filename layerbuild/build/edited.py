"""A tree in which some files are taken to be edited: their contents are other than they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import BinaryIO

from layerbuild.build.tree import Node, Tree
from layerbuild.errors import UsageError
from layerbuild.layer.entry import Kind
from layerbuild.layer.paths import clean


def edited(tree: Tree, names: Iterable[str]) -> Tree:
    """``tree`` with the files ``names`` edited; UsageError for one that it does not show as a file."""
    paths: dict[bytes, str] = {}
    for name in names:
        node = tree.get(clean(os.fsencode(name)))
        if node is None:
            reason = tree.why_missing(clean(os.fsencode(name)))
            raise UsageError(
                f"{name!r} is nothing that a build sees: {reason}", hint=_hint(tree, clean(os.fsencode(name)))
            )
        if node.entry.kind is not Kind.FILE:
            raise UsageError(f"{name!r} is no file", hint="name a file of the context")
        paths[node.path] = hashlib.sha256(b"edited\0" + node.path).hexdigest()
    return _Edited(tree, paths)


def _hint(tree: Tree, path: bytes) -> str:
    folder = tree.get(path.rpartition(b"/")[0])
    beside = [] if folder is None else [os.fsdecode(node.path) for node in tree.children(folder.path)]
    near = get_close_matches(os.fsdecode(path), beside, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "`layerbuild context` lists that"


class _Edited:
    """Everything is the tree's own, but the digests of the edited files."""

    def __init__(self, tree: Tree, digests: dict[bytes, str]) -> None:
        self.name = tree.name
        self._tree = tree
        self._digests = digests

    def get(self, path: bytes, *, follow: bool = True) -> Node | None:
        return self._tree.get(path, follow=follow)

    def look(self, path: bytes) -> Node | None:
        return self._tree.look(path)

    def resolve(self, path: bytes) -> bytes:
        return self._tree.resolve(path)

    def children(self, folder: bytes) -> Iterator[Node]:
        return self._tree.children(folder)

    def open(self, node: Node) -> BinaryIO:
        return self._tree.open(node)

    def read(self, node: Node) -> tuple[bytes, os.stat_result | None]:
        return self._tree.read(node)

    def digest(self, node: Node) -> str:
        return self._digests.get(node.path) or self._tree.digest(node)

    def digest_now(self, node: Node) -> str:
        return self._digests.get(node.path) or self._tree.digest_now(node)

    def learn(self, found: os.stat_result, digest: str, *, looked: int) -> None:
        """Nothing: what is told here is not so."""

    def state(self, node: Node, feed: Callable[[bytes], object]) -> int | None:
        return None  # a remembered listing would tell the files as they are

    def why_missing(self, path: bytes) -> str:
        return self._tree.why_missing(path)
