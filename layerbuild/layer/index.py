"""The index of a layer: its entries in a text file that can be searched without being read.

::

    layerbuild-index<TAB>1
    path  kind  mode  uid  gid  size  mtime  target  device  digest  flags  xattrs

One line for each entry, fields separated by a TAB, lines sorted by ``sort_key``. ``mode`` is octal, ``mtime`` is in
seconds with an optional fraction of nine digits, ``device`` is ``major:minor`` or empty, ``digest`` is hexadecimal or
empty, ``flags`` is ``opaque`` or empty, ``xattrs`` is ``name=<hex value>`` with commas between. A backslash, TAB and
newline in a path or target, and also a comma and equals sign in an xattr's name, are written ``\\xHH``. Because a
folder's content follows it directly, any subtree is one range of lines, and both its ends are found by bisection in a
memory map.

The writer takes entries in any order: it sorts runs of bounded length into temporary files and merges them at the end.
"""

from __future__ import annotations

import heapq
import itertools
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Self

from layerbuild.errors import StoreError
from layerbuild.layer.entry import Entry, Kind, Xattrs, sort_key

_HEADER = b"layerbuild-index\t1\n"
_RUN = 1 << 15  # entries held in memory at once: about 20 MB

_UNSAFE = re.compile(rb"[\\\t\n]")
_UNSAFE_NAME = re.compile(rb"[\\\t\n,=]")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_KINDS = {kind.value.encode(): kind for kind in Kind}
_NAMES = {kind: kind.value.encode() for kind in Kind}


def _escape(text: bytes, unsafe: re.Pattern[bytes] = _UNSAFE) -> bytes:
    if unsafe.search(text) is None:
        return text
    return unsafe.sub(lambda found: b"\\x%02x" % found[0][0], text)


def _unescape(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text)


def to_line(entry: Entry, digest: str = "") -> bytes:
    """The entry's line, with its newline; ``digest`` stands in for one that the entry has not got yet."""
    if not (entry.xattrs or entry.target or entry.mtime_ns or entry.opaque) and entry.device == (0, 0):
        told = _common(entry.kind, entry.mode, entry.uid, entry.gid)  # nearly all are such, and repeat this
        what = (digest or entry.digest).encode()
        return b"%b%b%d\t%d\t\t\t%b\t\t\n" % (_escape(entry.path), told, entry.size, entry.mtime, what)
    mtime = b"%d.%09d" % (entry.mtime, entry.mtime_ns) if entry.mtime_ns else b"%d" % entry.mtime
    xattrs = b""
    if entry.xattrs:
        xattrs = b",".join(_escape(name, _UNSAFE_NAME) + b"=" + value.hex().encode() for name, value in entry.xattrs)
    return b"%s\t%s\t%o\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n" % (
        _escape(entry.path),
        _NAMES[entry.kind],
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        mtime,
        _escape(entry.target),
        b"%d:%d" % entry.device if entry.device != (0, 0) else b"",
        (digest or entry.digest).encode(),
        b"opaque" if entry.opaque else b"",
        xattrs,
    )


@lru_cache(1024)
def _common(kind: Kind, mode: int, uid: int, gid: int) -> bytes:
    return b"\t%b\t%o\t%d\t%d\t" % (_NAMES[kind], mode, uid, gid)


def from_line(line: bytes) -> Entry:
    """The inverse of ``to_line``; a line that is none is a ValueError."""
    path, kind, mode, uid, gid, size, mtime, target, device, digest, flags, xattrs = line.rstrip(b"\n").split(b"\t")
    seconds, _, fraction = mtime.partition(b".")
    major, _, minor = device.partition(b":")
    return Entry(
        _unescape(path),
        _KINDS[kind],
        int(mode, 8),
        int(uid),
        int(gid),
        int(size),
        int(seconds),
        int(fraction or 0),
        _unescape(target),
        (int(major), int(minor)) if device else (0, 0),
        _xattrs(xattrs) if xattrs else (),
        digest.decode(),
        flags == b"opaque",
    )


def _xattrs(text: bytes) -> Xattrs:
    pairs = (item.partition(b"=") for item in text.split(b","))
    return tuple((_unescape(name), bytes.fromhex(value.decode())) for name, _, value in pairs)


