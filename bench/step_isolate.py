"""What one RUN costs in the sandbox alone: the median, in milliseconds, of 50 runs of ``true``.

    python bench/step_isolate.py [--scratch FOLDER]     as root and, if it is root, as an ordinary user too

The image is busybox (Debian: busybox-static). "bare"
is an image without /proc, /sys, /dev and /etc, which needs an init folder; "high" one of 100 layers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from layerbuild.isolate.job import Job, Process, Rootfs
from layerbuild.isolate.namespaces import enter_build_namespaces
from layerbuild.isolate.sandbox import Sandbox
from layerbuild.isolate.standard import name_files

RUNS = 50
USER = 12345


def make_image(folder: Path, *, bare: bool) -> None:
    (folder / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "bin/true")
    if bare:
        return
    for name in ("proc", "sys", "dev", "etc"):
        (folder / name).mkdir()
    for name in ("hosts", "resolv.conf"):
        (folder / "etc" / name).touch()


def measure(sandbox: Sandbox, base: Path, name: str, lowers: tuple[str, ...]) -> float:
    times = []
    for number in range(RUNS):
        folder = base / f"{name}{number}"
        for sub in ("upper", "work", "merged"):
            (folder / sub).mkdir(parents=True)
        rootfs = Rootfs(lowers, str(folder / "upper"), str(folder / "work"), str(folder / "merged"))
        job = Job(rootfs, Process(("/bin/true",)), mounts=name_files("layerbuild", network="host"))
        start = time.perf_counter()
        ended = sandbox.run(job, lambda data: None)
        times.append((time.perf_counter() - start) * 1000)
        assert ended.code == 0
    return statistics.median(times)


def measure_all(base: Path) -> None:
    make_image(base / "full", bare=False)
    make_image(base / "bare", bare=True)
    empty = [base / f"layer{number}" for number in range(99)]
    for layer in empty:
        layer.mkdir()
    identity = enter_build_namespaces()
    with Sandbox.start(identity) as sandbox:
        full, bare = str(base / "full"), str(base / "bare")
        stacks = {"full": (full,), "bare": (bare,), "high": (*map(str, empty), full)}
        figures = [f"{name} {measure(sandbox, base, name, lowers):.1f} ms" for name, lowers in stacks.items()]
    print("rootless:" if identity.rootless else "root:    ", ", ".join(figures), flush=True)


def run_as(user: int, place: str | None) -> None:
    base = Path(tempfile.mkdtemp(prefix="layerbuild-bench-", dir=place))
    os.chown(base, user, -1)
    try:
        if os.fork() == 0:
            command = [sys.executable, __file__, "--in", str(base)]
            drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user != os.geteuid() else []
            os.execvp((drop + command)[0], drop + command)
        os.wait()
    finally:
        shutil.rmtree(base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", help="a folder on the file system to measure (default: a temporary one)")
    parser.add_argument("--in", dest="base", type=Path, help=argparse.SUPPRESS)  # the second process
    options = parser.parse_args()
    if options.base is not None:
        measure_all(options.base)
        return
    for user in sorted({os.geteuid(), USER if os.geteuid() == 0 else os.geteuid()}):
        run_as(user, options.scratch)


if __name__ == "__main__":
    main()
