"""Builds cases with layerbuild and with a live BuildKit, and prints in what the images differ.

    .venv/bin/python tests/differential [--record] [--random 100 --seed 1000 [--kind KIND]] [NAME…]

Needs root, and `make docker`. --record keeps what BuildKit makes of the cases (or of those that are named); the suite
compares with that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE / "recorded.json"
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

from differential_builders import buildkit, import_busybox, ours, outcome  # noqa: E402
from differential_cases import Case  # noqa: E402
from differential_images import Layout, differences  # noqa: E402
from differential_random import KINDS, all_cases  # noqa: E402
from support import Layerbuild  # noqa: E402

from bench.docker import NEWEST, Daemon  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--kind", choices=KINDS, default="layers")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    cases = all_cases()
    if options.names:
        cases = [case for case in cases if any(name in case.name for name in options.names)]
    if options.random:
        cases = [KINDS[options.kind](options.seed + number) for number in range(options.random)]
    with tempfile.TemporaryDirectory(prefix="layerbuild-differential-") as name:
        folder = Path(name)
        daemon = Daemon(folder / "docker", root=NEWEST)
        try:
            found = compare(daemon, folder, cases)
            if options.record:
                record(daemon.version(), found)
        finally:
            daemon.close()


def compare(daemon: Daemon, folder: Path, cases: list[Case]) -> dict[str, Any]:
    """Print the differences of each case; what BuildKit made, by case."""
    layerbuild = Layerbuild(folder / "store")
    base = import_busybox(layerbuild, folder)
    daemon("tag", daemon("load", "-q", "-i", folder / "busybox.tar").split()[-1], "busybox")
    tree = Layout(base).tree()

    peer = buildkit(daemon)

    def both(case: Case) -> tuple[Any, list[str]]:
        theirs = outcome(peer, case, folder / case.name / "theirs", tree)
        mine = outcome(ours(layerbuild), case, folder / case.name / "ours", tree)
        shutil.rmtree(folder / case.name)
        return theirs, differences(theirs, mine)

    found = {}
    with ThreadPoolExecutor(3) as crew:
        for case, (theirs, lines) in zip(cases, crew.map(both, cases), strict=True):
            found[case.name] = theirs
            if lines and not case.differs:
                print(
                    f"\n== {case.name}", case.recipe.rstrip(), *(f"    {line}" for line in lines), sep="\n", flush=True
                )
            elif case.differs and not lines:
                print(f"\n== {case.name}: no difference, though one is noted", flush=True)
    print(f"\n{len(found)} cases, {sum('fails' in each for each in found.values())} fail in BuildKit")
    return found


def record(version: str, found: dict[str, Any]) -> None:
    """A case on each line, in the order of the cases."""
    kept = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    kept |= {"docker": version, **found}
    names = ["docker", *(case.name for case in all_cases())]
    lines = [f"{json.dumps(name)}: {json.dumps(kept[name], sort_keys=True)}" for name in names if name in kept]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
