"""OCI layouts and docker archives, well-formed and hostile."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intake_samples import OCI, Files, Layout, as_json, config_of, named, sha256, tar_of, write_files

from layerbuild.digest import ChainID, chain_ids
from layerbuild.errors import DigestMismatch, FormatError, LayerbuildError, NotFoundError
from layerbuild.image.config import Platform
from layerbuild.intake.load import Shape, identify, load
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.store import Store

AMD64 = Platform("linux", "amd64")
BOTTOM = tar_of({"etc": None, "etc/name": b"bottom\n", "etc/gone": b"x"})
TOP = tar_of({"etc": None, "etc/name": b"top\n", "etc/.wh.gone": b""})


def names(image: StoredImage) -> tuple[str, ...]:
    return image.names


def tree(store: Store, image: StoredImage) -> dict[str, str]:
    """The regular files of the topmost folder."""
    top = store.ensure_unpacked(image.top)[-1].diff
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


def simple(**more: Any) -> Files:
    layout = Layout()
    layout.entries = [layout.image([BOTTOM, TOP], **(more or named("docker.io/library/sample:1")))]
    return layout.finish()


def as_folder(folder: Path, files: Files) -> Path:
    return write_files(folder / "layout", files)


def as_tar(folder: Path, files: Files) -> Path:
    (folder / "archive.tar").write_bytes(tar_of(files))
    return folder / "archive.tar"


def packed(pack: Callable[[bytes], bytes]) -> Callable[[Path, Files], Path]:
    def write(folder: Path, files: Files) -> Path:
        (folder / "archive").write_bytes(pack(tar_of(files)))
        return folder / "archive"

    return write


def as_stream(folder: Path, files: Files) -> io.BytesIO:
    return io.BytesIO(gzip.compress(tar_of(files)))


@pytest.mark.parametrize(
    "write",
    [as_folder, as_tar, packed(gzip.compress), packed(bz2.compress), packed(lzma.compress), as_stream],
    ids=["folder", "tar", "gzip", "bzip2", "xz", "stream"],
)
def test_a_layout_in_any_wrapping(store: Store, tmp_path: Path, write: Callable[[Path, Files], Any]) -> None:
    (image,) = load(store, write(tmp_path, simple()), platform=AMD64)
    assert image.names == ("docker.io/library/sample:1",)
    assert [str(diff_id) for diff_id in image.config.diff_ids] == [sha256(BOTTOM), sha256(TOP)]
    assert tree(store, image) == {"etc/name": "top\n"}
    assert store.verify(contents=True) == ()
    assert not list(store.temporary.iterdir())


def test_bytes_are_kept_as_they_came(store: Store, tmp_path: Path) -> None:
    files = simple()
    (image,) = load(store, as_tar(tmp_path, files), platform=AMD64)
    for digest in image.blobs:
        assert store.blobs.path(digest).read_bytes() == files[f"blobs/sha256/{digest.hex}"]


def test_a_second_load_reads_no_layer(store: Store, tmp_path: Path) -> None:
    files = simple()
    (first,) = load(store, as_tar(tmp_path, files), platform=AMD64)
    folders = {snapshot.id for snapshot in store.snapshots.all()}
    for layer in first.manifest.layers:
        files.pop(f"blobs/sha256/{layer.digest.hex}")
    (second,) = load(store, as_tar(tmp_path, files), platform=AMD64)
    assert (second.manifest_digest, {snapshot.id for snapshot in store.snapshots.all()}) == (
        first.manifest_digest,
        folders,
    )


def test_the_same_layer_compressed_in_another_way(store: Store, tmp_path: Path) -> None:
    load(store, as_tar(tmp_path, simple()), platform=AMD64)
    layout = Layout()
    layout.entries = [layout.image([BOTTOM, TOP], zipped=False, **named("docker.io/library/plain:1"))]
    (plain,) = load(store, as_folder(tmp_path, layout.finish()), platform=AMD64)
    assert [layer.digest for layer in plain.manifest.layers] == list(plain.config.diff_ids)
    assert len(store.snapshots.all()) == 2
    assert store.verify() == ()


# -- which of several --------------------------------------------------------------------------------------------------


def platforms(layout: Layout) -> list[dict[str, Any]]:
    return [
        layout.image([BOTTOM], platform={"os": "linux", "architecture": "amd64"}),
        layout.image([TOP], architecture="arm64", platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
        layout.image(
            [tar_of({"attestation": b""})],
            architecture="unknown",
            platform={"os": "unknown", "architecture": "unknown"},
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
        ),
    ]


@pytest.mark.parametrize("nested", [True, False], ids=["index in an index", "manifests side by side"])
@pytest.mark.parametrize(("architecture", "layer"), [("amd64", BOTTOM), ("arm64", TOP)])
def test_the_platform_chooses(store: Store, tmp_path: Path, nested: bool, architecture: str, layer: bytes) -> None:
    layout = Layout()
    entries = platforms(layout)
    layout.entries = [layout.index(entries, **named("sample:1"))] if nested else entries
    (image,) = load(store, as_folder(tmp_path, layout.finish()), platform=Platform("linux", architecture))
    assert [str(diff_id) for diff_id in image.config.diff_ids] == [sha256(layer)]


def test_a_platform_that_is_not_there(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    layout.entries = [layout.index(platforms(layout))]
    with pytest.raises(NotFoundError, match="no image for linux/riscv64") as raised:
        load(store, as_folder(tmp_path, layout.finish()), platform=Platform("linux", "riscv64"))
    assert "linux/amd64, linux/arm64/v8" in raised.value.hint


def test_several_images_and_several_names(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    one, two = layout.image([BOTTOM]), layout.image([TOP])
    layout.entries = [one | named("one:1"), one | named("uno:1"), two | named("two:1")]
    path = as_tar(tmp_path, layout.finish())
    found = load(store, path, platform=AMD64)
    assert list(map(names, found)) == [
        ("docker.io/library/one:1", "docker.io/library/uno:1"),
        ("docker.io/library/two:1",),
    ]
    with Store.open(tmp_path / "other") as other:
        assert [names(image) for image in load(other, path, platform=AMD64, name="two:1")] == [
            ("docker.io/library/two:1",)
        ]
        with pytest.raises(NotFoundError, match="'too:1'") as raised:
            load(other, path, platform=AMD64, name="too:1")
        assert "two:1" in raised.value.hint


def test_a_name_that_is_only_a_tag_names_nothing(store: Store, tmp_path: Path) -> None:
    path = as_folder(tmp_path, simple(annotations={"org.opencontainers.image.ref.name": "latest"}))
    (image,) = load(store, path, platform=AMD64, name="latest")
    assert image.names == ()


# -- docker archives ---------------------------------------------------------------------------------------------------


def docker_files(*, tags: tuple[str, ...] = ("sample:1",)) -> dict[str, Any]:
    """What docker save wrote before 25, with a third layer that equals the first."""
    config = config_of([BOTTOM, TOP, BOTTOM])
    listed = [{"Config": "abc.json", "RepoTags": list(tags), "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}]
    return {
        "1": None,
        "1/VERSION": b"1.0",
        "1/layer.tar": BOTTOM,
        "2/layer.tar": TOP,
        "3/layer.tar": (tarfile.SYMTYPE, "../1/layer.tar"),
        "abc.json": config,
        "manifest.json": as_json(listed),
        "repositories": b"{}",
    }


def write_tar(folder: Path, members: dict[str, Any]) -> Path:
    path = folder / "saved.tar"
    path.write_bytes(tar_of(members))
    return path


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_old_form_of_docker_save(store: Store, tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = write_tar(tmp_path, docker_files())
    path.write_bytes(compress(path.read_bytes()))
    (image,) = load(store, path, platform=AMD64)
    assert image.names == ("docker.io/library/sample:1",)
    assert image.image_id == sha256(docker_files()["abc.json"])
    assert image.manifest.layers[0] == image.manifest.layers[2]
    assert image.chains == chain_ids(image.config.diff_ids)
    assert isinstance(image.top, ChainID)
    assert store.verify(contents=True) == ()


def test_the_new_form_is_read_as_a_layout(store: Store, tmp_path: Path) -> None:
    files = simple() | {"manifest.json": as_json([{"Config": "nowhere", "RepoTags": None, "Layers": []}])}
    assert identify(as_tar(tmp_path, files)) is Shape.OCI_LAYOUT
    assert load(store, as_tar(tmp_path, files), platform=AMD64)[0].names == ("docker.io/library/sample:1",)


def test_an_image_is_chosen_by_name(store: Store, tmp_path: Path) -> None:
    path = write_tar(tmp_path, docker_files(tags=("one:1", "uno:1")))
    assert len(load(store, path, platform=AMD64, name="docker.io/library/uno:1")) == 1
    with pytest.raises(NotFoundError):
        load(store, path, platform=AMD64, name="two:1")


# -- what is wrong -----------------------------------------------------------------------------------------------------


def refused(store: Store, source: Path, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        load(store, source, platform=AMD64)
    assert store.images.list() == ()
    assert not list(store.temporary.iterdir())


def flipped(files: Files, number: int) -> Files:
    """Another byte in the blob of that many bytes' rank: 0 is the largest."""
    name = sorted((name for name in files if name.startswith("blobs/")), key=lambda name: -len(files[name]))[number]
    data = files[name]
    return files | {name: bytes([data[0] ^ 1]) + data[1:]}


