"""Lists on a terminal of 80 columns: each line has room, and nothing is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import Layerbuild
from test_cli_terminal import Person

COLUMNS = 80
LONG = "seq 1 3 > /a-file && echo an instruction that is rather long, and longer than eighty columns > /other"

See = Callable[..., list[str]]


@pytest.fixture
def see(rooted: Layerbuild) -> Iterator[See]:
    """What a person sees of a command; each line is told as it was written, before the terminal wraps it."""
    with contextlib.ExitStack() as stack:

        def seen(*arguments: str | Path) -> list[str]:
            here = replace(rooted, env={**rooted.env, "TERM": "xterm", "COLUMNS": ""})
            person = stack.enter_context(contextlib.closing(Person(here, *arguments, columns=COLUMNS)))
            person.ended(0)
            return person.raw.decode().splitlines()

        yield seen


def test_lists_have_room(rooted: Layerbuild, context: Path, see: See) -> None:
    rooted.build(context, f"FROM base:host\nLABEL a=b\nRUN {LONG}\nRUN rm /other\n", "-t", "narrow")
    layers = rooted.layers("narrow")
    for command in ("layers", "images", "history", "blame", "plan", "df"):
        lines = see(command, *{"plan": [context], "images": [], "df": []}.get(command, ["narrow"]))
        assert [line for line in lines if len(line) > COLUMNS] == [], command
    told = "\n".join(see("layers", "narrow"))
    for layer in layers:
        names = (layer["diff_id"][7:19], layer["digest"][7:19], layer["chain_id"][7:19])
        assert "  ".join(names) in told and layer["folder"].split("/")[-2][:12] in told
    rows = rooted.json("history", "narrow")
    assert len(see("history", "narrow")) == 1 + len(rows)  # each row in one line: its instruction gives way
    plan = "\n".join(see("plan", "--no-cache", context))
    assert "the files that the command changes" in plan and "a label: configuration" in plan


def test_a_pipe_gets_whole_rows(rooted: Layerbuild) -> None:
    header, row, _ = rooted("layers", "base:host").splitlines()
    assert header.split()[-1] == "FOLDER" and row.endswith("/diff")
