"""dive's formulas, reckoned by hand; and the rules of a .dive-ci file."""

from __future__ import annotations

from pathlib import Path

import pytest
from layer_stacks import Layer, indexes

from layerbuild.errors import UsageError
from layerbuild.layer.entry import Entry, Kind
from layerbuild.views.efficiency import Efficiency, Rules, efficiency
from layerbuild.views.versions import versions


def folder(path: str) -> Entry:
    return Entry(path.encode(), Kind.DIRECTORY, 0o755)


def file(path: str, size: int) -> Entry:
    return Entry(path.encode(), Kind.FILE, 0o644, size=size, digest=f"{size:064x}")


def gone(path: str) -> Entry:
    return Entry(path.encode(), Kind.WHITEOUT)


def measure(tmp_path: Path, *stack: Layer) -> Efficiency:
    return efficiency(versions(indexes(list(stack), tmp_path)))


def test_a_file_that_is_written_twice(tmp_path: Path) -> None:
    # /a has versions of 100 and 50 bytes, /b one of 50: (50 + 50) of 200.
    found = measure(tmp_path, (file("a", 100), file("b", 50)), (file("a", 50),))
    assert found == Efficiency(score=0.5, wasted_bytes=150, user_bytes=50)
    assert found.wasted_share == 3.0


def test_a_deleted_file_counts_and_its_deletion_is_of_no_size(tmp_path: Path) -> None:
    # /a: 100 and 0, of which the least is 0; /b: 100.
    found = measure(tmp_path, (file("a", 100), file("b", 100)), (gone("a"),))
    assert found == Efficiency(score=0.5, wasted_bytes=100, user_bytes=0)
    assert found.wasted_share == float("inf")


def test_the_deletion_of_a_folder_counts_with_all_that_was_in_it(tmp_path: Path) -> None:
    # /d is no leaf below and a deletion of 30 above: one version, so nothing of it is wasted by dive's reckoning.
    found = measure(tmp_path, (folder("d"), file("d/a", 10), file("d/b", 20)), (gone("d"),))
    assert found == Efficiency(score=1.0, wasted_bytes=0, user_bytes=0)
    # Deleted twice, it has two versions.
    again = measure(
        tmp_path, (folder("d"), file("d/a", 10)), (gone("d"),), (folder("d"), file("d/a", 10)), (gone("d"),)
    )
    assert again == Efficiency(score=20 / 40, wasted_bytes=40, user_bytes=10)


def test_an_empty_image(tmp_path: Path) -> None:
    assert measure(tmp_path, ()) == Efficiency(1.0, 0, 0)


def test_rules() -> None:
    rules = Rules.parse("rules:\n  lowestEfficiency: 0.95\n  highestWastedBytes: 20MB\n", file="f")
    assert rules == Rules(0.95, 20_000_000, 0.1)
    assert Rules.parse("", file="f") == Rules(0.9, None, 0.1)
    assert Rules.parse("rules: {highestWastedBytes: 2 MiB}", file="f").highest_wasted_bytes == 2 << 20
    assert Rules.parse("rules: {highestWastedBytes: 17}", file="f").highest_wasted_bytes == 17
    assert rules.broken(Efficiency(0.95, 20_000_000, 10**10)) == []
    assert len(rules.broken(Efficiency(0.9, 20_000_001, 10))) == 3


@pytest.mark.parametrize(
    "text",
    ["[", "rules: 5", "rules: {nothing: 1}", "rules: {lowestEfficiency: x}", "rules: {highestWastedBytes: 5 cows}"],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError):
        Rules.parse(text, file="f")
