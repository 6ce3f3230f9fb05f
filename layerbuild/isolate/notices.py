"""System calls that are told to a listener before the kernel carries them out: which, and how the talk goes.

::

    program()    a filter (BPF) that tells of some calls and lets all others pass; it may be stacked on another, of
                 which the stricter answer counts: an error beats a notice, a notice beats leave (seccomp(2))
    Listener     takes a notice, and answers it: go on, here is the result, here is an open file

A 64-bit x86 machine runs 32-bit programs too, whose calls have other numbers, and in part other names. Calls that
would do the same past the listener are absent (ENOSYS), so that programs go on with the older ones.

Sources: seccomp_unotify(2), include/uapi/linux/seccomp.h, linux/filter.h; numbers of calls: asm/unistd_64.h,
asm/unistd_32.h, and asm-generic/unistd.h for aarch64.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import stat
import struct
from contextlib import suppress
from typing import Final

from layerbuild.frozen import frozen
from layerbuild.layer import standin

_AUDIT_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7}  # linux/audit.h
_COMPANIONS: Final = {"x86_64": ("x86",)}

# The numbers on x86_64 and on aarch64; None: there is no such call.
_NUMBERS: Final[dict[str, tuple[int, int | None]]] = {
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setgroups": (116, 159),
    "getgroups": (115, 158),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "prctl": (157, 167),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "creat": (85, None),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
# Of 32-bit programs on x86_64; those whose ids have 16 bits, which no C library of this century makes, are left out.
_NUMBERS_X86: Final = {
    "chown32": 212,
    "lchown32": 198,
    "fchown32": 207,
    "fchownat": 298,
    "setuid32": 213,
    "setgid32": 214,
    "setreuid32": 203,
    "setregid32": 204,
    "setresuid32": 208,
    "setresgid32": 210,
    "setfsuid32": 215,
    "setfsgid32": 216,
    "setgroups32": 206,
    "getgroups32": 205,
    "getuid32": 199,
    "geteuid32": 201,
    "getgid32": 200,
    "getegid32": 202,
    "getresuid32": 209,
    "getresgid32": 211,
    "mknod": 14,
    "mknodat": 297,
    "mkdir": 39,
    "mkdirat": 296,
    "stat64": 195,
    "lstat64": 196,
    "fstat64": 197,
    "fstatat64": 300,
    "statx": 383,
    "prctl": 172,
    "rename": 38,
    "renameat": 302,
    "renameat2": 353,
    "link": 9,
    "linkat": 303,
    "symlink": 83,
    "symlinkat": 304,
    "creat": 8,
    "open": 5,
    "openat": 295,
    "openat2": 437,
    "setxattr": 226,
    "lsetxattr": 227,
    "fsetxattr": 228,
    "removexattr": 235,
    "lremovexattr": 236,
    "fremovexattr": 237,
}
_DEVICES: Final = ("mknod", "mknodat")
MARKS: Final = tuple(f"{kind}{verb}xattr" for verb in ("set", "remove") for kind in ("", "l", "f"))
# io_uring_setup, setxattrat, removexattrat: with the same numbers everywhere.
_ABSENT: Final = (425, 463, 466)
_X32_BIT: Final = 0x40000000  # of a number on x86_64: the call is of the x32 ABI
_FLAGS: Final = {"open": 1, "openat": 2}  # which argument has them
_MODE: Final = {"mknod": 1, "mknodat": 2}
_SIZE: Final = dict.fromkeys(("setxattr", "lsetxattr", "fsetxattr"), 3)

TMPFILE: Final = os.O_TMPFILE & ~os.O_DIRECTORY
_KEEP_CAPABILITIES: Final = 8  # PR_SET_KEEPCAPS

_ALLOW: Final = 0x7FFF0000
_NOTIFY: Final = 0x7FC00000
_ERRNO: Final = 0x00050000
_LOAD, _AND, _RETURN, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY, _SKIP = 0x20, 0x54, 0x06, 0x15, 0x35, 0x45, 0x05
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def names(architecture: str | None = None) -> dict[int, str]:
    """The calls by their numbers for programs of ``architecture`` (default: this machine's), a name of libseccomp's;
    empty for one whose numbers are not known here."""
    if architecture == "x86":
        return {number: name for name, number in _NUMBERS_X86.items()}
    column = {"x86_64": 0, "aarch64": 1}.get(architecture or platform.machine())
    if column is None:
        return {}
    return {number: name for name, pair in _NUMBERS.items() if (number := pair[column]) is not None}


def architectures(machine: str | None = None) -> tuple[str, ...]:
    """Those of the programs that ``machine`` (default: this) runs."""
    machine = machine or platform.machine()
    return (machine, *_COMPANIONS.get(machine, ()))


def program(*, one_id: bool, machine: str | None = None) -> bytes:
    """A filter that tells of the calls of ``names``; where there is more than ``one_id``, of those alone that make a
    device, or change an attribute that may be a note: `cp -p` and `install` set one of each file, which is longer."""
    code = b""
    for architecture in architectures(machine):
        told = _told(architecture, one_id=one_id)
        token = _AUDIT_ARCHITECTURES[architecture]
        code += _instruction(_LOAD, _ARCHITECTURE) + _instruction(_IF_EQUAL, token, yes=1)
        code += _instruction(_SKIP, len(told) // 8) + told
    return code + _leave()


def _told(architecture: str, *, one_id: bool) -> bytes:
    code = _absent(architecture)
    for number, name in names(architecture).items():
        if not one_id and name not in (*_DEVICES, *MARKS):
            continue
        told = _told_of(name, one_id=one_id)
        code += _instruction(_LOAD, _NUMBER) + _instruction(_IF_EQUAL, number, no=len(told) // 8) + told
    return code + _leave()


def _absent(architecture: str) -> bytes:
    absent = _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    code = _instruction(_LOAD, _NUMBER)
    if architecture == "x86_64":
        code += _instruction(_IF_ANY, _X32_BIT, no=1) + absent
    return code + b"".join(_instruction(_IF_EQUAL, number, no=1) + absent for number in _ABSENT)


def _told_of(name: str, *, one_id: bool) -> bytes:
    if name in _FLAGS:
        load = _instruction(_LOAD, _ARGUMENTS + 8 * _FLAGS[name])
        return load + _instruction(_IF_ANY, os.O_CREAT | TMPFILE, yes=1) + _leave() + _instruction(_RETURN, _NOTIFY)
    if name == "prctl":
        load = _instruction(_LOAD, _ARGUMENTS)
        return load + _instruction(_IF_EQUAL, _KEEP_CAPABILITIES, yes=1) + _leave() + _instruction(_RETURN, _NOTIFY)
    if name in _SIZE and not one_id:
        load = _instruction(_LOAD, _ARGUMENTS + 8 * _SIZE[name])
        return load + _instruction(_IF_AT_LEAST, standin.LONGEST + 1, no=1) + _leave() + _instruction(_RETURN, _NOTIFY)
    if name in _MODE and not one_id:
        load = _instruction(_LOAD, _ARGUMENTS + 8 * _MODE[name]) + _instruction(_AND, stat.S_IFMT(0o177777))
        device = _instruction(_IF_EQUAL, stat.S_IFCHR, yes=2) + _instruction(_IF_EQUAL, stat.S_IFBLK, yes=1)
        return load + device + _leave() + _instruction(_RETURN, _NOTIFY)
    return _instruction(_RETURN, _NOTIFY)


def _leave() -> bytes:
    return _instruction(_RETURN, _ALLOW)


def _instruction(code: int, operand: int, *, yes: int = 0, no: int = 0) -> bytes:
    """``yes`` and ``no``: how many instructions are skipped if a condition holds, or not."""
    return struct.pack("=HBBI", code, yes, no, operand)


# -- the talk ----------------------------------------------------------------------------------------------------------

_NOTICE: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")
_ADD: Final = struct.Struct("=QIIII")
_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_IS_VALID: Final = 0x40082102
_ADD_FILE: Final = 0x40182103
_SET_FLAGS: Final = 0x40082104
_GO_ON: Final = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_AND_SEND: Final = 2  # SECCOMP_ADDFD_FLAG_SEND
_SAME_CPU: Final = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP


@frozen
class Notice:
    """A call that waits: ``thread`` (its number in the listener's pid namespace) makes it. ``name`` is that of a 64-bit
    program's call, if a 32-bit one's does the same; empty for one that is none of ``names``."""

    id: int
    thread: int
    name: str
    arguments: tuple[int, ...]


class Listener:
    """The descriptor ``fd`` of a filter."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._names = {
            (_AUDIT_ARCHITECTURES[architecture], number): name.removesuffix("32")
            for architecture in architectures()
            for number, name in names(architecture).items()
        }
        with suppress(OSError):  # Linux 6.6: the two take turns, so that one processor serves both best
            fcntl.ioctl(fd, _SET_FLAGS, _SAME_CPU)

    def fileno(self) -> int:
        return self._fd

    def next(self) -> Notice | None:
        """Wait for the next call; None for one whose thread has meanwhile been killed."""
        data = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._fd, _RECEIVE, data, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        identity, thread, _, number, architecture, _, *arguments = _NOTICE.unpack(data)
        return Notice(identity, thread, self._names.get((architecture, number), ""), tuple(arguments))

    def is_valid(self, notice: Notice) -> bool:
        """Whether the call still waits: only then its thread's number means that thread."""
        try:
            fcntl.ioctl(self._fd, _IS_VALID, struct.pack("=Q", notice.id))
        except OSError:
            return False
        return True

    def go_on(self, notice: Notice) -> None:
        """Let the kernel carry the call out."""
        self._answer(notice, 0, 0, _GO_ON)

    def result(self, notice: Notice, value: int = 0) -> None:
        """Have the call return ``value``."""
        self._answer(notice, value, 0, 0)

    def fail(self, notice: Notice, number: int) -> None:
        """Have the call fail with the errno ``number``."""
        self._answer(notice, 0, -number, 0)

    def result_file(self, notice: Notice, file: int, *, close_on_exec: bool) -> None:
        """Have the call return a descriptor for the open file ``file``."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        with suppress(FileNotFoundError):
            fcntl.ioctl(self._fd, _ADD_FILE, _ADD.pack(notice.id, _AND_SEND, file, 0, flags))

    def _answer(self, notice: Notice, value: int, error: int, flags: int) -> None:
        with suppress(FileNotFoundError):  # killed meanwhile
            fcntl.ioctl(self._fd, _SEND, _ANSWER.pack(notice.id, value, error, flags))
