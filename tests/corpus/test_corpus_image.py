"""The JSON samples of the OCI image specification: what is read, what is refused, and chain IDs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from corpus_rows import Row, corpus, differs

from layerbuild.digest import BlobDigest, DiffID, chain_ids
from layerbuild.errors import FormatError
from layerbuild.image.config import ImageConfig
from layerbuild.image.manifest import Descriptor, Index, Manifest

READERS: dict[str, Callable[[bytes], Any]] = {
    "config": ImageConfig.from_json,
    "manifest": Manifest.from_json,
    "descriptor": Descriptor.from_json,
    "index": Index.from_json,
    "imageindex": Index.from_json,
}


def reason(row: Row) -> str:
    """Why our verdict differs from the sample's; empty: it does not."""
    if row["kind"] == "layout":
        return "" if row["valid"] else "a layout is told by its index.json; nothing else of its header is read"
    try:
        value = json.loads(row["json"])
    except ValueError:
        return ""
    if row["kind"] == "manifest" and value.get("layers") == []:
        return "an image of metadata only (FROM scratch, LABEL) has no layers, and every runtime takes it"
    if row["kind"] == "config" and (value.get("config") or {}).get("Env") == ["foo"]:
        return "foreign images have entries of Env without `=`; they are read as empty variables"
    if row["valid"] and any(not str(found).startswith("sha256:") for found in digests(value)):
        return "sha256 is the only algorithm that is known here; a blob of another is refused, never trusted"
    return ""


def digests(value: Any) -> list[Any]:
    if isinstance(value, dict):
        own = [value["digest"]] if "digest" in value else []
        return own + [found for inner in value.values() for found in digests(inner)]
    return [found for inner in value for found in digests(inner)] if isinstance(value, list) else []


def accepts(row: Row) -> bool:
    """Whether the sample is read; if so, what is written of it reads the same."""
    read = READERS.get(row["kind"])
    if read is None:
        return True
    try:
        value = read(row["json"].encode())
    except FormatError:
        return False
    assert read(value.to_json()) == value
    return True


@corpus("image-spec/schema_cases")
def test_samples_of_the_schemas(row: Row) -> None:
    why = reason(row)
    if why:
        assert accepts(row) is not row["valid"], f"this is no difference any more: {why}"
        differs(why)
    assert accepts(row) is row["valid"]


@corpus("image-spec/doc_examples")
def test_documents_of_the_specification(row: Row) -> None:
    kind = next((name for name in READERS if f".{name}." in row["mediatype"]), "layout")
    assert accepts({**row, "kind": kind}) is row["valid"]


@corpus("image-spec/backcompat")
def test_old_documents(row: Row) -> None:
    data = next(value for name, value in row.items() if name.lower() == row["kind"]).encode()
    assert BlobDigest.of(data) == row["digest"]
    if row["fail"]:
        with pytest.raises(FormatError):
            READERS[row["kind"]](data)
    else:
        READERS[row["kind"]](data)


@corpus("image-spec/chainid")
def test_chain_ids(row: Row) -> None:
    assert list(chain_ids(DiffID(text) for text in row["diff_ids"])) == row["chain_ids"]
