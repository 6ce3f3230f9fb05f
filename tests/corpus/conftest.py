"""The report on the corpus: for each family of cases, how many passed, failed, differ as known, or are absent; and the
bench for cases that build."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from corpus_bases import make_bases
from corpus_bench import Bench
from places import fresh
from support import Layerbuild, missing

_COLUMNS = ("passed", "failed", "known difference", "absent", "skipped")
_NAMES = {"error": "failed", "xfailed": "known difference", "xpassed": "failed"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "corpus(family): a case of another builder's suite")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    marker = item.get_closest_marker("corpus")
    if marker is not None:
        outcome.get_result().user_properties.append(("corpus", marker.args[0]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for category, reports in terminalreporter.stats.items():
        for report in reports:
            family = dict(getattr(report, "user_properties", ())).get("corpus")
            if family and category:
                absent = category == "skipped" and "corpus absent" in str(report.longrepr)
                counts[family]["absent" if absent else _NAMES.get(category, category)] += 1
    if not counts:
        return
    terminalreporter.section("corpus")
    width = max(map(len, counts))
    for family, found in sorted(counts.items()):
        told = ", ".join(f"{found[column]} {column}" for column in _COLUMNS if found[column])
        terminalreporter.write_line(f"{family:<{width}}  {told}")


@pytest.fixture(scope="session")
def bases(program: Callable[[str], str]) -> Path:
    """A store that holds the bases, to be copied."""
    if os.geteuid() != 0:
        missing("not run as root")
    folder = fresh("bases", in_memory=True)
    make_bases(Layerbuild(folder / "store"), program("busybox"), folder)
    return folder / "store"


@pytest.fixture
def bench(bases: Path) -> Iterator[Bench]:
    folder = fresh("case", in_memory=True)
    subprocess.run(["cp", "-a", bases, folder / "store"], check=True)
    yield Bench(Layerbuild(folder / "store"), folder)
    shutil.rmtree(folder)
