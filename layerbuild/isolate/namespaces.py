"""The build's own namespaces: where the process moves before it mounts anything.

As root a mount namespace will do. As an ordinary user a user namespace comes first, in which the one mapped id is 0
(user_namespaces(7)); inside it the process may mount, and outside it is the user that it was.
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from layerbuild.errors import MachineError
from layerbuild.isolate import linux

_ALL_IDS = ("0", "0", "4294967295")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the build is, after ``enter_build_namespaces``.

    ``rootless``: in a user namespace, so that devices can't be made and a device file can't be opened from a file
    system mounted here. ``user_xattr``: overlay keeps its marks as ``user.overlay.*`` (else ``trusted.overlay.*``,
    which only real root can write). ``one_id``: 0 is the only id there is; chown to another fails. ``uid`` and ``gid``
    are those on the host.
    """

    rootless: bool
    user_xattr: bool
    one_id: bool
    uid: int
    gid: int


def enter_build_namespaces() -> Identity:
    """Move this process to a mount namespace of its own (and, unless it is root, a user namespace), and say who it is.

    What is mounted afterwards can't be seen on the host, and goes when the last process in the namespace ends. Call it
    before the first thread is started: the kernel refuses a new user namespace to a process with several threads
    (unshare(2)), and a mount namespace would be the calling thread's alone. MachineError with the remedy if refused.
    """
    if threading.active_count() > 1:
        raise RuntimeError("the build namespaces must be entered before a thread is started")
    uid, gid = os.geteuid(), os.getegid()
    if not (uid == 0 and _try_mount_namespace()):
        _enter_user_namespace(uid, gid)
    rootless = _map("uid") != [_ALL_IDS]
    return Identity(rootless, rootless, _one_id("uid") and _one_id("gid"), uid, gid)


def _try_mount_namespace() -> bool:
    """Root in a container without CAP_SYS_ADMIN may still be allowed a user namespace: False then."""
    try:
        linux.unshare(linux.CLONE_NEWNS)
        _cut_off_mounts()
    except PermissionError:
        return False
    return True


def _enter_user_namespace(uid: int, gid: int) -> None:
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        # A group could be dropped to gain what it is denied; so setgroups must be given up first (CVE-2014-8989).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        # Ubuntu's AppArmor grants the namespace, but no right in it: the first mount tells.
        _cut_off_mounts()
    except OSError as error:
        raise MachineError(
            f"a user namespace for uid {uid} was refused: {os.strerror(error.errno or errno.EPERM)}",
            hint=user_namespace_remedy(),
        ) from error


def _cut_off_mounts() -> None:
    """A new namespace's mounts are still peers or slaves of the host's (mount_namespaces(7)): make them private."""
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)


def user_namespace_remedy() -> str:
    """What to change on this machine so that an ordinary user may have a user namespace."""
    for setting, value in _SETTINGS:
        path = Path("/proc/sys", *setting.split("."))
        if path.exists() and path.read_text().strip() == value:
            wanted = "63000" if setting == "user.max_user_namespaces" else str(1 - int(value))
            return f"run as root: sysctl -w {setting}={wanted} (it is {value}); or run layerbuild as root"
    return (
        "run layerbuild as root; in a container, start it with the right to make namespaces "
        "(docker run --privileged, or --cap-add SYS_ADMIN and --security-opt seccomp=unconfined,apparmor=unconfined)"
    )


# The switches that distributions have, and the value that forbids: Debian's, the kernel's own, Ubuntu's.
_SETTINGS = (
    ("kernel.unprivileged_userns_clone", "0"),
    ("user.max_user_namespaces", "0"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
)


def _map(kind: str) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in Path(f"/proc/self/{kind}_map").read_text().splitlines()]


def _one_id(kind: str) -> bool:
    return [count for _, _, count in _map(kind)] == ["1"]
