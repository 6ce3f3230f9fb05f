"""What a RUN step costs: the difference between a build with 50 no-op RUNs and one with none, and start-up times.

    python bench/steps.py [--steps 50] [--rounds 7] [--scratch FOLDER] [--json]

Every build is made with --no-cache on a store that holds a small base. The first figure of a round is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "layerbuild"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--scratch", type=Path, help="a folder on the file system to measure (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        result = measure(Path(folder), options.steps, options.rounds)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:34} {value:8.1f}")


def measure(folder: Path, steps: int, rounds: int) -> dict[str, float]:
    store = folder / "store"
    run([*COMMAND, "--root", str(store), "base", "host", "--with", "sh,true"])
    empty, noop, writing = folder / "empty", folder / "noop", folder / "writing"
    recipe(empty, "")
    recipe(noop, "RUN true\n" * steps)
    recipe(writing, "".join(f"RUN echo {number} > /file\n" for number in range(steps)))
    builds = {
        context: [*COMMAND, "--root", str(store), "build", "-q", "--no-cache", str(context)]
        for context in (empty, noop, writing)
    }
    times: dict[str, list[float]] = {name: [] for name in ("empty", "noop", "writing", "version", "python")}
    for _ in range(rounds + 1):
        for context, command in builds.items():
            times[context.name].append(run(command))
        times["version"].append(run([*COMMAND, "--version"]))
        times["python"].append(run([sys.executable, "-c", "pass"]))
    median = {name: statistics.median(values[1:]) * 1000 for name, values in times.items()}
    return {
        "steps": steps,
        "ms per no-op RUN": (median["noop"] - median["empty"]) / steps,
        "ms per RUN that writes one file": (median["writing"] - median["empty"]) / steps,
        "ms, a build with no step": median["empty"],
        "ms, layerbuild --version": median["version"],
        "ms, python -c pass": median["python"],
    }


def recipe(context: Path, text: str) -> None:
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM base:host\n{text}")


def run(command: list[str]) -> float:
    """Seconds of wall time."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
