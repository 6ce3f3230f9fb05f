"""The build context: a folder, less what its ignore file leaves out.

Owners are 0:0 whoever owns the files, as in every builder; modes, times and extended attributes are the folder's.
A file's content is read for the cache, unless its digest is remembered for the state that the file is in, and for the
layer; whoever writes the layer compares both. Somebody may put a link in the place of a folder at any moment: so
folders are opened with no link on the way (openat2(2)), and what is in them is looked at from there.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from layerbuild.build.tree import Node, changed_meanwhile, file_digest
from layerbuild.errors import SourceError, descriptors_hint
from layerbuild.isolate import linux
from layerbuild.layer.entry import Entry, Kind, entry_of, kind_of
from layerbuild.layer.paths import clean, join, resolve, split
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.store.digests import Digests

# A fifo that took the place of a file must not make the build wait for a writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART = 256  # files of a folder whose states are held at once


def ignore_rules(context: Path, recipe: Path | None, *, confined: bool = False) -> IgnoreRules:
    """The rules for ``context``: ``<recipe>.dockerignore`` beside the recipe, else ``.dockerignore`` in the context.
    ``confined``: the context is not the caller's own, so a link among these files leads nowhere outside it."""
    candidates = [context / ".dockerignore"]
    if recipe is not None:
        candidates.insert(0, recipe.with_name(recipe.name + ".dockerignore"))
    for path in candidates:
        if confined and context in path.parents:
            inside = ContextTree(context, IgnoreRules()).resolve(os.fsencode(path.relative_to(context)))
            path = context / os.fsdecode(inside)
        if path.is_fifo():
            raise SourceError(f"can't read {str(path)!r}: it is a pipe", hint="nobody writes to it: put a file there")
        try:
            text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise SourceError(f"can't read {str(path)!r}: {error.strerror}") from error
        return IgnoreRules.parse(text, file=path.name)
    return IgnoreRules.parse("", file=".dockerignore")


class _Seen:
    """Some files of a folder, in the state in which they were listed. Their digests are asked for together, when the
    first one is: the listing of 50,000 files takes 0.8 s then, and 1.2 s where they are asked for one by one."""

    def __init__(self, part: list[tuple[bytes, os.stat_result]]) -> None:
        self._part = part
        self._known: dict[bytes, str] | None = None

    def digest(self, node: Node, known: Digests) -> str | None:
        """The digest of a file, None if it is not known or not one of these."""
        if self._known is None:
            digests = known.files([found for _, found in self._part])
            self._known = {path: digest for (path, _), digest in zip(self._part, digests, strict=True) if digest}
        return self._known.get(node.path)


