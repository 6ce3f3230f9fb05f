"""Step records and listings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_filling import Fill, keep_listing, record

from layerbuild.digest import BlobDigest
from layerbuild.errors import NotFoundError
from layerbuild.store.store import Store


def test_a_record_is_found_by_either_key(store: Store, fill: Fill) -> None:
    made = record(fill.snapshot(None, "a"))
    store.cache.put(made)
    assert store.cache.by_definition("definition") == made
    assert store.cache.by_content("content") == made
    assert store.cache.by_definition("content") is None
    assert store.cache.by_content("definition") is None


def test_a_newer_record_takes_the_definition_keys_place(store: Store, fill: Fill) -> None:
    store.cache.put(record(fill.snapshot(None, "a")))
    newer = record(fill.snapshot(None, "b"), created=200.0)
    store.cache.put(newer)
    assert store.cache.all() == (newer,)


def test_the_newest_of_equal_content_is_given(store: Store, fill: Fill) -> None:
    made = record(fill.snapshot(None, "a"))
    for number in (3, 9, 5):
        store.cache.put(replace(made, definition_key=str(number), created=float(number)))
    found = store.cache.by_content("content")
    assert found is not None
    assert found.definition_key == "9"


def test_a_step_that_changed_nothing_on_an_empty_stack(store: Store, fill: Fill) -> None:
    made = record(fill.snapshot(None, "a"), parent=None, chain=None, diff_id=None)
    store.cache.put(made)
    assert store.cache.by_definition("definition") == made


def test_a_record_without_its_snapshot_is_a_miss(store: Store, fill: Fill) -> None:
    snapshot = fill.snapshot(None, "a")
    store.cache.put(record(snapshot))
    store.database.execute("DELETE FROM snapshot WHERE chain = ?", (snapshot.chain,))
    assert store.cache.by_definition("definition") is None
    assert store.cache.by_content("content") is None
    assert store.cache.all() == ()


def test_the_record_to_compare_a_miss_with(store: Store, fill: Fill) -> None:
    base = fill.snapshot(None, "base")
    made = record(fill.snapshot(base.chain, "a"))
    same_stack = replace(made, definition_key="1", instruction="RUN other")
    same_text = replace(made, definition_key="2", parent=None)
    both = replace(made, definition_key="3")
    assert store.cache.nearest("RUN make", parent=base.chain) is None
    store.cache.put(same_stack)
    assert store.cache.nearest("RUN make", parent=base.chain) is None
    for newcomer in (same_text, both):
        store.cache.put(newcomer)
        assert store.cache.nearest("RUN make", parent=base.chain) == newcomer


def test_listings(store: Store) -> None:
    text = b"file\tapp/main.py\n" * 1000
    digest = keep_listing(store, text)
    assert keep_listing(store, text) == digest == BlobDigest.of(text)
    assert store.cache.listing(digest) == text
    with pytest.raises(NotFoundError):
        store.cache.listing(BlobDigest.of(b"other"))
