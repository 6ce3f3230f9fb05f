"""Builds in which a system call fails or kills, and builds that share one store: nothing is ever wrong after."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support import Layerbuild
from traces import assert_whole

RECIPE = """\
FROM busybox AS first
COPY file /file
RUN --mount=type=cache,target=/cache echo 1 > /one; rm -r /home; echo x >> /cache/log
COPY folder /folder/
RUN echo 2 > /folder/1; mv /one /two
FROM busybox
COPY --from=first /folder /folder
RUN ls -R /folder > /list
"""
# Calls by what they write, and about how many of each a build makes that changes something.
CALLS = {
    "fsync,fdatasync": 20,
    "rename,renameat2": 40,
    "unlink,unlinkat": 60,
    "mkdir,mkdirat": 60,
    "pwrite64": 80,
    "write": 300,
    "openat": 1500,
    "mount": 30,
    "clone,clone3": 30,
    "sendto,sendmsg,recvmsg": 60,
}
ERRORS = ("EIO", "ENOSPC")
HARMLESS = frozenset(("write", "openat", "mount", "clone,clone3", "sendto,sendmsg,recvmsg"))  # only kills are tried


@pytest.fixture
def recipe(context: Path) -> Path:
    (context / "Dockerfile").write_text(RECIPE)
    (context / "file").write_bytes(random.Random(0).randbytes(300_000))
    (context / "folder").mkdir()
    for number in range(10):
        (context / "folder" / str(number)).write_text(str(number))
    return context


@dataclass(frozen=True)
class Fault:
    call: str
    effect: str
    when: int

    @property
    def strace(self) -> tuple[str, ...]:
        fault = f"inject={self.call}:{self.effect}:when={self.when}"
        return ("strace", "-f", "-qq", "-o", "/dev/null", "-e", fault)


def faults(seed: int, count: int) -> list[Fault]:
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        call = dice.choice(sorted(CALLS))
        error = call not in HARMLESS and dice.random() < 0.5
        effect = f"error={dice.choice(ERRORS)}" if error else "signal=KILL"
        found.append(Fault(call, effect, dice.randint(1, CALLS[call])))
    return found


def test_one_call_that_fails_or_kills(rooted: Layerbuild, recipe: Path, program: Callable[[str], str]) -> None:
    program("strace")
    wanted = rooted("build", "-q", recipe)
    for fault in faults(seed=5, count=8):
        # Another driver must not step in for the kernel's: strace and a file system that it traces wait for each other.
        traced = replace(rooted, prefix=fault.strace, env={**rooted.env, "LAYERBUILD_DRIVER": "overlay"})
        done = subprocess.run(
            traced.command("build", "-q", "--no-cache", recipe),
            env=traced.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.stdout in ("", wanted), fault
        assert "Traceback" not in done.stderr, (fault, done.stderr)
        assert rooted("build", "-q", recipe) == wanted, fault
        assert rooted("build", "-q", "--no-cache", recipe) == wanted, fault
        assert_whole(rooted.root)


def test_many_have_one_store(rooted: Layerbuild, recipe: Path, context: Path) -> None:
    """Equal and different builds, some killed, some without the cache, while others look, prune and remove."""
    recipes = []
    for number in range(3):
        path = context / f"{number}.Dockerfile"
        path.write_text(RECIPE + f"RUN echo {number} > /own\n")
        recipes.append(path)
    images: dict[Path, set[str]] = {path: set() for path in recipes}
    failures = []

    def build(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(3):
            path = dice.choice(recipes)
            words = ["build", "-q", "-t", path.stem, "-f", path, *dice.choice([[], ["--no-cache"]]), context]
            with rooted.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                if dice.random() < 0.25:
                    time.sleep(dice.random())
                    process.kill()
                out, err = process.communicate()
            if process.returncode == 0:
                images[path].add(out)
            elif process.returncode > 0:
                failures.append((words, err))

    def look(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(6):
            words = dice.choice([["prune", "--force"], ["images"], ["df"], ["rmi", "1"], ["explain"]])
            with rooted.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                err = process.communicate()[1]
            refused = "is in use" in err or "no image" in err or "no build" in err
            if process.returncode and not refused:
                failures.append((words, err))

    with ThreadPoolExecutor(6) as threads:
        for done in [*(threads.submit(build, seed) for seed in range(5)), threads.submit(look, 99)]:
            done.result()
    assert failures == []
    for path in recipes:
        again = rooted("build", "-q", "--no-cache", "-f", path, context)
        assert images[path] <= {again}
    rooted("prune", "--force")
    assert_whole(rooted.root)
