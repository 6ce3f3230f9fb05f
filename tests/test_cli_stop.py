"""A build that is told to stop is gone within a second, whatever it does: no process, no mount, and no file that stays.

On a quiet machine it tidies up in that time, too: tests/test_cli_kill.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import fresh
from stores import Templates
from support import USER, Layerbuild, missing
from test_cli_kill import fresh_mark
from traces import assert_whole, groups_left_behind, mounts, processes, wait_until

pytestmark = pytest.mark.machine

LARGE = "FROM busybox\nRUN dd if=/dev/urandom of=/many bs=1M count=400\n"


def limit() -> float:
    """Seconds from the signal: one, also where three processes want each processor. Of ten, each gets a tenth."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 3)


def told_to_stop(
    layerbuild: Layerbuild,
    doing: Callable[[], object],
    *words: str | Path,
    number: int = signal.SIGTERM,
    mark: str = "",
) -> float:
    """Build ``words``, send the signal ``number`` when ``doing`` holds, and wait until nothing is left: how many
    seconds that took. The exit code must be right."""
    with layerbuild.start(
        "build", *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as build:
        try:
            wait_until(doing, seconds=60)
            known = {*processes(str(layerbuild.root)), *(processes(mark) if mark else ())}
            began = time.monotonic()
            build.send_signal(number)
            assert build.wait(timeout=10) == 128 + number
            while any(Path(f"/proc/{pid}").exists() for pid in known):
                assert time.monotonic() < began + 10
                time.sleep(0.005)
            took = time.monotonic() - began
        finally:
            build.kill()
    # Whatever else there might be took no longer than this look at all processes of the machine.
    assert not (processes(mark) if mark else ()) and not processes(str(layerbuild.root)) and not mounts(layerbuild.root)
    return took


def assert_tidied(layerbuild: Layerbuild, context: Path) -> None:
    """Where the machine is too busy, or too much is to be removed, for half a second, the next build does the rest."""
    layerbuild.build(context, "FROM busybox\n")
    assert_whole(layerbuild.root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_stages_run_what_ignores_every_signal(layerbuild: Layerbuild, context: Path, number: int) -> None:
    mark = fresh_mark()
    run = f"RUN trap '' INT TERM HUP; sleep {mark} & setsid sleep {mark} & sleep {mark}\n"
    stages = "".join(f"FROM busybox AS s{stage}\n{run}" for stage in range(3))
    copies = "".join(f"COPY --from=s{stage} / /s{stage}/\n" for stage in range(3))
    (context / "Dockerfile").write_text(f"{stages}FROM busybox\n{copies}")
    took = told_to_stop(layerbuild, lambda: len(processes(mark)) >= 9, "--jobs", "3", context, number=number, mark=mark)
    assert took < limit()
    assert_tidied(layerbuild, context)


def test_while_a_runtime_runs_a_step(rooted: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    program("runc")
    mark = fresh_mark()
    (context / "Dockerfile").write_text(
        f"FROM busybox\nRUN trap '' INT TERM; sleep {mark} & sleep {mark}; sleep {mark}\n"
    )
    took = told_to_stop(rooted, lambda: len(processes(mark)) >= 3, "--isolation", "runc", context, mark=mark)
    assert took < limit()
    assert_tidied(rooted, context)
    assert groups_left_behind() == []


def test_while_a_large_folder_is_copied(layerbuild: Layerbuild, context: Path) -> None:
    for folder in range(100):  # enough to be seen half done
        (context / f"tree/{folder}").mkdir(parents=True)
        for file in range(200):
            (context / f"tree/{folder}/{file}").write_text(f"{folder} {file}")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY tree /tree/\n")
    took = told_to_stop(layerbuild, lambda: any(layerbuild.root.glob("overlay2/*/diff/tree/[4-9]?")), context)
    assert took < limit()
    assert_tidied(layerbuild, context)


def test_while_a_layer_is_written(layerbuild: Layerbuild, context: Path) -> None:
    mark = fresh_mark()
    (context / "Dockerfile").write_text(f"{LARGE}RUN sleep {mark}\n")
    took = told_to_stop(layerbuild, lambda: processes(mark), context, mark=mark)
    assert took < limit()
    assert_tidied(layerbuild, context)


@pytest.fixture(scope="module", params=["root", "user"])
def filled(request: pytest.FixtureRequest, templates: Templates) -> Iterator[Layerbuild]:
    """The command line with a store that holds the image of LARGE."""
    if request.param == "root" and os.geteuid() != 0:
        missing("not run as root")
    folder = fresh("large")
    layerbuild = templates.copy(request.param, folder / "copied")
    layerbuild.build(folder / "context", LARGE)
    yield layerbuild
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("kind", ["oci", "tar", "local"])
def test_while_an_export_is_written(filled: Layerbuild, context: Path, kind: str) -> None:
    (context / "Dockerfile").write_text(LARGE)
    out = context.with_name(f"{context.name}-out")
    out.mkdir()
    os.chown(out, *((USER, USER) if filled.rootless and os.geteuid() == 0 else (-1, -1)))
    try:
        took = told_to_stop(filled, lambda: written(out) > 10**6, "-o", f"type={kind},dest={out}/made", context)
        assert took < limit()
        assert list(out.iterdir()) == []
    finally:
        subprocess.run(["rm", "-rf", out], check=True)
    assert_tidied(filled, context)


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def silent_server() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port that takes connections and never answers, and the connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    taken.append(server.accept()[0])
            except OSError:
                pass

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1], taken
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


@pytest.mark.parametrize("line", ["FROM localhost:{}/image", "FROM busybox\nADD http://localhost:{}/file /"])
def test_while_a_server_does_not_answer(layerbuild: Layerbuild, context: Path, line: str) -> None:
    with silent_server() as (port, connections):
        (context / "Dockerfile").write_text(line.format(port) + "\n")
        took = told_to_stop(layerbuild, lambda: connections, context)
    assert took < limit()
    assert_tidied(layerbuild, context)
