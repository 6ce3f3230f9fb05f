"""What an export asks of the documents: media types, annotations, compression; and several platforms in one."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_samples import LAYERS, Sample, file, make_image

from layerbuild.build.platforms import write_index
from layerbuild.errors import UsageError
from layerbuild.export.formats import Exported, Output, write
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.image.manifest import Manifest
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.store import Store

PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm", "v7"))


def document(layout: Path, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout / "blobs/sha256" / digest[7:]).read_text())
    return found


def written(layout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What index.json says of the only name, and the document that it names."""
    (described,) = json.loads((layout / "index.json").read_text())["manifests"]
    return described, document(layout, described["digest"])


@pytest.fixture
def one(store: Store, tmp_path: Path) -> Sample:
    return Sample(store, make_image(store, LAYERS, names=("one:1",)), tmp_path)


@pytest.fixture
def index(store: Store) -> StoredIndex:
    images = [for_platform(store, platform) for platform in PLATFORMS]
    return write_index(store, images, [Reference.parse("multi:1")])


def for_platform(store: Store, platform: Platform) -> StoredImage:
    image = make_image(store, [*LAYERS, ("COPY which /", [file("which", str(platform))])])
    config: ImageConfig = replace(image.config, platform=platform)
    described = replace(image.manifest.config, digest=config.image_id, size=len(config.to_json()))
    manifest: Manifest = replace(image.manifest, config=described)
    return store.images.put(manifest.to_json(), config.to_json())


def export(store: Store, found: StoredImage | StoredIndex, text: str) -> Exported:
    return write(store, found, Output.parse(text), stdout=io.BytesIO())


def test_docker_media_types_and_back(one: Sample, tmp_path: Path) -> None:
    done = one.export("type=oci,dest=out,tar=false,oci-mediatypes=false")
    described, manifest = written(tmp_path / "out")
    assert described["mediaType"] == manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    kinds = {layer["mediaType"] for layer in manifest["layers"]}
    assert kinds == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}
    assert done.descriptor.digest == described["digest"]
    assert one.export("type=oci,dest=same,tar=false,oci-mediatypes=true").descriptor.digest == one.image.digest
    with pytest.raises(UsageError, match="no annotations"):
        one.export("type=oci,dest=x,oci-mediatypes=false,annotation.a=b")


def test_annotations_of_one_image(one: Sample, tmp_path: Path) -> None:
    one.export("type=oci,dest=out,tar=false,annotation.A=1,annotation-manifest-descriptor.B=2")
    described, manifest = written(tmp_path / "out")
    assert manifest["annotations"] == {"A": "1"}
    assert described["annotations"]["B"] == "2"
    assert one.export("type=oci,dest=plain").descriptor.digest == one.image.digest
    with pytest.raises(UsageError, match="has no index"):
        one.export("type=oci,dest=x,annotation-index.A=1")


def test_a_base_keeps_its_blobs_unless_forced(one: Sample, tmp_path: Path) -> None:
    base = frozenset(layer.digest for layer in one.image.manifest.layers[:2])
    for force, kinds in (("false", ["gzip", "gzip", "zstd"]), ("true", ["zstd"] * 3)):
        output = Output.parse(f"type=oci,dest={tmp_path}/{force}/,compression=zstd,force-compression={force}")
        write(one.store, one.image, output.keeping(base), stdout=io.BytesIO())
        _, manifest = written(tmp_path / force)
        assert [layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]] == kinds


@pytest.mark.parametrize("wishes", ["", ",compression=zstd", ",oci-mediatypes=false", ",annotation[linux/arm].k=v"])
def test_an_index_says_what_is_beside_it(store: Store, index: StoredIndex, tmp_path: Path, wishes: str) -> None:
    done = export(store, index, f"type=oci,dest={tmp_path}/out,tar=false{wishes}")
    described, found = written(tmp_path / "out")
    assert described["digest"] == done.descriptor.digest
    assert (described["digest"] == index.digest) is (wishes == "")
    for entry, platform in zip(found["manifests"], PLATFORMS, strict=True):
        manifest = document(tmp_path / "out", entry["digest"])
        assert entry["mediaType"] == manifest["mediaType"]
        assert entry["size"] == (tmp_path / "out/blobs/sha256" / entry["digest"][7:]).stat().st_size
        assert manifest.get("annotations") == (
            {"k": "v"} if "annotation" in wishes and "arm" in str(platform) else None
        )
        assert document(tmp_path / "out", manifest["config"]["digest"])["architecture"] == platform.architecture
    assert ("docker" in described["mediaType"]) is ("oci-mediatypes" in wishes)


def test_what_the_store_does_not_hold_is_left_out_and_told(store: Store, index: StoredIndex, tmp_path: Path) -> None:
    store.images.remove(index.images[1].image_id, force=True)
    sparse = store.images.find("multi:1")
    done = export(store, sparse, f"type=oci,dest={tmp_path}/out,tar=false")
    assert done.descriptor.digest == index.images[0].digest
    assert done.notes == ("left out, as the store does not hold it: linux/arm/v7",)


def test_one_folder_for_each_platform(store: Store, index: StoredIndex, tmp_path: Path) -> None:
    for kind in ("local", "layers"):
        for _ in range(2):  # and once more over it
            export(store, index, f"type={kind},dest={tmp_path}/{kind}")
        assert {path.name for path in (tmp_path / kind).iterdir()} == {"linux_amd64", "linux_arm_v7"}
    assert (tmp_path / "local/linux_arm_v7/which").read_text() == "linux/arm/v7"
    assert json.loads((tmp_path / "layers/linux_arm_v7/layers.json").read_text())["platform"] == "linux/arm/v7"
    export(store, index.images[0], f"type=local,dest={tmp_path}/split,platform-split=true")
    assert [path.name for path in (tmp_path / "split").iterdir()] == ["linux_amd64"]


def test_what_takes_one_platform_only_says_so(store: Store, index: StoredIndex, tmp_path: Path) -> None:
    for text in (f"type=docker,dest={tmp_path}/out", f"type=local,dest={tmp_path}/out,platform-split=false"):
        with pytest.raises(UsageError, match=r"one platform only|in one folder"):
            export(store, index, text)
    assert not list(tmp_path.glob("out*"))
