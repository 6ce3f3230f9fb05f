"""Cases: a context, a recipe and options. ``cases.txt`` holds those that were written by hand:

    == name                      begins a case
    $ mkdir d; echo 1 > d/f      makes its context: a line for sh, which runs in it
    ! --target first             options of the build
    ~ why                        layerbuild differs from BuildKit here, and why
    FROM busybox …               what follows, to the next case, is the Dockerfile

Everything in a context has the same time, long ago, so that what a copy keeps can be told from what was made. Each case
has its own: BuildKit sends a file anew only if its size or its time has changed since a build before.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

_OLD = 1_000_000_000  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    recipe: str
    commands: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    differs: str = ""

    @property
    def time(self) -> int:
        """Of all in the context: seconds since 1970."""
        return _OLD + zlib.crc32(self.name.encode()) % 100_000_000

    def make(self, context: Path) -> None:
        """Make its context in an empty folder."""
        (context / "Dockerfile").write_text(self.recipe)
        subprocess.run(["sh", "-euc", "umask 022\n" + "\n".join(self.commands)], cwd=context, check=True)
        for folder, folders, files in os.walk(context, topdown=False):
            for name in (*files, *folders, ""):
                os.utime(os.path.join(folder, name), (self.time, self.time), follow_symlinks=False)


def read_cases(text: str) -> list[Case]:
    """The cases of a file, in order."""
    return [_case(block) for block in ("\n" + text).split("\n== ")[1:]]


def _case(block: str) -> Case:
    name, *lines = block.split("\n")
    heads: dict[str, list[str]] = {"$": [], "!": [], "~": []}
    while lines and lines[0][:2] in ("$ ", "! ", "~ "):
        line = lines.pop(0)
        heads[line[0]].append(line[2:])
    options = tuple(word for line in heads["!"] for word in shlex.split(line))
    recipe = "\n".join(lines).strip("\n") + "\n"
    return Case(name.strip(), recipe, tuple(heads["$"]), options, " ".join(heads["~"]))
