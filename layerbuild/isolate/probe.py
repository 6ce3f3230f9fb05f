"""What this machine can do, found out by doing it. Nothing stays behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from layerbuild.errors import LayerbuildError, MachineError
from layerbuild.frozen import frozen
from layerbuild.isolate import cgroups, ids, linux, seccomp
from layerbuild.isolate.mounts import MAX_LOWERS, Overlay
from layerbuild.isolate.namespaces import Identity, enter_build_namespaces
from layerbuild.layer.tree import remove_tree

_OLDEST: Final = (5, 12)  # mount_setattr; overlay in a user namespace came with 5.11
_STORES: Final = "ext4, xfs (with ftype=1), btrfs or tmpfs"


@frozen
class Finding:
    """What was looked at, whether it will do, what was seen, and, if it will not do, what helps.

    Without what is not ``needed`` a build works all the same, if for fewer images.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def examine(store: Path) -> tuple[Finding, ...]:
    """All findings for a store at ``store``, which need not exist yet."""
    return (
        kernel(),
        user_namespaces(),
        file_system(store),
        lowers_one_by_one(),
        subordinate_ids(),
        control_groups(),
        system_call_filter(),
    )


# -- one by one --------------------------------------------------------------------------------------------------------


def kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    wanted = ".".join(map(str, _OLDEST))
    return Finding("kernel", numbers >= _OLDEST, f"Linux {release}", f"Linux {wanted} or later is needed")


def user_namespaces() -> Finding:
    """Whether namespaces can be made: as root a mount namespace, else a user namespace."""
    return _apart("namespaces", _try_namespaces)


def overlay(store: Path) -> Finding:
    """Whether an overlay can be mounted in ``store``, written to, and marked with whiteouts and opaque folders."""
    return _apart("overlay", lambda: _try_overlay(store))


def file_system(store: Path) -> Finding:
    """What ``store`` lies on. Whether that will do is for ``overlay`` to find out."""
    return Finding("file system", True, f"{store} is on {file_system_of(store)}")


def lowers_one_by_one() -> Finding:
    """Whether overlay takes its lowers with one call each, so that a mount has no limit of a page (Linux 6.8)."""
    return _apart("lowerdir+", _try_lowers, needed=False)


def subordinate_ids() -> Finding:
    """Whether an ordinary user has more ids than its own, and can map them."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return Finding("ids", True, "all (root)", needed=False)
    wanted = ids.ranges(uid, gid)
    if wanted.lack:
        return Finding("ids", False, f"one: {wanted.lack}", wanted.remedy, needed=False)
    return _apart("ids", _try_ranges, needed=False)


def control_groups() -> Finding:
    """Which limits this user can set."""
    found = cgroups.settable()
    detail = ", ".join(f"{name} (version {version})" for name, version in sorted(found.items())) or "none can be set"
    missing = {"memory": "--memory", "cpu": "--cpus", "pids": "--pids-limit"}
    options = " ".join(option for name, option in missing.items() if name not in found)
    return Finding("limits", not options, detail, f"for {options}: {cgroups.remedy()}", needed=False)


def system_call_filter() -> Finding:
    remedy = "install the package libseccomp2 (libseccomp); until then RUN may make every system call"
    library = seccomp.version()
    return Finding(
        "seccomp", bool(library), f"libseccomp {library}" if library else "no libseccomp", remedy, needed=False
    )


# -- for a build -------------------------------------------------------------------------------------------------------


def rung(name: str, trial: Callable[[Identity], str]) -> Finding:
    """``trial``, of something that a build can do without, in namespaces like a build's, which end with it."""
    return _apart(name, lambda: trial(enter_build_namespaces()), needed=False)


