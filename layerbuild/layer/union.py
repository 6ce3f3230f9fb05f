"""A stack of layers, read as one tree without mounting it.

The upper layer wins: an entry hides those of the same path below it, a whiteout says that the path is gone, and folders
of several layers show together, down to the first that is opaque. Answers come from the indexes; content comes from
wherever the layer that has it says. Links are resolved inside the root, as for a process that is confined to it.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from layerbuild.errors import NotFoundError
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.paths import join, resolve, split

_ROOT = Entry(b"", Kind.DIRECTORY, 0o755)
_REMEMBERED = 4096  # folders whose contributing layers are kept in memory


class Entries(Protocol):
    """What a layer holds: its index, or a sealed folder that has none yet."""

    def lookup(self, path: bytes) -> Entry | None:
        """The entry of exactly this path, links not followed."""

    def children(self, folder: bytes) -> Iterator[Entry]:
        """The entries directly in ``folder``, in order."""


#: Opens the content of a FILE that a layer holds.
Contents = Callable[[Entry], BinaryIO]


def in_folder(folder: Path) -> Contents:
    """Contents of a layer whose diff folder is ``folder``."""

    def opened(entry: Entry) -> BinaryIO:
        # Each of the path's parents is a folder of that very layer, so no link is followed here.
        descriptor = os.open(os.fsencode(folder) + b"/" + entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return open(descriptor, "rb")

    return opened


@frozen
class LayerView:
    """A layer to read: what it holds and, where content is wanted, what opens that."""

    index: Entries
    contents: Contents | None = None


@frozen
class Found:
    """An entry of the merged tree. ``entry`` is as its layer says it; ``inode`` is the entry that owner, size and
    digest are to be taken from: for a HARDLINK the file that it names, else the same. ``layer`` counts from the top, 0
    first; -1 is the root of a stack in which no layer describes it.
    """

    entry: Entry
    inode: Entry
    layer: int


class Union:
    """The stack ``views``, top first. An empty one is an empty root."""

    def __init__(self, views: Sequence[LayerView]) -> None:
        self._views = tuple(views)
        self._known: dict[bytes, tuple[int, ...]] = {}

    def lookup(self, path: bytes) -> Found | None:
        """What exactly this path is; links are not followed, neither at its end nor on the way."""
        if not path:
            return self._root()
        for number in self._contributing(split(path)[0]):
            entry = self._views[number].index.lookup(path)
            if entry is not None:
                return None if entry.kind is Kind.WHITEOUT else self._found(entry, number)
        return None

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """``path`` with its links followed, inside the root. What does not exist is taken as it is spelled.

        More than 255 links: BuildError.
        """
        return resolve(path, self._readlink, follow_last=follow_last)

    def get(self, path: bytes, *, follow: bool = True) -> Found | None:
        """What ``path`` is after its links were followed (``follow`` False: all but the last)."""
        return self.lookup(self.resolve(path, follow_last=follow))

    def children(self, folder: bytes) -> Iterator[Found]:
        """What is directly in ``folder``, in order; nothing if it is no folder. Links are not followed."""
        numbers = self._contributing(folder)
        listings = (self._listing(number, folder) for number in numbers)
        merged = heapq.merge(*listings, key=lambda item: (item[0].path, item[1]))
        for _, same in itertools.groupby(merged, key=lambda item: item[0].path):
            entry, number = next(same)
            if entry.kind is not Kind.WHITEOUT:
                yield self._found(entry, number)

    def walk(self, folder: bytes = b"") -> Iterator[Found]:
        """All below ``folder`` in a layer's order, without the folder itself."""
        stack = [self.children(folder)]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                continue
            yield found
            if found.entry.kind is Kind.DIRECTORY:
                stack.append(self.children(found.entry.path))

    def open(self, path: bytes) -> BinaryIO:
        """The content of the regular file at ``path``, links followed. NotFoundError if there is none."""
        found = self.get(path)
        if found is None or found.inode.kind is not Kind.FILE:
            raise NotFoundError(f"/{os.fsdecode(path)} is no file of this image")
        return self.content(found)

    def content(self, found: Found) -> BinaryIO:
        """The content of a regular file that this union found. NotFoundError if its layer is not unpacked."""
        contents = self._views[found.layer].contents
        if contents is None:
            raise NotFoundError(f"the layer that holds /{os.fsdecode(found.entry.path)} is not unpacked")
        return contents(found.inode)

    def _root(self) -> Found:
        for number, view in enumerate(self._views):
            entry = view.index.lookup(b"")
            if entry is not None:
                return Found(entry, entry, number)
        return Found(_ROOT, _ROOT, -1)

    def _readlink(self, path: bytes) -> bytes | None:
        found = self.lookup(path)
        if found is None or found.inode.kind is not Kind.SYMLINK:
            return None
        return found.inode.target

    def _listing(self, number: int, folder: bytes) -> Iterator[tuple[Entry, int]]:
        for entry in self._views[number].index.children(folder):
            yield entry, number

    def _found(self, entry: Entry, number: int) -> Found:
        inode = entry
        index = self._views[number].index
        seen = {entry.path}
        while inode.kind is Kind.HARDLINK and inode.target not in seen:
            seen.add(inode.target)
            target = index.lookup(inode.target)
            if target is None:
                break
            inode = target
        return Found(entry, inode, number)

    def _contributing(self, folder: bytes) -> tuple[int, ...]:
        """The layers whose content of ``folder`` shows, top first; none if it is no folder."""
        known = self._known.get(folder)
        if known is not None:
            return known
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        path = b""
        showing = self._showing(path, tuple(range(len(self._views))))
        for name in folder.split(b"/") if folder else ():
            path = join(path, name)
            showing = self._showing(path, showing)
        return showing

    def _showing(self, folder: bytes, candidates: tuple[int, ...]) -> tuple[int, ...]:
        """Those of ``candidates``, the layers whose content of the parent shows, that show in ``folder``."""
        known = self._known.get(folder)
        if known is None:
            known = self._known[folder] = tuple(self._cut(folder, candidates))
        return known

    def _cut(self, folder: bytes, candidates: tuple[int, ...]) -> Iterator[int]:
        for number in candidates:
            entry = self._views[number].index.lookup(folder)
            if entry is None:
                if not folder:  # few layers describe the root, and all have it
                    yield number
                continue
            if entry.kind is not Kind.DIRECTORY:
                return
            yield number
            if entry.opaque:
                return
