"""A tarball for each layer, and the list that explains them."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from export_samples import LAYERS, Sample, make_image

from layerbuild.errors import UsageError
from layerbuild.export.layers import slug


def listed(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "layers.json").read_text())
    return found


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("created_by", "expected"),
    [
        ("COPY . /app # buildkit", "copy-app"),
        ("RUN /bin/sh -c make /app # buildkit", "run-make-app"),
        ("RUN |2 A=b C=d e /bin/sh -c make # buildkit", "run-make"),
        ("|1 A=b /bin/sh -c apt-get update", "run-apt-get-update"),
        ("/bin/sh -c #(nop) ADD file:abc in / ", "add-file-abc-in"),
        ("/bin/sh -c apt-get update", "run-apt-get-update"),
        ("RUN --mount=type=cache /bin/bash -c x", "run-mount-type-cache-bin-bash-c-x"),
        ("RUN /bin/sh -c " + "very-long-" * 20, "run-very-long-very-long-very-long-very-l"),
        ("RUN ../../etc/passwd", "run-etc-passwd"),
        ("ÄÖ", "layer"),
        ("", "layer"),
    ],
)
def test_an_instruction_as_part_of_a_file_name(created_by: str, expected: str) -> None:
    assert slug(created_by) == expected


def test_the_list_tells_all_of_the_history(sample: Sample, tmp_path: Path) -> None:
    sample.export("type=layers,dest=out")
    found = listed(tmp_path / "out")
    assert [entry["instruction"] for entry in found["history"]] == [text for text, _ in LAYERS]
    assert [entry["empty_layer"] for entry in found["history"]] == [files is None for _, files in LAYERS]
    assert (found["image_id"], found["manifest_digest"]) == (sample.image.image_id, sample.image.manifest_digest)
    assert [entry["file"][:-20] for entry in found["history"] if not entry["empty_layer"]] == [
        "01-copy",
        "02-run-rm-r-gone-bin-a-echo-top-etc-name",
        "03-run-ln-s-name-etc-link",
    ]


def test_every_figure_can_be_recomputed_from_the_files(sample: Sample, tmp_path: Path) -> None:
    sample.export("type=layers,dest=out")
    chain = ""
    entries = [entry for entry in listed(tmp_path / "out")["history"] if not entry["empty_layer"]]
    for entry in entries:
        data = (tmp_path / "out" / entry["file"]).read_bytes()
        tar = gzip.decompress(data)
        assert (entry["size"], entry["digest"]) == (len(data), sha256(data))
        assert (entry["tar_size"], entry["diff_id"]) == (len(tar), sha256(tar))
        chain = sha256(f"{chain} {entry['diff_id']}".encode()) if chain else entry["diff_id"]
        assert entry["chain_id"] == chain
    assert {path.name for path in (tmp_path / "out").iterdir()} == {entry["file"] for entry in entries} | {
        "layers.json"
    }


@pytest.mark.parametrize(("codec", "ending"), [("none", ".tar"), ("zstd", ".tar.zst")])
def test_other_compressions(sample: Sample, tmp_path: Path, codec: str, ending: str) -> None:
    sample.export(f"type=layers,dest=out,compression={codec}")
    entries = [entry for entry in listed(tmp_path / "out")["history"] if not entry["empty_layer"]]
    assert all(entry["file"].endswith(entry["diff_id"][7:19] + ending) for entry in entries)
    if codec == "none":
        assert all(entry["digest"] == entry["diff_id"] for entry in entries)


def test_the_tarballs_of_an_earlier_export_go(sample: Sample, tmp_path: Path) -> None:
    sample.export("type=layers,dest=out")
    (tmp_path / "out/notes").write_text("mine")
    shorter = make_image(sample.store, LAYERS[:1])
    Sample(sample.store, shorter, tmp_path).export("type=layers,dest=out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name[:3] for name in names} == {"01-", "lay", "not"}


def test_a_list_never_makes_us_remove_something_elsewhere(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_text("stays")
    entries = [{"file": "../victim"}, {"file": str(tmp_path / "victim")}, {"file": 3}, {}]
    (tmp_path / "out/layers.json").write_text(json.dumps({"history": entries}))
    sample.export("type=layers,dest=out")
    assert (tmp_path / "victim").read_text() == "stays"


@pytest.mark.parametrize("content", [{"mine": "x"}, {"layers.json": "[]"}])
def test_a_folder_of_something_else_is_left_alone(sample: Sample, tmp_path: Path, content: dict[str, str]) -> None:
    (tmp_path / "out").mkdir()
    for name, text in content.items():
        (tmp_path / "out" / name).write_text(text)
    with pytest.raises(UsageError):
        sample.export("type=layers,dest=out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == content
