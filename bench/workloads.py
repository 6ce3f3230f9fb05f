"""The workloads, as data: one row each. A recipe, a floor and a peer's script are made of the same steps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BASE = "bench-base"
PROGRAMS = "sh,cat,cp,dd,echo,find,head,ls,mkdir,rm,sed,sha256sum,sleep,sort,tar,test,tr,true,wc,xargs,yes,seq,touch"


@dataclass(frozen=True, slots=True)
class Run:
    script: str


@dataclass(frozen=True, slots=True)
class Copy:
    """``stage`` is the name of a stage, "" the context."""

    source: str
    dest: str
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Meta:
    """Changes the configuration alone; the floor does nothing for it."""

    text: str


Step = Run | Copy | Meta


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    steps: tuple[Step, ...]
    base: str = BASE


@dataclass(frozen=True, slots=True)
class Scale:
    """How large: files and megabytes of W3, W4 and W6; megabytes of W2; of each stage of W5; of W7's sources; of each
    RUN of W8; and what W10 runs through."""

    files: int
    files_megabytes: int
    large_megabytes: int
    stage_megabytes: int
    sources_megabytes: int
    run_megabytes: int
    series_files: tuple[int, ...]
    series_layers: tuple[int, ...]


SCALES = {
    "full": Scale(50_000, 200, 1024, 50, 30, 30, (1_000, 10_000, 100_000, 1_000_000), (1, 10, 100, 499)),
    "small": Scale(2_000, 8, 64, 5, 3, 3, (100, 1_000, 10_000), (1, 10, 50)),
}

#: "cold": every step runs; "cached": the same build again; "changed": one file of the context is another.
State = Literal["cold", "cached", "changed"]


@dataclass(frozen=True, slots=True)
class Workload:
    """``files`` fills the context. ``optional``: only on demand."""

    key: str
    title: str
    stages: Callable[[Scale], tuple[Stage, ...]]
    files: Callable[[Path, Scale], None]
    state: State = "cold"
    optional: bool = False
    base: str = BASE

    def recipe(self, scale: Scale) -> str:
        """The Dockerfile."""
        lines: list[str] = []
        for stage in self.stages(scale):
            lines.append(f"FROM {stage.base} AS {stage.name}")
            lines.extend(map(_line, stage.steps))
        return "\n".join(lines) + "\n"


def _line(step: Step) -> str:
    match step:
        case Run(script):
            return f"RUN {script}"
        case Copy(source, dest, stage):
            return f"COPY --from={stage} {source} {dest}" if stage else f"COPY {source} {dest}"
        case Meta(text):
            return text


# -- contexts ----------------------------------------------------------------------------------------------------------


def no_files(context: Path, scale: Scale) -> None:
    pass


def many_files(context: Path, scale: Scale) -> None:
    make_files(context / "in", scale.files, scale.files_megabytes)


def sources(context: Path, scale: Scale) -> None:
    make_files(context / "src", max(10, scale.sources_megabytes * 50), scale.sources_megabytes)


def make_files(folder: Path, files: int, megabytes: int, *, per_folder: int = 100) -> None:
    """``files`` files of equal mean size, half of whose bytes compress well and half not; always the same."""
    chance = random.Random(1)
    mean = megabytes * 1_000_000 // files
    for number in range(files):
        parent = folder / f"d{number // per_folder:05d}"
        if number % per_folder == 0:
            parent.mkdir(parents=True)
        half = chance.randint(mean // 4, max(1, mean * 3 // 4))
        (parent / f"file{number:06d}.txt").write_bytes(chance.randbytes(half) + b"layer of a layer; " * (half // 18))


# -- recipes -----------------------------------------------------------------------------------------------------------


def _noop(scale: Scale) -> tuple[Stage, ...]:
    return (Stage("a", tuple(Run(f"true {number}") for number in range(10))),)


def _large(scale: Scale) -> tuple[Stage, ...]:
    half = scale.large_megabytes // 2
    script = f"head -c {half}M /dev/urandom > /random && yes layer | head -c {half}M > /text"
    return (Stage("a", (Run(script),)),)


def _files(scale: Scale) -> tuple[Stage, ...]:
    return (Stage("a", (Copy("in", "/in"), Run("cp -r /in /made"))),)


def _stages(scale: Scale) -> tuple[Stage, ...]:
    write = f"head -c {scale.stage_megabytes}M /dev/urandom > /part"
    parts = tuple(Stage(f"part{n}", (Run(f"sleep 1 && {write}{n}"),), "common") for n in range(4))
    collect = tuple(Copy(f"/part{n}", f"/part{n}", f"part{n}") for n in range(4))
    return (
        Stage("common", (Run("mkdir /common"),)),
        *parts,
        Stage("all", (*collect, Run("ls -l / > /list")), "common"),
    )


def _realistic(scale: Scale) -> tuple[Stage, ...]:
    steps: tuple[Step, ...] = (
        Meta("ENV MODE=release"),
        Meta("WORKDIR /app"),
        Copy("src", "/app/src"),
        Run("tar -cf /app/all.tar -C /app src"),
        Run("find /usr /app -type f | sort > /app/files"),
        Run("find /usr -type f | sort | xargs sha256sum > /app/sums"),
        Meta("LABEL kind=bench"),
        Meta('CMD ["sh"]'),
    )
    return (Stage("a", steps),)


def _many_runs(scale: Scale) -> tuple[Stage, ...]:
    half = scale.run_megabytes * 500_000
    script = "head -c {half} /dev/urandom > /random{n} && yes layer | head -c {half} > /text{n}"
    return (Stage("a", tuple(Run(script.format(half=half, n=n)) for n in range(20))),)


def _compiler(scale: Scale) -> tuple[Stage, ...]:
    install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends gcc"
    return (Stage("a", (Run(f"{install} libc6-dev && rm -rf /var/lib/apt/lists/*"),), "bench-debian"),)


WORKLOADS = (
    Workload("W1", "ten RUNs that do nothing", _noop, no_files),
    Workload("W2", "one large layer, half of it random", _large, no_files),
    Workload("W3", "many files in, as many made", _files, many_files),
    Workload("W4", "W3 again", _files, many_files, "cached"),
    Workload("W5", "six stages, four of them independent", _stages, no_files),
    Workload("W6", "W3 again", _files, many_files, "changed"),
    Workload("W7", "realistic", _realistic, sources),
    Workload("W8", "twenty RUNs that write", _many_runs, no_files),
    Workload("W9", "a compiler from Debian's packages", _compiler, no_files, optional=True, base="bench-debian"),
)


def series_files(count: int) -> Workload:
    """W10: a COPY of so many files, 100 bytes each."""

    def files(context: Path, scale: Scale) -> None:
        make_files(context / "in", count, max(1, count // 10_000))

    return Workload(f"W10 {count} files", "scale", lambda scale: (Stage("a", (Copy("in", "/in"),)),), files)


def series_layers(count: int) -> Workload:
    """W10: so many RUNs that write one file each."""
    steps = tuple(Run(f"echo {number} > /file{number}") for number in range(count))
    return Workload(f"W10 {count} layers", "scale", lambda scale: (Stage("a", steps),), no_files)
