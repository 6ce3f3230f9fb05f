"""An image that grows: history and layers never drift apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.digest import DiffID, chain_id
from layerbuild.image.config import History, ImageConfig, Platform, RuntimeConfig
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_media_type

LINUX = Platform("linux", "amd64")
A, B = DiffID.of(b"a"), DiffID.of(b"b")


def counted(config: ImageConfig) -> int:
    return sum(not entry.empty_layer for entry in config.history)


def test_a_layer_step_and_a_metadata_step() -> None:
    labelled = RuntimeConfig(labels=(("a", "b"),))
    image = Image.scratch(LINUX)
    image = image.with_step(History(created="2020-01-01T00:00:00Z", created_by="RUN x"), RuntimeConfig(), layer=A)
    image = image.with_step(History(created_by="LABEL a=b"), labelled, author="me")
    assert image.config.diff_ids == (A,)
    assert [entry.empty_layer for entry in image.config.history] == [False, True]
    assert image.config.config == labelled
    assert (image.config.author, image.config.created) == ("me", "2020-01-01T00:00:00Z")
    assert image.top == A


def test_a_step_without_history_changes_the_configuration_only() -> None:
    triggered = RuntimeConfig(on_build=("RUN x",))
    image = Image.scratch(LINUX).with_step(None, triggered)
    assert (image.config.config, image.config.history) == (triggered, ())
    with pytest.raises(ValueError, match="history"):
        image.with_step(None, triggered, layer=A)


def test_the_empty_layer_mark_is_not_the_callers_to_set() -> None:
    image = Image.scratch(LINUX).with_step(History(empty_layer=True), RuntimeConfig(), layer=A)
    assert counted(image.config) == 1


@given(
    st.lists(st.booleans(), max_size=6),
    st.integers(0, 4),
    st.lists(st.sampled_from([None, A, B]), max_size=5),
)
def test_history_and_layers_agree_on_any_base(empty: list[bool], layers: int, steps: list[DiffID | None]) -> None:
    history = tuple(History(created_by=str(number), empty_layer=mark) for number, mark in enumerate(empty))
    image = Image.of_base(ImageConfig(LINUX, diff_ids=(A,) * layers, history=history))
    for layer in steps:
        image = image.with_step(History(created_by="x"), RuntimeConfig(), layer=layer)
        assert counted(image.config) == len(image.config.diff_ids) == len(image.chains)
    assert [entry.created_by for entry in image.config.history[: len(empty)]] == [str(n) for n in range(len(empty))]


def test_a_base_that_agrees_is_taken_as_it_is() -> None:
    base = ImageConfig(LINUX, diff_ids=(A,), history=(History(created_by="x"), History(empty_layer=True)))
    assert Image.of_base(base).config is not base
    assert Image.of_base(base).config == base


def test_the_manifest_names_configuration_and_blobs() -> None:
    image = Image.of_base(ImageConfig(LINUX, diff_ids=(A, B)))
    blobs = [Descriptor(layer_media_type("gzip"), digest, 5) for digest in ("sha256:" + "1" * 64, "sha256:" + "2" * 64)]
    manifest = image.manifest(blobs, annotations=(("a", "b"),))
    assert manifest.config.digest == image.image_id
    assert manifest.config.size == len(image.config.to_json())
    assert manifest.layers == tuple(blobs)
    assert image.chains == (A, chain_id(chain_id(None, A), B))
    with pytest.raises(ValueError, match="1 blobs for 2 layers"):
        image.manifest(blobs[:1])


def test_equal_images_have_equal_ids() -> None:
    image = Image.of_base(ImageConfig(LINUX, diff_ids=(A,)))
    other = Image(replace(image.config))
    assert image.image_id == other.image_id
    assert image.image_id != image.with_step(History(), RuntimeConfig()).image_id
