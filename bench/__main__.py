"""Builds the workloads with layerbuild, with every peer that is installed, and at the floor, in turns.

    python -m bench [--scale small] [--rounds 3] [--only W1,W3] [--builders layerbuild,buildah,docker] [--w9] [--w10]
                    [--scratch FOLDER | --place FOLDER] [--name NAME]

Needs root: the floor mounts and chroots. Writes bench/results/NAME.json, NAME.md and NAME.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench.disk import disk, settle
from bench.floor import Floor, walk
from bench.memory import Watch
from bench.peers import PEERS, Bases, Builder, Layerbuild, available, compile_layerbuild, run
from bench.report import Result, plot, table
from bench.workloads import BASE, PROGRAMS, SCALES, WORKLOADS, Scale, Workload, series_files, series_layers

RESULTS = Path(__file__).parent / "results"


class Runner:
    """Runs workloads on one disk."""

    def __init__(self, folder: Path, scale: Scale, floor: Floor, rounds: int) -> None:
        self._folder = folder
        self._scale = scale
        self._floor = floor
        self._rounds = rounds
        self.results: list[Result] = []

    def workload(self, workload: Workload, builders: list[Builder]) -> None:
        """Time it: every builder once in each round, each round beginning with another one. The round before the first
        fills caches and is watched for memory instead. Who fails there is left out; if the floor fails, all are."""
        context = self._folder / "context"
        context.mkdir()
        try:
            (context / "Dockerfile").write_text(workload.recipe(self._scale))
            workload.files(context, self._scale)
            found = self._rounds_of(workload, context, builders)
        except RuntimeError as error:
            say(f"{workload.key}: left out: {str(error).strip()[-600:]}")
            return
        finally:
            shutil.rmtree(context)
        self.results += found
        for result in found:
            say(f"{workload.key:12} {result.builder:32} {result.median:8.2f} s")

    def _rounds_of(self, workload: Workload, context: Path, builders: list[Builder]) -> list[Result]:
        title = f"{workload.title} ({workload.state})"
        results, todo = {}, []
        for builder in builders:
            result = Result(workload.key, title, builder.name)
            try:
                builder.forget()
                result.memory = self._watched(builder, workload, context)
            except RuntimeError as error:
                say(f"{workload.key}: {builder.name} fails: {str(error).strip()[-300:]}")
                continue
            results[builder.name] = result
            todo.append(builder)
        floor = Result(workload.key, title, "floor")
        for number in range(self._rounds):
            turn = number % max(1, len(todo))
            for builder in todo[turn:] + todo[:turn]:
                result = results[builder.name]
                result.seconds.append(self._timed(builder, workload, context, number))
                result.size = self._out.stat().st_size
                self._out.unlink()
            floor.seconds.append(self._timed_floor(workload, context))
        return [*results.values(), floor]

    @property
    def _out(self) -> Path:
        return self._folder / "out.tar"

    def _watched(self, builder: Builder, workload: Workload, context: Path) -> int:
        with Watch(builder.daemons()) as watch:
            builder.build(context, self._out, cache=workload.state != "cold")
        self._out.unlink()
        return watch.peak

    def _timed(self, builder: Builder, workload: Workload, context: Path, number: int) -> float:
        if workload.state == "changed":
            first = next(path for path in sorted(context.rglob("*.txt")) if path.is_file())
            first.write_text(f"changed for {builder.name}, number {number}\n")
        return timed(lambda: builder.build(context, self._out, cache=workload.state != "cold"))

    def _timed_floor(self, workload: Workload, context: Path) -> float:
        if workload.state == "cached":
            return timed(lambda: walk(context))
        seconds = timed(lambda: self._floor.build(workload, self._scale, context, self._out))
        if workload.state == "changed":  # all its steps depend on the context
            seconds += timed(lambda: walk(context))
        self._floor.clear()
        for path in self._folder.glob("out.tar.*"):
            path.unlink()
        return seconds


def timed(work: Callable[[], None]) -> float:
    settle()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def say(text: str) -> None:
    print(text, flush=True)


def make_bases(folder: Path, workloads: list[Workload]) -> tuple[Bases, dict[str, Path]]:
    """The base images that the workloads start from, as archives and as folders; made by layerbuild."""
    maker = [sys.executable, "-m", "layerbuild", "--root", str(folder / "bases")]
    archives, folders = {}, {}
    for name in {workload.base for workload in workloads}:
        kind = ["host", "--with", PROGRAMS] if name == BASE else ["debian"]
        run([*maker, "base", *kind, "--tag", name])
        recipe = folder / "recipe"
        recipe.mkdir(exist_ok=True)
        (recipe / "Dockerfile").write_text(f"FROM {name}\n")
        archives[name], folders[name] = folder / f"{name}.tar", folder / name
        outputs = [f"type=oci,dest={archives[name]},name={name}", f"type=local,dest={folders[name]}"]
        run([*maker, "build", "-q", *(word for output in outputs for word in ("-o", output)), recipe])
    return Bases(archives), folders


def machine() -> dict[str, object]:
    """What the figures depend on."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": os.getloadavg()[0],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="workloads, with commas between: W1,W3")
    parser.add_argument("--builders", help=f"of {', '.join(PEERS)}; default: all that are installed")
    parser.add_argument("--w9", action="store_true", help="with W9, which needs Debian's archive")
    parser.add_argument("--w10", action="store_true", help="with W10, how layerbuild's cost grows")
    parser.add_argument("--scratch", type=Path, help="where the loop-mounted file lies (default: the temporary folder)")
    parser.add_argument("--place", type=Path, help="work in this folder, and on its file system, instead")
    parser.add_argument("--gigabytes", type=int, default=0, help="size of the loop-mounted file")
    parser.add_argument("--name", default=time.strftime("%Y-%m-%d"), help="of the files in bench/results")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Workload]:
    only = options.only.split(",") if options.only else None
    found = [workload for workload in WORKLOADS if only is None or workload.key in only]
    return [workload for workload in found if not workload.optional or options.w9]


