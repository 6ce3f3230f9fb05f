"""Tar archives as they are written, in one dialect; ``tarreader`` reads all that occur.

POSIX ustar headers, preceded by a PAX header only where a value does not fit (long or non-ASCII names, large numbers,
extended attributes). Names have no leading ``./``, folders end in ``/``, modification times are whole seconds, names of
users and groups are empty, and the archive ends with two zero blocks and no padding: the form that Docker's and
containerd's writers give, so that the same tree can have the same diff ID. A change to these bytes changes
``TAR_FORMAT_VERSION``, which is part of what a cache goes by. Sources: POSIX.1-2017 pax, "ustar Interchange Format" and
"pax Extended Header"; Linux star's SCHILY.xattr keywords.
"""

from __future__ import annotations

from functools import lru_cache

from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.whiteout import tar_name

TAR_FORMAT_VERSION = 1

BLOCK = 512
END = bytes(2 * BLOCK)
XATTR = b"SCHILY.xattr."  # before an attribute's name, in a PAX header

_FLAGS = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
    Kind.WHITEOUT: b"0",
}
_MAX_8 = 0o7777777  # seven octal digits and a NUL
_MAX_12 = 0o77777777777  # eleven: 8 GiB - 1
SPACES = 8 * 32  # the checksum is taken with its own field full of spaces
_MAGIC = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\x000000000\x00"
_TAIL = bytes(167)
_COMMON = sum(_MAGIC) + sum(_NO_DEVICE) + SPACES


def padding(size: int) -> bytes:
    """The zeros between ``size`` bytes of content and the next header."""
    return bytes(-size % BLOCK)


def header(entry: Entry) -> bytes:
    """The header blocks of ``entry``; the content and its ``padding`` come after them."""
    if entry.kind is Kind.WHITEOUT:
        # As containerd writes them: no owner, mode or time of their own.
        entry = Entry(tar_name(entry.path), Kind.WHITEOUT)
    name = entry.path + b"/" if entry.kind is Kind.DIRECTORY else entry.path
    if _is_plain(entry, name):
        return _plain(name, entry)
    records = _records(entry, name)
    if not records:
        return _ustar(name, entry, entry.uid, entry.gid, entry.size, entry.mtime)
    base = _ascii(entry.path.rpartition(b"/")[2])[:80]
    body = b"".join(_record(key, value) for key, value in sorted(records.items()))
    wrapper = Entry(b"PaxHeaders.0/" + base, Kind.FILE, 0o644, size=len(body))
    return b"".join(
        (
            _ustar(wrapper.path, wrapper, 0, 0, len(body), 0, flag=b"x"),
            body,
            padding(len(body)),
            # Old readers that skip the PAX header see as much as fits.
            _ustar(
                _ascii(name)[:100],
                entry,
                entry.uid if entry.uid <= _MAX_8 else 0,
                entry.gid if entry.gid <= _MAX_8 else 0,
                entry.size if entry.size <= _MAX_12 else 0,
                entry.mtime if 0 <= entry.mtime <= _MAX_12 else 0,
            ),
        )
    )


def _is_plain(entry: Entry, name: bytes) -> bool:
    """Whether ``entry`` is a file or folder, as nearly all are, about which a ustar header can say everything."""
    return (
        (entry.kind is Kind.FILE or entry.kind is Kind.DIRECTORY)
        and not entry.xattrs
        and len(name) <= 100
        and name.isascii()
        and entry.size <= _MAX_12
        and 0 <= entry.mtime <= _MAX_12
        and entry.uid <= _MAX_8
        and entry.gid <= _MAX_8
    )


def _plain(name: bytes, entry: Entry) -> bytes:
    """As ``_ustar``, in a third of the time: most files of a layer differ in name and size alone."""
    owner, time, total, tail = _common(entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime)
    size = b"%011o" % entry.size
    total += sum(name) + sum(size)
    return b"%b%b%b%b%06o\0 %b" % (name.ljust(100, b"\0"), owner, size, time, total, tail)


@lru_cache(1024)
def _common(kind: Kind, mode: int, uid: int, gid: int, mtime: int) -> tuple[bytes, bytes, int, bytes]:
    owner, time = b"%07o\0%07o\0%07o\0" % (mode, uid, gid), b"\0%011o\0" % mtime
    flag = _FLAGS[kind]
    tail = b"".join((flag, bytes(100), _MAGIC, _NO_DEVICE, _TAIL))
    return owner, time, sum(owner) + sum(time) + flag[0] + _COMMON, tail


def _records(entry: Entry, name: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(entry.target) > 100 or not entry.target.isascii():
        records[b"linkpath"] = entry.target
    if entry.uid > _MAX_8:
        records[b"uid"] = b"%d" % entry.uid
    if entry.gid > _MAX_8:
        records[b"gid"] = b"%d" % entry.gid
    if entry.size > _MAX_12:
        records[b"size"] = b"%d" % entry.size
    if not 0 <= entry.mtime <= _MAX_12:
        records[b"mtime"] = b"%d" % entry.mtime
    for attribute, value in entry.xattrs:
        records[XATTR + attribute] = value
    return records


def _record(key: bytes, value: bytes) -> bytes:
    """``<length> <key>=<value>\\n``, where the length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ascii(text: bytes) -> bytes:
    return text if text.isascii() else text.decode("ascii", "replace").encode("ascii", "replace")


def _ustar(name: bytes, entry: Entry, uid: int, gid: int, size: int, mtime: int, flag: bytes = b"") -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (entry.mode, uid, gid, size, mtime)
    kind = flag or _FLAGS[entry.kind]
    target = entry.target
    if target and (len(target) > 100 or not target.isascii()):
        target = _ascii(target)[:100]
    total = sum(name) + sum(numbers) + kind[0] + sum(target) + _COMMON
    device = _NO_DEVICE
    if entry.device != (0, 0):
        device = b"%07o\0%07o\0" % entry.device
        total += sum(device) - sum(_NO_DEVICE)
    return b"".join(
        (
            name.ljust(100, b"\0"),
            numbers,
            b"%06o\0 " % total,
            kind,
            target.ljust(100, b"\0"),
            _MAGIC,
            device,
            _TAIL,
        )
    )
