"""An image's root file system, all layers in one: as a tar (``tar``), or as a folder (``local``).

Whiteouts have done their work and are gone. Names of one file stay names of one file: the first that is still there, in
the order of the tree, is the file, and the others are hard links to it, also where the layer's own first name is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.digest import Sink
from layerbuild.export.package import PIECE, Package
from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.layer.tar import END, header, padding
from layerbuild.layer.tree import Tree

if TYPE_CHECKING:
    from layerbuild.layer.union import Found, Union


def write_rootfs_archive(trees: Mapping[str, Package], sink: Sink) -> None:
    """The trees as one tar: each sorted, with true owners, times as they are in the layers; each below the folder that
    it is named by, an empty name is the tar's root."""
    for folder, package in sorted(trees.items()):
        if folder:
            sink.write(header(Entry(folder.encode(), Kind.DIRECTORY, 0o755)))
        with package.tree() as tree:
            _write_tree(tree, f"{folder}/".encode() if folder else b"", sink)
    sink.write(END)


def _write_tree(tree: Union, prefix: bytes, sink: Sink) -> None:
    import shutil

    for entry, found in flattened(tree):
        target = prefix + entry.target if entry.kind is Kind.HARDLINK else entry.target
        sink.write(header(replace(entry, path=prefix + entry.path, target=target)))
        if entry.kind is Kind.FILE:
            with tree.content(found) as file:
                shutil.copyfileobj(file, sink, PIECE)
            sink.write(padding(entry.size))


def write_rootfs(package: Package, folder: Path) -> tuple[str, ...]:
    """The tree in ``folder``, which exists and is empty; notes on what this user may not make."""
    refused: list[str] = []
    owned: Entry | None = None
    with package.tree() as tree, Tree(folder, user_xattr=False, noted=False) as target:
        for entry, found in flattened(tree):
            if not target.add(entry, _pieces(tree, found) if entry.kind is Kind.FILE else ()):
                refused.append("/" + os.fsdecode(entry.path))
            elif (entry.uid, entry.gid) != (0, 0) and entry.kind is not Kind.HARDLINK:
                owned = entry
        target.finish()
    notes = [f"left out, as only root can make devices: {', '.join(refused)}"] if refused else []
    if owned is not None and _owner(folder / os.fsdecode(owned.path)) != (owned.uid, owned.gid):
        notes.append("all files belong to you: only root can give them to others")
    return tuple(notes)


def flattened(tree: Union) -> Iterator[tuple[Entry, Found]]:
    """The visible paths in order, each as one tar alone would have it."""
    moved: dict[tuple[int, bytes], bytes] = {}  # files whose first name is not the one that the layer's tar has
    for found in tree.walk():
        path, inode = found.entry.path, found.inode
        key = (found.layer, inode.path)
        first = moved.get(key)
        if first is None and found.entry.kind is Kind.HARDLINK:
            first = inode.path if _comes_before(tree, found) else moved.setdefault(key, path)
        if first is None or first == path:
            yield replace(inode, path=path), found
        else:
            yield replace(inode, path=path, kind=Kind.HARDLINK, size=0, target=first, xattrs=(), device=(0, 0)), found


def _comes_before(tree: Union, link: Found) -> bool:
    """Whether the file that a link names is visible, and before it in the order."""
    if sort_key(link.inode.path) > sort_key(link.entry.path):
        return False
    found = tree.lookup(link.inode.path)
    return found is not None and found.layer == link.layer


def _pieces(tree: Union, found: Found) -> Iterator[bytes]:
    with tree.content(found) as file:
        while piece := file.read(PIECE):
            yield piece


def _owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid
