"""OCI layouts and docker archives: recomputed by hand, read by other programs, and read back."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from export_samples import LAYERS, Sample, client, file, folder, make_image, need_root

from layerbuild.errors import UsageError
from layerbuild.intake.load import load
from layerbuild.store.store import Store

NAMES = ["docker.io/library/sample:1", "registry.example/team/sample:2"]


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        opened = {member.name: tar.extractfile(member) for member in tar}
    return {name: found.read() for name, found in opened.items() if found is not None}


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """The blob of a descriptor, held against it."""
    data = files["blobs/" + descriptor["digest"].replace(":", "/")]
    assert len(data) == descriptor["size"]
    assert "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"]
    return data


def as_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("tar", ["true", "false"])
def test_everything_is_what_its_digest_says(sample: Sample, tmp_path: Path, tar: str) -> None:
    done = sample.export(f"type=oci,dest=out,tar={tar}")
    out = tmp_path / "out"
    files = members(out.read_bytes()) if tar == "true" else as_files(out)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    entries = json.loads(files["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in entries] == NAMES
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries] == ["1", "2"]
    assert {entry["digest"] for entry in entries} == {sample.image.manifest_digest} == {done.descriptor.digest}
    manifest = json.loads(blob(files, entries[0]))
    config = json.loads(blob(files, manifest["config"]))
    diff_ids = [tar_digest(blob(files, layer)) for layer in manifest["layers"]]
    assert diff_ids == config["rootfs"]["diff_ids"]
    assert len(files) == 3 + 1 + len(diff_ids)


def tar_digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(gzip.decompress(data)).hexdigest()


def test_the_archive_is_sorted_and_of_nobody_and_no_time(sample: Sample) -> None:
    with tarfile.open(fileobj=io.BytesIO(sample.stream("docker"))) as tar:
        found = tar.getmembers()
    assert [member.name for member in found] == sorted(member.name for member in found)
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in found} == {(0, 0, "", 0)}


@pytest.mark.parametrize("text", ["type=oci,dest=out", "type=oci,dest=out/", "type=docker,dest=out"])
@pytest.mark.parametrize("codec", ["", ",compression=zstd", ",compression=none", ",compression=gzip"])
def test_round_trip(sample: Sample, tmp_path: Path, text: str, codec: str) -> None:
    done = sample.export(text + codec)
    with Store.open(tmp_path / "other") as other:
        (image,) = load(other, tmp_path / "out", platform=sample.image.config.platform)
        assert list(image.names) == NAMES
        assert (image.image_id, image.manifest_digest) == (sample.image.image_id, done.descriptor.digest)
        assert image.chains == sample.image.chains
        assert other.verify(contents=True) == ()


def test_compression_makes_other_blobs_of_the_same_layers(sample: Sample) -> None:
    zstd = sample.export("type=oci,dest=a,compression=zstd")
    assert zstd.descriptor.digest != sample.image.manifest_digest
    assert sample.export("type=oci,dest=b,compression=gzip").descriptor.digest == sample.image.manifest_digest
    for diff_id in sample.image.config.diff_ids:
        layer = sample.store.layers.get(diff_id)
        assert layer is not None
        assert {blob.codec for blob in layer.blobs} == {"gzip", "zstd"}
    assert sample.export("type=oci,dest=c,compression=zstd").descriptor.digest == zstd.descriptor.digest


def test_a_level_counts_for_layers_of_that_form_only_if_forced(store: Store, tmp_path: Path) -> None:
    text = "".join(f"line {number % 97} of a text\n" for number in range(20000))
    sample = Sample(store, make_image(store, [("COPY a /", [file("a", text)])]), tmp_path)
    plain = sample.export("type=oci,dest=a,compression=gzip,compression-level=3")
    assert plain.descriptor.digest == sample.image.manifest_digest
    forced = sample.export("type=oci,dest=a,compression=gzip,compression-level=3,force-compression=true")
    assert forced.descriptor.digest != sample.image.manifest_digest


def test_a_layout_that_is_there_keeps_its_other_images(sample: Sample, tmp_path: Path) -> None:
    sample.export("type=oci,dest=out,tar=false")
    other = make_image(sample.store, LAYERS[:1], names=("other:1",))
    Sample(sample.store, other, tmp_path).export("type=oci,dest=out,tar=false")
    newer = make_image(sample.store, [("COPY b /", [folder("b")])])
    Sample(sample.store, newer, tmp_path).export("type=oci,dest=out,tar=false,name=sample:1")
    entries = json.loads((tmp_path / "out/index.json").read_text())["manifests"]
    assert {entry["annotations"]["io.containerd.image.name"]: entry["digest"] for entry in entries} == {
        NAMES[0]: newer.manifest_digest,
        NAMES[1]: sample.image.manifest_digest,
        "docker.io/library/other:1": other.manifest_digest,
    }
    for entry in entries:
        blob(as_files(tmp_path / "out"), entry)


def test_a_folder_of_something_else_is_left_alone(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(UsageError, match="no OCI layout"):
        sample.export("type=oci,dest=out,tar=false")
    assert as_files(tmp_path / "out") == {"mine": b"mine"}


def test_the_store_does_not_share_its_files(sample: Sample, tmp_path: Path) -> None:
    sample.export("type=oci,dest=out,tar=false")
    for path in (tmp_path / "out/blobs/sha256").iterdir():
        assert path.stat().st_nlink == 1


def test_manifest_json(sample: Sample) -> None:
    files = members(sample.stream("docker"))
    (listed,) = json.loads(files["manifest.json"])
    assert listed["RepoTags"] == ["sample:1", "registry.example/team/sample:2"]
    assert hashlib.sha256(files[listed["Config"]]).hexdigest() == sample.image.image_id.hex
    assert [tar_digest(files[name]) for name in listed["Layers"]] == list(sample.image.config.diff_ids)


# -- other programs ----------------------------------------------------------------------------------------------------


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.client("skopeo")
@pytest.mark.parametrize(
    ("output", "source"),
    [
        ("type=oci,dest=out,tar=false", "oci:{}:1"),
        ("type=oci,dest=out,name=sample:1", "oci-archive:{}"),
        ("type=docker,dest=out", "docker-archive:{}:docker.io/library/sample:1"),
        ("type=docker,dest=out,compression=zstd", "docker-archive:{}:docker.io/library/sample:1"),
    ],
)
def test_skopeo_reads_and_copies_it(sample: Sample, tmp_path: Path, output: str, source: str) -> None:
    skopeo = client("skopeo")
    sample.export(output)
    place = source.format(tmp_path / "out")
    assert json.loads(run(skopeo, "inspect", "--config", place))["rootfs"]["diff_ids"] == list(
        sample.image.config.diff_ids
    )
    run(skopeo, "copy", "--quiet", place, f"docker-archive:{tmp_path}/back.tar:back:1")
    with Store.open(tmp_path / "other") as other:
        (image,) = load(other, tmp_path / "back.tar", platform=sample.image.config.platform)
        assert (image.names, image.image_id) == (("docker.io/library/back:1",), sample.image.image_id)


@pytest.mark.client("podman")
@pytest.mark.root
@pytest.mark.parametrize("codec", ["", ",compression=zstd"])
def test_podman_loads_it(sample: Sample, tmp_path: Path, codec: str) -> None:
    need_root()
    sample.export(f"type=docker,dest=out{codec}")
    with tempfile.TemporaryDirectory() as short:  # podman wants a runroot of at most 50 characters
        storage = ["--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
        podman = [client("podman"), *storage]
        assert "sample:1" in run(*podman, "load", "--input", tmp_path / "out")
        assert run(*podman, "image", "inspect", "--format", "{{.Id}}", "sample:1").strip() == sample.image.image_id.hex


@pytest.mark.client("umoci")
@pytest.mark.root
def test_umoci_unpacks_the_tree_that_we_export(sample: Sample, tmp_path: Path) -> None:
    need_root()
    umoci = client("umoci")
    sample.export("type=oci,dest=out,tar=false")
    sample.export("type=local,dest=ours")
    run(umoci, "unpack", "--image", f"{tmp_path}/out:1", tmp_path / "bundle")
    theirs = tmp_path / "bundle/rootfs"
    assert described(theirs) == described(tmp_path / "ours")


def described(root: Path) -> dict[str, Any]:
    """Type, mode, owner, names of one file, link and content of all below ``root``."""
    found: dict[str, Any] = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status, name = path.lstat(), str(path.relative_to(root))
        same = first.setdefault(status.st_ino, name)
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[name] = (status.st_mode, status.st_uid, status.st_gid, same, content)
    return found
