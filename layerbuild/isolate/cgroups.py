"""Control groups: what a command and all that it starts may use together. Version 2, and version 1 where it is mounted.

::

    places()     where this process may make groups, by controller: read from /proc, nothing is made
    Groups       makes one group per job in these places, says what it ran into, and removes it

Version 2 has one tree, whose folders hold all controllers that the folder above passes on (cgroup.subtree_control), and
a group with processes passes nothing on (cgroups(7), "no internal processes"). Version 1 has a tree per controller.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from layerbuild.errors import MachineError
from layerbuild.frozen import frozen
from layerbuild.isolate import linux
from layerbuild.isolate.limits import Limits

CONTROLLERS: Final = ("memory", "cpu", "pids")
_PREFIX: Final = "layerbuild-"
_PERIOD: Final = 100_000  # microseconds, the kernel's default
_BUSY_FOR: Final = 1.0  # seconds that the kernel may take to forget the processes of a group

_BOOTED: Final = Path("/run/systemd/system")  # there where systemd is the machine's first process: sd_booted(3)


def remedy(booted: Path = _BOOTED) -> str:
    """What helps a user who may make no groups."""
    if not booted.is_dir():
        return "run layerbuild as root"
    lend = "systemd-run --user --scope -p Delegate=yes layerbuild build …"
    return f"run layerbuild as root, or let systemd lend you a group of your own: {lend}"


@frozen
class Place:
    """A folder in which groups can be made, and the version of its tree."""

    folder: Path
    version: int


def places(mountinfo: str, own: str) -> dict[str, tuple[Place, ...]]:
    """By controller, the folders in which a process may make groups: its own group, then its tree's root.

    ``mountinfo`` and ``own`` are the texts of /proc/self/mountinfo and /proc/self/cgroup (proc_pid_mountinfo(5),
    cgroups(7)). The controllers of version 2 are those that its root folder names.
    """
    groups = dict(_own_groups(own))
    found: dict[str, tuple[Place, ...]] = {}
    for root, point, kind, options in _mounts(mountinfo):
        if kind == "cgroup2":
            both = _below(point, root, groups.get("", "/"), version=2)
            for name in _words(point / "cgroup.controllers"):
                found.setdefault(name, both)
        elif kind == "cgroup":
            for name in options.split(","):
                found[name] = _below(point, root, groups.get(name, "/"), version=1)
    return found


def _own_groups(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            yield name, path


def _mounts(text: str) -> Iterator[tuple[str, Path, str, str]]:
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        root, point = (
            re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word) for word in fields.split()[3:5]
        )
        kind, _, options = rest.split(" ", 2)
        yield root, Path(point), kind, options


def _below(point: Path, root: str, group: str, *, version: int) -> tuple[Place, ...]:
    """The folder of ``group`` in the mount at ``point``, which shows the tree from ``root`` on; and its root."""
    inside = os.path.relpath(group, root)
    folders = [point / inside] if not inside.startswith("..") else []
    return tuple(Place(folder, version) for folder in dict.fromkeys((*folders, point)))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


# -- what a limit is in files ------------------------------------------------------------------------------------------


def settings(limits: Limits) -> dict[tuple[str, int], tuple[tuple[str, str], ...]]:
    """By controller and version: the files to write, in this order, and their content."""
    found: dict[tuple[str, int], tuple[tuple[str, str], ...]] = {}
    if limits.memory:
        total = limits.memory_swap or 2 * limits.memory  # as docker has it
        found["memory", 1] = (
            ("memory.limit_in_bytes", str(limits.memory)),
            ("memory.memsw.limit_in_bytes", str(total)),
        )
        swap = "max" if total < 0 else str(total - limits.memory)
        found["memory", 2] = (("memory.max", str(limits.memory)), ("memory.swap.max", swap))
    if limits.cpus:
        quota = str(round(limits.cpus * _PERIOD))
        found["cpu", 1] = (("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", quota))
        found["cpu", 2] = (("cpu.max", f"{quota} {_PERIOD}"),)
    if limits.pids:
        found["pids", 1] = found["pids", 2] = (("pids.max", str(limits.pids)),)
    return found


# Not every kernel counts swap; then there is the limit of memory alone.
_OPTIONAL: Final = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max"})


# -- groups ------------------------------------------------------------------------------------------------------------


@frozen
class Group:
    """A group, in one folder per controller (in version 2 it is the same one)."""

    folders: Mapping[str, Path]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(folder) for folder in self.folders.values()))

    def hit(self, *, killed: bool) -> tuple[str, ...]:
        """The limits that its processes ran into; ``killed``: whether SIGKILL ended one."""
        found = []
        memory, pids = self.folders.get("memory"), self.folders.get("pids")
        if memory is not None and _memory_was_short(memory, killed=killed):
            found.append("memory")
        if pids is not None and _counts(pids / "pids.events").get("max", 0):
            found.append("pids")
        return tuple(found)

    def remove(self) -> None:
        """Remove it. Its processes have ended; but the kernel may be a moment behind."""
        for path in self.paths:
            _remove(Path(path))


def _memory_was_short(folder: Path, *, killed: bool) -> bool:
    if _counts(folder / "memory.events").get("oom_kill", 0) or _counts(folder / "memory.oom_control").get(
        "oom_kill", 0
    ):
        return True
    # Version 1 counts a kill where the killed process was, which may be a group further down.
    return killed and "0" not in (_words(folder / "memory.failcnt") or ["0"])


def _counts(path: Path) -> dict[str, int]:
    words = _words(path)
    return {name: int(count) for name, count in zip(words[::2], words[1::2], strict=False)}


def _remove(folder: Path) -> None:
    for below in [path for path in folder.glob("*/") if path.is_dir()]:
        _remove(below)
    end = time.monotonic() + _BUSY_FOR
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.002)


class Groups:
    """Makes groups with the ``limits`` of one build. MachineError, with the remedy, where this process may not."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        known = places(*(linux.proc_text(f"/proc/self/{name}") for name in ("mountinfo", "cgroup")))
        wanted = dict.fromkeys(controller for controller, _ in settings(limits))
        self._places = {name: _usable(name, known.get(name, ()), tuple(wanted)) for name in wanted}
        remove_stale()
        with self.group(job_name()):  # a trial: what does not work is told before anything runs
            pass

    @contextmanager
    def group(self, name: str) -> Iterator[Group]:
        """A new group, for as long as the context lasts. From any thread."""
        group = Group({controller: place.folder / name for controller, place in self._places.items()})
        try:
            for path in group.paths:
                Path(path).mkdir()
            for (controller, version), files in settings(self._limits).items():
                if self._places[controller].version == version:
                    _write(controller, group.folders[controller], files)
            yield group
        finally:
            group.remove()


