"""The records of builds: what is written comes back, and how long it stays."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from store_filling import Fill, keep_listing

from layerbuild.digest import BlobDigest
from layerbuild.errors import NotFoundError
from layerbuild.leaks import Finding
from layerbuild.store.builds import KEPT, BuildRecord, Difference, Log, StageAccount, StepAccount, Surroundings
from layerbuild.store.prune import prune
from layerbuild.store.store import Store

STEP = StepAccount(
    stage="app",
    number=2,
    line=7,
    instruction="RUN make",
    kind="run",
    verdict="miss",
    reason="ARG X 1 → 2",
    differences=(Difference("ARG X", "value", "1", "2"),),
    more=3,
    inputs={"command": "make", "env X": "2"},
    args=("X",),
    after=Surroundings((("X", "2"),), "/app", "me"),
    began=0.5,
    ended=1.5,
)


def begun(store: Store, recipe: str = "/Dockerfile") -> int:
    return store.builds.begin(recipe=recipe, request={"context": "/"})


def ended(store: Store, number: int, **facts: object) -> None:
    record = BuildRecord(number, 0.0, 2.0, "done", "/Dockerfile", stages=(StageAccount("app", "FROM x"),))
    store.builds.finish(replace(record, **facts))  # type: ignore[arg-type]


def test_what_is_written_comes_back(store: Store, fill: Fill) -> None:
    number = begun(store)
    assert store.builds.get().outcome == "running"
    snapshot = fill.snapshot(None, "a")
    step = replace(STEP, chain=snapshot.chain, diff_id=snapshot.diff_id, below=None)
    store.builds.put(number, {1: STEP})
    store.builds.put(number, {1: step})
    store.builds.put_log(number, 1, Log(b"hello\n", 6, 0))
    ended(store, number, image=BlobDigest.of(b"i"), names=("a:1",), error="no")
    build = store.builds.get()
    assert build.steps == (step,) and build.stages == (StageAccount("app", "FROM x"),)
    assert (build.outcome, build.names, build.error, build.target) == ("done", ("a:1",), "no", "app")
    assert store.builds.log(number, 1) == Log(b"hello\n", 6, 0)
    assert store.builds.log(number, 2) == Log(b"", 0, 0)
    assert store.builds.of_image(BlobDigest.of(b"i")) == build == next(store.builds.of_recipe("/Dockerfile"))
    assert store.builds.of_image(BlobDigest.of(b"j")) is None


def test_the_newest_builds_are_kept(store: Store) -> None:
    numbers = [begun(store) for _ in range(KEPT + 3)]
    store.builds.put(numbers[0], {1: STEP})  # of a build that is forgotten already: no error, and no row
    assert [build.number for build in store.builds.all()] == list(reversed(numbers[3:]))
    with pytest.raises(NotFoundError):
        store.builds.get(numbers[0])


def test_records_go_with_the_step_cache(store: Store) -> None:
    listing = keep_listing(store, b"files")
    number = begun(store)
    store.builds.put(number, {1: replace(STEP, inputs={"files .": listing})})
    prune(store)
    assert store.builds.get().number == number
    assert store.cache.listing(listing) == b"files"  # the next build is compared with it
    prune(store, all=True)
    with pytest.raises(NotFoundError):
        store.builds.get()
    with pytest.raises(NotFoundError):
        store.cache.listing(listing)


def test_findings_are_the_layer_s(store: Store, fill: Fill) -> None:
    snapshot = fill.snapshot(None, "a")
    assert store.findings.get(snapshot.diff_id) is None
    found = (Finding("private key", "/k", 1, "0" * 16),)
    store.findings.put(snapshot.diff_id, found)
    assert store.findings.get(snapshot.diff_id) == found
    prune(store, all=True)
    assert store.findings.get(snapshot.diff_id) is None


def test_a_record_of_another_version_is_read(store: Store) -> None:
    number = begun(store)
    store.builds.put(number, {1: STEP})
    store.database.execute("""UPDATE build_step SET data = json_remove(json_set(data, '$.new', 1), '$.args')""")
    assert store.builds.get().steps == (replace(STEP, args=()),)


def test_an_older_store_gets_its_tables(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store"):
        pass
    database = sqlite3.connect(tmp_path / "store" / "layerbuild.db")
    database.executescript(
        "DROP TABLE build_step; DROP TABLE build; DROP TABLE layer_scan; DROP TABLE unsynced; PRAGMA user_version=4;"
    )
    database.close()
    with Store.open(tmp_path / "store") as store:
        assert begun(store) == 1


def test_two_long_values_are_shown_from_where_they_differ() -> None:
    long = "make -C /src/app && " * 10
    told = str(Difference("command", "value", f"{long}seq 1", f"{long}seq 2"))
    assert told == "command … -C /src/app && seq 1 → … -C /src/app && seq 2"
    assert str(Difference("command", "value", "make  -j1", "")) == 'command make -j1 → ""'
    assert str(Difference("env X", "value", "a" * 90, "b" * 90)) == f"env X {'a' * 59}… → {'b' * 59}…"