@pytest.mark.parametrize("number", range(4), ids=["manifest", "layer or config", "another", "and another"])
def test_a_changed_blob_is_refused(store: Store, tmp_path: Path, number: int) -> None:
    refused(store, as_tar(tmp_path, flipped(simple(), number)), DigestMismatch, "digest")


def test_a_blob_of_another_size_is_refused(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.image([BOTTOM])
    layout.entries = [entry | {"size": entry["size"] - 1}]
    refused(store, as_folder(tmp_path, layout.finish()), DigestMismatch, "longer than")


def test_a_layer_that_is_not_its_diff_id_is_refused(store: Store, tmp_path: Path) -> None:
    files = docker_files() | {"2/layer.tar": tar_of({"other": b"content"})}
    refused(store, write_tar(tmp_path, files), DigestMismatch, r"2/layer.tar .* has diff ID")


def test_a_layer_that_an_archive_leaves_out_must_be_here(store: Store, tmp_path: Path) -> None:
    """Some builders save an image for a daemon that has its base: that layer's name is empty."""
    listed = [{"Config": "abc.json", "RepoTags": ["sample:1"], "Layers": ["", "2/layer.tar", "3/layer.tar"]}]
    path = write_tar(tmp_path, docker_files() | {"manifest.json": as_json(listed), "3/layer.tar": BOTTOM})
    refused(store, path, FormatError, f"leaves the layer {sha256(BOTTOM)} out, and it is not here")
    load(store, as_folder(tmp_path, simple()), platform=AMD64)
    (image,) = load(store, path, platform=AMD64)
    assert image.config.diff_ids == (sha256(BOTTOM), sha256(TOP), sha256(BOTTOM))


def test_a_manifest_without_the_layers_of_its_configuration(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    config = layout.blob(OCI + "config.v1+json", config_of([BOTTOM, TOP]))
    entry = layout.blob(OCI + "manifest.v1+json", as_json({"schemaVersion": 2, "config": config, "layers": []}))
    layout.entries = [entry]
    said = f"{entry['digest']} in .* has 0 layers, its configuration 2"
    refused(store, as_folder(tmp_path, layout.finish()), FormatError, said)


def test_a_known_layer_does_not_vouch_for_a_false_claim(store: Store, tmp_path: Path) -> None:
    load(store, as_folder(tmp_path, simple()), platform=AMD64)
    layout = Layout()
    layer = layout.blob(OCI + "layer.v1.tar", TOP)
    config = layout.blob(OCI + "config.v1+json", config_of([BOTTOM]))
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer]}
    layout.entries = [layout.blob(OCI + "manifest.v1+json", as_json(manifest))]
    with pytest.raises(DigestMismatch, match="diff ID"):
        load(store, as_folder(tmp_path / "second", layout.finish()), platform=AMD64)


