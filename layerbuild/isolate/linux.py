"""One small function per system call that Python's ``os`` lacks. Real types in, ``OSError`` with the path out.

Numbers are those of the kernel's own headers (include/uapi/linux). System calls younger than the C library are made by
their number; from 424 on these are the same on every architecture (asm-generic/unistd.h).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
# Looked up here: each container would do it anew, since it is a fork that makes these calls first.
for _name in ("syscall", "mount", "umount2", "unshare", "pivot_root", "prctl", "capset"):
    getattr(_libc, _name)
# The same library, called with the interpreter's lock held: for clone3, whose child must own it.
_libc_locked: Final = ctypes.PyDLL(None, use_errno=True)

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_STRICTATIME: Final = 0x1000000

MNT_DETACH: Final = 0x2

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_RECURSIVE: Final = 0x8000

PR_SET_PDEATHSIG: Final = 1
PR_CAPBSET_DROP: Final = 24
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

# Older than the common numbers; most machines have those of asm-generic/unistd.h.
_SYS_KEYCTL: Final = {"x86_64": 250, "ppc64le": 271, "s390x": 280}.get(platform.machine(), 219)
_SYS_SECCOMP: Final = {"x86_64": 317, "ppc64le": 358, "s390x": 348}.get(platform.machine(), 277)
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_SYS_CLONE3: Final = 435
_SYS_CLOSE_RANGE: Final = 436
_SYS_OPENAT2: Final = 437
_SYS_MOUNT_SETATTR: Final = 442
_SYS_LANDLOCK_CREATE_RULESET: Final = 444
_SYS_LANDLOCK_RESTRICT_SELF: Final = 446

_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
_MOVE_MOUNT_T_SYMLINKS: Final = 0x10
_OPEN_TREE_CLONE: Final = 1
_CLOSE_RANGE_CLOEXEC: Final = 4


def _check(result: int, path: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path or None)
    return result


def _text(value: str) -> bytes:
    return os.fsencode(value)


# -- namespaces and processes ------------------------------------------------------------------------------------------


def unshare(flags: int) -> None:
    """Leave the shared namespaces that ``flags`` (CLONE_NEW…) name for new ones: unshare(2)."""
    _check(_libc.unshare(flags))


def setns(namespace: int, kind: int) -> None:
    """Enter the namespace of ``kind`` (CLONE_NEW…) that a descriptor holds: setns(2)."""
    _check(_libc.setns(namespace, kind))


class _CloneArgs(ctypes.Structure):
    # struct clone_args of linux/sched.h, its first version (64 bytes).
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
    ]


def fork_into(flags: int) -> int:
    """``os.fork``, whose child starts in new namespaces (CLONE_NEW…): clone3(2). 0 in the child.

    Unlike unshare(CLONE_NEWPID) it leaves the caller's later children where they would have been. Only for a process
    with a single thread, since the C library is not told of the fork; Python is, by the functions of its C interface
    that ``os.fork`` calls too.
    """
    arguments = _CloneArgs(flags=flags, exit_signal=signal.SIGCHLD)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _libc_locked.syscall(_SYS_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one argument; the other three are 0."""
    return _check(
        _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    )


def close_on_exec_from(first: int) -> None:
    """Have execve(2) close every descriptor from ``first`` on: close_range(2)."""
    _check(_libc.syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), _CLOSE_RANGE_CLOEXEC))


def close_all_but(*kept: int) -> None:
    """Close every descriptor from 3 on that is not in ``kept``."""
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def seccomp(operation: int, flags: int, arguments: int) -> int:
    """seccomp(2); ``arguments`` is an address."""
    return _check(
        _libc.syscall(_SYS_SECCOMP, ctypes.c_uint(operation), ctypes.c_uint(flags), ctypes.c_void_p(arguments))
    )


_KEYCTL_JOIN_SESSION_KEYRING: Final = 1


def join_session_keyring() -> None:
    """Leave the session keyring of whoever started this process for a new, nameless one: keyctl(2)."""
    _check(_libc.syscall(_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None))


# -- Landlock ----------------------------------------------------------------------------------------------------------

_LANDLOCK_CREATE_RULESET_VERSION: Final = 1
_LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1
_LANDLOCK_WITH_SCOPES: Final = 6  # the version that brought them, Linux 6.12


