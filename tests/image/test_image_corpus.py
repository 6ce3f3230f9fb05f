"""The JSON samples of the OCI image specification, where they are at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerbuild.digest import BlobDigest, DiffID, chain_ids
from layerbuild.errors import FormatError
from layerbuild.image.config import ImageConfig
from layerbuild.image.manifest import Descriptor, Index, Manifest

ROOT = Path(__file__).resolve().parents[2]
SUITE = Path(os.environ.get("LAYERBUILD_CORPUS", ROOT.parent / "shared" / "corpus")) / "image-spec"

READERS: dict[str, Callable[[bytes], Any]] = {
    "config": ImageConfig.from_json,
    "manifest": Manifest.from_json,
    "descriptor": Descriptor.from_json,
    "index": Index.from_json,
    "imageindex": Index.from_json,
}

# Where the sample's verdict is not ours, and why.
ACCEPTED = {
    "no-layers": "an image of metadata only (FROM scratch, LABEL) has no layers, and every runtime takes it",
    "env-without-=": "foreign images have such entries; they are read as empty variables",
}


def rows(name: str) -> list[dict[str, Any]]:
    path = SUITE / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def needed(found: list[Any]) -> list[Any]:
    if not found:
        pytest.skip(f"corpus absent: {SUITE}")
    return found


def reason(row: dict[str, Any]) -> str:
    """Why our verdict may differ from the sample's; empty: it may not."""
    try:
        value = json.loads(row["json"])
    except ValueError:
        return ""
    if row["kind"] == "manifest" and value.get("layers") == []:
        return ACCEPTED["no-layers"]
    if row["kind"] == "config" and (value.get("config") or {}).get("Env") == ["foo"]:
        return ACCEPTED["env-without-="]
    if row["valid"] and any(not str(found).startswith("sha256:") for found in digests(value)):
        return "sha256 is the only algorithm that is known here; a blob of another is refused, never trusted"
    return ""


def digests(value: Any) -> list[Any]:
    if isinstance(value, dict):
        own = [value["digest"]] if "digest" in value else []
        return own + [found for inner in value.values() for found in digests(inner)]
    return [found for inner in value for found in digests(inner)] if isinstance(value, list) else []


def test_verdicts_and_round_trips_of_the_schema_cases() -> None:
    wrong: list[str] = []
    for row in needed(rows("schema_cases")):
        read = READERS.get(row["kind"])
        if read is None:
            continue
        try:
            value = read(row["json"].encode())
        except FormatError:
            accepted = False
        else:
            accepted = True
            assert read(value.to_json()) == value, row
        if accepted != row["valid"] and not reason(row):
            wrong.append(f"{row['kind']} {row['n']}: valid is {row['valid']}")
    assert wrong == []


def test_documents_of_the_specification() -> None:
    readers = {"config": "config", "manifest": "manifest", "index": "index", "descriptor": "descriptor"}
    for row in needed(rows("doc_examples")):
        kind = next((name for word, name in readers.items() if f".{word}." in row["mediatype"]), None)
        if kind and row["valid"]:
            value = READERS[kind](row["json"].encode())
            assert READERS[kind](value.to_json()) == value


def test_old_documents_are_still_read() -> None:
    for row in needed(rows("backcompat")):
        data = next(value for key, value in row.items() if key.lower() == row["kind"]).encode()
        assert BlobDigest.of(data) == row["digest"]
        READERS[row["kind"]](data)


def test_chain_ids() -> None:
    for row in needed(rows("chainid")):
        assert list(chain_ids(DiffID(text) for text in row["diff_ids"])) == row["chain_ids"]
