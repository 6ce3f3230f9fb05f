"""Folders that outlive a build: who shares them, who waits, who gets another."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from layerbuild.store.cachemounts import CacheName, Sharing
from layerbuild.store.prune import prune
from layerbuild.store.store import Store
from layerbuild.store.usage import disk_usage

NAME = CacheName("apt")


def nothing(folder: Path) -> None:
    pass


def impatient() -> None:
    raise TimeoutError


def claim(
    store: Store, stack: ExitStack, sharing: Sharing = "shared", *, name: CacheName = NAME, fresh: bool = False
) -> Path:
    return stack.enter_context(
        store.cache_mounts.claimed(name, sharing=sharing, fill=nothing, waiting=impatient, fresh=fresh)
    )


def test_content_stays_from_one_use_to_the_next(store: Store) -> None:
    for content in ([], ["kept"]):
        with ExitStack() as stack:
            folder = claim(store, stack)
            assert [path.name for path in folder.iterdir()] == content
            (folder / "kept").touch()


def test_id_namespace_and_beginning_tell_caches_apart(store: Store) -> None:
    names = [NAME, CacheName("apt", "ns"), CacheName("apt", made_from="1:1:700"), CacheName("pip")]
    with ExitStack() as stack:
        assert len({claim(store, stack, name=name) for name in names}) == 4


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        ("shared", "shared", False),
        ("shared", "locked", True),
        ("locked", "shared", True),
        ("locked", "locked", True),
        ("private", "shared", True),
    ],
)
def test_who_waits_for_whom(store: Store, first: Sharing, second: Sharing, waits: bool) -> None:
    with ExitStack() as stack:
        folder = claim(store, stack, first)
        if waits:
            with pytest.raises(TimeoutError):
                claim(store, stack, second)
        else:
            assert claim(store, stack, second) == folder


def test_a_private_user_gets_another_folder_and_the_first_when_it_is_free(store: Store) -> None:
    with ExitStack() as stack:
        first = claim(store, stack, "private")
        assert claim(store, stack, "private") != first
    with ExitStack() as stack:
        assert claim(store, stack, "private") == first


def test_a_locked_cache_is_handed_on(store: Store) -> None:
    said = threading.Event()
    got = threading.Event()

    def later() -> None:
        with store.cache_mounts.claimed(NAME, sharing="locked", fill=nothing, waiting=said.set):
            got.set()

    with ExitStack() as stack:
        claim(store, stack, "locked")
        thread = threading.Thread(target=later)
        thread.start()
        assert said.wait(10)
        assert not got.is_set()
    thread.join(10)
    assert got.is_set()


def test_a_lock_on_the_folder_itself_is_the_users_own_business(store: Store) -> None:
    with ExitStack() as stack:
        descriptor = os.open(claim(store, stack), os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        claim(store, stack)
        os.close(descriptor)


def test_only_a_whole_seed_becomes_a_cache(store: Store) -> None:
    def half(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError), store.cache_mounts.claimed(NAME, sharing="shared", fill=half, waiting=impatient):
        pass
    with store.cache_mounts.claimed(
        NAME, sharing="shared", fill=lambda folder: (folder / "whole").touch(), waiting=impatient
    ) as folder:
        assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_fresh_one_replaces_the_old_for_all_who_come_later(store: Store) -> None:
    with ExitStack() as stack:
        (claim(store, stack) / "old").touch()
    with ExitStack() as stack:
        folder = claim(store, stack, fresh=True)
        assert list(folder.iterdir()) == []
        (folder / "new").touch()
        assert [path.name for path in claim(store, stack).iterdir()] == ["new"]


def test_df_shows_them_and_only_prune_all_takes_them(store: Store) -> None:
    with ExitStack() as stack:
        (claim(store, stack) / "data").write_bytes(bytes(1 << 16))
    row = next(row for row in disk_usage(store) if row.kind == "cache mounts")
    assert row.count == 1
    assert row.bytes == row.reclaimable >= 1 << 16
    prune(store)
    assert len(store.cache_mounts.all()) == 1
    report = prune(store, all=True)
    assert report.counts["cache mounts"] == 1
    assert report.bytes >= 1 << 16
    assert store.cache_mounts.all() == ()
    assert store.verify() == ()
