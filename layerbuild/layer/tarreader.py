"""Tar archives as they are read, in all dialects that occur.

These are v7, ustar, GNU (long names, base-256 numbers, old sparse files) and PAX (extended and global headers, sparse
0.0, 0.1 and 1.0). Every header's checksum is verified. What breaks the format, or ends too early, is a FormatError that
names the offset. Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; the GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files"; Linux star's SCHILY.xattr keywords.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from zlib import adler32

from layerbuild.errors import FormatError
from layerbuild.layer.entry import Entry, Kind, Xattrs, is_kept
from layerbuild.layer.paths import clean
from layerbuild.layer.tar import BLOCK, SPACES, XATTR

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_READ_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_SPECIAL = 1 << 20  # bytes of one long name or PAX header; Go's reader has the same bound
_SEGMENTS = 1 << 20  # pieces of one sparse file
_MAX_TIME = 1 << 55
_PIECE = 1 << 20
_HALF = BLOCK // 2

_Segments = list[tuple[int, int]]


@dataclass(slots=True)
class _Notes:
    """What special headers said about the member that follows them."""

    name: bytes | None = None
    target: bytes | None = None
    pax: dict[bytes, bytes] = field(default_factory=dict)
    sparse: _Segments = field(default_factory=list)  # sparse 0.0 repeats its keywords, so a dict can't hold them


class TarReader:
    """The members of a tar stream, in order.

    Iterating gives an Entry for each; its content is read with ``content`` or ``pieces`` before the next is asked for,
    and is skipped otherwise. Paths, and hard links' targets, come out clean: relative to the root, which ``..`` can't
    leave. Whiteouts are plain files here: what ``.wh.`` means depends on whether the archive is a layer. ``name`` is
    said in errors. Memory is bounded by a special header's size.
    """

    def __init__(self, source: BinaryIO, *, name: str = "tar archive") -> None:
        self._source = source
        self._name = name
        self._buffer = b""
        self._at = 0  # position in the buffer
        self._base = 0  # offset of the buffer in the archive
        self._global: dict[bytes, bytes] = {}
        self._known: dict[bytes, int] = {}
        self._left = 0  # stored bytes of the current member that are still to come
        self._pad = 0
        self._size = 0  # real size of the current member
        self._segments: _Segments | None = None

    def __iter__(self) -> Iterator[Entry]:
        notes = _Notes()
        while True:
            self._skip(self._left + self._pad)
            self._left = self._pad = 0
            block = self._take(BLOCK, "header") if self._fill(1) else b""
            if not block or not any(block):
                return
            fields = _HEADER.unpack(block)
            self._verify(block, fields[6])
            flag = fields[7]
            if flag in b"xXgLKV":
                self._special(flag, self._number(fields[4], "size"), notes)
                continue
            yield self._member(block, fields, notes)
            notes = _Notes()

    @property
    def offset(self) -> int:
        """Where the current member's stored bytes begin in the archive, while none of them has been read."""
        return self._base + self._at

    def content(self) -> bytes:
        """What is left of the current member, in one piece: for members known to be small."""
        if self._segments is None:
            left, self._left = self._left, 0
            return self._take(left, "content") if left else b""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """What is left of the current member, in pieces of at most 1 MiB; holes of sparse files come as zeros."""
        if self._segments is None:
            yield from self._stored(self._left)
            return
        done = 0
        for start, length in self._segments:
            yield from _zeros(start - done)
            yield from self._stored(length)
            done = start + length
        yield from _zeros(self._size - done)
        self._segments = []
        self._size = 0

    def drain(self) -> None:
        """Read what follows the end mark, for a source whose digest counts every byte."""
        while self._fill(1):
            self._at = len(self._buffer)

    # Bytes of the source.

    def _fill(self, size: int) -> bool:
        """Have ``size`` bytes in the buffer, or as many as there are; False if there are fewer."""
        if len(self._buffer) - self._at >= size:
            return True
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        self._base += self._at
        while have < size:
            data = self._source.read(max(_PIECE, size - have))
            if not data:
                break
            parts.append(data)
            have += len(data)
        self._buffer, self._at = b"".join(parts), 0
        return have >= size

    def _take(self, size: int, what: str) -> bytes:
        if len(self._buffer) - self._at < size and not self._fill(size):
            end = self._base + len(self._buffer)
            raise FormatError(f"{self._name} ends at byte {end}, in the middle of a {what}", hint="it was cut short")
        start = self._at
        self._at += size
        return self._buffer[start : self._at]

    def _skip(self, size: int) -> None:
        while size > 0:
            size -= len(self._take(min(size, _PIECE), "content"))

    def _stored(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if size > self._left:
                raise self._broken("a sparse file's map is longer than its data")
            piece = self._take(min(size, _PIECE), "content")
            self._left -= len(piece)
            size -= len(piece)
            yield piece

    def _broken(self, what: str) -> FormatError:
        return FormatError(f"{self._name}, byte {self._base + self._at}: {what}", hint="it is damaged, or no tar")

    # Headers.

    def _verify(self, block: bytes, stored: bytes) -> None:
        if not checksum_holds(block, stored):
            self._at -= BLOCK
            raise self._broken("no valid header (its checksum is wrong)")

    def _special(self, flag: bytes, size: int, notes: _Notes) -> None:
        if size > _SPECIAL:
            raise self._broken(f"a special header of {size} bytes")
        data = self._take(size + -size % BLOCK, "special header")[:size]
        if flag == b"L":
            notes.name = data.partition(b"\0")[0]
        elif flag == b"K":
            notes.target = data.partition(b"\0")[0]
        elif flag == b"g":
            self._global.update(self._pax(data, _Notes()))
        elif flag in b"xX":
            notes.pax.update(self._pax(data, notes))
        # V, a volume's label, says nothing about a file.

    def _pax(self, data: bytes, notes: _Notes) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        at = 0
        while at < len(data):
            digits, blank, _ = data[at : at + 20].partition(b" ")
            end = at + int(digits) if digits.isdigit() and blank else 0
            key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
            if not at < end <= len(data) or not equals or data[end - 1] != 10 or b"\0" in key:
                raise self._broken("a malformed PAX record")
            at = end
            found[key] = value
            if key == b"GNU.sparse.offset":
                notes.sparse.append((self._decimal(value), 0))
            elif key == b"GNU.sparse.numbytes" and notes.sparse:
                notes.sparse[-1] = (notes.sparse[-1][0], self._decimal(value))
        return found

    def _member(self, block: bytes, fields: tuple[bytes, ...], notes: _Notes) -> Entry:
        flag = fields[7]
        pax = {**self._global, **notes.pax} if self._global else notes.pax
        name = pax.get(b"path") or notes.name or _ustar_name(fields)
        kind = _READ_KINDS.get(flag)
        if kind is None:
            raise self._broken(f"{name!r} has the unknown type {flag!r}")
        if kind is Kind.FILE and flag in b"\x000" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # how v7 archives mark one
        target = pax.get(b"linkpath") or notes.target or fields[8].partition(b"\0")[0]
        if b"\0" in name or b"\0" in target:
            raise self._broken("a name with a NUL in it")
        size = self._number(fields[4], "size") if b"size" not in pax else self._decimal(pax[b"size"])
        self._open(size if kind is Kind.FILE else 0)
        if kind is Kind.FILE:
            if flag == b"S":
                self._old_sparse(block)
            elif pax:
                name = self._pax_sparse(pax, notes) or name
        seconds, fraction = self._time(fields[5], pax)
        device = kind is Kind.CHARACTER or kind is Kind.BLOCK
        return Entry(
            clean(name),
            kind,
            self._number(fields[1], "mode") & 0o7777,
            self._number(fields[2], "uid") if b"uid" not in pax else self._decimal(pax[b"uid"]),
            self._number(fields[3], "gid") if b"gid" not in pax else self._decimal(pax[b"gid"]),
            self._size,
            seconds,
            fraction,
            target if kind is Kind.SYMLINK else clean(target) if kind is Kind.HARDLINK else b"",
            (self._number(fields[12], "device"), self._number(fields[13], "device")) if device else (0, 0),
            _pax_xattrs(pax) if pax else (),
        )

    def _open(self, size: int) -> None:
        self._size = self._left = size
        self._pad = -size % BLOCK
        self._segments = None

    def _number(self, text: bytes, what: str) -> int:
        """A header's number: octal digits, or base-256 where the first bit is set (GNU)."""
        known = self._known.get(text)  # modes, owners and times repeat: this saves a tenth of the reading
        if known is not None:
            return known
        if text[0] & 0x80:
            number = int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
            if text[0] & 0x40:
                number -= 1 << (8 * len(text) - 1)
        else:
            digits = text.partition(b"\0")[0].strip(b" ")
            if digits and digits.strip(b"01234567"):
                raise self._broken(f"{digits!r} is no octal {what}")
            number = int(digits or b"0", 8)
        if what != "time" and not 0 <= number < 1 << 63:
            raise self._broken(f"impossible {what} {number}")
        if number >= 0 and len(self._known) < 1024:
            self._known[text] = number
        return number

    def _decimal(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 19 or int(text) >= 1 << 63:
            raise self._broken(f"{text!r} is no number")
        return int(text)

    def _time(self, stored: bytes, pax: dict[bytes, bytes]) -> tuple[int, int]:
        """Seconds and nanoseconds; the fraction counts upwards also before 1970."""
        text = pax.get(b"mtime")
        if text is None:
            seconds, fraction = self._number(stored, "time"), 0
        else:
            whole, _, digits = text.partition(b".")
            if not whole.lstrip(b"-").isdigit() or digits.strip(b"0123456789"):
                raise self._broken(f"{text!r} is no time")
            seconds, fraction = int(whole), int(digits[:9].ljust(9, b"0"))
            if text.startswith(b"-") and fraction:
                seconds, fraction = seconds - 1, 1_000_000_000 - fraction
        if abs(seconds) > _MAX_TIME:
            raise self._broken(f"impossible time {seconds}")
        return seconds, fraction

    # Sparse files: only the data are stored, and a map tells where they belong.

    def _sparse(self, segments: _Segments, size: int) -> None:
        done = 0
        for start, length in segments:
            if start < done or start + length > size:
                raise self._broken("a sparse file's map is out of order")
            done = start + length
        self._segments, self._size = segments, size

    def _old_sparse(self, block: bytes) -> None:
        """GNU's own format: four pieces in the header, 21 in each block that follows."""
        size = self._number(block[483:495], "size")
        segments = self._map(block[386:482], 4)
        more = block[482]
        while more:
            extension = self._take(BLOCK, "sparse map")
            segments += self._map(extension, 21)
            more = extension[504]
            if len(segments) > _SEGMENTS:
                raise self._broken("a sparse file of too many pieces")
        self._sparse(segments, size)

    def _map(self, block: bytes, count: int) -> _Segments:
        pairs = (block[at : at + 24] for at in range(0, count * 24, 24))
        return [(self._number(pair[:12], "offset"), self._number(pair[12:], "size")) for pair in pairs if pair[0]]

    def _pax_sparse(self, pax: dict[bytes, bytes], notes: _Notes) -> bytes | None:
        """Take the map of a PAX sparse file, if it is one; its true name, where the format has one."""
        real = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size")
        if real is None:
            return None
        size = self._decimal(real)
        if pax.get(b"GNU.sparse.major") == b"1":
            self._sparse(self._stored_map(), size)
        elif b"GNU.sparse.map" in pax:
            numbers = [self._decimal(text) for text in pax[b"GNU.sparse.map"].split(b",") if text]
            self._sparse(list(zip(numbers[::2], numbers[1::2], strict=False)), size)
        else:
            self._sparse(notes.sparse, size)
        return pax.get(b"GNU.sparse.name")

    def _stored_map(self) -> _Segments:
        """Format 1.0: decimal lines in the blocks before the data: their count, then offset and length in turn."""
        text = b""
        while True:
            lines = text.split(b"\n")
            count = self._decimal(lines[0]) if len(lines) > 1 else -1
            if count > _SEGMENTS:
                raise self._broken("a sparse file of too many pieces")
            if count >= 0 and len(lines) > 2 * count + 1:
                numbers = [self._decimal(line) for line in lines[1 : 2 * count + 1]]
                return list(zip(numbers[::2], numbers[1::2], strict=True))
            if self._left < BLOCK:
                raise self._broken("a sparse file without a map")
            self._left -= BLOCK
            text += self._take(BLOCK, "sparse map")


def checksum_holds(block: bytes, stored: bytes) -> bool:
    """Whether a header's checksum is right, taken over unsigned or (as some old writers did) signed bytes."""
    digits = stored.partition(b"\0")[0].strip(b" ")
    if not digits or digits.strip(b"01234567"):
        return False
    expected = int(digits, 8)
    total = _sum(block[:_HALF]) + _sum(block[_HALF:]) - sum(stored) + SPACES
    if total == expected:
        return True
    return total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]) == expected


def _sum(block: bytes) -> int:
    """The sum of at most 256 bytes: an Adler-32 has it in its lower half (RFC 1950, section 9), at a tenth of the time
    that ``sum`` takes. 256 bytes stay below its modulus, 65521."""
    return (adler32(block) & 0xFFFF) - 1


def is_tar(start: bytes) -> bool:
    """Whether a stream that begins with these 512 bytes is a tar with something in it."""
    return len(start) >= BLOCK and any(start[:BLOCK]) and checksum_holds(start[:BLOCK], start[148:156])


def _ustar_name(fields: tuple[bytes, ...]) -> bytes:
    name = fields[0].partition(b"\0")[0]
    # In GNU's dialect ("ustar  ") the prefix field holds other things.
    prefix = fields[14].partition(b"\0")[0] if fields[9] == b"ustar\x0000" else b""
    return prefix + b"/" + name if prefix else name


def _pax_xattrs(pax: dict[bytes, bytes]) -> Xattrs:
    found = ((key[len(XATTR) :], value) for key, value in pax.items() if key.startswith(XATTR))
    return tuple(sorted((name, value) for name, value in found if is_kept(name)))


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        piece = min(size, _PIECE)
        yield bytes(piece)
        size -= piece
