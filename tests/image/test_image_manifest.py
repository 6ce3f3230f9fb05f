"""Manifests, indexes and descriptors: what is read, what is refused, and that nothing is lost on the way."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError
from layerbuild.image.config import Platform
from layerbuild.image.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    LAYER_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    SIZE_LIMIT,
    Descriptor,
    Index,
    Manifest,
    layer_codec,
    layer_media_type,
    read_manifest,
)

DIGEST = BlobDigest.of(b"something")
CONFIG = {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 9}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 9}


def document(**changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER], **changes}


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


texts = st.text(st.characters(codec="utf-8"), max_size=8)
pairs = st.dictionaries(texts, texts, max_size=3).map(lambda found: tuple(sorted(found.items())))
platforms = st.builds(
    Platform, os=texts, architecture=texts, variant=texts, os_version=texts, os_features=st.lists(texts).map(tuple)
)
descriptors = st.builds(
    Descriptor,
    media_type=st.sampled_from([*LAYER_TYPES, OCI_CONFIG, "application/x.y+json"]),
    digest=st.binary(max_size=4).map(BlobDigest.of),
    size=st.integers(0, (1 << 63) - 1),
    annotations=pairs,
    platform=st.none() | platforms,
    urls=st.lists(st.just("https://example.org/x"), max_size=2).map(tuple),
    artifact_type=st.sampled_from(["", "application/x"]),
)


@given(
    st.builds(
        Manifest,
        config=descriptors,
        layers=st.lists(descriptors, max_size=3).map(tuple),
        media_type=st.sampled_from([OCI_MANIFEST, DOCKER_MANIFEST]),
        annotations=pairs,
        subject=st.none() | descriptors,
    )
)
def test_a_manifest_survives_the_round_trip(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert read_manifest(manifest.to_json()) == manifest


@given(st.builds(Index, manifests=st.lists(descriptors, max_size=3).map(tuple), annotations=pairs))
def test_an_index_survives_the_round_trip(index: Index) -> None:
    assert read_manifest(index.to_json()) == index


def test_unknown_keys_are_kept_at_every_level() -> None:
    given_ = document(future=[1], config={**CONFIG, "newer": {"a": None}})
    assert json.loads(Manifest.from_json(encoded(given_)).to_json()) == given_


def test_embedded_data_is_read_and_written() -> None:
    embedded = {"mediaType": OCI_CONFIG, "digest": BlobDigest.of(b"{}"), "size": 2}
    embedded["data"] = base64.b64encode(b"{}").decode()
    read = Descriptor.from_json(encoded(embedded))
    assert read.data == b"{}"
    assert json.loads(read.to_json()) == embedded


def test_embedded_data_must_be_what_the_digest_says() -> None:
    lie = {"mediaType": OCI_CONFIG, "digest": BlobDigest.of(b"[]"), "size": 2, "data": "e30="}
    with pytest.raises(FormatError, match="embedded data"):
        Descriptor.from_json(encoded(lie))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (document(), Manifest),
        (document(mediaType=DOCKER_MANIFEST), Manifest),
        ({"schemaVersion": 2, "config": CONFIG, "layers": []}, Manifest),
        ({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, Index),
        ({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []}, Index),
        ({"schemaVersion": 2, "manifests": []}, Index),
    ],
)
def test_the_kind_is_told_by_the_bytes(data: dict[str, Any], kind: type) -> None:
    assert isinstance(read_manifest(encoded(data)), kind)


REFUSED = {
    "no object": ([], "not a JSON object"),
    "both at once": (document(manifests=[]), "at once"),
    "schema 1": ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
    "no schema version": ({"config": CONFIG, "layers": []}, "schemaVersion"),
    "foreign media type": (document(mediaType="text/plain"), "media type"),
    "no config": ({"schemaVersion": 2, "layers": []}, "'config' is missing"),
    "layers no list": (document(layers={}), "a list"),
    "layer no object": (document(layers=["x"]), "no valid"),
    "negative size": (document(config={**CONFIG, "size": -1}), "size is -1"),
    "boolean size": (document(config={**CONFIG, "size": True}), "size is True"),
    "huge size": (document(config={**CONFIG, "size": 1 << 63}), "size is"),
    "upper-case digest": (document(config={**CONFIG, "digest": DIGEST.upper()}), "sha256 digest"),
    "escaping digest": (document(config={**CONFIG, "digest": "sha256:../../../etc/passwd"}), "sha256 digest"),
    "annotation no text": (document(annotations={"a": 1}), "expected text"),
    "url without scheme": (document(config={**CONFIG, "urls": ["//x"]}), "not a URL"),
    "bad type": (document(config={**CONFIG, "mediaType": "json"}), "mediaType is 'json'"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(data: object, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_manifest(encoded(data))
    assert words in caught.value.message


@pytest.mark.parametrize("digest", ["sha512:" + "0" * 128, "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9K"])
def test_other_algorithms_are_refused(digest: str) -> None:
    with pytest.raises(FormatError, match="is not a sha256 digest"):
        read_manifest(encoded(document(config={**CONFIG, "digest": digest})))


def test_deep_nesting_is_a_format_error() -> None:
    with pytest.raises(FormatError):
        read_manifest(b"[" * 200_000)


def test_a_manifest_larger_than_a_registry_takes_is_refused() -> None:
    with pytest.raises(FormatError, match="limit"):
        Manifest.from_json(encoded(document(annotations={"a": "x" * SIZE_LIMIT})))


def test_the_codec_of_each_layer_type_and_back() -> None:
    assert layer_media_type("zstd") == "application/vnd.oci.image.layer.v1.tar+zstd"
    for codec in ("none", "gzip", "zstd"):
        assert layer_codec(layer_media_type(codec)) == codec
    assert layer_codec("application/vnd.docker.image.rootfs.diff.tar.gzip") == "gzip"
    with pytest.raises(FormatError):
        layer_codec("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
    with pytest.raises(FormatError):
        layer_media_type("xz")
