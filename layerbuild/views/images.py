"""The list of images, and an image's history, as Docker lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.views.layers import LayerRow
from layerbuild.views.text import date, rfc3339, shorten, size, table


def image_rows(found: Sequence[StoredImage | StoredIndex]) -> list[dict[str, Any]]:
    """One row per name, and of an index one for each of its images; what has no name has one row all the same."""
    rows = []
    for each in found:
        references: list[Reference | None] = [Reference.parse(name) for name in each.names]
        for reference in references or [None]:
            images = each.images if isinstance(each, StoredIndex) else (each,)
            rows += [_row(reference, image) for image in images]
    return rows


def _row(reference: Reference | None, image: StoredImage) -> dict[str, Any]:
    # Beside a digest a tag is an ornament, which nothing here can be found by.
    tag = reference.tag if reference and not reference.digest else ""
    return {
        "repository": reference.untagged.familiar if reference else "<none>",
        "tag": tag or "<none>",
        "image_id": image.image_id,
        "manifest_digest": image.manifest_digest,
        "index_digest": image.index,
        "created": image.config.created,
        "stored": rfc3339(int(image.created_at)),
        "layers": len(image.config.diff_ids),
        "size": sum(layer.size for layer in image.manifest.layers),
        "platform": str(image.config.platform),
    }


def images_text(rows: Sequence[dict[str, Any]], *, width: int, full: bool = False) -> str:
    """The list as a table; sizes are those of the compressed layers."""
    cells = [
        [
            row["repository"],
            row["tag"],
            row["image_id"] if full else row["image_id"].short,
            row["platform"],
            date(row["stored"]),
            str(row["layers"]),
            size(row["size"]),
        ]
        for row in rows
    ]
    header = ["REPOSITORY", "TAG", "IMAGE ID", "PLATFORM", "STORED", "LAYERS", "SIZE"]
    return table(header, cells, width=width, right=frozenset((5, 6)))


def history_rows(image: StoredImage, rows: Sequence[LayerRow]) -> list[dict[str, Any]]:
    """The history, newest first, as ``docker history`` has it. ``size`` is the tar's, None: its layer has not come from
    its registry yet."""
    by_entry = [*[""] * (len(rows) - len(image.config.history)), *[entry.comment for entry in image.config.history]]
    return [
        {
            "created": row.created,
            "created_by": row.instruction,
            "size": row.tar_size if row.diff_id else 0,
            "empty_layer": row.diff_id is None,
            "diff_id": row.diff_id,
            "comment": comment,
        }
        for row, comment in zip(reversed(rows), reversed(by_entry), strict=True)
    ]


def history_text(rows: Sequence[dict[str, Any]], *, width: int, full: bool = False) -> str:
    """The history as a table; ``full`` does not cut the instruction."""
    shown = max(24, min(60, width - 53))  # so that a row has room in 80 columns
    cells = [
        [
            row["diff_id"].short if row["diff_id"] else "-",
            date(row["created"]),
            row["created_by"] if full else shorten(row["created_by"], shown),
            "?" if row["size"] is None else size(row["size"]),
            row["comment"],
        ]
        for row in rows
    ]
    header = ["DIFF ID", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    return table(header, cells, width=width, right=frozenset((3,)))