def main() -> None:
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("the floor mounts and chroots: run it as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # daemons and mounts go, too
    scale = SCALES[options.scale]
    workloads = chosen(options)
    names = options.builders.split(",") if options.builders else list(PEERS)
    gigabytes = options.gigabytes or (32 if options.scale == "full" else 6)
    began = time.monotonic()
    compile_layerbuild()
    with disk(options.scratch, options.place, gigabytes=gigabytes) as folder:
        bases, folders = make_bases(folder, workloads)
        builders = available(names, folder, bases, say)
        (folder / "floor").mkdir()
        runner = Runner(folder, scale, Floor(folder / "floor", folders), options.rounds)
        try:
            for workload in workloads:
                runner.workload(workload, builders)
            if options.w10:
                ours = [builder for builder in builders if isinstance(builder, Layerbuild)][:1]
                for series, counts in ((series_files, scale.series_files), (series_layers, scale.series_layers)):
                    for count in counts:
                        runner.workload(series(count), ours)
            place = str(options.place or "loop ext4")
            facts = {**machine(), "scale": asdict(scale), "rounds": options.rounds, "place": place}
            write(options.name, facts, runner.results)
        finally:
            for builder in builders:
                builder.close()
    say(f"\n{table(runner.results)}\n{time.monotonic() - began:.0f} s in all")


def write(name: str, facts: dict[str, object], results: list[Result]) -> None:
    """The three files of a run."""
    RESULTS.mkdir(exist_ok=True)
    data = {"machine": facts, "results": [result.as_json() for result in results]}
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    (RESULTS / f"{name}.md").write_text(table(results))
    (RESULTS / f"{name}.svg").write_text(plot(results))


if __name__ == "__main__":
    main()
