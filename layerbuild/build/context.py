"""The build context: a folder, less what its ignore file leaves out.

Owners are 0:0 whoever owns the files, as in every builder; modes, times and extended attributes are the folder's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from layerbuild.build.tree import Node, file_digest
from layerbuild.errors import SourceError
from layerbuild.layer.entry import Entry, Kind, entry_of, kind_of
from layerbuild.layer.paths import clean, join, resolve, split
from layerbuild.recipe.ignore import IgnoreRules


def ignore_rules(context: Path, recipe: Path | None) -> IgnoreRules:
    """The rules for ``context``: ``<recipe>.dockerignore`` beside the recipe, else ``.dockerignore`` in the context."""
    candidates = [context / ".dockerignore"]
    if recipe is not None:
        candidates.insert(0, recipe.with_name(recipe.name + ".dockerignore"))
    for path in candidates:
        try:
            text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return IgnoreRules.parse(text, file=path.name)
    return IgnoreRules.parse("", file=".dockerignore")


class ContextTree:
    """A context folder as a Tree."""

    def __init__(self, folder: Path, rules: IgnoreRules) -> None:
        self._folder = os.fsencode(folder)
        self._rules = rules
        self._digests: dict[bytes, str] = {}

    def get(self, path: bytes, *, follow: bool = True) -> Node | None:
        resolved = self.resolve(path) if follow else join(self.resolve(split(path)[0]), split(path)[1])
        return self._look(resolved)

    def resolve(self, path: bytes) -> bytes:
        return resolve(clean(path), self._readlink)

    def children(self, path: bytes) -> Iterator[Node]:
        try:
            names = sorted(os.listdir(self._at(path)))
        except OSError as error:
            raise _unreadable(path, error) from error
        for name in names:
            node = self._look(join(path, name))
            if node is not None:
                yield node

    def open(self, node: Node) -> BinaryIO:
        # The path was resolved inside the context; a link that took its place since then is not followed.
        try:
            descriptor = os.open(self._at(node.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(node.path, error) from error
        return os.fdopen(descriptor, "rb")

    def digest(self, node: Node) -> str:
        known = self._digests.get(node.path)
        if known is None:
            with self.open(node) as file:
                known = file_digest(file)
            self._digests[node.path] = known
        return known

    def why_missing(self, path: bytes) -> str:
        rule = self._rules.verdict(path).rule
        if rule is not None and os.path.lexists(self._at(path)):
            return f"{rule} leaves it out"
        return "it is not in the context"

    def _at(self, path: bytes) -> bytes:
        return join(self._folder, path) if path else self._folder

    def _readlink(self, path: bytes) -> bytes | None:
        try:
            return os.readlink(self._at(path))
        except OSError:  # no link, or nothing there
            return None

    def _look(self, path: bytes) -> Node | None:
        try:
            found = os.lstat(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        if path and not self._is_visible(path, found):
            return None
        if kind_of(found.st_mode) is None:  # a socket is copied as an empty file
            return Node(path, Entry(path, Kind.FILE, found.st_mode & 0o7777, mtime=int(found.st_mtime)))
        entry = entry_of(path, found, source=self._at(path), owner=(0, 0))
        several = entry.kind is Kind.FILE and found.st_nlink > 1
        return Node(path, replace(entry, path=path), (found.st_dev, found.st_ino) if several else None)

    def _is_visible(self, path: bytes, found: os.stat_result) -> bool:
        if not self._rules.verdict(path).ignored:
            return True
        # A folder that is left out comes back with anything below it that a `!` rule brings back.
        if kind_of(found.st_mode) is not Kind.DIRECTORY or self._rules.prunes(path):
            return False
        return next(self.children(path), None) is not None


def _unreadable(path: bytes, error: OSError) -> SourceError:
    hint = "make it readable for you, or name it in .dockerignore"
    return SourceError(f"can't read {_text(path)!r} of the context: {error.strerror}", hint=hint)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