@contextlib.contextmanager
def scratch(store: Path) -> Iterator[Path]:
    """A folder for a trial where the store is or will be; MachineError if none can be made."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".probe-", dir=_nearest(store)))
    except OSError as error:
        raise MachineError(
            f"{store} can't be written: {error.strerror} (on {file_system_of(store)})",
            hint=f"choose a place of your own, on {_STORES}, with --root",
        ) from error
    try:
        yield folder
    finally:
        remove_tree(folder)


def try_overlay(store: Path, *, user_xattr: bool) -> str:
    """As ``overlay``, for a process that is in the build's namespaces: what was found; MachineError if it won't do."""
    with scratch(store) as folder:
        try:
            return _try_overlay_in(folder, user_xattr=user_xattr)
        finally:
            _unmount(folder / "merged")


# -- trials ------------------------------------------------------------------------------------------------------------


def _apart(name: str, trial: Callable[[], str], *, needed: bool = True) -> Finding:
    """``trial`` in a child process, whose namespaces and mounts end with it: its text, or the error it raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):  # whatever it is: this process must not go on as a second caller
            os.write(writer, json.dumps(asdict(replace(_outcome(name, trial), needed=needed))).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return Finding(**json.loads(answer)) if answer else Finding(name, False, "the trial died", needed=needed)


def _outcome(name: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, trial())
    except LayerbuildError as error:
        return Finding(name, False, error.message, error.hint)
    except OSError as error:
        return Finding(name, False, str(error))


def _try_namespaces() -> str:
    identity = enter_build_namespaces()
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
    if not identity.rootless:
        return "root"
    return f"user namespace for uid {identity.uid}" + (" (one id)" if identity.one_id else "")


def _try_ranges() -> str:
    lack = enter_build_namespaces().lack
    if lack:
        raise MachineError(
            f"one: {lack}", hint="as root: apt-get install --reinstall uidmap (its programs are set-user-ID)"
        )
    counts = {kind: sum(mapping.count for mapping in ids.current(kind)) for kind in ids.KINDS}
    return ", ".join(f"{count} {kind}s" for kind, count in counts.items())


def _try_lowers() -> str:
    enter_build_namespaces()
    try:
        fd = linux.fsopen("overlay")
        linux.fsconfig_string(fd, "lowerdir+", "/")
    except OSError as error:
        raise MachineError(
            f"the kernel takes all lower folders in one page of options ({error.strerror})",
            hint=f"Linux 6.8 or later; until then about 130 layers fit in instead of {MAX_LOWERS}",
        ) from error
    return f"up to {MAX_LOWERS} lower folders"


def _try_overlay(store: Path) -> str:
    return try_overlay(store, user_xattr=enter_build_namespaces().user_xattr)


def _try_overlay_in(folder: Path, *, user_xattr: bool) -> str:
    for name in ("lower/folder", "upper", "work", "merged"):
        (folder / name).mkdir(parents=True)
    (folder / "lower/file").touch()
    (folder / "lower/folder/file").touch()
    lower, upper, work, merged = (str(folder / name) for name in ("lower", "upper", "work", "merged"))
    trial = Overlay((lower,), upper, work, merged, user_xattr=user_xattr, volatile=True)
    try:
        trial.attach()
        (folder / "merged/file").unlink()
        shutil.rmtree(folder / "merged/folder")
        (folder / "merged/folder").mkdir()
    except OSError as error:
        raise why_no_overlay(folder, error) from error
    _check_marks(folder, "user.overlay.opaque" if user_xattr else "trusted.overlay.opaque")
    return f"works on {file_system_of(folder)}"


def _check_marks(folder: Path, opaque: str) -> None:
    whiteout = (folder / "upper/file").lstat()
    if not stat.S_ISCHR(whiteout.st_mode) or whiteout.st_rdev:
        raise _no_upper(folder, "a deleted file left no whiteout")
    try:
        os.getxattr(folder / "upper/folder", opaque)
    except OSError as error:
        raise _no_upper(folder, f"it does not keep the extended attribute {opaque}") from error


def why_no_overlay(folder: Path, error: OSError) -> MachineError:
    """What ``error`` means, which came from an overlay mount with its upper in ``folder``, and what helps."""
    if error.errno == errno.ENODEV:
        return MachineError("this kernel has no overlay file system", hint="as root: modprobe overlay")
    if error.errno == errno.EPERM:
        return MachineError(
            f"the kernel refuses an overlay mount in a user namespace: {error.strerror}",
            hint="Linux 5.11 or later is needed for that; or run layerbuild as root",
        )
    return _no_upper(folder, error.strerror or str(error))


def _no_upper(folder: Path, why: str) -> MachineError:
    kind = file_system_of(folder)
    return MachineError(
        f"{folder.parent} is on {kind}, which can't hold overlay's upper folder: {why}",
        hint=f"choose a place on {_STORES} with --root",
    )


def _unmount(target: Path) -> None:
    """Unmount ``target`` if something is mounted there."""
    with contextlib.suppress(OSError):
        linux.umount(str(target))


# -- facts -------------------------------------------------------------------------------------------------------------


def _nearest(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def file_system_of(path: Path) -> str:
    """The type of the file system that ``path`` is, or would be, on: proc_pid_mountinfo(5)."""
    place = str(_nearest(path.absolute()).resolve())
    best, kind = "", "an unknown file system"
    for line in linux.proc_text("/proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split()[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount at the same place covers the earlier
            best, kind = point, rest.split()[0]
    return kind
