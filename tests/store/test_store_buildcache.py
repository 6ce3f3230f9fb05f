"""The form in which a cache travels: what is written can be read, and whatever else is read is refused or harmless."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.digest import BlobDigest, ChainID, DiffID, chain_id
from layerbuild.errors import FormatError
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.image import Image
from layerbuild.image.manifest import (
    OCI_CONFIG,
    Descriptor,
    Manifest,
    layer_media_type,
)
from layerbuild.store.buildcache import (
    ARTIFACT_TYPE,
    EMPTY,
    RECORDS_TYPE,
    BuildCache,
    CachedStep,
    StackRead,
    read_cache,
    with_inline,
    write_artifact,
)

ONE, TWO = DiffID.of(b"one"), DiffID.of(b"two")
BLOBS = {diff_id: Descriptor(layer_media_type("gzip"), BlobDigest.of(diff_id.encode()), 10) for diff_id in (ONE, TWO)}
BOTTOM = chain_id(None, ONE)
STEPS = (
    CachedStep("d1", "c1", None, BOTTOM, ONE, "COPY a b", {"kind": "x"}, {}, 0.5),
    CachedStep("d2", "c2", BOTTOM, chain_id(BOTTOM, TWO), TWO, "RUN x", {}, {"files a": StackRead(BOTTOM, "sha256:1")}),
    CachedStep("d3", "c3", BOTTOM, BOTTOM, None, "RUN true", {}, {"files b": StackRead(None, "sha256:2")}),
)
CACHE = BuildCache("1", 2, STEPS, BLOBS)


def read(manifest: Manifest, records: bytes) -> BuildCache:
    return read_cache(manifest, lambda blob: records)


def test_round_trip() -> None:
    manifest, records = write_artifact(CACHE)
    assert read(Manifest.from_json(manifest.to_json()), records) == CACHE
    assert (manifest.artifact_type, manifest.config.media_type) == (ARTIFACT_TYPE, RECORDS_TYPE)
    assert write_artifact(CACHE) == (manifest, records)


def test_without_layers() -> None:
    cache = replace(CACHE, steps=STEPS[2:], layers={})
    manifest, records = write_artifact(cache)
    assert [layer.digest for layer in manifest.layers] == [BlobDigest.of(EMPTY)]
    assert read(manifest, records) == cache


def test_inline_says_nothing_of_times() -> None:
    image = Image.scratch(Platform("linux", "amd64")).config
    image = replace(image, diff_ids=(ONE, TWO), extra='{"other":1}')
    carrying = with_inline(image, CACHE)
    assert carrying == with_inline(image, replace(CACHE, steps=tuple(replace(step, seconds=9.0) for step in STEPS)))
    assert with_inline(carrying, None) == image
    manifest = Manifest(Descriptor(OCI_CONFIG, BlobDigest.of(b""), 0), tuple(BLOBS.values()))
    found = read(manifest, ImageConfig.from_json(carrying.to_json()).to_json())
    assert found == replace(CACHE, steps=tuple(replace(step, seconds=0.0) for step in STEPS))


@pytest.mark.parametrize(
    "step",
    [
        replace(STEPS[0], chain=ChainID.of(b"another")),
        replace(STEPS[1], parent=None),
        replace(STEPS[2], chain=None),
        replace(STEPS[0], diff_id=DiffID.of(b"three"), chain=chain_id(None, DiffID.of(b"three"))),
    ],
)
def test_what_does_not_add_up_is_left_out(step: CachedStep) -> None:
    manifest, records = write_artifact(replace(CACHE, steps=(step, STEPS[0])))
    found = read(manifest, records)
    assert (found.steps, found.rejected) == ((STEPS[0],), 1)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in _paths(item, (*path, key)))]


@given(st.data())
def test_another_document_is_refused_or_adds_up(data: st.DataObject) -> None:
    manifest, records = write_artifact(CACHE)
    document = json.loads(records)
    path = data.draw(st.sampled_from(_paths(document)))
    changed: Any = copy.deepcopy(document)
    value = data.draw(values)
    if path:
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    else:
        changed = value
    try:
        found = read(manifest, json.dumps(changed).encode())
    except FormatError:
        return
    assert all(step.adds_up and (step.diff_id is None or step.diff_id in found.layers) for step in found.steps)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    manifest, _ = write_artifact(CACHE)
    with pytest.raises(FormatError):
        read(manifest, data)