def settable() -> dict[str, int]:
    """The controllers that this process can set, and the version of each. Nothing is made."""
    known = places(*(linux.proc_text(f"/proc/self/{name}") for name in ("mountinfo", "cgroup")))
    return {
        name: place.version
        for name in CONTROLLERS
        for place in known.get(name, ())[::-1]
        if os.access(place.folder / "cgroup.procs", os.W_OK)
    }


def enter(paths: tuple[str, ...]) -> None:
    """Move this process to the group that has the folders ``paths``."""
    for path in paths:
        Path(path, "cgroup.procs").write_text("0")


def _write(controller: str, folder: Path, files: tuple[tuple[str, str], ...]) -> None:
    for name, content in files:
        try:
            (folder / name).write_text(content)
        except OSError as error:
            if name in _OPTIONAL and not (folder / name).exists():
                continue
            raise MachineError(
                f"the {controller} limit was refused: {folder / name} does not take {content}: {error.strerror}",
                hint="doctor tells which limits can be set here",
            ) from error


def _usable(controller: str, known: tuple[Place, ...], together: tuple[str, ...]) -> Place:
    """The first of ``known`` in which a group with ``controller`` can be made; those ``together`` share a group."""
    if not known:
        raise MachineError(
            f"there is no control group for {controller}: the kernel has none, or none is mounted in /sys/fs/cgroup",
            hint="in a container, start it with a writable /sys/fs/cgroup; or build without the limit",
        )
    reasons = []
    for place in known:
        try:
            if place.version == 2:
                _pass_on(place.folder, together)
            trial = place.folder / job_name()
            trial.mkdir()
            trial.rmdir()
            return place
        except OSError as error:
            reasons.append(f"{place.folder}: {error.strerror}")
    raise MachineError(f"no control group for {controller} can be made ({'; '.join(reasons)})", hint=remedy())


def _pass_on(folder: Path, controllers: tuple[str, ...]) -> None:
    """Have the groups made in ``folder`` get ``controllers``. OSError if that can't be."""
    missing = set(controllers) - set(_words(folder / "cgroup.subtree_control"))
    if not missing:
        return
    wanted = " ".join(f"+{name}" for name in sorted(missing))
    try:
        (folder / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        # Processes are in the group. If it is this one and its helper alone, as in a scope of systemd, they make room.
        if error.errno != errno.EBUSY or not _only_ours(folder):
            raise
        leaf = folder / f"{_PREFIX}{os.getpid()}"
        leaf.mkdir(exist_ok=True)
        for process in _words(folder / "cgroup.procs"):
            (leaf / "cgroup.procs").write_text(process)
        (folder / "cgroup.subtree_control").write_text(wanted)


def _only_ours(folder: Path) -> bool:
    """Whether every process in ``folder`` is this one or a child of it."""
    ours = {str(os.getpid()), *_words(Path(f"/proc/self/task/{os.getpid()}/children"))}
    return set(_words(folder / "cgroup.procs")) <= ours


_numbers: Final = itertools.count()


def job_name() -> str:
    """A name for a job, and its groups, that no other has; and that tells later whether its build still runs."""
    return f"{_PREFIX}{os.getpid()}-{next(_numbers)}"


def remove_stale() -> None:
    """Remove the groups that builds which were killed have left, wherever this process may make some."""
    for folder in _folders():
        for path in folder.glob(f"{_PREFIX}[0-9]*"):
            process = path.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path("/proc", process).exists():
                with suppress(OSError):  # another user's
                    _remove(path)


def remove_groups_of(job: str) -> None:
    """Remove what an OCI runtime, killed before it could, has left of the groups of the job called ``job``."""
    for folder in _folders():
        with suppress(OSError):
            _remove(folder / job)


def _folders() -> set[Path]:
    known = places(*(linux.proc_text(f"/proc/self/{name}") for name in ("mountinfo", "cgroup")))
    return {place.folder for found in known.values() for place in found}