# -- writing -----------------------------------------------------------------------------------------------------------

# A record of a run: sort key, its number in time, what it says, and the line. Records sort by key, then by time.
_Record = tuple[bytes, int, bytes, bytes]
_ADD, _REMOVE, _OPAQUE, _WHITEOUT, _NEED = b"a", b"r", b"o", b"w", b"n"


class IndexWriter:
    """Writes the index file ``path``, from entries in any order, in memory that does not grow with their number.

    What is said later wins: a second entry of a path replaces the first, ``remove`` takes a path and all below it away,
    ``opaque`` marks a folder whether its entry comes before or after. A WHITEOUT hides what lies below the layer, never
    the layer's own entry of that name: a file makes it superfluous, and a folder opaque.

    The file appears complete, by rename, in ``finish``, and is not synced: whoever records the layer does that. Until
    then, and after an exception, only temporary files exist, beside it.
    """

    def __init__(self, path: Path, *, run: int = _RUN) -> None:
        self._path = path
        self._limit = run
        self._records: list[_Record] = []
        self._runs: list[BinaryIO] = []
        self._number = 0
        #: Those paths that were needed and not there; complete after ``finish``.
        self.lacking: list[bytes] = []

    def add(self, entry: Entry, digest: str = "") -> None:
        """Record ``entry``; ``digest``, where given, is that of its content.

        Copying a dataclass to set one field would take longer than all the rest of this.
        """
        self._record(entry.path, _WHITEOUT if entry.kind is Kind.WHITEOUT else _ADD, to_line(entry, digest))

    def remove(self, path: bytes) -> None:
        """Forget what was recorded so far of ``path`` and all below it."""
        self._record(path, _REMOVE, b"\n")

    def opaque(self, path: bytes) -> None:
        """Mark the folder ``path`` opaque."""
        self._record(path, _OPAQUE, b"\n")

    def need(self, path: bytes) -> None:
        """Note that ``path`` should have been added before, and not been taken away since."""
        self._record(path, _NEED, b"\n")

    def finish(self) -> int:
        """Write the file and give the number of its entries."""
        temporary = self._path.with_name(self._path.name + ".tmp")
        count = 0
        self._records.sort()
        with temporary.open("wb", buffering=1 << 18) as file:
            file.write(_HEADER)
            for line in _settled(heapq.merge(*map(_read_run, self._runs), self._records), self.lacking):
                file.write(line)
                count += 1
        temporary.rename(self._path)
        self.close()
        return count

    def close(self) -> None:
        """Let go of the temporary files; without ``finish`` before, nothing remains."""
        for run in self._runs:
            run.close()
        self._runs.clear()
        self._records.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._path.with_name(self._path.name + ".tmp").unlink(missing_ok=True)

    def _record(self, path: bytes, kind: bytes, line: bytes) -> None:
        self._number += 1
        self._records.append((sort_key(path), self._number, kind, line))
        if len(self._records) >= self._limit:
            self._spill()

    def _spill(self) -> None:
        import tempfile

        self._records.sort()
        run = tempfile.TemporaryFile(dir=self._path.parent, prefix=".index-")  # noqa: SIM115 - lives until close()
        run.writelines(
            b"%s\t%d\t%s\t%s" % (_escape(key), number, kind, line) for key, number, kind, line in self._records
        )
        self._runs.append(run)
        self._records.clear()


def _read_run(run: BinaryIO) -> Iterator[_Record]:
    run.seek(0)
    for text in run:
        key, number, kind, line = text.split(b"\t", 3)
        yield _unescape(key), int(number), kind, line


def _settled(records: Iterable[_Record], lacking: list[bytes]) -> Iterator[bytes]:
    """The lines that hold in the end, of records sorted by key and time. What was needed and not there is put into
    ``lacking``."""
    removals: list[tuple[bytes, int]] = []  # those of the current path and the folders around it, outermost first
    for key, group in itertools.groupby(records, key=itemgetter(0)):
        while removals and not _below(key, removals[-1][0]):
            removals.pop()
        line, whiteout, opaque = b"", b"", False
        for _, number, kind, text in group:
            if kind == _REMOVE:
                removals.append((key, number))
                line, whiteout, opaque = b"", b"", False
            elif removals and any(number < removed for _, removed in removals):
                continue
            elif kind == _ADD:
                line = text
            elif kind == _WHITEOUT:
                whiteout = text
            elif kind == _NEED:
                if not line:
                    lacking.append(key.replace(b"\0", b"/"))
            else:
                opaque = True
        if line and (opaque or whiteout):
            line = _marked(line)
        if line or whiteout:
            yield line or whiteout


