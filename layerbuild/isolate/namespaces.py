"""The build's own namespaces: where the process moves before it mounts anything.

As root a mount namespace will do. As an ordinary user a user namespace comes first (user_namespaces(7)); inside it the
process is root and may mount, and outside it is the user that it was. Root has given the user ranges of ids, or not:

::

    with ranges    0 is the user, 1 … are those of /etc/subuid and /etc/subgid; all that an image needs are there
    one id         0 is the user, and there is no other
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from layerbuild.errors import MachineError
from layerbuild.frozen import frozen
from layerbuild.isolate import ids, linux

_ALL_IDS = (ids.Mapping(0, 0, 4294967295),)


@frozen
class Identity:
    """Who the build is, after ``enter_build_namespaces``.

    ``rootless``: in a user namespace, so that devices can't be made and a device file can't be opened from a file
    system mounted here. ``user_xattr``: overlay keeps its marks as ``user.overlay.*`` (else ``trusted.overlay.*``,
    which only real root can write). ``one_id``: 0 is the only id there is; the kernel refuses a chown to another.
    ``uid`` and ``gid`` are those on the host. ``lack`` says why there is one id only, unless that was asked for.
    """

    rootless: bool
    user_xattr: bool
    one_id: bool
    uid: int
    gid: int
    lack: str = ""

    @property
    def name(self) -> str:
        """In a few words, for people."""
        if not self.rootless:
            return "root"
        return "a user namespace with one id" if self.one_id else "a user namespace with ranges of ids"


def enter_build_namespaces(*, one_id: bool = False) -> Identity:
    """Move this process to a mount namespace of its own (and, unless it is root, a user namespace), and say who it is.

    ``one_id`` leaves ranges of ids alone, where there are some. What is mounted afterwards can't be seen on the host,
    and goes when the last process in the namespace ends. Call it before the first thread is started: the kernel refuses
    a new user namespace to a process with several threads (unshare(2)), and a mount namespace would be the calling
    thread's alone. MachineError with the remedy if refused.
    """
    if threading.active_count() > 1:
        raise RuntimeError("the build namespaces must be entered before a thread is started")
    uid, gid = os.geteuid(), os.getegid()
    lack = ""
    if not (uid == 0 and _try_mount_namespace()):
        lack = _enter_user_namespace(uid, gid, one_id=one_id)
    rootless = ids.current("uid") != _ALL_IDS
    return Identity(rootless, rootless, _one_id("uid") and _one_id("gid"), uid, gid, lack)


def id_maps() -> str:
    """The maps of this process's user namespace as one text: what a number on the disk means to it."""
    return "".join(f"{kind} {mapping}\n" for kind in ids.KINDS for mapping in ids.current(kind))


def _try_mount_namespace() -> bool:
    """Root in a container without CAP_SYS_ADMIN may still be allowed a user namespace: False then."""
    try:
        linux.unshare(linux.CLONE_NEWNS)
        _cut_off_mounts()
    except PermissionError:
        return False
    return True


def _enter_user_namespace(uid: int, gid: int, *, one_id: bool) -> str:
    """Why there is one id only; empty if there are more, or it was asked for."""
    wanted = ids.ranges(uid, gid)
    lack = "" if one_id else wanted.lack
    try:
        if one_id or lack:
            _unshare_user()
            _map_one(uid, gid)
        else:
            lack = _enter_with_ranges(wanted)
        # Ubuntu's AppArmor grants the namespace, but no right in it: the first mount tells.
        _cut_off_mounts()
    except OSError as error:
        raise MachineError(
            f"a user namespace for uid {uid} was refused: {os.strerror(error.errno or errno.EPERM)}",
            hint=user_namespace_remedy(),
        ) from error
    return lack


def _unshare_user() -> None:
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)


def _enter_with_ranges(wanted: ids.Ranges) -> str:
    """As ``_enter_user_namespace``. Who was refused the ranges gets on with one id."""
    with ids.mapper(wanted) as map_ids:
        _unshare_user()
        try:
            map_ids()
        except ids.MappingRefused as error:
            if error.uids_done:  # each map can be written once: there is no way back to one id
                raise MachineError(
                    f"the group ids were refused: {error}",
                    hint="see /etc/subgid, and that newgidmap is set-user-ID root",
                ) from error
            _map_one(wanted.uids[0].outside, wanted.gids[0].outside)
            return str(error)
    return ""


def _map_one(uid: int, gid: int) -> None:
    # A group could be dropped to gain what it is denied; so setgroups must be given up first (CVE-2014-8989).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(str(ids.Mapping(0, uid, 1)))
    Path("/proc/self/gid_map").write_text(str(ids.Mapping(0, gid, 1)))


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


def _one_id(kind: ids.Kind) -> bool:
    return [mapping.count for mapping in ids.current(kind)] == [1]
