"""The form of `docker save` before 1.10: no manifest, IDs that say nothing, and a chain of parents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from intake_samples import Files, as_json, sha256, tar_of

from layerbuild.errors import FormatError, LayerbuildError, NotFoundError
from layerbuild.intake.load import Shape, identify, load
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store

BASE, TOP = "a" * 64, "b" * 64
LAYERS = {BASE: tar_of({"etc": None, "etc/name": b"base\n"}), TOP: tar_of({"etc": None, "etc/name": b"top\n"})}


def archive(**changes: Any) -> Files:
    base = {"id": BASE, "created": "2014-01-01T00:00:00Z", "container_config": {"Cmd": ["/bin/sh", "-c", "base"]}}
    top = {
        "id": TOP,
        "parent": BASE,
        "created": "2014-01-02T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "Size": 5,
        "config": {"Cmd": ["cat", "/etc/name"], "Env": ["A=1"]},
        "container_config": {"Cmd": ["/bin/sh", "-c", "top"]},
        "comment": "made long ago",
    }
    files = {"repositories": as_json({"old/app": {"1.0": TOP, "latest": TOP}, "base": {"x": BASE}})}
    for v1_id, raw in ((BASE, base | changes.get("base", {})), (TOP, top | changes.get("top", {}))):
        files |= {f"{v1_id}/VERSION": b"1.0", f"{v1_id}/json": as_json(raw), f"{v1_id}/layer.tar": LAYERS[v1_id]}
    return files


def write(folder: Path, files: Files) -> Path:
    path = folder / "old.tar"
    path.write_bytes(tar_of(files))
    return path


def test_images_names_layers_and_history(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path, archive())
    assert identify(path) is Shape.V1_ARCHIVE
    found = {image.names[0]: image for image in load(store, path) if isinstance(image, StoredImage)}
    image = found["docker.io/old/app:1.0"]
    assert image.names == ("docker.io/old/app:1.0", "docker.io/old/app:latest")
    assert list(image.config.diff_ids) == [sha256(LAYERS[BASE]), sha256(LAYERS[TOP])]
    assert [entry.created_by for entry in image.config.history] == ["/bin/sh -c base", "/bin/sh -c top"]
    assert image.config.history[1].comment == "made long ago"
    assert (image.config.created, image.config.config.cmd) == ("2014-01-02T00:00:00Z", ("cat", "/etc/name"))
    assert json.loads(image.config.extra).keys() == {"container_config", "comment"}
    assert list(found["docker.io/library/base:x"].config.diff_ids) == [sha256(LAYERS[BASE])]
    assert store.verify(contents=True) == ()


def test_one_is_chosen_by_name(store: Store, tmp_path: Path) -> None:
    (image,) = load(store, write(tmp_path, archive()), name="base:x")
    assert image.names == ("docker.io/library/base:x",)
    with pytest.raises(NotFoundError, match="no image named 'other'"):
        load(store, write(tmp_path, archive()), name="other")


def without(name: str) -> Files:
    files = archive()
    del files[name]
    return files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (archive() | {"repositories": b"[]"}, "not that of a docker archive"),
        (archive() | {"repositories": b"{}"}, "holds no image"),
        (archive() | {"repositories": as_json({"x": {"y": "../../etc"}})}, "not the ID"),
        (archive() | {f"{TOP}/json": b"nothing"}, "is no JSON"),
        (archive() | {f"{TOP}/json": b"[]"}, "not the configuration"),
        (archive(top={"config": 7}), "not an image configuration"),
        (archive(top={"parent": "c" * 64}), "has no file"),
        (archive(base={"parent": TOP}), "its own ancestor"),
        (without(f"{BASE}/layer.tar"), "has no file"),
        (archive() | {f"{TOP}/layer.tar": b"no tar at all, but bytes of one block" * 20}, "no valid header"),
    ],
)
def test_what_is_wrong(store: Store, tmp_path: Path, files: Files, message: str) -> None:
    with pytest.raises(LayerbuildError, match=message) as raised:
        load(store, write(tmp_path, files))
    assert isinstance(raised.value, FormatError)
    assert store.images.list() == ()
    assert not list(store.temporary.iterdir())
