"""Each difference from BuildKit that docs/differences.md decides has its reason, and a test that is there."""

from __future__ import annotations

import re

import pytest
from support import PROJECT

ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split(" | ")]
    for line in (PROJECT / "docs/differences.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| |")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_difference_has_its_reason_and_its_test(row: list[str]) -> None:
    what, theirs, ours, why, test = row
    assert all((what, theirs, ours, why))
    named = re.fullmatch(r"`(tests/[\w/]+\.py)` \(([\w-]+)\)", test)
    assert named, f"name a file and the words of a test in it, not {test!r}"
    tests = re.findall(r"^def (test_\w+)", (PROJECT / named[1]).read_text(), re.MULTILINE)
    a_recipe = named[1] == "tests/test_recipes.py" and (PROJECT / "recipes" / named[2]).is_dir()
    assert a_recipe or any(named[2] in each for each in tests)
