"""What a COPY or ADD writes: the entries of its layer, placed on the tree below it.

The tree below is looked up, never mounted. Rules, as BuildKit applies them: the destination and all links on the way to
it are resolved inside the image; a folder's contents are merged into an existing folder; a file replaces a file or a
link; a file never replaces a folder, nor a folder a file; folders that have to be made are 0755 with its owner.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from layerbuild.build.archives import Archive
from layerbuild.build.chmod import Chmod
from layerbuild.build.selecting import Below, Listing, Match
from layerbuild.build.times import Times
from layerbuild.build.tree import Node, Tree, changed_meanwhile, walk
from layerbuild.errors import BuildError, Span
from layerbuild.frozen import frozen
from layerbuild.layer.capture import LayerWriter
from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.layer.index import to_line
from layerbuild.layer.paths import clean, join, resolve, split
from layerbuild.layer.whiteout import hidden_name
from layerbuild.steps import CopyStep

_SMALL = 1 << 18  # bytes; files up to this size are read by one call


@frozen
class Item:
    """One entry to write, and what it is read from: a file of a tree, bytes, or nothing. A file's entry has the digest
    that its content must have. ``inode`` is equal for the names of one source file that has several."""

    entry: Entry
    content: tuple[Tree, Node] | bytes | None = None
    inode: object | None = None


class Placement:
    """The entries that one step writes on ``target``, collected source by source."""

    def __init__(self, step: CopyStep, target: Tree, *, owner: tuple[int, int] | None, times: Times) -> None:
        self._span: Span = step.origin.span
        self._target = target
        dest = step.dest.encode("utf-8", "surrogateescape")
        self._top = target.resolve(clean(dest))
        self._is_folder = not self._top or dest.endswith((b"/", b"/."))
        self._owner = owner
        self._keep_owner = step.keep_owner
        self._chmod = Chmod.parse(step.mode, span=step.origin.span) if step.mode else None
        self._times = times
        self._items: dict[bytes, Item] = {}
        self._found: dict[bytes, Node | None] = {}  # what the target has, where it was looked at
        self._ready: set[bytes] = {b""}  # folders that are there, or will be
        self._new: set[bytes] = set()  # those of them that show nothing of the target
        self._touched: dict[bytes, int] = {}  # folders of the target that get a time, and which

    # -- sources

    def add(self, match: Match) -> None:
        """Place what a source names."""
        source = object()  # hard links hold within one source
        if match.node.entry.kind is Kind.DIRECTORY:
            self._add_contents(match, source)
        else:
            self._put(self._dressed(match.tree, match.node, self._path_for(match.name), source))

    def stream(self, match: Match) -> Iterator[tuple[Below | None, Item | None]]:
        """Place the folder that ``match`` is, and nothing else, without holding what is below it.

        Gives, in a layer's order, each path below with the item to write for it, None where the target has the same;
        and before them, without a path, the folders that lead there. Files' entries have no digests: whoever writes
        them computes those, and compares the sum.
        """
        source = object()
        self._folder(self._top, mode=self._folder_mode)
        self._touch(self._top, self._times.clamp(match.node.entry.mtime))
        way = _Way(self._top, self._items, self._as_it_is)
        yield from ((None, item) for item in way.begin(self._new))
        for below in match.below:
            path = join(self._top, below.path)
            item = self._dressed(match.tree, below.node, path, source, digest="")
            existing = None if way.is_new(split(path)[0]) else self._target.look(path)
            self._check(item.entry, None if existing is None else existing.entry.kind)
            is_there = existing is not None and self._is_same(item, existing)
            yield from ((None, lead) for lead in way.enter(item, is_new=existing is None, changed=not is_there))
            yield below, None if is_there else item

    def add_inline(self, name: bytes, content: bytes) -> None:
        """Place a heredoc: a file of that name, 0644."""
        digest = hashlib.sha256(content).hexdigest()
        entry = Entry(self._path_for(name), Kind.FILE, 0o644, size=len(content), mtime=self._times.made, digest=digest)
        uid, gid = self._owner_of(entry)
        self._put(Item(replace(entry, mode=self._mode(entry), uid=uid, gid=gid), content))

    def add_folder_itself(self) -> None:
        """Make the destination a folder, if it is none yet."""
        self._folder(self._top, mode=self._folder_mode, why="not a directory")

    def add_archive(self, archive: Archive) -> None:
        """Place an unpacked archive below the destination, which is a folder in any case. Unlike a copied folder, it
        replaces what is of another type, and its own modes hold: ``--chmod`` has no power here."""
        source = object()
        self._folder(self._top, mode=0o755)
        places = {b"": self._top}
        for node in walk(archive.tree):
            parent, name = split(node.path)
            path = join(places[parent], name)
            if node.path in archive.implied:
                path = self._follow(path)
                self._folder(path, mode=0o755)
            else:
                owner = self._owner or (node.entry.uid, node.entry.gid)
                self._store(self._item(archive.tree, node, path, source, mode=node.entry.mode, owner=owner))
            if node.entry.kind is Kind.DIRECTORY:
                places[node.path] = path

    # -- the result

    def items(self) -> list[Item]:
        """The entries that change something, with the folders that lead to them, in the order of a layer."""
        changed = {path: item for path, item in self._items.items() if not self._is_there(item)}
        for path in list(changed):
            self._lead_to(path, changed)
        return _link_names([changed[path] for path in sorted(changed, key=sort_key)])

    def _is_there(self, item: Item) -> bool:
        node = self._existing(item.entry.path)
        return node is not None and self._is_same(item, node)

    def _is_same(self, item: Item, node: Node) -> bool:
        entry = item.entry
        if _facts(node.entry) != _facts(entry):
            return False
        if entry.kind is Kind.DIRECTORY:
            return True
        if (node.entry.mtime, node.entry.mtime_ns) != (entry.mtime, entry.mtime_ns):
            return False
        if entry.kind is not Kind.FILE:
            return True
        digest = entry.digest
        if not digest and isinstance(item.content, tuple):
            tree, source = item.content
            digest = tree.digest_now(source)
        return self._target.digest(node) == digest

    def _lead_to(self, path: bytes, changed: dict[bytes, Item]) -> None:
        # A layer names each folder on the way to a change, with the metadata that it has (OCI image-spec, layer.md).
        folder = split(path)[0]
        made_in = True
        while folder and folder not in changed:
            changed[folder] = self._items.get(folder) or self._as_it_is(folder, made_in=made_in)
            folder, made_in = split(folder)[0], False

    def _as_it_is(self, folder: bytes, *, made_in: bool) -> Item:
        node = self._existing(folder)
        assert node is not None, folder
        mtime = self._times.made if made_in else self._times.clamp(node.entry.mtime)
        mtime = self._touched.get(folder, mtime)
        return Item(replace(node.entry, path=folder, mtime=mtime, mtime_ns=0, opaque=False))

    # -- placing

    def _add_contents(self, match: Match, source: object) -> None:
        self._folder(self._top, mode=self._folder_mode)
        self._touch(self._top, self._times.clamp(match.node.entry.mtime))
        for below in match.below:
            path = join(self._top, below.path)
            if below.leads and self._kind(path) is Kind.DIRECTORY:
                continue
            self._put(self._dressed(match.tree, below.node, path, source))

    def _path_for(self, name: bytes) -> bytes:
        """Where a file of that name goes: into the destination if that is a folder, else it is the destination."""
        path = self._top
        if self._is_folder or self._kind(path) is Kind.DIRECTORY:
            path = join(path, name)
        self._folder(split(path)[0], mode=self._folder_mode)
        return path

    def _folder(self, path: bytes, *, mode: int, why: str = "cannot copy to non-directory") -> None:
        """Make sure that ``path`` (links resolved) is a folder; those that are missing get ``mode``. BuildError, which
        says ``why``, if something else is in the way."""
        missing: list[bytes] = []
        while path not in self._ready:
            kind = self._kind(path)
            if kind is Kind.DIRECTORY:
                self._ready.add(path)
                break
            if kind is not None:
                raise self._refused(path, f"is no folder: {why}")
            missing.append(path)
            path = split(path)[0]
        uid, gid = self._owner or (0, 0)
        for path in reversed(missing):
            self._store(Item(Entry(path, Kind.DIRECTORY, mode, uid, gid, mtime=self._times.made)))

    @property
    def _folder_mode(self) -> int:
        """Of folders that no source names: only the permissions of an octal ``--chmod``, as BuildKit has it."""
        return self._chmod.octal & 0o777 if self._chmod and self._chmod.octal is not None else 0o755

    def _touch(self, folder: bytes, mtime: int) -> None:
        item = self._items.get(folder)
        if item is None:
            self._touched[folder] = mtime
        else:
            self._items[folder] = replace(item, entry=replace(item.entry, mtime=mtime))

    def _put(self, item: Item) -> None:
        self._check(item.entry, self._kind(item.entry.path))
        self._store(item)

    def _check(self, entry: Entry, kind: Kind | None) -> None:
        """Refuse to put ``entry`` in the place of something of ``kind``, if that can't be."""
        path = entry.path
        if kind is not None and (kind is Kind.DIRECTORY) != (entry.kind is Kind.DIRECTORY):
            if kind is Kind.DIRECTORY:
                raise self._refused(path, "is a folder: cannot replace to directory with file")
            raise self._refused(path, "is no folder: cannot copy to non-directory")
        self._check_content(entry)

    def _check_content(self, entry: Entry) -> None:
        if hidden_name(split(entry.path)[1]) is not None:
            raise self._refused(entry.path, "can't be in a layer, where such a name means a deletion")
        if entry.kind is Kind.CHARACTER and entry.device == (0, 0):
            raise self._refused(entry.path, "can't be in a layer: to overlay the device 0/0 means a deletion")

    def _store(self, item: Item) -> None:
        entry = item.entry
        path = entry.path
        self._check_content(entry)
        if entry.kind is Kind.DIRECTORY:
            self._show(path)
        elif path in self._ready:
            self._forget(path)
        self._items[path] = item

    def _show(self, folder: bytes) -> None:
        """Note whether anything of the target shows in ``folder``, which this step stores."""
        self._ready.add(folder)
        earlier = self._items.get(folder)
        if earlier is not None and earlier.entry.kind is not Kind.DIRECTORY:
            # An archive put something else there, and another one a folder again: the content of old is gone.
            for hidden in self._target.children(folder):
                self._items[hidden.path] = Item(Entry(hidden.path, Kind.WHITEOUT))
            self._new.add(folder)
            return
        node = self._existing(folder)
        if node is None or node.entry.kind is not Kind.DIRECTORY:
            self._new.add(folder)

    def _forget(self, folder: bytes) -> None:
        """An archive replaces a folder by something else: nothing that was below it counts."""
        inside = folder + b"/"
        self._items = {path: item for path, item in self._items.items() if not path.startswith(inside)}
        for known in (self._ready, self._new):
            known.difference_update([path for path in known if path == folder or path.startswith(inside)])

    def _follow(self, path: bytes) -> bytes:
        """Where ``path`` below the destination leads, links resolved as for a process that is confined to it."""

        def readlink(inner: bytes) -> bytes | None:
            entry = self._entry(join(self._top, inner))
            return entry.target if entry is not None and entry.kind is Kind.SYMLINK else None

        skip = len(self._top) + 1 if self._top else 0
        return join(self._top, resolve(path[skip:], readlink)).rstrip(b"/")

    def _kind(self, path: bytes) -> Kind | None:
        entry = self._entry(path)
        return None if entry is None or entry.kind is Kind.WHITEOUT else entry.kind

    def _entry(self, path: bytes) -> Entry | None:
        item = self._items.get(path)
        if item is not None:
            return item.entry
        node = self._existing(path)
        return None if node is None else node.entry

    def _existing(self, path: bytes) -> Node | None:
        """What the target shows at ``path``, whose folders hold no link."""
        if split(path)[0] in self._new:
            return None
        if path not in self._found:
            self._found[path] = self._target.look(path)
        return self._found[path]

    def _refused(self, path: bytes, why: str) -> BuildError:
        return BuildError(f"/{path.decode('utf-8', 'backslashreplace')} {why}", span=self._span)

    # -- metadata

    def _item(
        self,
        tree: Tree,
        node: Node,
        path: bytes,
        source: object,
        *,
        mode: int,
        owner: tuple[int, int],
        digest: str | None = None,
    ) -> Item:
        """``node`` as an entry at ``path``; ``digest`` None: that of the tree."""
        below = node.entry
        is_file = below.kind is Kind.FILE
        entry = Entry(  # not replace(), which takes three times as long
            path,
            below.kind,
            mode,
            *owner,
            below.size,
            self._times.clamp(below.mtime),
            0,
            below.target,
            below.device,
            below.xattrs,
            (tree.digest(node) if digest is None else digest) if is_file else "",
        )
        if not is_file:
            return Item(entry)
        return Item(entry, (tree, node), None if node.inode is None else (source, node.inode))

    def _dressed(self, tree: Tree, node: Node, path: bytes, source: object, *, digest: str | None = None) -> Item:
        """``node`` at ``path``, with the owner and the mode that the step gives it."""
        mode, owner = self._mode(node.entry), self._owner_of(node.entry)
        return self._item(tree, node, path, source, mode=mode, owner=owner, digest=digest)

    def _mode(self, entry: Entry) -> int:
        if self._chmod is None or entry.kind is Kind.SYMLINK:
            return entry.mode
        return self._chmod.apply(entry.mode, is_folder=entry.kind is Kind.DIRECTORY)

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        return self._owner or ((entry.uid, entry.gid) if self._keep_owner else (0, 0))


class _Way:
    """The folders from the root to where a stream is, outermost first, and which of them have been written."""

    def __init__(self, top: bytes, items: Mapping[bytes, Item], as_it_is: Callable[..., Item]) -> None:
        self._items = items
        self._as_it_is = as_it_is
        self._folders: list[_Passed] = []
        while top:
            self._folders.insert(0, _Passed(top, items.get(top)))
            top = split(top)[0]

    def begin(self, new: set[bytes]) -> Iterator[Item]:
        """The destination, as far as it has to be made, and what leads to it."""
        for number, passed in enumerate(self._folders):
            if passed.path in new and passed.item is not None:
                yield from self._leads(self._folders[:number])
                passed.is_new = passed.is_written = True
                yield passed.item

    def enter(self, item: Item, *, is_new: bool, changed: bool) -> Iterator[Item]:
        """Go on to ``item``; the folders to be written before it."""
        path = item.entry.path
        while self._folders and not path.startswith(self._folders[-1].path + b"/"):
            self._folders.pop()
        if changed:
            yield from self._leads(self._folders)
        if item.entry.kind is Kind.DIRECTORY:
            self._folders.append(_Passed(path, item, is_new, changed))

    def is_new(self, folder: bytes) -> bool:
        """Whether ``folder``, one of those passed, shows nothing of the target."""
        while (
            self._folders and self._folders[-1].path != folder and not folder.startswith(self._folders[-1].path + b"/")
        ):
            self._folders.pop()
        return bool(folder) and self._folders[-1].is_new

    def _leads(self, folders: list[_Passed]) -> list[Item]:
        leads = []
        for passed in reversed(folders):
            if not passed.is_written:
                passed.is_written = True
                leads.append(passed.item or self._as_it_is(passed.path, made_in=passed is folders[-1]))
        return leads[::-1]


