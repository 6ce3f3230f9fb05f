"""What a COPY or ADD writes: the entries of its layer, placed on the tree below it.

The tree below is looked up, never mounted. Rules, as BuildKit applies them: the destination and all links on the way to
it are resolved inside the image; a folder's contents are merged into an existing folder; a file replaces a file or a
link; a file never replaces a folder, nor a folder a file; folders that have to be made are 0755 with its owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO

from layerbuild.build.chmod import Chmod
from layerbuild.build.selecting import Match
from layerbuild.build.times import Times
from layerbuild.build.tree import Node, Tree, file_digest
from layerbuild.errors import BuildError, Span
from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.layer.paths import clean, join, split
from layerbuild.steps import CopyStep

Opener = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Item:
    """One entry to write. ``content`` opens a file's bytes, ``digest`` tells their sha256 (both for files only);
    ``inode`` is shared by the names of one source file that has several."""

    entry: Entry
    content: Opener | None = None
    digest: Callable[[], str] | None = None
    inode: object | None = None


class Placement:
    """The entries that one step writes on ``target``, collected source by source."""

    def __init__(self, step: CopyStep, target: Tree, *, owner: tuple[int, int] | None, times: Times) -> None:
        self._span: Span = step.origin.span
        self._target = target
        self._dest = step.dest.encode("utf-8", "surrogateescape")
        self._owner = owner
        self._keep_owner = step.keep_owner
        self._chmod = Chmod.parse(step.mode, span=step.origin.span) if step.mode else None
        self._parents = step.parents
        self._times = times
        self._items: dict[bytes, Item] = {}
        self._new: set[bytes] = set()  # folders of this step where the target has none: nothing below to look up

    # -- sources

    def add(self, match: Match) -> None:
        """Place what a source names."""
        if match.node.entry.kind is Kind.DIRECTORY:
            self._add_folder(match)
        else:
            self._put(self._path_for(match.name), self._from_node(match, match.node))

    def add_inline(self, name: bytes, content: bytes) -> None:
        """Place a heredoc: a file of that name, 0644."""
        entry = Entry(b"", Kind.FILE, 0o644, 0, 0, size=len(content), mtime=self._times.made)
        self._put(self._path_for(name), Item(self._dress(entry), lambda: BytesIO(content)))

    def add_folder_itself(self) -> None:
        """Make the destination a folder, if it is none yet."""
        self._folder(self._target.resolve(clean(self._dest)))

    def add_archive(self, tree: Tree) -> None:
        """Place an unpacked archive below the destination, which is a folder in any case. Unlike a copied folder, it
        replaces what is of another type, and its own modes and owners hold (``--chmod`` has no power here)."""
        top = self._target.resolve(clean(self._dest))
        self._folder(top)
        for rel, node in _walk(tree, b""):
            path = join(top, rel)
            self._folder(split(path)[0])
            entry = replace(node.entry, mtime=self._times.clamp(node.entry.mtime), mtime_ns=0)
            if self._owner is not None:
                entry = replace(entry, uid=self._owner[0], gid=self._owner[1])
            self._store(path, self._item(tree, node, entry, ("archive", node.inode)))

    # -- the result

    def items(self) -> list[Item]:
        """The entries that change something, with the folders that lead to them, in the order of a layer."""
        changed = {path: item for path, item in self._items.items() if not self._is_there(path, item)}
        for path in list(changed):
            self._lead_to(path, changed)
        ordered = [changed[path] for path in sorted(changed, key=sort_key)]
        return _link_names(ordered)

    def _is_there(self, path: bytes, item: Item) -> bool:
        node = self._existing(path)
        if node is None:
            return False
        below, entry = node.entry, item.entry
        if entry.kind is Kind.DIRECTORY:
            return _facts(below) == _facts(entry)
        if _facts(below) != _facts(entry) or (below.mtime, below.mtime_ns) != (entry.mtime, entry.mtime_ns):
            return False
        return entry.kind is not Kind.FILE or self._target.digest(node) == self._digest_of(item)

    @staticmethod
    def _digest_of(item: Item) -> str:
        if item.digest is not None:
            return item.digest()
        assert item.content is not None
        with item.content() as file:
            return file_digest(file)

    def _lead_to(self, path: bytes, changed: dict[bytes, Item]) -> None:
        # A layer names each folder on the way to a change, with the metadata that it has (OCI image-spec, layer.md).
        folder = split(path)[0]
        made_in = True
        while folder and folder not in changed:
            item = self._items.get(folder)
            if item is None:
                node = self._existing(folder)
                assert node is not None, folder
                mtime = self._times.made if made_in else self._times.clamp(node.entry.mtime)
                item = Item(replace(node.entry, path=folder, mtime=mtime, mtime_ns=0))
            changed[folder] = item
            folder, made_in = split(folder)[0], False

    # -- placing

    def _add_folder(self, match: Match) -> None:
        top = self._target.resolve(clean(self._dest + b"/" + match.name if self._parents else self._dest))
        self._folder(top, self._from_node(match, match.node) if self._parents and top else None)
        for rel, node in match.below():
            path = join(top, rel)
            self._folder(split(path)[0])
            self._put(path, self._from_node(match, node))

    def _path_for(self, name: bytes) -> bytes:
        """Where a file of that name goes: into the destination if that is a folder, else it is the destination."""
        if self._parents:
            path = self._target.resolve(clean(self._dest + b"/" + name))
        elif self._dest.endswith((b"/", b"/.")) or self._is_folder(clean(self._dest)):
            path = join(self._target.resolve(clean(self._dest)), name)
        else:
            path = self._target.resolve(clean(self._dest))
        self._folder(split(path)[0])
        return path

    def _is_folder(self, path: bytes) -> bool:
        resolved = self._target.resolve(path)
        kind = self._kind(resolved)
        return resolved == b"" or kind is Kind.DIRECTORY

    def _folder(self, path: bytes, item: Item | None = None) -> None:
        """Make sure that ``path`` (links resolved) is a folder; ``item`` tells its metadata if it has to be made."""
        if path == b"":
            return
        kind = self._kind(path)
        if kind is Kind.DIRECTORY:
            return
        if kind is not None:
            raise BuildError(f"cannot copy to non-directory: /{_shown(path)}", span=self._span)
        self._folder(split(path)[0])
        self._store(path, item or Item(self._new_folder()))

    def _new_folder(self) -> Entry:
        uid, gid = self._owner or (0, 0)
        mode = self._chmod.octal if self._chmod and self._chmod.octal is not None else 0o755
        return Entry(b"", Kind.DIRECTORY, mode, uid, gid, mtime=self._times.made)

    def _put(self, path: bytes, item: Item) -> None:
        kind = self._kind(path)
        folder = item.entry.kind is Kind.DIRECTORY
        if kind is Kind.DIRECTORY and not folder:
            raise BuildError(f"cannot replace to directory /{_shown(path)} with file", span=self._span)
        if kind is not None and kind is not Kind.DIRECTORY and folder:
            raise BuildError(f"cannot copy to non-directory: /{_shown(path)}", span=self._span)
        self._store(path, item)

    def _store(self, path: bytes, item: Item) -> None:
        if item.entry.kind is Kind.DIRECTORY:
            node = self._existing(path)
            if node is None or node.entry.kind is not Kind.DIRECTORY:
                self._new.add(path)
        elif path in self._items and self._items[path].entry.kind is Kind.DIRECTORY:
            for below in [other for other in self._items if other.startswith(path + b"/")]:
                del self._items[below]
        self._items[path] = replace(item, entry=replace(item.entry, path=path))

    def _kind(self, path: bytes) -> Kind | None:
        item = self._items.get(path)
        if item is not None:
            return item.entry.kind
        node = self._existing(path)
        return node.entry.kind if node else None

    def _existing(self, path: bytes) -> Node | None:
        """What the target has at ``path``; nothing below a folder that this step makes."""
        if split(path)[0] in self._new:
            return None
        return self._target.get(path, follow=False)

    # -- metadata

    def _from_node(self, match: Match, node: Node) -> Item:
        return self._item(match.tree, node, self._dress(node.entry), (match.node.path, node.inode))

    def _item(self, tree: Tree, node: Node, entry: Entry, inode: tuple[object, object]) -> Item:
        if entry.kind is not Kind.FILE:
            return Item(entry)
        return Item(
            entry,
            content=lambda: tree.open(node),
            digest=lambda: tree.digest(node),
            inode=inode if node.inode is not None else None,
        )

    def _dress(self, entry: Entry) -> Entry:
        uid, gid = self._owner or ((entry.uid, entry.gid) if self._keep_owner else (0, 0))
        mode = entry.mode
        if self._chmod is not None and entry.kind is not Kind.SYMLINK:
            mode = self._chmod.apply(mode, is_folder=entry.kind is Kind.DIRECTORY)
        return replace(entry, uid=uid, gid=gid, mode=mode, mtime=self._times.clamp(entry.mtime), mtime_ns=0, digest="")


def _walk(tree: Tree, folder: bytes) -> Iterator[tuple[bytes, Node]]:
    for node in tree.children(folder):
        yield node.path, node
        if node.entry.kind is Kind.DIRECTORY:
            yield from _walk(tree, node.path)


def _facts(entry: Entry) -> tuple[object, ...]:
    size = entry.size if entry.kind is Kind.FILE else 0
    return (entry.kind, entry.mode, entry.uid, entry.gid, size, entry.target, entry.device, entry.xattrs)


def _link_names(items: list[Item]) -> list[Item]:
    """The names of one source file become one file and hard links to it; the first name in order is the file."""
    first: dict[object, bytes] = {}
    linked = []
    for item in items:
        if item.inode is not None:
            head = first.setdefault(item.inode, item.entry.path)
            if head != item.entry.path:
                item = Item(replace(item.entry, kind=Kind.HARDLINK, target=head, size=0, xattrs=()))
        linked.append(item)
    return linked


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