def _marked(line: bytes) -> bytes:
    entry = from_line(line)
    return to_line(replace(entry, opaque=True)) if entry.kind is Kind.DIRECTORY else line


def _below(key: bytes, folder: bytes) -> bool:
    return not folder or key == folder or key.startswith(folder + b"\0")


# -- reading -----------------------------------------------------------------------------------------------------------


class Index:
    """An index file, searched in place. Memory use does not depend on its size."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self._data = data
        self._start = len(_HEADER)

    @classmethod
    def open(cls, path: Path) -> Index:
        """Map the file; StoreError if it is no index, or one of another version."""
        with path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                raise StoreError(
                    f"{path} is not a layer index of version 1", hint="remove the layer and build it again"
                )
            return cls(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def lookup(self, path: bytes) -> Entry | None:
        """The entry of exactly this path. Links are not followed."""
        key = sort_key(path)
        at = self._bisect(key)
        if at < len(self._data) and self._key_at(at) == key:
            return self._entry_at(at)
        return None

    def children(self, folder: bytes) -> Iterator[Entry]:
        """The entries directly in ``folder``, in order; what lies deeper is jumped over, not read."""
        prefix = sort_key(folder) + b"\0" if folder else b""
        at = self._bisect(prefix + b"\x01") if folder else self._after_root()
        end = len(self._data)
        while at < end:
            key = self._key_at(at)
            if not key.startswith(prefix):
                return
            name, deeper, _ = key[len(prefix) :].partition(b"\0")
            if deeper:  # the first path below a folder of this one: go on after that folder
                at = self._bisect(prefix + name + b"\x01")
                continue
            yield self._entry_at(at)
            at = self._next(at)

    def subtree(self, folder: bytes) -> Iterator[Entry]:
        """The entry of ``folder``, if there is one, and all below it, in order."""
        key = sort_key(folder)
        at = self._bisect(key)
        end = len(self._data)
        while at < end and _below(self._key_at(at), key):
            yield self._entry_at(at)
            at = self._next(at)

    def __iter__(self) -> Iterator[Entry]:
        at = self._start
        while at < len(self._data):
            yield self._entry_at(at)
            at = self._next(at)

    def consists_of(self, lines: Iterable[bytes]) -> bool:
        """Whether its entries are these, as ``to_line`` tells them, in order."""
        at = self._start
        for line in lines:
            if self._data[at : at + len(line)] != line:
                return False
            at += len(line)
        return at == len(self._data)

    def close(self) -> None:
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Positions are those of line starts; the end of the file is one too.

    def _next(self, at: int) -> int:
        return self._data.find(b"\n", at) + 1

    def _key_at(self, at: int) -> bytes:
        return sort_key(_unescape(self._data[at : self._data.find(b"\t", at)]))

    def _entry_at(self, at: int) -> Entry:
        try:
            return from_line(self._data[at : self._data.find(b"\n", at)])
        except (ValueError, KeyError) as error:
            raise StoreError(
                f"{self.path} is damaged at byte {at}", hint="remove the layer and build it again"
            ) from error

    def _after_root(self) -> int:
        """The first position that is not the root's own."""
        at = self._start
        return self._next(at) if at < len(self._data) and self._data[at : at + 1] == b"\t" else at

    def _bisect(self, key: bytes) -> int:
        """The first position whose key is not less than ``key``."""
        low, high = self._start, len(self._data)
        while low < high:
            middle = self._data.rfind(b"\n", self._start - 1, (low + high) // 2 + 1) + 1
            middle = middle if low <= middle < high else low
            if self._key_at(middle) < key:
                low = self._next(middle)
            else:
                high = middle
        return low