@dataclass(slots=True)
class _Passed:
    path: bytes
    item: Item | None
    is_new: bool = False
    is_written: bool = False


def write_stream(placement: Placement, match: Match, writer: LayerWriter) -> tuple[int, Listing]:
    """Copy the folder that ``match`` is, in one read of each file: the number of entries, and the listing."""
    count = 0
    linked: dict[object, bytes] = {}
    listing = Listing()
    listing.enter(match)
    for below, item in placement.stream(match):
        digest = ""
        if item is not None:
            count += 1
            digest = _write_item(_link_to(item, linked), writer)
        if below is not None:
            if not digest and below.node.entry.kind is Kind.FILE:  # the target has it, or it is one more name
                digest = match.tree.digest_now(below.node)
            listing.add(below.path, below.node, digest)
    return count, listing


def told_stream(placement: Placement, match: Match) -> Iterator[bytes]:
    """What ``write_stream`` would put into the layer's index, line by line; a file whose digest is remembered is not
    read."""
    linked: dict[object, bytes] = {}
    for below, item in placement.stream(match):
        if item is not None:
            entry = _link_to(item, linked).entry
            is_read = below is not None and entry.kind is Kind.FILE
            yield to_line(entry, match.tree.digest_now(below.node) if below is not None and is_read else "")


