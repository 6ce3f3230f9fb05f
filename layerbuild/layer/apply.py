"""Unpacking a tar into a fresh diff folder, safely and with an index.

The archive may be hostile. Its names are made clean, so that ``..`` and a leading ``/`` stay inside; links on the way
to a name are resolved by text, inside the folder, from what this very archive said before; and the result is opened
component by component without following anything (``tree``). Whiteouts become overlay's own form, and nothing in an
archive can forge one: the device 0/0 is refused, overlay's attributes are ignored. Sources: OCI image-spec layer.md
("Whiteouts", "Hardlinks"); containerd's rules for links in names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from layerbuild.digest import DiffID
from layerbuild.errors import BuildError, FormatError, SpaceError
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Entry, Kind, RootMetadata, entry_of, sort_key
from layerbuild.layer.index import IndexWriter
from layerbuild.layer.paths import LONGEST, join, resolve, split
from layerbuild.layer.pipeline import Prefetch
from layerbuild.layer.tarreader import TarReader
from layerbuild.layer.tree import Tree, explained
from layerbuild.layer.whiteout import META_PREFIX, OPAQUE, PREFIX, hidden_name

_SMALL = 1 << 18
_PIECE = 1 << 20
_WORD = 0xFFFFFFFF  # an id or number of a device that is larger is none of the kernel's
_LARGE = 1 << 26  # bytes from which on it is worth to ask for the room

Below = Callable[[bytes], Entry | None]
Opened = Callable[[bytes], BinaryIO]


@frozen
class Applied:
    """What was unpacked. ``tar_size`` (bytes) and the diff ID cover the stream to its last byte, padding included;
    ``implied`` are the folders that the archive never named, and that are there because something lies in them."""

    diff_id: DiffID
    tar_size: int
    entries: int
    implied: frozenset[bytes]


def apply(
    tar: BinaryIO,
    folder: Path | None,
    *,
    index: Path,
    user_xattr: bool = False,
    layered: bool = True,
    root: RootMetadata | None = None,
    below: Below | None = None,
    opened: Opened | None = None,
    name: str = "layer",
) -> Applied:
    """Unpack the uncompressed stream ``tar`` into ``folder``, which exists and is empty, and write the index.

    ``folder`` None writes the index alone, and refuses a layer that is not told by its own archive: one with a hard
    link to a file of a layer below. ``layered`` False: ``.wh.`` names are plain names (an archive that ADD
    opens, a root file system). The root folder gets what the archive says of ``./``, else ``root``. A parent folder
    that the archive does not name is made like the one ``below`` (which tells a path's entry in the layers under this
    one), else with mode 0755; a link there leads on, as it does in the merged tree. A hard link to a file there has it
    copied up, with what ``opened`` gives of its content, as an overlay mount would. What comes later in the archive
    wins. The index tells the true owners and devices, also where the kernel refused them on disk. FormatError, which
    names the archive ``name``, for what no layer may hold; SpaceError for a full disk. After an exception the folder
    holds a part.
    """
    with ExitStack() as stack:
        tree = stack.enter_context(Tree(folder, user_xattr=user_xattr)) if folder is not None else None
        writer = stack.enter_context(IndexWriter(index))
        source = stack.enter_context(Prefetch(tar))
        reader = TarReader(cast(BinaryIO, source), name=name)
        applier = _Applier(tree, writer, place=index.parent, layered=layered, below=below, opened=opened, name=name)
        for entry in reader:
            applier.take(entry, reader)
        reader.drain()
        if tree is not None:
            tree.finish(root or RootMetadata())
        entries = writer.finish()
        if writer.lacking:
            what = f"has a hard link to {os.fsdecode(writer.lacking[0])}, which is no file before it"
            raise FormatError(f"{name} {what}")
        return Applied(DiffID("sha256:" + source.hexdigest()), source.size, entries, frozenset(applier.implied))


class _Applier:
    """What the archive said so far. Files are not remembered: the folder is, where there is one."""

    def __init__(
        self,
        tree: Tree | None,
        index: IndexWriter,
        *,
        place: Path,
        layered: bool,
        below: Below | None,
        opened: Opened | None,
        name: str,
    ) -> None:
        self._tree = tree
        self._place = place
        self._index = index
        self._layered = layered
        self._below = below
        self._opened = opened
        self._name = name
        self._folders: set[bytes] = {b""}
        self.implied: set[bytes] = set()
        self._symlinks: dict[bytes, bytes] = {}
        self._whiteouts: set[bytes] = set()
        self._opaques: set[bytes] = set()
        self._linked: dict[bytes, list[bytes]] = {}  # files that hard links point to: the links
        self._absent: set[bytes] = set()  # devices that the kernel refused

    def take(self, entry: Entry, reader: TarReader) -> None:
        """Carry out one member of the archive."""
        try:
            self._take(entry, reader)
        except OSError as error:
            raise explained(error, f"{self._name}: unpacking {os.fsdecode(entry.path)}") from error

    def _take(self, entry: Entry, reader: TarReader) -> None:
        if not entry.path:
            if entry.kind is Kind.DIRECTORY:  # "./"; nothing else can be the root
                self._dress(entry)
            return
        if len(entry.path) > LONGEST or max(entry.uid, entry.gid, *entry.device) > _WORD:
            raise self._impossible(entry)
        parent, name = split(entry.path)
        if self._layered and PREFIX in entry.path and not self._plain_names(parent, name):
            return
        entry = replace(entry, path=join(self._parent(parent), name)) if parent not in self._folders else entry
        match entry.kind:
            case Kind.DIRECTORY:
                self._directory(entry)
            case Kind.FILE:
                self._file(entry, reader)
            case Kind.HARDLINK:
                self._hardlink(entry)
            case Kind.CHARACTER if entry.device == (0, 0):
                raise self._refused(entry.path, "is a device 0/0, which overlay takes for a deletion")
            case _:
                self._other(entry)

    # Kinds.

    def _directory(self, entry: Entry) -> None:
        path = entry.path
        self.implied.discard(path)
        if path in self._folders:
            self._dress(entry)
            return
        hidden = path in self._whiteouts
        self._make(entry)
        self._folders.add(path)
        if hidden:
            self._opaque(path)
        self._index.add(entry)

    def _dress(self, entry: Entry) -> None:
        if self._tree is not None:
            self._tree.dress(entry)
        self._index.add(entry)

    def _file(self, entry: Entry, reader: TarReader) -> None:
        self._check_room(entry)
        if entry.size <= _SMALL:
            content = reader.content()
            digest = hashlib.sha256(content).hexdigest()
            self._make(entry, lambda: (content,))
        else:
            hasher = hashlib.sha256()
            self._make(entry, lambda: _hashed(reader.pieces(), hasher.update))
            digest = hasher.hexdigest()
        self._index.add(entry, digest)

    def _check_room(self, entry: Entry) -> None:
        """A sparse file of a few bytes can claim to be larger than any disk; that need not be tried, nor hashed."""
        if entry.size < _LARGE:
            return
        found = os.statvfs(self._place)
        free = found.f_bavail * found.f_frsize
        if entry.size > free:
            raise SpaceError(
                f"{self._name}: {os.fsdecode(entry.path)} is {entry.size} bytes, and there is room for {free}",
                hint="`layerbuild df` shows what takes the room; or move the store with --root",
            )

    def _hardlink(self, entry: Entry) -> None:
        parent, name = split(entry.target)
        target = join(self._resolve(parent), name)
        if target == entry.path:
            return  # a name linked to itself says nothing
        entry = replace(entry, target=target)
        if not name or target in self._folders or target in self._whiteouts:
            raise self._refused(entry.path, f"is a hard link to {os.fsdecode(target) or '/'}, which is no file")
        if target in self._absent:
            self._absent.add(entry.path)
        elif self._tree is None:
            self._index.need(target)
            self._make(entry)
        else:
            try:
                self._make(entry)
            except FileNotFoundError:  # the archive has not got it, so far at least
                self._copy_up(entry)
                self._make(entry)
            except NotADirectoryError as error:
                where = f"is a hard link to {os.fsdecode(target)}"
                raise self._refused(entry.path, f"{where}, but what lies before that is no folder") from error
        self._linked.setdefault(target, []).append(entry.path)
        self._index.add(entry)

    def _copy_up(self, link: Entry) -> None:
        """Make the target of ``link`` an entry of this layer, as the layers under it show it."""
        target = self._shown(link.target)
        if target is None or target.kind is Kind.DIRECTORY or self._opened is None:
            where = f"is a hard link to {os.fsdecode(link.target)}"
            raise self._refused(link.path, f"{where}, which is no file before it, nor of a layer below")
        self._parent(split(link.target)[0])
        if target.kind is not Kind.FILE:
            self._other(target)
            return
        with self._opened(link.target) as content:
            self._make(target, lambda: iter(lambda: content.read(_PIECE), b""))
        self._index.add(target)

    def _other(self, entry: Entry) -> None:
        if entry.kind is Kind.SYMLINK and not entry.target:
            raise self._refused(entry.path, "is a symbolic link to nothing")
        self._make(entry)
        if entry.kind is Kind.SYMLINK:
            self._symlinks[entry.path] = entry.target
        self._index.add(entry)

    # Whiteouts.

    def _plain_names(self, parent: bytes, name: bytes) -> bool:
        """Carry out a whiteout; True if the path is none and its names are ordinary."""
        if any(part.startswith(META_PREFIX) and part != OPAQUE for part in (*parent.split(b"/"), name)):
            return False  # aufs kept its own files under such names
        if any(part.startswith(PREFIX) for part in parent.split(b"/")):
            raise self._refused(join(parent, name), "is in a folder whose name marks a deletion")
        hidden = hidden_name(name)
        if hidden is None:
            return True
        if hidden in (b"", b".", b".."):
            raise self._refused(join(parent, name), "is a whiteout of no name")
        folder = self._resolve(parent)
        if folder != parent and not self._is_folder(folder):
            return False  # through a link to nothing: there is nothing to hide
        folder = self._parent(folder)
        if name == OPAQUE:
            self._opaque(folder)
        else:
            self._whiteout(join(folder, hidden))
        return False

    def _whiteout(self, path: bytes) -> None:
        """Hide what is below; the layer's own entry of that name, before or after, stays."""
        self._index.add(Entry(path, Kind.WHITEOUT))
        if path in self._folders:
            self._opaque(path)
        elif self._tree is not None:
            try:
                self._tree.whiteout(path)
            except FileExistsError:
                return  # a file of this layer, which hides what is below
        self._whiteouts.add(path)

    def _opaque(self, path: bytes) -> None:
        self._opaques.add(path)
        self._index.opaque(path)
        if self._tree is not None:
            self._tree.opaque(path)

    # Parents.

    def _parent(self, path: bytes) -> bytes:
        """The folder that ``path`` means, made if it is missing."""
        if path in self._folders:
            return path
        folder = self._resolve(path)
        missing = []
        while folder not in self._folders:
            missing.append(folder)
            folder = split(folder)[0]
        for folder in reversed(missing):
            if folder in self._symlinks:
                raise self._refused(folder, "is a link where a folder is needed")
            known = self._shown(folder)
            if known is None or known.kind is not Kind.DIRECTORY:
                known = Entry(folder, Kind.DIRECTORY, 0o755)
            self._directory(replace(known, path=folder, opaque=False))
            self.implied.add(folder)
        return folder

    def _resolve(self, path: bytes) -> bytes:
        if path in self._folders:
            return path
        try:
            return resolve(path, self._readlink)
        except BuildError as error:
            raise FormatError(f"{self._name}: {error.message}", hint=error.hint) from error

    def _readlink(self, path: bytes) -> bytes | None:
        text = self._symlinks.get(path)
        if text is not None or path in self._folders:
            return text
        below = self._shown(path)
        return below.target if below is not None and below.kind is Kind.SYMLINK else None

    def _is_folder(self, path: bytes) -> bool:
        below = None if path in self._folders else self._shown(path)
        return path in self._folders or (below is not None and below.kind is Kind.DIRECTORY)

    def _shown(self, path: bytes) -> Entry | None:
        """What the layers under this one show at ``path``, None: nothing, or this layer has hidden it so far."""
        if self._below is None or path in self._whiteouts:
            return None
        folder = path
        while folder:
            folder = split(folder)[0]
            if folder in self._opaques or folder in self._whiteouts:
                return None
        return self._below(path)

    # Making, and replacing what an earlier member made.

    def _make(self, entry: Entry, pieces: Callable[[], Iterator[bytes] | tuple[bytes, ...]] = tuple) -> None:
        path = entry.path
        if path in self._linked:
            self._hand_over(path)
        if path in self._folders:
            self._replace_folder(path)
        self._symlinks.pop(path, None)
        self._absent.discard(path)
        self._whiteouts.discard(path)
        if self._tree is None:
            for _ in pieces():
                pass
            return
        try:
            made = self._tree.add(entry, pieces())
        except FileExistsError:
            self._tree.remove(path)
            made = self._tree.add(entry, pieces())
        if not made:
            self._absent.add(path)

    def _replace_folder(self, path: bytes) -> None:
        """Forget a folder that something else replaces, with all below it."""
        inside = path + b"/"
        for linked, links in list(self._linked.items()):
            if linked.startswith(inside):
                self._hand_over(linked)
            else:
                links[:] = [link for link in links if not link.startswith(inside)]
        for known in (self._folders, self.implied, self._whiteouts, self._opaques, self._absent):
            known.difference_update([name for name in known if name == path or name.startswith(inside)])
        for name in [name for name in self._symlinks if name.startswith(inside)]:
            del self._symlinks[name]
        self._index.remove(path)
        if self._tree is not None:
            self._tree.remove(path)

    def _hand_over(self, path: bytes) -> None:
        """Before a file goes that hard links point to: its first link becomes the file."""
        links = sorted(self._linked.pop(path), key=sort_key)
        if not links or path in self._absent:
            return
        if self._tree is None:
            raise self._refused(path, "is replaced after a hard link to it; only unpacked it can be indexed")
        first, rest = links[0], links[1:]
        source = self._tree.source(first)
        entry = entry_of(first, os.lstat(source), source=source)
        if entry.kind is Kind.FILE:
            with open(source, "rb") as file:
                entry = replace(entry, digest=hashlib.file_digest(file, "sha256").hexdigest())
        self._index.add(entry)
        for link in rest:
            self._index.add(replace(entry, path=link, kind=Kind.HARDLINK, target=first, size=0, digest="", xattrs=()))
        if rest:
            self._linked[first] = rest

    def _refused(self, path: bytes, why: str) -> FormatError:
        return FormatError(f"{self._name}: {os.fsdecode(path)} {why}", hint="no layer may hold it")

    def _impossible(self, entry: Entry) -> FormatError:
        if len(entry.path) > LONGEST:
            shown = os.fsdecode(entry.path[:40])
            return FormatError(
                f"{self._name}: {shown}… is a path of {len(entry.path)} bytes", hint=f"at most {LONGEST}"
            )
        return self._refused(entry.path, "has an owner or device whose number takes more than 32 bits")


def _hashed(pieces: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece
