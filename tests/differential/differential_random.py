"""Recipes by chance: few names and many ways to meet in them, so that layers, links and rules of COPY come together."""

from __future__ import annotations

from pathlib import Path
from random import Random

from differential_cases import Case, read_cases
from differential_ignoring import ignoring_case
from differential_wording import wording_case

_NAMES = ("a", "b", "c", "link")
_DEPTH = 3
_THERE = ("mkdir -p a", "[ -d a ] && echo 1 > a/one", "[ -e b ] || echo 22 > b", "mkdir c; echo 333 > c/a; ln -s a c/l")
_RECORDED = 40  # seeds from 0 on
_RECORDED_TEXTS = 24


def all_cases() -> list[Case]:
    """The written ones, and by chance as many as are recorded."""
    written = read_cases((Path(__file__).parent / "cases.txt").read_text())
    texts = [make(seed) for make in (ignoring_case, wording_case) for seed in range(_RECORDED_TEXTS)]
    return [*written, *map(random_case, range(_RECORDED)), *texts]


def random_case(seed: int) -> Case:
    """Always the same one for a seed."""
    return _Maker(Random(seed)).case(f"random-{seed}")


#: By the name of what is tried.
KINDS = {"layers": random_case, "ignoring": ignoring_case, "wording": wording_case}


class _Maker:
    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._size = 0

    def case(self, name: str) -> Case:
        commands = [command for _ in range(self._chance.randint(2, 6)) for command in self._file()]
        there = (
            "mkdir -p a",
            "[ -d a ] && echo 1 > a/one",
            "[ -e b ] || echo 22 > b",
            "mkdir c; echo 333 > c/a; ln -s a c/l",
        )
        stages = self._chance.randint(1, 3)
        lines = [line for number in range(stages) for line in self._stage(number)]
        return Case(
            name, "\n".join(lines) + "\n", (*commands, *(f"{{ {make}; }} 2>/dev/null || true" for make in there))
        )

    def _path(self, *, absolute: bool = True) -> str:
        names = [self._chance.choice(_NAMES) for _ in range(self._chance.randint(1, _DEPTH))]
        return "/" * absolute + "/".join(names)

    def _text(self) -> str:
        # No two of one length: BuildKit takes a file of the same size and time for the same.
        self._size += 1
        return "x" * self._size

    def _file(self) -> tuple[str, ...]:
        path = self._path(absolute=False)
        parent = path.rpartition("/")[0] or "."
        make = self._chance.choice(
            (
                f"echo {self._text()} > {path}",
                f"echo {self._text()} > {path}",
                f"mkdir -p {path}",
                f"ln -s {self._path(absolute=self._chance.random() < 0.3)} {path}",
                f"ln -s ../{self._chance.choice(_NAMES)} {path}",
                f"chmod {self._chance.choice(('600', '755', '4711'))} {parent}",
            )
        )
        return (f"{{ mkdir -p {parent} && {make}; }} 2>/dev/null || true",)

    def _stage(self, number: int) -> list[str]:
        base = self._chance.choice(("busybox", *(f"s{other}" for other in range(number))))
        kinds = (self._run, self._run, self._run, self._copy, self._copy, self._workdir, self._config)
        steps = [self._chance.choice(kinds)(number) for _ in range(self._chance.randint(2, 6))]
        return [f"FROM {base} AS s{number}", *steps]

    def _run(self, stage: int) -> str:
        one, other = self._path(), self._path()
        return "RUN " + self._chance.choice(
            (
                f"mkdir -p {one}; true",
                f"rm -rf {one}",
                f"rm -rf {one} && mkdir -p {one} && echo {self._text()} > {one}/{self._chance.choice(_NAMES)}; true",
                f"mv {one} {other}; true",
                f"ln -s {other} {one}; true",
                f"ln {one} {other}; true",
                f"mkdir -p {one}; echo {self._text()} > {one}/{self._chance.choice(_NAMES)}; true",
                f"echo {self._text()} >> {one}; true",
                f"chmod {self._chance.choice(('700', '1777', '644', '6755'))} {one}; true",
                f"chown -R {self._chance.randint(0, 3)}:{self._chance.randint(0, 3)} {one}; true",
                f"cp -a {one} {other}; true",
                f"touch -d '1999-01-01 00:00:{self._chance.randint(10, 59)}' {one}; true",
            )
        )

    def _copy(self, stage: int) -> str:
        flags, keyword = "", self._chance.choice(("COPY", "COPY", "ADD"))
        sources = [".", "a", "a/", "b", "c", "c/*", "*", "[ab]", "?", "*/*", self._path(absolute=False)]
        if stage and self._chance.random() < 0.4:
            flags, keyword = f" --from=s{self._chance.randrange(stage)}", "COPY"
            sources = ["/etc", "/tmp/", "/home", "etc/*", "/[a-c]*", self._path()]
        if self._chance.random() < 0.3:
            flags += self._chance.choice((" --chown=5:6", " --chown=nobody", " --chmod=750", " --chmod=4644"))
        chosen = [self._chance.choice(sources) for _ in range(self._chance.choice((1, 1, 1, 2)))]
        dest = self._chance.choice(
            (self._path(), f"{self._path()}/", f"{self._path()}/", ".", "./", self._path(absolute=False), "/")
        )
        return f"{keyword}{flags} {' '.join(chosen)} {dest}"

    def _workdir(self, stage: int) -> str:
        return f"WORKDIR {self._path(absolute=self._chance.random() < 0.5)}"

    def _config(self, stage: int) -> str:
        name = self._chance.choice("AB")
        return self._chance.choice(
            (
                f"ENV {name}=${{{self._chance.choice('AB')}:-{self._chance.choice(_NAMES)}}}",
                f"ARG {name}={self._chance.choice(_NAMES)}",
                f"LABEL {name}=$A-$B",
                f"USER {self._chance.choice(('nobody', '0', '7:8'))}",
                f"EXPOSE {self._chance.randint(1, 99)}",
                f"VOLUME {self._path()}",
                f"RUN echo $A $B $(pwd) $(id -u) > /tmp/{self._chance.choice(_NAMES)}",
            )
        )