def write(items: list[Item], writer: LayerWriter) -> None:
    """Write the entries of the layer. SourceError for a file whose content is not what the cache key took it for."""
    for item in items:
        _write_item(item, writer)


def _write_item(item: Item, writer: LayerWriter) -> str:
    if isinstance(item.content, tuple):
        return _write_file(item.entry, *item.content, writer)
    return writer.add(item.entry, item.content)


def _write_file(entry: Entry, tree: Tree, node: Node, writer: LayerWriter) -> str:
    looked = time.time_ns()
    found: os.stat_result | None
    if entry.size > _SMALL:
        with tree.open(node) as file:
            found = os.fstat(file.fileno()) if isinstance(file, io.FileIO) else None  # one of a blob is in memory
            digest = writer.add(entry, file)
    else:
        content, found = tree.read(node)
        digest = writer.add(entry, content) if len(content) == entry.size else ""
    if digest and not entry.digest and found is not None:
        tree.learn(found, digest, looked=looked)
    if not digest or (entry.digest and digest != entry.digest):
        raise changed_meanwhile(tree.name, node.path)
    return digest


def _facts(entry: Entry) -> tuple[object, ...]:
    size = entry.size if entry.kind is Kind.FILE else 0
    return (entry.kind, entry.mode, entry.uid, entry.gid, size, entry.target, entry.device, entry.xattrs)


def _link_names(items: list[Item]) -> list[Item]:
    """The names of one source file become one file and hard links to it; the first name in order is the file."""
    first: dict[object, bytes] = {}
    return [_link_to(item, first) for item in items]


def _link_to(item: Item, first: dict[object, bytes]) -> Item:
    if item.inode is None:
        return item
    head = first.setdefault(item.inode, item.entry.path)
    if head == item.entry.path:
        return item
    return Item(replace(item.entry, kind=Kind.HARDLINK, target=head, size=0, digest="", xattrs=()))
