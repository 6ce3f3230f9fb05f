"""The files of an image archive by name, whether they lie in a folder or in a tar.

::

    source ─ a folder ─────────────────────▶ FolderMembers
           ├ a plain tar file ─────────────▶ TarMembers, read in place
           └ compressed, or from a pipe ───▶ unpacked to a temporary file first ─▶ TarMembers

A tar's members are never written under their own names: the name is a key in a table, its value the place of the bytes.
So a name like ``../../etc/passwd`` or a link to it leads to another key, or nowhere.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from layerbuild.errors import FormatError, NotFoundError
from layerbuild.image.manifest import SIZE_LIMIT
from layerbuild.layer.codecs import NONE, decompress
from layerbuild.layer.entry import Kind
from layerbuild.layer.paths import clean, resolve
from layerbuild.layer.tarreader import TarReader

# An image archive has some thousand blobs at most; a root file system may have a million files, and needs no table.
_MOST_MEMBERS = 20_000
_PIECE = 1 << 20


class Members(Protocol):
    """Files by name."""

    @property
    def origin(self) -> str:
        """What they are the members of, for errors."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Its bytes, from the first; FormatError where there is none."""
        ...

    def size(self, name: str) -> int:
        """The number of its bytes; FormatError where there is none."""
        ...


def read_small(members: Members, name: str) -> bytes:
    """A JSON document among ``members``; FormatError if it is larger than such a document can be."""
    size = members.size(name)
    if size > SIZE_LIMIT:
        raise FormatError(f"{name} in {members.origin} has {size} bytes; {SIZE_LIMIT} is the limit for a JSON document")
    with members.open(name) as file:
        return file.read()


class FolderMembers:
    """Files below a folder. Links are followed: some tools fill a layout with links to a cache of theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def origin(self) -> str:
        return str(self._folder)

    def has(self, name: str) -> bool:
        return os.path.isfile(self._path(name))

    def open(self, name: str) -> BinaryIO:
        if not self.has(name):  # a fifo would be waited for, and a device read, without end
            raise _absent(name, self.origin)
        try:
            return self._path(name).open("rb")
        except OSError as error:
            raise FormatError(f"{name} in {self.origin} can't be read: {error.strerror}") from error

    def size(self, name: str) -> int:
        if not self.has(name):
            raise _absent(name, self.origin)
        return self._path(name).stat().st_size

    def _path(self, name: str) -> Path:
        return self._folder / os.fsdecode(clean(os.fsencode(name)))


class TarMembers:
    """Members of an uncompressed tar file. Links among them are followed inside the archive only.

    Of more members than an image archive can have, only the first are known.
    """

    def __init__(self, file: BinaryIO, *, origin: str) -> None:
        self._file = file
        self._origin = origin
        self._places: dict[bytes, tuple[int, int]] = {}
        self._links: dict[bytes, bytes] = {}
        self._scan()

    @property
    def origin(self) -> str:
        return self._origin

    def has(self, name: str) -> bool:
        return self._resolved(name) in self._places

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Section(self._file.fileno(), *self._place(name)), _PIECE))

    def size(self, name: str) -> int:
        return self._place(name)[1]

    def _scan(self) -> None:
        self._file.seek(0)
        reader = TarReader(self._file, name=self._origin)
        for entry in islice(reader, _MOST_MEMBERS):
            if entry.kind is Kind.FILE:
                self._places[entry.path] = (reader.offset, entry.size)
            elif entry.kind is Kind.SYMLINK:
                self._links[entry.path] = entry.target
            elif entry.kind is Kind.HARDLINK:
                self._links[entry.path] = b"/" + entry.target

    def _resolved(self, name: str) -> bytes:
        return resolve(os.fsencode(name), self._links.get)

    def _place(self, name: str) -> tuple[int, int]:
        try:
            return self._places[self._resolved(name)]
        except KeyError:
            raise _absent(name, self._origin) from None


class _Section(io.RawIOBase):
    """``size`` bytes of a file from ``start`` on, read without moving the file's own position."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._at = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, min(len(buffer), self._end - self._at), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextmanager
def plain_tar(source: Path | BinaryIO, *, temporary: Callable[[], Path]) -> Iterator[BinaryIO]:
    """An uncompressed tar that can be read anywhere: the file itself, or a temporary one with what ``source`` holds."""
    with existing(source) if isinstance(source, Path) else nullcontext(source) as stream:
        codec, inner = decompress(stream)
        if codec is NONE and isinstance(source, Path) and source.is_file():
            stream.seek(0)
            yield stream
            return
        path = temporary()
        try:
            with path.open("xb+") as file:
                shutil.copyfileobj(inner, file, _PIECE)
                file.seek(0)
                yield file
        finally:
            path.unlink(missing_ok=True)


def member_names(tar: BinaryIO, *, origin: str) -> frozenset[str]:
    """The names in a tar stream, as far as an image archive could have them."""
    reader = TarReader(tar, name=origin)
    return frozenset(os.fsdecode(entry.path) for entry in islice(reader, _MOST_MEMBERS))


@contextmanager
def existing(path: Path) -> Iterator[BinaryIO]:
    """A file to read; NotFoundError where there is none."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no file {path}") from error
    with file:
        yield file


def _absent(name: str, origin: str) -> FormatError:
    return FormatError(f"{origin} has no file {name}", hint="it is incomplete, or no image archive")