def keep_from_abstract_sockets() -> bool:
    """Deny this process, and all that it starts, abstract sockets that others made: landlock(7), "IPC scoping".

    False where the kernel has no Landlock, or one that is too old.
    """
    version = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION)
    if version < _LANDLOCK_WITH_SCOPES:
        return False
    rules = struct.pack("3Q", 0, 0, _LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)  # of files and ports it says nothing
    ruleset = _check(_libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0))
    _check(_libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


# -- what a file says of itself ----------------------------------------------------------------------------------------

_AT_EMPTY_PATH: Final = 0x1000
# struct stat: the number of the call for a descriptor, the structure's size, where st_uid is; st_gid follows it.
_STAT: Final = {"x86_64": (5, 144, 28)}.get(platform.machine(), (80, 128, 24))
_SYS_STATX: Final = {"x86_64": 332, "ppc64le": 383, "s390x": 379}.get(platform.machine(), 291)
_STATX_SIZE, _STATX_MASK, _STATX_UID = 256, 0, 20
_STATX_UID_GID: Final = 0x18
_WORD: Final = 0xFFFFFFFF


def raw_stat(fd: int, owner: tuple[int, int]) -> bytes:
    """The struct stat of an open file, as the kernel writes it, but with ``owner``: stat(2)."""
    number, size, place = _STAT
    buffer = ctypes.create_string_buffer(size)
    _check(_libc.syscall(number, fd, buffer))
    struct.pack_into("=2I", buffer, place, *owner)
    return buffer.raw


def raw_stat64(fd: int, owner: tuple[int, int]) -> bytes:
    """The struct stat64 of an open file for a 32-bit x86 program, but with ``owner``: asm/stat.h, fstatat64(2)."""
    found = os.fstat(fd)
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    return struct.pack(
        "=Q4x5IQ4xqIQ6IQ",
        found.st_dev,
        found.st_ino & _WORD,
        found.st_mode,
        found.st_nlink,
        *owner,
        found.st_rdev,
        found.st_size,
        found.st_blksize,
        found.st_blocks,
        *(part & _WORD for when in times for part in divmod(when, 10**9)),
        found.st_ino,
    )


def raw_statx(fd: int, mask: int, owner: tuple[int, int]) -> bytes:
    """The struct statx of an open file with what ``mask`` asks for, but with ``owner``: statx(2)."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    _check(_libc.syscall(_SYS_STATX, fd, b"", _AT_EMPTY_PATH, ctypes.c_uint(mask), buffer))
    (told,) = struct.unpack_from("=I", buffer, _STATX_MASK)
    struct.pack_into("=I", buffer, _STATX_MASK, told | _STATX_UID_GID)
    struct.pack_into("=2I", buffer, _STATX_UID, *owner)
    return buffer.raw


# -- capabilities ------------------------------------------------------------------------------------------------------

_CAPABILITY_VERSION_3: Final = 0x20080522


def capset(capabilities: Iterable[int]) -> None:
    """Make ``capabilities`` (their numbers) the effective and permitted set, none inheritable: capset(2)."""
    mask = sum(1 << number for number in capabilities)
    _capset(mask, mask)


def capget() -> tuple[int, int]:
    """The effective and the permitted set, as masks: capget(2)."""
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), data))
    effective, permitted, _, effective_high, permitted_high, _ = struct.unpack("6I", data.raw)
    return effective | effective_high << 32, permitted | permitted_high << 32


def set_effective(mask: int) -> None:
    """Make of the permitted set what is in ``mask`` the effective one."""
    _, permitted = capget()
    _capset(mask & permitted, permitted)


def _capset(effective: int, permitted: int) -> None:
    low, high = (effective & 0xFFFFFFFF, permitted & 0xFFFFFFFF), (effective >> 32, permitted >> 32)
    _check(_libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), struct.pack("6I", *low, 0, *high, 0)))


def set_fs_ids(uid: int, gid: int) -> None:
    """Whose rights count for files: setfsuid(2), setfsgid(2), which tell no error."""
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))


def drop_from_bounding_set(kept: frozenset[int]) -> None:
    """Take from the bounding set all that is not in ``kept``, and clear the ambient set: capabilities(7)."""
    for number in range(64):
        if number in kept:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break  # so the kernel tells that its highest capability was the one before
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


# -- mounts ------------------------------------------------------------------------------------------------------------


def mount(source: str, target: str, kind: str = "", flags: int = 0, *, data: str = "") -> None:
    """mount(2). ``kind`` is the file system type; ``data`` its options, at most a page (4096 bytes) with the NUL."""
    result = _libc.mount(
        _text(source), _text(target), _text(kind) or None, ctypes.c_ulong(flags), _text(data) if data else None
    )
    _check(result, target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(_text(target), flags), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.pivot_root(_text(new), _text(old)), new)


def set_mount_attributes(target: str | int, attributes: int, *, clear: int = 0, recursive: bool = False) -> None:
    """Add ``attributes`` (MOUNT_ATTR_…) to the mount at ``target``, a path or the mount's own descriptor, and ``clear``
    others; the rest is kept. ``recursive``: of all mounts below, too. mount_setattr(2).

    MS_REMOUNT would have to repeat the flags that a user namespace may not clear; this call only adds. Linux 5.12.
    """
    argument = struct.pack("4Q", attributes, clear, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    folder, path = (target, "") if isinstance(target, int) else (AT_FDCWD, target)
    if not path:
        flags |= _AT_EMPTY_PATH
    result = _libc.syscall(_SYS_MOUNT_SETATTR, folder, _text(path), flags, argument, ctypes.c_size_t(len(argument)))
    _check(result, path)


def fsopen(kind: str) -> int:
    """A descriptor to set up a file system of ``kind`` with: fsopen(2). Linux 5.2."""
    return _check(_libc.syscall(_SYS_FSOPEN, _text(kind), _FSOPEN_CLOEXEC))


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set option ``key``. The kernel takes at most 255 bytes of ``value`` (fs/fsopen.c): fsconfig(2)."""
    _check(_libc.syscall(_SYS_FSCONFIG, fd, _FSCONFIG_SET_STRING, _text(key), _text(value), 0), value)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set an option that has no value: fsconfig(2)."""
    _check(_libc.syscall(_SYS_FSCONFIG, fd, _FSCONFIG_SET_FLAG, _text(key), None, 0), key)


def fsconfig_create(fd: int) -> None:
    """Make the file system that was set up: fsconfig(2)."""
    _check(_libc.syscall(_SYS_FSCONFIG, fd, _FSCONFIG_CMD_CREATE, None, None, 0))


def fsmount(fd: int, attributes: int = 0) -> int:
    """A mount, as yet nowhere, of the file system made with ``fd``, with ``attributes`` (MOUNT_ATTR_…): fsmount(2)."""
    return _check(_libc.syscall(_SYS_FSMOUNT, fd, _FSMOUNT_CLOEXEC, attributes))


def own_proc() -> int:
    """A descriptor of a proc file system, mounted nowhere, that shows this process's own pid namespace: proc(5)."""
    fd = fsopen("proc")
    try:
        fsconfig_create(fd)
        return fsmount(fd, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    finally:
        os.close(fd)


def move_mount(fd: int, target: str) -> None:
    """Attach the mount ``fd`` at ``target``, links followed as by mount(2): move_mount(2)."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_SYMLINKS
    _check(_libc.syscall(_SYS_MOVE_MOUNT, fd, b"", AT_FDCWD, _text(target), flags), target)


def open_tree(source: str) -> int:
    """A copy, as yet mounted nowhere, of the mount that shows ``source`` (no link), with all below: open_tree(2)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW
    return _check(_libc.syscall(_SYS_OPEN_TREE, AT_FDCWD, _text(source), flags), source)


# -- files -------------------------------------------------------------------------------------------------------------

_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE_IN_ROOT: Final = 0x10


def open_beneath(folder: int, path: bytes, flags: int) -> int:
    """A descriptor of ``path`` in ``folder``, if no link is on the way and nothing leads out of it: openat2(2)."""
    return openat2(folder, path or b".", flags, resolve=_RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """A descriptor of what a process with the root ``root`` would find at ``path``, whoever changes links on the way
    meanwhile: openat2(2)."""
    return openat2(root, path or b".", flags, resolve=_RESOLVE_IN_ROOT)


def openat2(folder: int, path: bytes, flags: int, mode: int = 0, *, resolve: int) -> int:
    """A descriptor of ``path`` in ``folder``, if it can be come to as ``resolve`` (RESOLVE_…) wants: openat2(2)."""
    how, size = _how(flags, mode, resolve)
    while True:
        result: int = _libc.syscall(_SYS_OPENAT2, folder, path, how, size)
        if result >= 0:  # a COPY opens very many
            return result
        try:
            _check(result, os.fsdecode(path))
        except BlockingIOError:  # EAGAIN: something was renamed just then, and the kernel can't say whether it matters
            continue


@lru_cache(maxsize=64)  # some of them are asked for by a container
def _how(flags: int, mode: int, resolve: int) -> tuple[bytes, ctypes.c_size_t]:
    """struct open_how, and its size."""
    how = struct.pack("3Q", flags | os.O_CLOEXEC, mode, resolve)
    return how, ctypes.c_size_t(len(how))


# -- network -----------------------------------------------------------------------------------------------------------

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1


def loopback_up() -> None:
    """Bring ``lo`` up in this network namespace; the kernel then gives it 127.0.0.1 and ::1: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def proc_text(path: str) -> str:
    """What a file of proc(5) says. Names in it, of mounts and processes, are bytes of anybody's choice."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
