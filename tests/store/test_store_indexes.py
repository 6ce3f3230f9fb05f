"""One name for several images, one for each platform."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_filling import Fill

from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError, NotFoundError, UsageError
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, Index
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.prune import prune
from layerbuild.store.store import Store
from layerbuild.store.usage import disk_usage

AMD64, ARM64, ARM = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "arm", "v7")
NAME = Reference.parse("multi")


def image_for(store: Store, platform: Platform) -> StoredImage:
    image = Image.of_base(ImageConfig(platform))
    return store.images.put(image.manifest([]).to_json(), image.config.to_json())


def entry(image: StoredImage) -> Descriptor:
    return Descriptor(image.manifest.media_type, image.digest, 1, platform=image.config.platform)


@pytest.fixture
def multi(store: Store) -> StoredIndex:
    images = [image_for(store, platform) for platform in (AMD64, ARM64)]
    index = store.images.put_index(Index(tuple(map(entry, images))).to_json())
    store.images.tag(NAME, index.digest)
    found = store.images.find("multi")
    assert isinstance(found, StoredIndex)
    return found


def test_the_name_means_the_image_for_the_platform(store: Store, multi: StoredIndex) -> None:
    for platform in (AMD64, ARM64):
        image = store.images.resolve("multi", platform=platform)
        assert (image.config.platform, image.names, image.index) == (platform, multi.names, multi.digest)
    assert store.images.resolve("multi", platform=Platform("linux", "arm64", "v9")).config.platform == ARM64
    assert store.images.find(multi.digest) == store.images.find(multi.digest[7:19]) == multi
    assert multi.complete


def test_a_platform_that_is_not_there(store: Store, multi: StoredIndex) -> None:
    with pytest.raises(NotFoundError, match="not in the store for linux/riscv64") as raised:
        store.images.resolve("multi", platform=Platform("linux", "riscv64"))
    assert raised.value.hint == "it is there for linux/amd64, linux/arm64"
    with pytest.raises(UsageError, match="linux/amd64, linux/arm64") as several:
        store.images.resolve("multi")
    assert "--platform" in several.value.hint


def test_a_store_may_say_which_platform_is_meant(store: Store, multi: StoredIndex, tmp_path: Path) -> None:
    with Store.open(store.root, platform=ARM64) as other:
        assert other.images.resolve("multi").config.platform == ARM64
        assert other.images.resolve("multi", platform=AMD64).config.platform == AMD64


def test_a_lone_image_of_another_platform_is_not_meant(store: Store) -> None:
    store.images.tag(NAME, image_for(store, AMD64).digest)
    assert store.images.resolve("multi").config.platform == AMD64
    with pytest.raises(NotFoundError, match="not in the store for linux/arm64") as raised:
        store.images.resolve("multi", platform=ARM64)
    assert "it is there for linux/amd64" in raised.value.hint


def test_images_may_be_absent_and_come_later(store: Store) -> None:
    absent = Image.of_base(ImageConfig(ARM)).manifest([])
    there = image_for(store, AMD64)
    late = Descriptor(absent.media_type, BlobDigest.of(absent.to_json()), 1, platform=ARM)
    index = store.images.put_index(Index((entry(there), late)).to_json())
    assert ([image.config.platform for image in index.images], index.complete) == ([AMD64], False)
    image_for(store, ARM)
    found = store.images.find(index.digest)
    assert isinstance(found, StoredIndex) and found.complete


def test_other_programs_see_the_index_under_its_name(store: Store, multi: StoredIndex) -> None:
    (described,) = Index.from_json(store.images.index.read_bytes()).manifests
    assert (described.digest, described.media_type) == (multi.digest, multi.index.media_type)
    assert store.verify() == ()


def test_the_name_keeps_all_its_images(store: Store, multi: StoredIndex) -> None:
    assert prune(store, all=True).counts["images"] == 0
    assert len(store.images.list()) == 2
    assert {row.kind: row.reclaimable for row in disk_usage(store)}["images"] == 0
    assert store.verify(contents=True) == ()
    store.images.untag(NAME)
    assert prune(store).counts["images"] == 3
    assert (store.images.all(), list(store.blobs.digests())) == ((), [])


def test_with_an_index_go_the_images_that_nothing_else_needs(store: Store, multi: StoredIndex) -> None:
    store.images.tag(Reference.parse("alone"), multi.images[0].digest)
    removed = store.images.remove("multi")
    assert (removed.untagged, removed.deleted) == ((str(NAME),), multi.digest)
    assert [image.names for image in store.images.list()] == [(str(Reference.parse("alone")),)]


def test_an_image_of_an_index_goes_by_force_only(store: Store, multi: StoredIndex) -> None:
    image_id = multi.images[0].image_id
    with pytest.raises(UsageError, match="is part of multi:latest"):
        store.images.remove(image_id)
    store.images.remove(image_id, force=True)
    found = store.images.find("multi")
    assert isinstance(found, StoredIndex) and not found.complete
    prune(store)
    assert store.verify() == ()


def test_a_damaged_index_is_told_and_can_be_removed(store: Store, multi: StoredIndex) -> None:
    store.blobs.path(multi.digest).write_bytes(b"{}")
    assert any(mismatch.subject == f"index {multi.digest.short}" for mismatch in store.verify())
    store.images.remove("multi")
    prune(store)
    assert store.verify() == ()


def test_what_is_no_index_is_refused(store: Store, fill: Fill) -> None:
    manifest = store.blobs.read(fill.image("a").manifest_digest)
    with pytest.raises(FormatError):
        store.images.put_index(manifest)
