"""``verify IMAGE``: each claim of an image broken by hand, and told; images of others that are whole."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intake_samples import OCI, Files, Layout, as_json, config_of, sha256, tar_of, write_files

from layerbuild.intake.claims import Claim, check_archive, check_layout
from layerbuild.intake.members import FolderMembers

LOWER = tar_of({"etc": None, "etc/a": b"a", "etc/b": b"b", "old": None, "old/x": b"x"})
UPPER = tar_of({"etc": None, "etc/.wh.a": b"", "etc/c": b"c", ".wh.old": b""})


def layout(*tars: bytes, change: Callable[[dict[str, Any]], None] | None = None, **options: Any) -> Files:
    """A whole layout of one image; ``change`` edits its configuration, before it is named by its digest."""
    made = Layout()
    entry = made.image(tars or (LOWER, UPPER), **options)
    if change is not None:
        manifest = json.loads(made.files.pop(_blob(entry)))
        config = json.loads(made.files.pop(_blob(manifest["config"])))
        change(config)
        manifest["config"] = made.blob(OCI + "config.v1+json", as_json(config))
        entry = made.blob(OCI + "manifest.v1+json", as_json(manifest))
    made.entries.append(entry)
    return made.finish()


def _blob(descriptor: dict[str, Any]) -> str:
    return f"blobs/sha256/{descriptor['digest'][7:]}"


def claims(folder: Path, files: Files) -> list[Claim]:
    return list(check_layout(FolderMembers(write_files(folder, files))))


def told(folder: Path, files: Files, *, remarks: bool = False) -> str:
    return "\n".join(f"{claim.subject} {claim.text}" for claim in claims(folder, files) if claim.remark is remarks)


def edited(files: Files, edit: Callable[[dict[str, Any]], None]) -> Files:
    """The layout with another manifest, whose digest the index follows."""
    index = json.loads(files["index.json"])
    entry = index["manifests"][0]
    manifest = json.loads(files.pop(_blob(entry)))
    edit(manifest)
    data = as_json(manifest)
    entry |= {"digest": sha256(data), "size": len(data)}
    return files | {_blob(entry): data, "index.json": as_json(index)}


def manifest_of(files: Files) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files[_blob(json.loads(files["index.json"])["manifests"][0])])
    return found


def test_a_whole_image(tmp_path: Path) -> None:
    assert claims(tmp_path / "a", layout()) == []
    assert claims(tmp_path / "b", layout(zipped=False)) == []


def test_a_blob_that_is_another(tmp_path: Path) -> None:
    files = layout()
    layer = _blob(manifest_of(files)["layers"][0])
    found = told(tmp_path, files | {layer: gzip.compress(UPPER)})
    assert "has the digest" in found and "its descriptor says" in found and "has the diff ID" in found


def test_a_blob_that_is_missing(tmp_path: Path) -> None:
    files = layout()
    del files[_blob(manifest_of(files)["layers"][1])]
    assert told(tmp_path, files).endswith("is missing")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda config: config["rootfs"]["diff_ids"].reverse(), "has the diff ID"),
        (lambda config: config["rootfs"]["diff_ids"].pop(), "has 2 layers; its configuration names 1 diff IDs"),
        (lambda config: config["history"].pop(), "has 1 history entries with a layer for 2 layers"),
        (lambda config: config.pop("architecture"), "says no architecture"),
        (lambda config: config["rootfs"].update(type="tarballs"), "rootfs of type 'tarballs'"),
        (lambda config: config.update(created="yesterday"), "has the time 'yesterday'"),
        (lambda config: config.update(rootfs=5), "is no image configuration"),
    ],
)
def test_the_configuration(tmp_path: Path, change: Callable[[dict[str, Any]], None], wanted: str) -> None:
    assert wanted in told(tmp_path, layout(change=change))


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (
            lambda manifest: manifest["layers"][0].update(mediaType=OCI + "layer.v1.tar"),
            "is gzip; its media type says none",
        ),
        (lambda manifest: manifest["layers"][0].update(mediaType="text/plain"), "which is no layer's"),
        (lambda manifest: manifest["layers"][0].update(size=1), "its descriptor says 1"),
        (
            lambda manifest: manifest.update(mediaType="application/vnd.docker.distribution.manifest.v2+json"),
            "its descriptor says",
        ),
        (lambda manifest: manifest.update(schemaVersion=1), "manifest"),
        (lambda manifest: manifest["config"].update(digest="sha256:" + "0" * 64), "is missing"),
    ],
)
def test_the_manifest(tmp_path: Path, edit: Callable[[dict[str, Any]], None], wanted: str) -> None:
    assert wanted in told(tmp_path, edited(layout(), edit))


def test_the_layout_itself(tmp_path: Path) -> None:
    files = layout()
    assert "says version '2'" in told(tmp_path / "a", files | {"oci-layout": b'{"imageLayoutVersion": "2"}'})
    assert "index.json" in told(tmp_path / "b", files | {"index.json": b"{"})
    twice = files["index.json"].replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2', 1)
    assert "has the key 'schemaVersion' twice" in told(tmp_path / "c", files | {"index.json": twice})


@pytest.mark.parametrize(
    ("upper", "wanted"),
    [
        ({"x/.wh.": b""}, "names nothing that can be deleted"),
        ({".wh.etc": b"content"}, "which is no empty file"),
        ({"etc": None, "etc/a": b"", "etc/.wh.a": b""}, "has /etc/a and deletes it"),
        ({"link": (tarfile.LNKTYPE, "nowhere")}, "hard link /link to /nowhere, which is not there"),
    ],
)
def test_entries_that_no_layer_may_have(tmp_path: Path, upper: dict[str, Any], wanted: str) -> None:
    assert wanted in told(tmp_path, layout(LOWER, tar_of(upper)))


def test_an_entry_that_is_there_twice(tmp_path: Path) -> None:
    one, two = tar_of({"a": b"1"}), tar_of({"a": b"2"})
    assert "has /a twice" in told(tmp_path, layout(one.rstrip(b"\0").ljust(1024, b"\0") + two))


def test_what_is_odd_and_breaks_nothing(tmp_path: Path) -> None:
    files = layout(LOWER, tar_of({".wh.nothing": b""}), LOWER)
    assert told(tmp_path, files) == ""
    remarks = told(tmp_path, files, remarks=True)
    assert "deletes /nothing, which is not there" in remarks and "is the same as layer" in remarks


def test_whiteouts_see_what_lies_below(tmp_path: Path) -> None:
    opaque = tar_of({"etc": None, "etc/.wh..wh..opq": b"", "etc/new": b""})
    again = tar_of({"etc": None, "etc/.wh.a": b"", "etc/.wh.new": b""})
    remarks = told(tmp_path, layout(LOWER, opaque, again), remarks=True)
    assert "deletes /etc/a" in remarks and "/etc/new" not in remarks


def test_a_cut_tar_and_no_tar_at_all(tmp_path: Path) -> None:
    assert told(tmp_path / "a", layout(LOWER, UPPER[:700]))
    assert told(tmp_path / "b", layout(LOWER, b"x" * 1024))


def archive(*tars: bytes, config: bytes | None = None) -> Files:
    data = config or config_of(tars)
    name = f"{sha256(data)[7:]}.json"
    layers = [f"{number}/layer.tar" for number in range(len(tars))]
    files = {name: data, "manifest.json": as_json([{"Config": name, "RepoTags": ["a:1"], "Layers": layers}])}
    return files | dict(zip(layers, tars, strict=True))


def test_docker_archives(tmp_path: Path) -> None:
    def check(name: str, files: Files) -> str:
        return "\n".join(claim.text for claim in check_archive(FolderMembers(write_files(tmp_path / name, files))))

    assert check("whole", archive(LOWER, UPPER)) == ""
    assert "has the diff ID" in check("other", archive(LOWER, LOWER, config=config_of((LOWER, UPPER))))
    assert "names 1 diff IDs for 2 layers" in check("fewer", archive(LOWER, UPPER, config=config_of((LOWER,))))
    lost = archive(LOWER, UPPER)
    del lost["1/layer.tar"]
    assert "1/layer.tar is missing" in check("lost", lost)
    assert "has the digest" in check(
        "renamed", {**archive(LOWER), _config_name(archive(LOWER)): config_of((LOWER,), "arm64")}
    )


def _config_name(files: Files) -> str:
    return str(json.loads(files["manifest.json"])[0]["Config"])
