"""Tests that act as a build: in a child process, with namespaces and a sandbox of its own, as root and as a user."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from places import fresh

from layerbuild.isolate import probe  # noqa: F401 -- the child, as another user, may have no way to the code
from layerbuild.isolate.job import Exit, Job, Process, Rootfs
from layerbuild.isolate.namespaces import Identity, enter_build_namespaces
from layerbuild.isolate.sandbox import Sandbox
from layerbuild.isolate.standard import name_files
from layerbuild.layer.tree import remove_tree

BUSYBOX = Path("/bin/busybox")
NOBODY = 12345  # needs no account
_PR_SET_DUMPABLE = 4
_APPLETS = (
    *("sh", "true", "cat", "ls", "id", "ps", "echo", "sleep", "hostname", "stat", "chmod", "kill", "touch", "rm"),
    *("grep", "mkdir", "tty", "stty", "env", "wc", "ip", "head"),
)


@dataclass
class World:
    """A folder to work in, an image of busybox alone, and a sandbox."""

    base: Path
    identity: Identity
    sandbox: Sandbox
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def image(self) -> Path:
        return self.base / "image"

    def rootfs(self, *lowers: Path) -> Rootfs:
        folder = self.base / f"step{next(self.numbers)}"
        for name in ("upper", "work", "merged"):
            (folder / name).mkdir(parents=True)
        return Rootfs(
            tuple(str(lower) for lower in lowers or (self.image,)),
            str(folder / "upper"),
            str(folder / "work"),
            str(folder / "merged"),
        )

    def job(self, *argv: str, rootfs: Rootfs | None = None, env: dict[str, str] | None = None, **more: Any) -> Job:
        settings = {key: more.pop(key) for key in ("cwd", "uid", "gid", "groups", "hostname") if key in more}
        process = Process(argv, tuple({"PATH": "/bin", **(env or {})}.items()), **settings)
        more.setdefault("mounts", name_files("layerbuild", network="host"))
        return Job(rootfs or self.rootfs(), process, **more)

    def run(self, job: Job) -> tuple[Exit, str]:
        chunks: list[bytes] = []
        ended = self.sandbox.run(job, chunks.append)
        return ended, b"".join(chunks).decode()

    def sh(self, script: str, **more: Any) -> str:
        """What ``script`` writes; it must end well."""
        ended, output = self.run(self.job("sh", "-c", script, **more))
        assert ended.code == 0, output
        return output


def make_image(folder: Path) -> None:
    (folder / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    for name in _APPLETS:
        (folder / "bin" / name).symlink_to("busybox")


def require(condition: bool, reason: str) -> None:
    """Skip with ``reason``."""
    if not condition:
        pytest.skip(reason)


def fork_build(base: Path, user: int, scenario: Callable[[World], None]) -> tuple[int, int]:
    """Start ``scenario`` as ``user`` in a child: its pid, and a pipe with the text of what went wrong."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        if os.geteuid() != user:
            os.setgroups(())
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root
        os.umask(0o022)
        make_image(base / "image")
        identity = enter_build_namespaces()
        with Sandbox.start(identity) as sandbox:
            scenario(World(base, identity, sandbox))
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-60000:])
    os._exit(0)


def new_base(user: int) -> Path:
    """A folder that ``user`` can reach and write."""
    base = fresh("world")
    os.chown(base, user, user if os.geteuid() == 0 else -1)
    base.chmod(0o755)
    return base


def user_for(who: str) -> int:
    require(BUSYBOX.exists(), "busybox (package busybox-static) is not installed")
    require(who == "user" or os.geteuid() == 0, "needs root")
    return 0 if who == "root" else os.geteuid() or NOBODY


def run_build(who: str, scenario: Callable[[World], None]) -> None:
    user = user_for(who)
    base = new_base(user)
    try:
        pid, reader = fork_build(base, user, scenario)
        with os.fdopen(reader, "rb") as file:
            trouble = file.read().decode()
        os.waitpid(pid, 0)
        assert not trouble, trouble
    finally:
        remove_tree(base)


def in_build(*who: str) -> Callable[[Callable[[World], None]], Callable[[str], None]]:
    """Make a function of a World a test, for each of ``who`` (both where none is named)."""

    def decorate(scenario: Callable[[World], None]) -> Callable[[str], None]:
        @pytest.mark.machine
        @pytest.mark.parametrize("who", who or ("root", "user"))
        def test(who: str) -> None:
            run_build(who, scenario)

        test.__name__ = scenario.__name__
        test.__doc__ = scenario.__doc__
        return test

    return decorate
