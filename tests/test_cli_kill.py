"""Builds and containers that are killed or told to stop: nothing stays, and the next build says nothing false."""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import Layerbuild
from traces import assert_whole, mounts, processes, wait_until


def fresh_mark() -> str:
    """A number of seconds to sleep that no other process has on its command line."""
    return f"{random.randrange(10**8, 10**9)}"


@contextmanager
def building(layerbuild: Layerbuild, context: Path, recipe: str) -> Iterator[subprocess.Popen[bytes]]:
    (context / "Dockerfile").write_text(recipe)
    with layerbuild.start("build", context, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as build:
        try:
            yield build
        finally:
            build.kill()


def wait_for_output(process: subprocess.Popen[bytes], text: bytes, *, seconds: float = 60.0) -> bytes:
    """Read standard error up to ``text``."""
    assert process.stderr is not None
    seen = b""
    end = time.monotonic() + seconds
    while text not in seen:
        assert select.select([process.stderr], [], [], max(0.0, end - time.monotonic()))[0], seen
        data = os.read(process.stderr.fileno(), 65536)
        assert data, seen
        seen += data
    return seen


def assert_nothing_left(layerbuild: Layerbuild, mark: str = "") -> None:
    if mark:
        wait_until(lambda: not processes(mark), seconds=2)
    wait_until(lambda: not mounts(layerbuild.root), seconds=2)
    wait_until(lambda: not processes(str(layerbuild.root)), seconds=2)


def assert_same_as_clean(layerbuild: Layerbuild, context: Path, recipe: str) -> str:
    """Build with the cache as it stands and without it: one result, and a store without leftovers. Returns what the
    first said."""
    said = layerbuild.build(context, recipe)
    assert layerbuild("build", "-q", context) == layerbuild("build", "-q", "--no-cache", context)
    assert_whole(layerbuild.root)
    return said


LONG = "FROM busybox\nRUN echo first-ran; echo 1 > /first\nRUN {}\n"


def test_killed_during_run(layerbuild: Layerbuild, context: Path) -> None:
    mark = fresh_mark()
    recipe = LONG.format(f"echo half > /half; sleep {mark} & setsid sleep {mark} & sleep {mark}")
    with building(layerbuild, context, recipe) as build:
        wait_until(lambda: len(processes(mark)) >= 3)
        assert mounts(layerbuild.root)
        build.kill()
    assert_nothing_left(layerbuild, mark)
    said = assert_same_as_clean(layerbuild, context, LONG.format("ls /half && echo there || echo gone > /gone"))
    assert "| first-ran" not in said and said.count("cached") == 1
    assert "| there" not in said


ZEROS = (
    "FROM busybox\nRUN dd if=/dev/zero of=/zeros bs=1M count=300 2>/dev/null; echo all-is-written\nRUN echo 2 > /two\n"
)


def test_killed_during_capture(layerbuild: Layerbuild, context: Path) -> None:
    for delay in (0, 0.1, 0.25):
        with building(layerbuild, context, ZEROS) as build:
            wait_for_output(build, b"| all-is-written")
            time.sleep(delay)
            build.kill()
        assert_nothing_left(layerbuild)
    assert_same_as_clean(layerbuild, context, ZEROS)


SMALL = "FROM busybox\nCOPY Dockerfile /\nRUN echo 1 > /one; echo all-is-written\nRUN echo 2 > /two\nRUN rm /one\n"


def test_killed_about_the_commit(layerbuild: Layerbuild, context: Path) -> None:
    for delay in (0, 0.002, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05):
        (context / "Dockerfile").write_text(SMALL)
        with layerbuild.start("build", "--no-cache", context, stdout=-3, stderr=subprocess.PIPE) as build:
            wait_for_output(build, b"| all-is-written")
            time.sleep(delay)
            build.kill()
        assert_nothing_left(layerbuild)
    assert_same_as_clean(layerbuild, context, SMALL)


def test_killed_anywhere(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text(SMALL)
    began = time.monotonic()
    clean = rooted("build", "-q", context)
    whole = time.monotonic() - began
    for step in range(10):
        with rooted.start("build", "--no-cache", "-t", "x", context, stdout=-3, stderr=-3) as build:
            time.sleep(whole * (0.3 + 0.08 * step))
            build.kill()
    assert_nothing_left(rooted)
    assert rooted("build", "-q", context) == clean
    assert_same_as_clean(rooted, context, SMALL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_stopped_during_run(layerbuild: Layerbuild, context: Path, number: signal.Signals, code: int) -> None:
    mark = fresh_mark()
    with building(
        layerbuild, context, LONG.format(f"trap '' INT TERM; sleep {mark} & sleep {mark}; sleep {mark}")
    ) as build:
        wait_until(lambda: len(processes(mark)) >= 3)
        build.send_signal(number)
        assert build.wait(timeout=20) == code
        assert build.stderr is not None
        assert b"Traceback" not in build.stderr.read()
    assert_nothing_left(layerbuild, mark)
    assert_whole(layerbuild.root)  # at once: who is told to stop tidies up


def test_asked_twice(layerbuild: Layerbuild, context: Path) -> None:
    """A second Ctrl-C while the first is acted upon: the store stays good, and the next build tidies up."""
    for pause in (0.0, 0.002, 0.01, 0.04):
        mark = fresh_mark()
        with building(layerbuild, context, LONG.format(f"echo x > /x; sleep {mark} & sleep {mark}")) as build:
            wait_until(lambda mark=mark: len(processes(mark)) >= 2)
            build.send_signal(signal.SIGINT)
            time.sleep(pause)
            build.send_signal(signal.SIGINT)
            assert build.wait(timeout=20) == 130
            assert build.stderr is not None
            assert b"Traceback" not in build.stderr.read()
        assert_nothing_left(layerbuild, mark)
    assert_same_as_clean(layerbuild, context, "FROM busybox\nRUN echo first-ran; echo 1 > /first\n")


def test_ctrl_c_at_a_terminal(layerbuild: Layerbuild, context: Path) -> None:
    mark = fresh_mark()
    (context / "Dockerfile").write_text(LONG.format(f"sleep {mark} & sleep {mark}"))
    person, terminal = os.openpty()
    with layerbuild.start(
        "build",
        context,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=own_terminal,
    ) as build:
        wait_until(lambda: len(processes(mark)) >= 2)
        os.write(person, b"\x03")
        assert build.wait(timeout=20) == 130
    assert_nothing_left(layerbuild, mark)
    assert_whole(layerbuild.root)
    os.close(terminal)
    os.close(person)


def own_terminal() -> None:
    """Make standard input the terminal that sends signals to this session: ioctl_tty(2)."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_control_groups_go_with_a_build(rooted: Layerbuild, context: Path) -> None:
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        mark = fresh_mark()
        (context / "Dockerfile").write_text(LONG.format(f"sleep {mark}"))
        with rooted.start("build", "--memory", "64m", "--pids-limit", "50", context) as build:
            wait_until(lambda mark=mark: processes(mark))
            assert groups_of(build.pid)
            build.send_signal(number)
            assert build.wait(timeout=20) == code
        if number is signal.SIGKILL:  # the next build with a limit tidies up
            rooted.build(context, "FROM busybox\nRUN true\n", "--pids-limit", "50")
        assert groups_of(build.pid) == []


def groups_of(build: int) -> list[Path]:
    return list(Path("/sys/fs/cgroup").rglob(f"layerbuild-{build}-*"))


def test_stopped_during_capture(layerbuild: Layerbuild, context: Path) -> None:
    with building(layerbuild, context, ZEROS) as build:
        wait_for_output(build, b"| all-is-written")
        time.sleep(0.02)
        build.terminate()
        assert build.wait(timeout=20) == 143
    assert_nothing_left(layerbuild)
    layerbuild.build(context, "FROM busybox\n")  # a slow disk may have left no time to tidy up: the next build does
    assert_whole(layerbuild.root)


def test_a_daemon_that_a_run_leaves_behind_ends_with_it(layerbuild: Layerbuild, context: Path) -> None:
    mark = fresh_mark()
    began = time.monotonic()
    layerbuild.build(
        context, f"FROM busybox\nRUN setsid nohup sleep {mark} & echo started > /started\nRUN ! pgrep sleep\n"
    )
    assert time.monotonic() - began < 10
    assert not processes(mark)


def test_a_container_ends_with_its_layerbuild(layerbuild: Layerbuild) -> None:
    mark = fresh_mark()
    for number in (signal.SIGKILL, signal.SIGTERM):
        with layerbuild.start("run", "busybox", "sleep", mark) as container:
            wait_until(lambda: len(processes(mark)) >= 2)
            container.send_signal(number)
        assert_nothing_left(layerbuild, mark)
    layerbuild("run", "busybox", "true")
    assert_whole(layerbuild.root)


def test_builds_of_one_store_at_the_same_time(layerbuild: Layerbuild, context: Path) -> None:
    """All are in the same step at once, one of them is killed there, and the others end with the same image."""
    recipe = (
        "FROM busybox\nRUN echo same > /same\n"
        "RUN --mount=type=cache,target=/gate echo all-are-here; until [ -e /gate/open ]; do sleep 0.02; done\n"
    )
    (context / "Dockerfile").write_text(recipe)
    builds = [
        layerbuild.start("build", "--progress=plain", context, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for build in builds:
        wait_for_output(build, b"| all-are-here")
    builds[0].kill()
    (gate,) = layerbuild.root.glob("cache-mounts/*/0")
    (gate / "open").touch()
    told = [build.communicate()[0] for build in builds]
    assert [build.returncode for build in builds] == [-signal.SIGKILL, 0, 0]
    assert told[1] == told[2] != b""
    assert_same_as_clean(layerbuild, context, recipe)
