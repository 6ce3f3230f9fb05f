"""What a RUN step costs in each isolation and with each driver, beside buildah's and podman's: median milliseconds, all
in one run.

    python -m bench.isolation [--scratch FOLDER | --place FOLDER] [--steps 20] [--rounds 5] [--json]

A build with ``--steps`` no-op RUNs, less one with none, divided by their number; each makes a layer or notes that there
is none, and none comes from a cache. The builders take turns, so that what the machine does besides hits all alike; the
first round is not counted. One that is not installed, or does not work on this machine, is left out with its reason.
As root all of it lies on one fresh ext4 with a journal, in a loop-mounted file below ``--scratch``, or in a folder of
``--place``; an ordinary user can mount none, and works in a temporary folder there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.disk import disk
from bench.peers import compile_layerbuild
from layerbuild.build.drivers.table import RUNGS

LAYERBUILD = (sys.executable, "-m", "layerbuild")
Command = tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="where the loop-mounted file lies (default: the temporary folder)")
    parser.add_argument("--place", type=Path, help="a folder on the file system to measure, in place of that")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)  # the second process
    options = parser.parse_args()
    if options.folder is None:
        compile_layerbuild()
        root = os.geteuid() == 0
        place = options.place or (None if root else Path(tempfile.gettempdir()))
        with disk(options.scratch, place, gigabytes=8) as folder:
            # What buildah and podman leave mounted goes with a mount namespace of their own.
            apart = ("unshare", "--mount", "--propagation", "private") if root else ()
            again = (sys.executable, "-m", "bench.isolation", *sys.argv[1:])
            sys.exit(subprocess.call((*apart, *again, "--in", str(folder))))
    figures, reasons = measure(options.folder, options.steps, options.rounds)
    if options.json:
        print(json.dumps({"ms per no-op RUN": figures, "left out": reasons}, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name:34} {figure:8.1f} ms")
    for name, reason in reasons.items():
        print(f"{name:34} left out: {reason}")


def measure(folder: Path, steps: int, rounds: int) -> tuple[dict[str, float], dict[str, str]]:
    contexts = {"none": recipe(folder / "none", 0), "many": recipe(folder / "many", steps)}
    candidates = dict(builders(folder))
    reasons = {name: reason for name, command in candidates.items() if (reason := trouble(command, contexts["many"]))}
    working = {name: command for name, command in candidates.items() if name not in reasons}
    times: dict[str, dict[str, list[float]]] = {name: {"none": [], "many": []} for name in working}
    for _ in range(rounds):
        for name, command in working.items():
            for size, context in contexts.items():
                times[name][size].append(seconds((*command, str(context))))
    medians = {name: {size: statistics.median(each) for size, each in found.items()} for name, found in times.items()}
    return {name: (found["many"] - found["none"]) * 1000 / steps for name, found in medians.items()}, reasons


def recipe(context: Path, steps: int) -> Path:
    context.mkdir()
    (context / "Dockerfile").write_text("FROM localhost/base\n" + "RUN true\n" * steps)
    return context


def builders(folder: Path) -> Iterator[tuple[str, Command]]:
    """Name and command of each, for which the base is there under the same name."""
    archive, layout = folder / "base.tar", folder / "base.oci"
    ours = (*LAYERBUILD, "--root", str(folder / "root"))
    run((*ours, "base", "host", "--with", "sh,true", "--tag", "localhost/base"))
    run((*ours, "build", "-q", "-o", f"type=docker,dest={archive}", "-t", "localhost/base", str(folder / "none")))
    run((*ours, "build", "-q", "-o", f"type=oci,dest={layout},tar=false", str(folder / "none")))
    subvolumes = file_system(folder / "btrfs")
    for who, become in users(folder).items():
        for rung in RUNGS:
            place = subvolumes if rung.name == "btrfs" else folder
            theirs = (*become, *LAYERBUILD, "--root", str(place / who))
            build = (*theirs, "--driver", rung.name, "build", "-q", "--no-cache")
            run((*theirs, "import", "--tag", "localhost/base", str(layout)))
            yield f"layerbuild, {who}, {rung.name}", build
            for runtime in ("runc", "crun") if rung.name == "overlay" else ():
                yield f"layerbuild, {who}, {runtime}", (*build, "--isolation", runtime)
    yield from peers(folder, archive)


def users(folder: Path) -> dict[str, Command]:
    """Who builds, and what comes before the command. As root of a user namespace a process finds its way to files that
    only root may see; whether the namespace has one id or a range of them is what layerbuild goes by."""
    if os.geteuid() != 0:
        return {"user": ()}
    given = folder / "subordinate"
    given.write_text("root:0:65536\n")
    for name in ("/etc/subuid", "/etc/subgid"):
        run(("mount", "--bind", str(given), name))  # for this mount namespace alone
    mapped = ("--map-users=0,0,65536", "--map-groups=0,0,65536", "--setuid=0", "--setgid=0")
    return {"root": (), "ranges": ("unshare", "--user", *mapped), "one id": ("unshare", "--user", "--map-root-user")}


def file_system(folder: Path) -> Path:
    """A btrfs in a file, mounted for this mount namespace alone; without one the driver is left out with its reason."""
    folder.mkdir()
    if os.geteuid() == 0 and shutil.which("mkfs.btrfs"):
        image = folder.with_suffix(".img")
        with open(image, "wb") as file:
            file.truncate(2 << 30)
        run(("mkfs.btrfs", "-q", str(image)))
        run(("mount", "-o", "loop,user_subvol_rm_allowed", str(image), str(folder)))
    return folder


def peers(folder: Path, archive: Path) -> Iterator[tuple[str, Command]]:
    """buildah and podman, in each isolation that they have."""
    state = ("--root", str(folder / "containers"), "--runroot", str(folder / "run"))
    common = ("--layers", "--no-cache", "--pull-never", "--network", "host", "-q", "-t", "made")
    for program in ("buildah", "podman"):
        if shutil.which(program) is None:
            continue
        run((program, *state, "load" if program == "podman" else "pull", *loading(program, archive)))
        for way in (("chroot",), ("oci", "--runtime", "runc"), ("oci", "--runtime", "crun")):
            name = f"{program} --isolation {' '.join(way)}"
            before, after = (way[1:], way[:1]) if program == "podman" else ((), way)
            yield name, (program, *state, *before, "build", *options_of(program, common), "--isolation", *after)


def loading(program: str, archive: Path) -> Command:
    return ("-q", "-i", str(archive)) if program == "podman" else ("-q", f"docker-archive:{archive}")


def options_of(program: str, common: Command) -> Command:
    return (
        common if program == "buildah" else tuple("--pull=never" if word == "--pull-never" else word for word in common)
    )


def trouble(command: Command, context: Path) -> str:
    """The last line of what a builder that fails says; also a first round that is not counted."""
    done = subprocess.run((*command, str(context)), capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return (next((line for line in lines if "rror" in line or "can't" in line), lines[-1])) if done.returncode else ""


def seconds(command: Command) -> float:
    began = time.perf_counter()
    run(command)
    return time.perf_counter() - began


def run(command: Command) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")


if __name__ == "__main__":
    main()
