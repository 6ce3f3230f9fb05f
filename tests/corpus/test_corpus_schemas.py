"""The documents that leave, held against the schemas of the OCI image specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from corpus_rows import CORPUS
from referencing import Registry
from referencing.jsonschema import DRAFT4
from support import Layerbuild

SCHEMAS = CORPUS / "image-spec" / "schema"
BY_TYPE = {
    "index": "image-index-schema.json",
    "manifest": "image-manifest-schema.json",
    "config": "config-schema.json",
}
RECIPE = """\
FROM busybox
COPY file /file
ENV A=b
LABEL c=d
EXPOSE 80
VOLUME /data
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["cat"]
"""


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ((), ""),
        (("--platform", "linux/amd64/v2"), ",compression=zstd,force-compression=true"),
        (("--annotation", "a=b"), ",compression=uncompressed,annotation-manifest-descriptor.k=v"),
        (("--platform", "linux/amd64,linux/amd64/v2", "--annotation", "index:a=b"), ",annotation-index-descriptor.k=v"),
    ],
    ids=["plain", "zstd", "annotated", "index"],
)
def test_documents(rooted: Layerbuild, context: Path, options: tuple[str, ...], output: str) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip(f"corpus absent: {SCHEMAS}")
    (context / "file").write_text("x")
    layout = context / "layout"
    rooted.build(context, RECIPE, "-t", "x:1", "-t", "y:2", *options, "-o", f"type=oci,dest={layout}/{output}")
    validate("image-layout-schema.json", layout / "oci-layout")
    validate("image-index-schema.json", layout / "index.json")
    (entry, same) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["digest"] == same["digest"]
    kinds = [kind for kind, _ in documents(layout, entry)]
    assert kinds == (
        ["index", "manifest", "config", "manifest", "config"] if len(options) > 2 else ["manifest", "config"]
    )


def documents(layout: Path, descriptor: dict[str, Any]) -> list[tuple[str, Path]]:
    """The documents below ``descriptor``, each held against its schema."""
    kind = next((kind for kind in BY_TYPE if f".{kind}.v1+json" in descriptor["mediaType"]), "")
    if not kind:
        return []
    path = layout / "blobs/sha256" / descriptor["digest"][7:]
    document = validate(BY_TYPE[kind], path)
    below = document.get("manifests") or [
        document[key] for key in ("config",) if key in document and kind == "manifest"
    ]
    return [(kind, path), *(found for entry in below for found in documents(layout, entry))]


def validate(schema: str, path: Path) -> dict[str, Any]:
    schemas = {found.name: json.loads(found.read_text()) for found in SCHEMAS.glob("*.json")}
    # Their references are relative to ids that lie at different depths: the file's name alone tells which is meant.
    registry: Registry[Any] = Registry(retrieve=lambda uri: DRAFT4.create_resource(schemas[uri.rpartition("/")[2]]))
    document: dict[str, Any] = json.loads(path.read_text())
    jsonschema.Draft4Validator(schemas[schema], registry=registry).validate(document)
    return document
