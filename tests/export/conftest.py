"""A fresh store, and an image in it that has one of each thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from export_samples import LAYERS, Sample, make_image

from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def image(store: Store) -> StoredImage:
    return make_image(store, LAYERS, names=("sample:1", "registry.example/team/sample:2"))


@pytest.fixture
def sample(store: Store, image: StoredImage, tmp_path: Path) -> Sample:
    return Sample(store, image, tmp_path)
