"""The process that stands ready for the next job: it becomes that job's command, and knows nothing of any other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from isolate_world import World, in_build

from layerbuild.errors import MachineError
from layerbuild.isolate import linux
from layerbuild.isolate.job import Job
from layerbuild.isolate.limits import Limits
from layerbuild.isolate.mounts import Bind
from layerbuild.isolate.sandbox import Sandbox

FRESH = ("mnt", "pid", "ipc", "uts", "cgroup")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def commands() -> list[int]:
    """The processes that run a command of this build, or wait to run one: each is pid 1 in a namespace of its own."""
    [helper] = children(os.getpid())
    own, found = namespace(helper, "pid"), []
    for pid in children(helper):
        with suppress(OSError):  # it has just ended
            found += [pid] if namespace(pid, "pid") != own else []
    return found


def namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def ready(*, other_than: int = 0) -> int:
    """The process that waits for the next job."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        match commands():
            case [pid] if pid != other_than:
                return pid
        time.sleep(0.01)
    raise AssertionError("none is ready")


def look(world: World, seen: Callable[[], None], **more: object) -> None:
    """Run a command, and ``seen`` while it runs."""
    job: Job = world.job("sh", "-c", "echo ready; sleep 0.2", **more)
    told: list[bytes] = []

    def on_output(data: bytes) -> None:
        told.append(data)
        seen()

    assert world.sandbox.run(job, on_output).code == 0
    assert told == [b"ready\n"]


@in_build()
def test_what_stands_ready_becomes_the_next_command(world: World) -> None:
    world.sh("true")
    spare = ready()
    running: list[list[int]] = []
    look(world, lambda: running.append(commands()))
    assert running == [[spare]]
    ready(other_than=spare)


@in_build()
def test_each_job_has_namespaces_of_its_own(world: World) -> None:
    seen: list[dict[str, str]] = []
    with ExitStack() as stack:

        def note() -> None:
            [pid] = commands()
            seen.append({kind: namespace(pid, kind) for kind in (*FRESH, "net", "user")})
            for kind in FRESH:  # while one is held, no other gets its number
                stack.callback(os.close, os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY))

        for _ in range(3):
            look(world, note)
    own = {kind: namespace("self", kind) for kind in seen[0]}
    for kind in FRESH:
        assert len({found[kind] for found in (own, *seen)}) == 4, kind
    for kind in ("net", "user"):
        assert {found[kind] for found in seen} == {own[kind]}


@in_build()
def test_nothing_of_a_job_is_left_to_the_next(world: World) -> None:
    script = "ls /proc/self/fd; env; ls /dev /dev/shm; hostname; ulimit -f; echo /proc/[1-9]*"
    usual = world.sh(script)
    for hostname in ("one", "two"):
        output = world.sh(f"{script}; echo x >/dev/shm/x; echo x >/dev/y", env={"SECRET": "1"}, hostname=hostname)
        assert hostname in output.splitlines()
    assert world.sh(script) == usual


@in_build()
def test_what_stands_ready_is_not_seen_and_serves_its_own_kind_only(world: World) -> None:
    world.sh("true")
    spare = ready()
    running: list[list[int]] = []
    look(world, lambda: running.append(commands()), network="none")
    assert spare in running[0] and len(running[0]) == 2
    other = ready(other_than=spare)
    assert namespace(other, "net") != namespace("self", "net"), "now one without a network stands ready"
    assert not Path(f"/proc/{spare}").exists()
    assert world.sh("echo /proc/[1-9]*") == "/proc/1\n", "beside one of the other kind"
    world.sh("true", network="none")
    assert "LOOPBACK,UP" in world.sh("ip -o link", network="none")


@in_build()
def test_a_job_has_what_the_build_has_mounted_meanwhile(world: World) -> None:
    world.sh("true")
    ready()
    late = world.base / "late"
    late.mkdir()
    linux.mount("tmpfs", str(late), "tmpfs")
    (late / "file").write_text("content")
    assert world.sh("cat /late/file", mounts=(Bind(str(late), "/late"),)) == "content"


@in_build()
def test_one_that_was_killed_costs_no_job(world: World) -> None:
    world.sh("true")
    os.kill(ready(), signal.SIGKILL)
    assert world.sh("echo well") == "well\n"


@in_build()
def test_none_is_left_after_the_build(world: World) -> None:
    world.sh("true")
    spare = ready()
    world.sandbox.close()
    assert not Path(f"/proc/{spare}").exists()


@in_build()
def test_why_it_could_not_be_made_ready_is_told_by_the_job(world: World) -> None:
    world.sandbox.close()
    with Sandbox.start(world.identity, Limits(shm_size=-1)) as sandbox:
        for _ in range(2):
            with pytest.raises(MachineError, match=r"mount -t tmpfs .*size=-1 tmpfs /dev/shm: Invalid argument"):
                sandbox.run(world.job("true"), lambda _: None)
            ready()