def test_a_missing_blob_is_named(store: Store, tmp_path: Path) -> None:
    files = simple()
    largest = max(files, key=lambda name: len(files[name]))
    files.pop(largest)
    refused(store, as_tar(tmp_path, files), FormatError, f"no file {largest}")


def test_an_artifact_is_no_image(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    manifest = {
        "schemaVersion": 2,
        "config": layout.blob("application/vnd.cncf.helm.config.v1+json", b"{}"),
        "layers": [],
    }
    layout.entries = [layout.blob(OCI + "manifest.v1+json", as_json(manifest))]
    refused(store, as_folder(tmp_path, layout.finish()), FormatError, "is no image")


def test_indexes_in_a_circle_end(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.image([BOTTOM])
    for _ in range(12):
        entry = layout.index([entry])
    layout.entries = [entry]
    refused(store, as_folder(tmp_path, layout.finish()), FormatError, "nests more than")


def test_an_endless_document_is_refused(store: Store, tmp_path: Path) -> None:
    files = simple() | {"index.json": b" " * (5 << 20)}
    refused(store, as_tar(tmp_path, files), FormatError, "is the limit")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_member_never_leads_out_of_the_archive(store: Store, tmp_path: Path, target: str, kind: bytes) -> None:
    files = docker_files() | {"2/layer.tar": (kind, target)}
    refused(store, write_tar(tmp_path, files), FormatError, "no file 2/layer.tar")
    files = docker_files()
    files["manifest.json"] = files["manifest.json"].replace(b"abc.json", target.encode())
    refused(store, write_tar(tmp_path, files), FormatError, "no file")


@pytest.mark.parametrize(
    "listed",
    [
        b"{}",
        b"[]",
        b"[1]",
        b"[",
        b'[{"Config": 1, "Layers": []}]',
        b'[{"Config": "abc.json", "Layers": ["1/layer.tar"]}]',
    ],
)
def test_a_manifest_json_that_is_none(store: Store, tmp_path: Path, listed: bytes) -> None:
    refused(store, write_tar(tmp_path, docker_files() | {"manifest.json": listed}), FormatError, "manifest.json|layers")


@pytest.mark.parametrize("size", [100, 3000, 5000])
def test_an_archive_that_ends_too_early(store: Store, tmp_path: Path, size: int) -> None:
    path = as_tar(tmp_path, simple())
    path.write_bytes(path.read_bytes()[:size])
    refused(store, path, FormatError, ".")


def test_a_root_file_system_is_told_apart(store: Store, tmp_path: Path) -> None:
    path = write_tar(tmp_path, {"etc": None, "etc/hostname": b"x"})
    assert identify(path) is Shape.ROOTFS
    assert identify(tmp_path) is Shape.ROOTFS
    assert identify(write_tar(tmp_path, docker_files())) is Shape.DOCKER_ARCHIVE
    refused(store, write_tar(tmp_path, {"etc": None}), FormatError, "neither an OCI layout nor a docker archive")


def test_no_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        load(store, tmp_path / "absent.tar", platform=AMD64)


# -- images for several platforms --------------------------------------------------------------------------------------


def both(**more: Any) -> Layout:
    layout = Layout()
    entries = [
        layout.image([BOTTOM], platform={"os": "linux", "architecture": "amd64"}),
        layout.image([TOP], architecture="arm64", platform={"os": "linux", "architecture": "arm64"}),
    ]
    layout.entries = [layout.index(entries, **named("docker.io/library/both:1"), **more)]
    return layout


def test_an_index_comes_in_whole_under_its_digest(store: Store, tmp_path: Path) -> None:
    layout = both()
    (found,) = load(store, as_tar(tmp_path, layout.finish()))
    assert isinstance(found, StoredIndex)
    assert (found.digest, found.names) == (layout.entries[0]["digest"], ("docker.io/library/both:1",))
    assert [str(image.config.platform) for image in found.images] == ["linux/amd64", "linux/arm64"]
    assert found.complete and store.verify(contents=True) == ()


def test_an_index_of_which_only_one_image_was_saved(store: Store, tmp_path: Path) -> None:
    layout = both()
    files = layout.finish()
    index = json.loads(files[f"blobs/sha256/{layout.entries[0]['digest'][7:]}"])
    del files[f"blobs/sha256/{index['manifests'][1]['digest'][7:]}"]
    (found,) = load(store, as_tar(tmp_path, files))
    assert isinstance(found, StoredIndex) and len(found.images) == 1 and not found.complete
    del files[f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"]
    with pytest.raises(FormatError, match="none of the images"):
        load(store, as_tar(tmp_path, files))


def test_images_of_one_name_for_several_platforms_are_an_index(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    layout.entries = [
        layout.image([BOTTOM], platform={"os": "linux", "architecture": "amd64"}, **named("x:1")),
        layout.image([TOP], architecture="arm64", platform={"os": "linux", "architecture": "arm64"}, **named("x:1")),
    ]
    (found,) = load(store, as_folder(tmp_path, layout.finish()))
    assert isinstance(found, StoredIndex) and found.names == ("docker.io/library/x:1",)


def test_unnamed_images_for_one_platform_are_several(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    platform = {"os": "linux", "architecture": "amd64"}
    layout.entries = [layout.image([tar], platform=platform) for tar in (BOTTOM, TOP)]
    assert [type(found) for found in load(store, as_folder(tmp_path, layout.finish()))] == [StoredImage, StoredImage]


@pytest.mark.parametrize("number", range(12))
def test_an_archive_that_breaks_off_is_refused(store: Store, tmp_path: Path, number: int) -> None:
    whole = tar_of(simple()).rstrip(b"\0")  # less the end, which nothing needs
    path = tmp_path / "broken.tar"
    path.write_bytes(whole[: len(whole) * number // 12])
    with pytest.raises(LayerbuildError):
        load(store, path)
    assert store.images.list() == ()
