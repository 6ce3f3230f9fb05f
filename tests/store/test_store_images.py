"""Names, IDs, and what ``docker rmi`` would do."""

from __future__ import annotations

import json

import pytest
from store_filling import Fill

from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError, NotFoundError, StoreError, UsageError
from layerbuild.image.image import Image
from layerbuild.image.manifest import OCI_CONFIG, Descriptor, Index, Manifest, layer_media_type
from layerbuild.reference import Reference
from layerbuild.store.store import Store


def test_an_image_is_found_by_name_and_by_its_digests(store: Store, fill: Fill) -> None:
    image = fill.image("a", names=("app:1",))
    spellings = ["app:1", "docker.io/library/app:1", f"app@{image.manifest_digest}"]
    spellings += [image.image_id, image.image_id.hex, image.image_id.short, image.image_id.hex[:4]]
    spellings += [image.manifest_digest, image.manifest_digest.hex[:10], f"sha256:{image.image_id.hex[:7]}"]
    for text in spellings:
        assert store.images.resolve(text) == image, text
    assert image.names == ("docker.io/library/app:1",)
    assert image.top == image.chains[-1] == store.snapshots.all()[0].chain


def test_the_bytes_are_kept_as_they_came(store: Store, fill: Fill) -> None:
    image = fill.image("a")
    config = json.dumps(json.loads(store.blobs.read(image.image_id)), indent=3).encode()
    manifest = json.loads(store.blobs.read(image.manifest_digest))
    manifest["config"] |= {"digest": BlobDigest.of(config), "size": len(config)}
    data = json.dumps(manifest, indent=2).encode()
    foreign = store.images.put(data, config)
    assert store.blobs.read(foreign.manifest_digest) == data
    assert store.blobs.read(foreign.image_id) == config
    assert foreign.config == image.config


def test_a_name_goes_to_the_image_that_was_tagged_last(store: Store, fill: Fill) -> None:
    old = fill.image("a", names=("app",), label="old")
    new = fill.image("a", names=("app",), label="new")
    assert store.images.resolve("app") == new
    assert store.images.resolve(old.image_id).names == ()
    assert [image.image_id for image in store.images.list()] == [new.image_id, old.image_id]


def test_a_name_that_is_nearly_right_is_suggested(store: Store, fill: Fill) -> None:
    fill.image("a", names=("webserver:1.0", "database"))
    with pytest.raises(NotFoundError) as caught:
        store.images.resolve("webservr:1.0")
    assert "webserver:1.0" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        store.images.untag(Reference.parse("databas"))
    assert "database" in caught.value.hint


@pytest.mark.parametrize("text", ["", "abc", "UPPER", "no such", "sha256:", "sha256:xyz", "f" * 64, "a@sha256:12"])
def test_what_means_no_image(store: Store, text: str) -> None:
    with pytest.raises(NotFoundError):
        store.images.resolve(text)


def with_config(store: Store, fill: Fill, config: bytes) -> None:
    """Store an image of one layer whose configuration has exactly these bytes."""
    blob = fill.layer("a").blobs[0]
    named = Descriptor(OCI_CONFIG, BlobDigest.of(config), len(config))
    store.images.put(Manifest(named, (Descriptor(layer_media_type("none"), blob.digest, blob.size),)).to_json(), config)


def test_an_ambiguous_prefix_names_the_candidates(store: Store, fill: Fill) -> None:
    config = fill.image("a").config.to_json()
    seen: dict[str, bytes] = {}
    while (prefix := BlobDigest.of(config).hex[:4]) not in seen:
        seen[prefix] = config
        config += b" "
    with_config(store, fill, config)
    with_config(store, fill, seen[prefix])
    with pytest.raises(UsageError, match=BlobDigest.of(config).short):
        store.images.resolve(prefix)
    assert store.images.resolve(BlobDigest.of(config).hex[:12]).image_id == BlobDigest.of(config)


def test_one_configuration_under_two_manifests_is_one_image(store: Store, fill: Fill) -> None:
    image = fill.image("a")
    noted = image.manifest.to_json().replace(b'"schemaVersion"', b'"annotations":{"a":"b"},"schemaVersion"')
    newer = store.images.put(noted, store.blobs.read(image.image_id))
    assert newer.manifest_digest != image.manifest_digest
    assert store.images.resolve(image.image_id.short) == newer


def test_an_image_whose_layers_are_not_here_is_refused(store: Store, fill: Fill) -> None:
    image = fill.image("a")
    config = image.config.to_json()
    other = fill.layer("never recorded").blobs[0]
    manifest = Image.of_base(image.config).manifest([Descriptor(layer_media_type("none"), other.digest, other.size)])
    with pytest.raises(StoreError, match=other.digest):
        store.images.put(manifest.to_json(), config)
    with pytest.raises(FormatError, match="names the configuration"):
        store.images.put(image.manifest.to_json(), config + b" ")
    assert len(store.images.list()) == 1


def test_index_json_lists_every_name(store: Store, fill: Fill) -> None:
    image = fill.image("a", names=("app:1", "registry.example:5000/team/app:2"))
    index = Index.from_json((store.root / "index.json").read_bytes())
    assert [descriptor.digest for descriptor in index.manifests] == [image.manifest_digest] * 2
    assert index.manifests[0].annotation("org.opencontainers.image.ref.name") == "app:1"
    assert index.manifests[0].annotation("io.containerd.image.name") == "docker.io/library/app:1"
    assert index.manifests[1].annotation("org.opencontainers.image.ref.name") == "registry.example:5000/team/app:2"
    assert str(index.manifests[0].platform) == "linux/amd64"
    assert index.manifests[0].size == store.blobs.size(image.manifest_digest)
    store.images.untag(Reference.parse("app:1"))
    assert len(Index.from_json((store.root / "index.json").read_bytes()).manifests) == 1


def test_removing_by_name(store: Store, fill: Fill) -> None:
    image = fill.image("a", names=("app:1", "app:2"))
    first = store.images.remove("app:1")
    assert (first.untagged, first.deleted) == (("docker.io/library/app:1",), None)
    assert store.images.resolve("app:2").image_id == image.image_id
    last = store.images.remove("app:2")
    assert last.deleted == image.manifest_digest
    assert store.images.list() == ()
    assert store.snapshots.all() != ()  # the step cache may still want them


def test_removing_by_id(store: Store, fill: Fill) -> None:
    named = fill.image("a", names=("app:1", "app:2"))
    nameless = fill.image("b")
    assert store.images.remove(nameless.image_id.short).deleted == nameless.manifest_digest
    with pytest.raises(UsageError, match="app:1, app:2") as caught:
        store.images.remove(named.image_id.short)
    assert "--force" in caught.value.hint
    assert len(store.images.remove(named.image_id.short, force=True).untagged) == 2
    assert store.images.list() == ()


def test_a_damaged_image_can_be_removed_and_hinders_no_other(store: Store, fill: Fill) -> None:
    damaged = fill.image("a", names=("bad",), label="1")
    store.blobs.path(damaged.image_id).write_bytes(b"{}")
    with pytest.raises(StoreError, match="damaged") as caught:
        store.images.resolve("bad")
    assert "rmi" in caught.value.hint
    assert any("damaged" in found.text for found in store.verify())
    fill.image("a", names=("good",), label="2")
    store.images.remove("bad")
    assert [image.names for image in store.images.list()] == [("docker.io/library/good:latest",)]
