"""The JSON samples of the OCI image specification: what is read, what is refused, and chain IDs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

import pytest
from corpus_rows import Row, corpus, differs

from layerbuild.digest import BlobDigest, DiffID, chain_ids
from layerbuild.errors import FormatError
from layerbuild.image.config import ImageConfig
from layerbuild.image.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Index, Manifest
from layerbuild.intake.claims import check_image, check_layout
from layerbuild.intake.oci_layout import blob_name

READERS: dict[str, Callable[[bytes], Any]] = {
    "config": ImageConfig.from_json,
    "manifest": Manifest.from_json,
    "descriptor": Descriptor.from_json,
    "index": Index.from_json,
    "imageindex": Index.from_json,
}
SHA256_ALONE = "sha256 is the only algorithm that is known here; a blob of another is refused, never trusted"


class Documents:
    """Members of a layout that has nothing else."""

    origin = "a sample"

    def __init__(self, documents: dict[str, bytes]) -> None:
        self._documents = documents

    def has(self, name: str) -> bool:
        return name in self._documents

    def open(self, name: str) -> BinaryIO:
        if name not in self._documents:
            raise FormatError(f"{name} is missing")
        return io.BytesIO(self._documents[name])

    def size(self, name: str) -> int:
        with self.open(name) as document:
            return len(document.read())


def claims(kind: str, data: bytes) -> list[str]:
    """What `verify` says of the document itself."""
    if kind == "layout":
        return [claim.text for claim in check_layout(Documents({"oci-layout": data})) if claim.subject == "oci-layout"]
    top = Descriptor(OCI_MANIFEST, BlobDigest.of(data), len(data))
    documents = {blob_name(top.digest): data}
    if kind == "config":
        config = replace(top, media_type=OCI_CONFIG)
        data = Manifest(config, ()).to_json()
        top = Descriptor(OCI_MANIFEST, BlobDigest.of(data), len(data))
        documents[blob_name(top.digest)] = data
    what = {"config": "configuration", "manifest": "manifest"}.get(kind)
    found = check_image(Documents(documents), top) if what else ()
    return [claim.text for claim in found if claim.subject.startswith(f"{what} ") and claim.text != "is missing"]


def needs_another_algorithm(row: Row) -> bool:
    try:
        value = json.loads(row["json"])
    except ValueError:
        return False
    return row["valid"] and any(not str(found).startswith("sha256:") for found in digests(value))


def digests(value: Any) -> list[Any]:
    if isinstance(value, dict):
        own = [value["digest"]] if "digest" in value else []
        return own + [found for inner in value.values() for found in digests(inner)]
    return [found for inner in value for found in digests(inner)] if isinstance(value, list) else []


def accepts(row: Row) -> bool:
    """Whether the sample is read, and written so that it reads the same. Who reads is more generous than the
    specification where foreign images are; `verify` is not, so that what it tells of an invalid sample counts, too."""
    data = row["json"].encode()
    read = READERS.get(row["kind"])
    if read is None:
        return not claims(row["kind"], data)
    try:
        value = read(data)
    except FormatError:
        return False
    assert read(value.to_json()) == value
    return row["valid"] or not claims(row["kind"], data)


@corpus("image-spec/schema_cases")
def test_samples_of_the_schemas(row: Row) -> None:
    if needs_another_algorithm(row):
        assert not accepts(row), f"this is no difference any more: {SHA256_ALONE}"
        differs(SHA256_ALONE)
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
