"""Two builds of one recipe, of which the second finds another machine, as far as a process can be shown one.

Each is a process of its own, so that what is varied reaches all of it. What is written down as varied was varied; what
this machine or this user can't vary is written down, too.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.cli.place import global_options
from layerbuild.digest import BlobDigest
from layerbuild.errors import BuildError
from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from layerbuild.cli.options.sources import Request

_LARGEST = 256 << 20  # bytes of a context that is copied into memory
_DAYS = 400
_APART = 1.1  # seconds between the beginnings of the two builds, at least
_MEMORY = Path("/dev/shm")
_NEW_TIME = 0x80  # CLONE_NEWTIME, Linux 5.6


@dataclass
class Surroundings:
    """What the second build finds otherwise. ``varied`` and ``same`` say it in words."""

    context: str
    clock: int
    umask: int = 0o077
    cores: frozenset[int] = frozenset()
    hostname: str = ""
    uptime: bool = False
    env: dict[str, str] = field(default_factory=dict)
    varied: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)


@frozen
class Twice:
    """The manifests of both builds, and what was varied."""

    manifests: tuple[BlobDigest, BlobDigest]
    varied: tuple[str, ...]
    same: tuple[str, ...]


def build_twice(request: Request, arguments: list[str]) -> Twice:
    """Build the recipe of ``request`` twice without the cache. ``arguments`` are those of ``build`` but the context.

    BuildError, with what it said, if one of the builds fails.
    """
    with _elsewhere(request) as other:
        began = time.monotonic()
        first = _build([*arguments, request.context], Surroundings(request.context, int(time.time()), 0o022))
        time.sleep(max(0.0, _APART - (time.monotonic() - began)))  # a step that writes the second must not hit the same
        later = time.monotonic() - began
        second = _build([*arguments, other.context], other)
    other.varied.append(f"the wall clock that a RUN reads: {later:.1f} seconds later, as much as passed")
    return Twice((first, second), tuple(other.varied), tuple(other.same))


@contextmanager
def _elsewhere(request: Request) -> Iterator[Surroundings]:
    found = Surroundings(request.context, int(time.time()) + _DAYS * 86400)
    found.varied.append(f"the build's clock: {_DAYS} days ahead (for what it makes itself)")
    found.same.append("the date that a RUN reads: Linux has a namespace for uptime, none for the time of day")
    found.varied.append("umask: 0077")
    found.env = {"TZ": "Pacific/Kiritimati", "LANG": "C", "LC_ALL": "C", "USER": "nobody", "LOGNAME": "nobody"}
    found.varied.append("time zone, language and user name in the environment")
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        found.cores = frozenset((min(cores),))
        found.varied.append(f"cores: 1 instead of {len(cores)}")
    else:
        found.same.append("cores: this process may use one alone")
    if _may_enter_namespaces():
        found.hostname, found.uptime = "elsewhere", True
        found.varied += ["host name: elsewhere", f"uptime: {_DAYS} days more"]
    else:
        found.same.append("host name and uptime: only root may change its view of them")
    with _copied(request, found):
        yield found


def _may_enter_namespaces() -> bool:
    child = os.fork()
    if child == 0:
        try:
            _enter(Surroundings("", 0, hostname="elsewhere", uptime=True))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextmanager
def _copied(request: Request, found: Surroundings) -> Iterator[None]:
    """Show the second build a copy of the context whose folders list their names the other way round: a tmpfs lists
    them by age."""
    folder = Path(request.context)
    reason = _why_not(folder)
    if reason:
        found.same.append(f"order of the context's folders: {reason}")
        yield
        return
    place = Path(tempfile.mkdtemp(prefix="layerbuild-", dir=_MEMORY))
    try:
        place.chmod(0o755)
        found.context = str(place / "context")
        _copy(folder, Path(found.context))
        found.varied.append("order and place of the context's folders: a copy, made last name first, in memory")
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _why_not(folder: Path) -> str:
    if not folder.is_dir():
        return "it is no folder"
    if not os.access(_MEMORY, os.W_OK):
        return f"{_MEMORY} can't be written"
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
        if total > min(_LARGEST, shutil.disk_usage(_MEMORY).free // 2):
            return "it is too large for a copy in memory"
    return ""


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for item in sorted(os.scandir(source), key=lambda item: item.name, reverse=True):
        mode = item.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            _copy(Path(item.path), target / item.name)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            shutil.copy2(item.path, target / item.name, follow_symlinks=False)
    shutil.copystat(source, target)


def _build(arguments: list[str], found: Surroundings) -> BlobDigest:
    """One build, in a process of its own; the manifest of its image."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "metadata.json"
        command = [sys.executable, "-m", "layerbuild", *global_options(), "build", "--no-cache", "--secrets", "off"]
        command += ["--rehearse", str(found.clock), "--metadata-file", str(told), *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, **found.env},
            preexec_fn=lambda: _enter(found),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").rstrip()
            raise BuildError(f"a build failed (exit code {done.returncode}):\n{said}")
        data: dict[str, Any] = json.loads(told.read_text())
        return BlobDigest.parse(data["containerimage.digest"])


def _enter(found: Surroundings) -> None:
    """Make this process, and what it starts, find the surroundings."""
    from layerbuild.isolate import linux

    os.umask(found.umask)
    if found.cores:
        os.sched_setaffinity(0, found.cores)
    if found.hostname:
        linux.unshare(linux.CLONE_NEWUTS)
        Path("/proc/sys/kernel/hostname").write_text(found.hostname)
    if found.uptime:
        with suppress(FileNotFoundError):  # a kernel without time namespaces
            linux.unshare(_NEW_TIME)
            # time_namespaces(7): for children from now on, and settable as long as there are none.
            Path("/proc/self/timens_offsets").write_text(f"boottime {_DAYS * 86400} 0\n")
