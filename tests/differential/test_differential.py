"""What layerbuild makes of a recipe is what BuildKit makes of it: configuration, history, and the merged file system.

pytestmark = pytest.mark.forked

``recorded.json`` is what a live BuildKit made of the cases; `.venv/bin/python tests/differential` compares with one
anew, and with as many recipes by chance as one likes. The suite takes a third of the cases, and all of them with
LAYERBUILD_DIFFERENTIAL=all. Differences that are decided stand in docs/differences.md.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from differential_builders import Build, import_busybox, ours, outcome
from differential_cases import Case
from differential_images import Layout, differences
from differential_random import all_cases
from places import fresh
from support import Layerbuild, missing

HERE = Path(__file__).parent
CASES = all_cases()
RECORDED: dict[str, Any] = json.loads((HERE / "recorded.json").read_text())
# All of them take some minutes.
ALL = os.environ.get("LAYERBUILD_DIFFERENTIAL") == "all"
CHOSEN = [case for number, case in enumerate(CASES) if ALL or case.differs or number % 3 == 0]

Base = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def base() -> Iterator[tuple[Build, Base, Path]]:
    """layerbuild on a store that holds the base, the base's tree, and the folder of all that."""
    if os.geteuid() != 0:
        missing("not run as root")
    folder = fresh("differential", in_memory=True)
    layerbuild = Layerbuild(folder / "store")
    yield ours(layerbuild), Layout(import_busybox(layerbuild, folder)).tree(), folder
    shutil.rmtree(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    folder = fresh("case", in_memory=True)
    yield folder
    shutil.rmtree(folder)


def test_every_case_is_recorded() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert RECORDED.keys() - {"docker"} == set(names)


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_as_buildkit(case: Case, base: tuple[Build, Base, Path], place: Path) -> None:
    build, tree, _ = base
    found = differences(RECORDED[case.name], outcome(build, case, place, tree))
    if case.differs:
        assert found, f"no difference, though one is noted: {case.differs}"
    else:
        assert not found, "\n".join(found)
