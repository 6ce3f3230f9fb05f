"""What the README shows of the command line: its sessions taken apart, played in a shell, and compared.

A session is a block of commands, each behind ``$``, with what it printed. ``…`` stands for what is left out: alone in a
line for any number of lines, in a line for any characters.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import Layerbuild

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What differs from one run to the next, or from one machine to another: times, sizes and names of the base and of what
# lies on it, places.
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"[A-Z][a-z]{2} +\d+ +\d\d:\d\d"), "TIME"),
    (re.compile(r"\b\d+(?:\.\d+)?(?:ms|s)\b|\b\d+\.\d+ seconds"), "SECONDS"),
    (re.compile(r"\b(?:[0-9a-f]{12,64}\b|[0-9a-f]{4}…)"), "HEX"),
    (re.compile(r"\b(?:[A-Z2-7]{26}\b|[A-Z2-7]{4}…)"), "LINK"),
    (re.compile(r"cores: 1 instead of \d+"), "cores"),
    (re.compile(r"  +"), "  "),
)
_BASE = re.compile(r"(layerbuild base host.*?)  .*")
_TOTAL = re.compile(r"(\d+ layers?, ).*")


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and the lines that the page shows behind it."""

    line: str
    shown: tuple[str, ...]


def section(page: str, title: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^## ", page.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def commands(text: str) -> Iterator[Command]:
    """The commands of all sessions in ``text``, in order."""
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *shown = part.splitlines()
            yield Command(line, tuple(shown))


def play(command: str, layerbuild: Layerbuild, folder: Path) -> list[str]:
    """What a command prints, on both streams, as a person in ``folder`` sees it. ``folder`` becomes /home/me, the store
    the place that it has by default."""
    words = " ".join(f"'{word}'" for word in [*layerbuild.prefix, *layerbuild.python, "-m", "layerbuild"])
    done = subprocess.run(
        ["sh", "-c", f'layerbuild() {{ {words} "$@"; }}\n{command}'],
        cwd=folder,
        env={**layerbuild.environment(), "LAYERBUILD_ROOT": str(layerbuild.root), "LANG": "C.UTF-8", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    text = done.stdout.decode().replace(str(layerbuild.root), "/var/lib/layerbuild").replace(str(folder), "/home/me")
    return text.splitlines()


def plain(line: str) -> str:
    """A line without what varies."""
    for pattern, word in _VARYING:
        line = pattern.sub(word, line)
    return _TOTAL.sub(r"\1", _BASE.sub(r"\1", line)).strip()


def matches(shown: tuple[str, ...], printed: list[str]) -> bool:
    """Whether the page shows what was printed."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else ".*".join(map(re.escape, plain(line).split("…"))) + "\n"
        for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{plain(line)}\n" for line in printed)) is not None
