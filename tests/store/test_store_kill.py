"""SIGKILL at every file operation: what is named is whole, and what is left over goes."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from store_filling import Fill, record

from layerbuild.store.prune import prune
from layerbuild.store.store import Store

_WRITES = frozenset(("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate", "open"))


def killed(work: Callable[[Store], object], root: Path, *, at: int) -> bool:
    """Do ``work`` in a child that gets SIGKILL right before its file operation number ``at``; False: it got through."""
    child = os.fork()
    if child == 0:
        left = at

        def strike(event: str, _: tuple[object, ...]) -> None:
            nonlocal left
            if event in _WRITES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            store = Store.open(root)
            sys.addaudithook(strike)
            work(store)
            store.close()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def assert_whole(root: Path) -> None:
    with Store.open(root) as store:
        wrong = [found for found in store.verify(contents=True) if "no row" not in found.text]
        # A name is written to index.json inside the transaction that records it, so the file may be one name ahead.
        assert [found for found in wrong if found.subject != "index.json"] == []
        assert store.images.resolve("app").names
        prune(store)
        assert store.verify(contents=True) == ()
        assert list(store.temporary.iterdir()) == []
        assert store.workspaces.kept() == ()
        rows = store.database.rows("SELECT id FROM workspace")
        assert rows == []


def build(store: Store) -> None:
    fill = Fill(store)
    base = store.images.resolve("app").top
    first = store.workspaces.begin(base)
    (first.diff / "new").write_text("new")
    second = store.workspaces.begin(first)
    made = store.workspaces.commit(first, fill.layer("first"))
    store.cache.put(record(made))
    store.workspaces.discard(second)
    fill.image("base", "more", names=("other", "app"), label="new")


def test_a_build_killed_anywhere_leaves_a_whole_store(root: Path) -> None:
    with Store.open(root) as store:
        Fill(store).image("base", names=("app",))
    points = 0
    while killed(build, root, at=points * 2):
        assert_whole(root)
        points += 1
        with Store.open(root) as store:
            prune(store, all=True)
            Fill(store).image("base", names=("app",))
            if "docker.io/library/other:latest" in store.images.list()[0].names:
                store.images.remove("other")
            prune(store, all=True)
    assert points > 20
    assert_whole(root)


def test_a_prune_killed_anywhere_leaves_a_whole_store(root: Path) -> None:
    points = 0
    while True:
        with Store.open(root) as store:
            Fill(store).image("base", names=("app",))
            Fill(store).image("base", "dangling", label=str(points))
            store.workspaces.keep(store.workspaces.begin(None), {})
        if not killed(lambda store: prune(store, all=True), root, at=points):
            break
        with Store.open(root) as store:
            for kept in store.workspaces.kept():
                store.workspaces.remove(kept)
        assert_whole(root)
        points += 1
    assert points > 20


def test_an_unpunctual_kill(root: Path) -> None:
    """At times that have nothing to do with file operations, in the middle of a large blob too."""

    def work(store: Store) -> None:
        while True:
            store.blobs.add(os.urandom(3 << 20))
            build(store)
            prune(store)

    with Store.open(root) as store:
        Fill(store).image("base", names=("app",))
    dice = random.Random(1)
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                work(Store.open(root))
            finally:
                os._exit(1)
        time.sleep(dice.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert_whole(root)


def test_the_next_process_that_writes_removes_the_leftovers_of_the_dead_only(root: Path) -> None:
    def begin(store: Store) -> None:
        workspace = store.workspaces.begin(None)
        (workspace.diff / "big").write_text("x")
        store.temporary_name().write_text("half a blob")
        os.kill(os.getpid(), signal.SIGKILL)

    with Store.open(root) as alive:
        living = alive.workspaces.begin(None)
        assert killed(begin, root, at=1000)
        assert len(list(alive.temporary.iterdir())) == 1
        with Store.open(root) as other:
            assert other.workspaces.begin(None).diff.is_dir()
            assert list(other.temporary.iterdir()) == []
            assert len(list(other.overlay.iterdir())) == 3  # l, and the workspaces of the two that live
            assert len(list(other.leases.iterdir())) == 2
        assert living.diff.is_dir()


def test_what_a_process_left_that_failed_to_tidy_up_goes_too(root: Path) -> None:
    """Its lease is free and its lock file gone, as of one that has ended well."""
    with Store.open(root) as store:
        store.temporary_name().write_text("half a blob")
    with Store.open(root) as store:
        assert len(list(store.temporary.iterdir())) == 1
        store.workspaces.begin(None)
        assert list(store.temporary.iterdir()) == []


def test_a_forked_helper_that_survives_keeps_the_lease(root: Path) -> None:
    """What a RUN still writes into must not be swept under it, though the process that began it is dead."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        store = Store.open(root)
        store.workspaces.begin(None)
        if helper := os.fork():
            os.write(writing, str(helper).encode())
        else:
            os.setsid()
            time.sleep(60)
        os._exit(0)
    os.waitpid(child, 0)
    helper = int(os.read(reading, 20))
    try:
        with Store.open(root) as store:
            store.workspaces.begin(None)
            assert len(list(store.overlay.iterdir())) == 3
    finally:
        os.kill(helper, signal.SIGKILL)
        os.close(reading)
        os.close(writing)
