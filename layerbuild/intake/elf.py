"""The few facts of an ELF file that say what it needs to start.

Read from the program headers, never from the section headers: these may be stripped, and the kernel and the dynamic
loader do not look at them either. Source: System V ABI, chapters 4 (ELF header) and 5 (program header, dynamic
section); elf(5).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from layerbuild.errors import FormatError
from layerbuild.frozen import frozen

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29
# A real file stays far below these; a broken one must not make us read gigabytes.
_MOST_HEADERS = 4096
_MOST_DYNAMIC = 1 << 20
_MOST_STRINGS = 64 << 20


@frozen
class Elf:
    """What an executable or a shared library says about itself.

    ``interpreter`` is the dynamic loader, empty for a static program and for most libraries. ``rpath`` and ``runpath``
    are folders as written, ``$ORIGIN`` not yet replaced. ``kind`` (class, byte order, machine) must be equal for
    two files to be loaded into one process.
    """

    kind: tuple[int, int, int]
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()

    @property
    def is_64bit(self) -> bool:
        return self.kind[0] == 2


@frozen
class _Segment:
    type: int
    offset: int
    address: int
    size: int


def read_elf(path: Path) -> Elf | None:
    """The facts of ``path``; None if it is no ELF file, FormatError if it is a broken one, OSError if unreadable."""
    with path.open("rb") as file:
        head = file.read(64)
        if not head.startswith(MAGIC):
            return None
        try:
            return _read(file, head)
        except (struct.error, ValueError, OverflowError) as error:
            raise FormatError(f"{path} begins like an ELF file but is broken: {error}") from error


def _read(file: BinaryIO, head: bytes) -> Elf:
    bits, order = struct.unpack_from("BB", head, 4)
    if bits not in (1, 2) or order not in (1, 2):
        raise ValueError(f"class {bits}, byte order {order}")
    layout = _Layout(wide=bits == 2, end="<" if order == 1 else ">")
    (machine,) = struct.unpack_from(layout.end + "H", head, 18)
    segments = layout.segments(file, head)
    interpreter = next((_bytes_at(file, s.offset, min(s.size, 4096)) for s in segments if s.type == _PT_INTERP), b"")
    found = layout.dynamic(file, segments)
    strings = _strings(file, segments, found)
    return Elf(
        kind=(bits, order, machine),
        interpreter=os.fsdecode(interpreter.split(b"\0")[0]),
        needed=tuple(_text(strings, at) for at in found.get(_DT_NEEDED, ())),
        rpath=_folders(strings, found.get(_DT_RPATH, ())),
        runpath=_folders(strings, found.get(_DT_RUNPATH, ())),
    )


@frozen
class _Layout:
    """How wide the fields are, and which byte comes first."""

    wide: bool
    end: str

    def segments(self, file: BinaryIO, head: bytes) -> list[_Segment]:
        """The program headers. Their fields stand in another order in the two classes."""
        offset = self._unpack("Q" if self.wide else "I", head, 32 if self.wide else 28)[0]
        entry_size, count = self._unpack("HH", head, 54 if self.wide else 42)
        if count > _MOST_HEADERS:
            raise ValueError(f"{count} program headers")
        table = _bytes_at(file, offset, entry_size * count)
        segments = []
        for at in range(0, entry_size * count, entry_size or 1):
            if self.wide:
                kind, _, where, address, _, size = self._unpack("IIQQQQ", table, at)
            else:
                kind, where, address, _, size = self._unpack("IIIII", table, at)
            segments.append(_Segment(kind, where, address, size))
        return segments

    def dynamic(self, file: BinaryIO, segments: list[_Segment]) -> dict[int, list[int]]:
        """The dynamic section: tag to its values, in order."""
        found: dict[int, list[int]] = {}
        segment = next((segment for segment in segments if segment.type == _PT_DYNAMIC), None)
        if segment is None:
            return found
        if segment.size > _MOST_DYNAMIC:
            raise ValueError(f"a dynamic section of {segment.size} bytes")
        table = _bytes_at(file, segment.offset, segment.size)
        form = "qQ" if self.wide else "iI"
        step = struct.calcsize(self.end + form)
        for at in range(0, len(table) - step + 1, step):
            tag, value = self._unpack(form, table, at)
            if tag == _DT_NULL:
                break
            found.setdefault(tag, []).append(value)
        return found

    def _unpack(self, form: str, data: bytes, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.end + form, data, at)


def _strings(file: BinaryIO, segments: list[_Segment], found: dict[int, list[int]]) -> bytes:
    """The dynamic string table. DT_STRTAB is an address in memory; the PT_LOAD that covers it gives the file offset."""
    if _DT_STRTAB not in found:
        return b""
    address, size = found[_DT_STRTAB][0], found.get(_DT_STRSZ, [0])[0]
    if size > _MOST_STRINGS:
        raise ValueError(f"a string table of {size} bytes")
    for segment in segments:
        if segment.type == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return _bytes_at(file, segment.offset + address - segment.address, size)
    raise ValueError("no segment holds the string table")


def _bytes_at(file: BinaryIO, offset: int, size: int) -> bytes:
    if offset + size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"it ends before byte {offset + size}")
    file.seek(offset)
    return file.read(size)


def _text(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at)
    if at >= len(strings) or end < 0:
        raise ValueError("a name lies outside the string table")
    return os.fsdecode(strings[at:end])


def _folders(strings: bytes, places: list[int] | tuple[int, ...]) -> tuple[str, ...]:
    return tuple(folder for at in places for folder in _text(strings, at).split(":") if folder)