class ContextTree:
    """A context folder as a Tree. ``known``: digests that need no reading."""

    def __init__(
        self, folder: Path, rules: IgnoreRules, *, name: str = "the context", known: Digests | None = None
    ) -> None:
        self.name = name
        self._known = known
        self._folder = os.fsencode(folder)
        self._rules = rules
        self._digests: dict[bytes, str] = {}
        self._seen: dict[bytes, _Seen] = {}  # by folder: the part of it where somebody who lists it stands

    def get(self, path: bytes, *, follow: bool = True) -> Node | None:
        hidden: list[bytes] = []

        def visible_link(link: bytes) -> bytes | None:
            text = self._readlink(link)
            if text is not None and self._rules.verdict(link).ignored:
                hidden.append(link)
            return text

        resolved = resolve(clean(path), visible_link, follow_last=follow)
        return None if hidden else self.look(resolved)

    def look(self, path: bytes) -> Node | None:
        folder, name = split(path)
        try:
            with self._inside(folder) as place:
                found = os.stat(name or b".", dir_fd=place, follow_symlinks=False)
                return self._node(path, found, place) if self._is_visible(path, found) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(path, error) from error

    def resolve(self, path: bytes) -> bytes:
        return resolve(clean(path), self._readlink)

    def children(self, folder: bytes) -> Iterator[Node]:
        names = self._names(folder)
        try:
            for start in range(0, len(names), _PART):
                part, nodes = [], []
                # All at once: a folder that stayed open would be one for each level of the tree.
                for path, found, place in self._visible(folder, names[start : start + _PART]):
                    part.append((path, found))
                    nodes.append(self._node(path, found, place))
                self._seen[folder] = _Seen(part)
                yield from nodes
        finally:  # also where nobody goes on listing: what comes later is to see the file as it is then
            self._seen.pop(folder, None)

    def open(self, node: Node) -> BinaryIO:
        opened = self._opened(node)
        return BytesIO() if opened is None else cast(BinaryIO, os.fdopen(opened[0], "rb", buffering=0))

    def read(self, node: Node) -> tuple[bytes, os.stat_result | None]:
        opened = self._opened(node)
        if opened is None:
            return b"", None
        descriptor, found = opened
        try:
            return os.read(descriptor, node.entry.size + 1), found
        finally:
            os.close(descriptor)

    def _opened(self, node: Node) -> tuple[int, os.stat_result] | None:
        """A descriptor of a regular file, and its state; None for a socket, which is as an empty file."""
        try:
            # No part of the path may have become a link meanwhile: it could lead outside.
            descriptor = linux.open_beneath(self._top, node.path, _READ)
        except OSError as error:
            if error.errno == errno.ENXIO and not node.entry.size:  # open(2): a socket
                return None
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise changed_meanwhile(self.name, node.path) from error
            raise self._unreadable(node.path, error) from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != node.entry.size:
            os.close(descriptor)
            raise changed_meanwhile(self.name, node.path)
        return descriptor, found

    @functools.cached_property
    def _top(self) -> int:
        return os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @contextmanager
    def _inside(self, folder: bytes, flags: int = os.O_PATH) -> Iterator[int]:
        """A descriptor of ``folder``, which leads there whatever is put in its place meanwhile."""
        descriptor = self._opened_folder(folder, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _opened_folder(self, folder: bytes, flags: int) -> int:
        try:
            return linux.open_beneath(self._top, folder, flags | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise changed_meanwhile(self.name, folder) from error
            raise

    def digest(self, node: Node) -> str:
        digest = self._digests.get(node.path)
        if digest is None:
            digest = self._digests[node.path] = self.digest_now(node)
        return digest

    def digest_now(self, node: Node) -> str:
        looked = time.time_ns()
        if self._known is None:
            with self.open(node) as file:
                return file_digest(file, node.entry.size)
        seen = self._seen.get(split(node.path)[0])
        if seen is not None and (known := seen.digest(node, self._known)) is not None:
            return known
        try:
            found = self._state(node.path)
        except OSError as error:
            raise self._unreadable(node.path, error) from error
        digest = self._known.file(found) if found.st_size == node.entry.size else None
        if digest is None:
            with self.open(node) as file:
                digest = file_digest(file, node.entry.size)
            self._known.remember_file(found, digest, looked=looked)
        return digest

    def learn(self, found: os.stat_result, digest: str, *, looked: int) -> None:
        if self._known is not None:
            self._known.remember_file(found, digest, looked=looked)

    def state(self, node: Node, feed: Callable[[bytes], object]) -> int | None:
        found = self._state(node.path)
        feed(repr((self._folder, node.path, found.st_dev, found.st_ino, found.st_mode)).encode())
        feed(repr((found.st_size, found.st_mtime_ns, found.st_ctime_ns)).encode())
        feed("\n".join(map(str, self._rules.patterns)).encode("utf-8", "surrogateescape"))
        latest = max(found.st_mtime_ns, found.st_ctime_ns)
        folders = [node.path] if stat.S_ISDIR(found.st_mode) else []
        while folders:
            folder = folders.pop()
            inner, lines, changed = self._states(folder)
            latest = max(latest, changed)
            folders += sorted(inner)
            feed(b"\0%b\0" % folder)
            feed("\n".join(sorted(lines)).encode("utf-8", "surrogateescape"))
        return latest

    def _state(self, path: bytes) -> os.stat_result:
        folder, name = split(path)
        with self._inside(folder) as place:
            return os.stat(name or b".", dir_fd=place, follow_symlinks=False)

    def _states(self, folder: bytes) -> tuple[list[bytes], list[str], int]:
        """Of what can be seen in ``folder``: the folders' paths, a line for each entry that begins with its name, and
        the time of the latest change.

        The hot loop of a build that has nothing to do: 50,000 files take 0.16 s, of which the kernel takes 0.1. Files
        are asked for relative to their folder, which spares the kernel the way there.
        """
        inner: list[bytes] = []
        lines: list[str] = []
        latest = 0
        filtered = bool(self._rules.patterns)
        for entry in self._scanned(folder):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # gone since the folder was listed, as if it had gone before
                continue
            if filtered and not self._is_visible(join(folder, os.fsencode(entry.name)), found):
                continue
            mtime, ctime = found.st_mtime_ns, found.st_ctime_ns
            lines.append(f"{entry.name}\0{found.st_ino} {found.st_mode} {found.st_size} {mtime} {ctime}")
            if ctime > latest or mtime > latest:
                latest = max(mtime, ctime)
            if stat.S_ISDIR(found.st_mode):
                inner.append(join(folder, os.fsencode(entry.name)))
        return inner, lines, latest

    def _scanned(self, folder: bytes) -> Iterator[os.DirEntry[str]]:
        """What lies in ``folder``, in no order; an entry's ``path`` is its name alone."""
        try:
            with self._inside(folder, os.O_RDONLY) as place, os.scandir(place) as scanned:
                yield from scanned
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def why_missing(self, path: bytes) -> str:
        rule = self._rules.verdict(path).rule
        if rule is not None and os.path.lexists(self._at(path)):
            return f"{rule} leaves it out"
        return f"it is not in {self.name}"

    def as_it_is(self, node: Node) -> int | None:
        """A descriptor of the folder that ``node`` is, or is in, if it looks on this machine as it does here, with all
        below it: nothing is left out, all is owned by root, and nothing leads elsewhere."""
        pending = [node.path]
        while pending:
            path = pending.pop()
            found = self._state(path)
            hidden = bool(path and self._rules.patterns and self._rules.verdict(path).ignored)
            if hidden or (found.st_uid, found.st_gid) != (0, 0) or not _is_plain(found.st_mode):
                return None
            if stat.S_ISDIR(found.st_mode):
                pending.extend(join(path, os.fsencode(entry.name)) for entry in self._scanned(path))
        is_folder = node.entry.kind is Kind.DIRECTORY
        return self._opened_folder(node.path if is_folder else split(node.path)[0], os.O_PATH)

    def _visible(self, folder: bytes, names: list[bytes]) -> Iterator[tuple[bytes, os.stat_result, int]]:
        """Of ``names`` in ``folder`` those that can be seen: path and state, and a descriptor of the folder, which is
        open until the next is asked for."""
        try:
            with self._inside(folder) as place:
                for name in names:
                    path = join(folder, name)
                    try:
                        found = os.stat(name, dir_fd=place, follow_symlinks=False)
                    except FileNotFoundError:  # gone since the folder was listed, as if it had gone before
                        continue
                    if self._is_visible(path, found):
                        yield path, found, place
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def _names(self, folder: bytes) -> list[bytes]:
        try:
            with self._inside(folder, os.O_RDONLY) as place:
                return sorted(map(os.fsencode, os.listdir(place)))
        except NotADirectoryError:
            return []
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def _at(self, path: bytes) -> bytes:
        return self._folder + b"/" + path if path else self._folder

    def _readlink(self, path: bytes) -> bytes | None:
        try:
            return os.readlink(self._at(path))
        except OSError:  # no link, or nothing there
            return None

    def _node(self, path: bytes, found: os.stat_result, place: int) -> Node:
        """``place`` is the folder of the file, open."""
        if kind_of(found.st_mode) is None:  # a socket is copied as an empty file
            return Node(path, Entry(path, Kind.FILE, stat.S_IMODE(found.st_mode), mtime=int(found.st_mtime)))
        try:
            entry = entry_of(path, found, source=self._at(path), owner=(0, 0), marked=False)
            if entry.xattrs or entry.target:
                # The path may lead elsewhere by now. By way of the folder it costs more, and most files say nothing.
                source = b"/proc/self/fd/%d/%b" % (place, split(path)[1])
                entry = entry_of(path, found, source=source, owner=(0, 0), marked=False)
        except OSError as error:
            raise self._unreadable(path, error) from error
        several = entry.kind is Kind.FILE and found.st_nlink > 1
        return Node(path, entry, (found.st_dev, found.st_ino) if several else None)

    def _is_visible(self, path: bytes, found: os.stat_result) -> bool:
        if not path or not self._rules.patterns or not self._rules.verdict(path).ignored:
            return True
        # A folder that is left out comes back with anything below it that a `!` rule brings back.
        if kind_of(found.st_mode) is not Kind.DIRECTORY or self._rules.prunes(path):
            return False
        return next(self._visible(path, self._names(path)), None) is not None

    def _unreadable(self, path: bytes, error: OSError) -> SourceError:
        if isinstance(error, FileNotFoundError):
            return SourceError(f"{_shown(path)!r} of {self.name} vanished while it was read", hint="build again")
        hint = descriptors_hint(error) or "make it readable for you, or name it in .dockerignore"
        return SourceError(f"can't read {_shown(path)!r} of {self.name}: {error.strerror}", hint=hint)


def _is_plain(mode: int) -> bool:
    """Unlike a socket, at whose other end someone of this machine may listen, or a fifo, or a device."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "."
