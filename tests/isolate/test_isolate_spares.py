"""The process that stands ready for the next job: it becomes that job's command, and knows nothing of any other."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from typing import Any

import pytest
from isolate_world import World, fork_build, in_build, new_base, user_for

from layerbuild.errors import MachineError
from layerbuild.isolate import linux
from layerbuild.isolate.job import Job, Kind
from layerbuild.isolate.limits import NO_LIMITS, Limits
from layerbuild.isolate.mounts import Bind
from layerbuild.isolate.sandbox import Sandbox
from layerbuild.isolate.spares import Spares
from layerbuild.layer.tree import remove_tree

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


def sh(world: World, script: str, **more: Any) -> str:
    """As ``world.sh``, with another job to come."""
    return world.sh(script, followed=True, **more)


def wait_for(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def ready(*, other_than: int = 0) -> int:
    """The process that waits for the next job."""
    found: list[int] = []

    def one() -> bool:
        found[:] = commands()
        return len(found) == 1 and found[0] != other_than

    assert wait_for(one), "none is ready"
    return found[0]


def look(world: World, seen: Callable[[], None], **more: Any) -> None:
    """Run a command, and ``seen`` while it runs."""
    job: Job = world.job("sh", "-c", "echo ready; sleep 0.2", **{"followed": True, **more})
    told: list[bytes] = []

    def on_output(data: bytes) -> None:
        told.append(data)
        seen()

    assert world.sandbox.run(job, on_output).code == 0
    assert told == [b"ready\n"]


@in_build()
def test_what_stands_ready_becomes_the_next_command(world: World) -> None:
    sh(world, "true")
    spare = ready()
    running: list[list[int]] = []
    look(world, lambda: running.append(commands()))
    assert running == [[spare]]
    ready(other_than=spare)


@in_build()
def test_one_is_made_ready_before_the_first_job_and_none_where_no_other_follows(world: World) -> None:
    spare = ready()
    running: list[list[int]] = []
    look(world, lambda: running.append(commands()), followed=False)
    assert running == [[spare]]
    world.sh("true")  # by then the helper is done with what came before
    assert commands() == []


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
    usual = sh(world, script)
    for hostname in ("one", "two"):
        output = sh(world, f"{script}; echo x >/dev/shm/x; echo x >/dev/y", env={"SECRET": "1"}, hostname=hostname)
        assert hostname in output.splitlines()
    assert world.sh(script) == usual


def held(pid: int) -> list[str]:
    """What the descriptors of a process lead to, without the numbers of sockets."""
    found = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name))
    return [os.readlink(path).split(":")[0] for path in found]


@in_build()
def test_it_holds_nothing_of_the_build_or_of_a_job(world: World) -> None:
    spare = ready()
    look(world, lambda: None, network="none")  # of another kind, so it is not the spare that becomes its command
    other = ready(other_than=spare)
    own = ["/dev/null"] * 3 + ["socket", "/"]  # its orders, and the top of what it has mounted
    assert wait_for(lambda: held(other) == own), held(other)
    for kind in ("mnt", "cgroup"):
        assert namespace(other, kind) == namespace("self", kind)


@in_build()
def test_what_stands_ready_is_not_seen_and_serves_its_own_kind_only(world: World) -> None:
    sh(world, "true")
    spare = ready()
    running: list[list[int]] = []
    look(world, lambda: running.append(commands()), network="none")
    assert spare in running[0] and len(running[0]) == 2
    other = ready(other_than=spare)
    assert namespace(other, "net") != namespace("self", "net"), "now one without a network stands ready"
    assert not Path(f"/proc/{spare}").exists()
    assert sh(world, "echo /proc/[1-9]*") == "/proc/1\n", "beside one of the other kind"
    sh(world, "true", network="none")
    assert "LOOPBACK,UP" in sh(world, "ip -o link", network="none")


@in_build()
def test_a_job_has_what_the_build_has_mounted_meanwhile(world: World) -> None:
    sh(world, "true")
    ready()
    late = world.base / "late"
    late.mkdir()
    linux.mount("tmpfs", str(late), "tmpfs")
    (late / "file").write_text("content")
    assert world.sh("cat /late/file", mounts=(Bind(str(late), "/late"),)) == "content"


@in_build()
def test_one_that_was_killed_costs_no_job(world: World) -> None:
    sh(world, "true")
    spare = ready()
    os.kill(spare, signal.SIGKILL)
    # A zombie: what dies has no folders any more some time before its descriptors are closed.
    assert wait_for(lambda: Path(f"/proc/{spare}/stat").read_text().rpartition(") ")[2].startswith("Z"))
    assert world.sh("echo well") == "well\n"


@in_build()
def test_one_that_is_killed_with_a_job_in_hand_is_a_command_that_was_killed(world: World) -> None:
    sh(world, "true")
    spare = ready()
    os.kill(spare, signal.SIGSTOP)
    Timer(0.3, os.kill, (spare, signal.SIGKILL)).start()
    ended, _ = world.run(world.job("true"))
    assert (ended.code, ended.signal) == (137, 9)
    assert world.sh("echo well") == "well\n"


@in_build()
def test_one_that_can_not_take_its_job_says_why_and_is_no_command_that_ended_well(world: World) -> None:
    connection, _ = socket.socketpair()
    with TemporaryFile() as plain:
        plain.write(b"no job")
        plain.flush()
        kind = Kind(world.identity, "host", "sandbox", NO_LIMITS.shm_size)
        pid, report = Spares().start(kind, connection, plain.fileno(), (0, 1, 2), has_init=False)
    assert json.loads(report.recv(1 << 16))["message"].startswith("take a job: ")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127


@in_build()
def test_none_is_left_after_the_build(world: World) -> None:
    sh(world, "true")
    spare = ready()
    world.sandbox.close()
    assert not Path(f"/proc/{spare}").exists()


@pytest.mark.machine
@pytest.mark.parametrize("who", ["root", "user"])
def test_it_ends_with_a_build_that_is_killed(who: str) -> None:
    user = user_for(who)
    base = new_base(user)

    def scenario(world: World) -> None:
        (world.base / "spare").write_text(str(ready()))
        time.sleep(60)

    pid, reader = fork_build(base, user, scenario)
    try:
        note = base / "spare"
        assert wait_for(lambda: note.exists() and note.read_text())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert wait_for(lambda: not Path("/proc", note.read_text()).exists())
    finally:
        os.close(reader)
        remove_tree(base)


@in_build()
def test_why_it_could_not_be_made_ready_is_told_by_the_job(world: World) -> None:
    world.sandbox.close()
    with Sandbox.start(world.identity, Limits(shm_size=-1)) as sandbox:
        for _ in range(2):
            with pytest.raises(MachineError) as caught:
                sandbox.run(world.job("true", followed=True), lambda _: None)
            assert caught.value.message.endswith("size=-1 tmpfs /dev/shm: Invalid argument: /dev/shm")
