"""A fresh store, and what fills it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_filling import Fill

from layerbuild.store.store import Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with Store.open(root) as opened:
        yield opened


@pytest.fixture
def fill(store: Store) -> Fill:
    return Fill(store)
