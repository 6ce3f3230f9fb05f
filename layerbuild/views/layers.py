"""Which instruction made which layer: history and layers of an image side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.frozen import frozen
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store
from layerbuild.views.text import count as show_count
from layerbuild.views.text import shorten, size, table


@frozen
class LayerRow:
    """One history entry. The layer's facts are None for an entry without a layer; ``size`` is the blob's, ``tar_size``
    the uncompressed tar's, both in bytes; ``folder`` is the diff folder. Of a layer that has not come from its registry
    yet, there is neither of the latter two."""

    instruction: str
    created: str
    diff_id: DiffID | None = None
    chain: ChainID | None = None
    digest: BlobDigest | None = None
    media_type: str = ""
    size: int | None = None
    tar_size: int | None = None
    entries: int | None = None
    folder: str = ""


def layer_rows(store: Store, image: StoredImage) -> list[LayerRow]:
    """The history of ``image``, oldest first; layers that no entry tells of come first of all."""
    layers = _layers(store, image)
    history = image.config.history
    silent = len(layers) - sum(not entry.empty_layer for entry in history)
    rows = [LayerRow("", "", **layer) for layer in layers[:silent]]
    rest = iter(layers[silent:])
    for entry in history:
        facts = {} if entry.empty_layer else next(rest)
        rows.append(LayerRow(entry.created_by, entry.created, **facts))
    return rows


def _layers(store: Store, image: StoredImage) -> list[dict[str, Any]]:
    facts = []
    for diff_id, chain, blob in zip(image.config.diff_ids, image.chains, image.manifest.layers, strict=True):
        layer = store.layers.get(diff_id)
        snapshot = store.snapshots.get(chain)
        facts.append(
            {
                "diff_id": diff_id,
                "chain": chain,
                "digest": blob.digest,
                "media_type": blob.media_type,
                "size": blob.size,
                "tar_size": layer.tar_size if layer else None,
                "entries": layer.entries if layer else None,
                "folder": str(snapshot.diff) if snapshot and snapshot.unpacked else "",
            }
        )
    return facts


def as_json(image: StoredImage, rows: Sequence[LayerRow]) -> dict[str, Any]:
    """The same as plain data, with every digest in full."""
    return {
        "image_id": image.image_id,
        "manifest_digest": image.manifest_digest,
        "names": list(image.names),
        "history": [
            {
                "instruction": row.instruction,
                "created": row.created,
                "empty_layer": row.diff_id is None,
                "diff_id": row.diff_id,
                "chain_id": row.chain,
                "digest": row.digest,
                "media_type": row.media_type,
                "size": row.size,
                "tar_size": row.tar_size,
                "entries": row.entries,
                "folder": row.folder,
            }
            for row in rows
        ],
    }


def as_text(image: StoredImage, rows: Sequence[LayerRow], *, width: int, full: bool = False, absent: str = "") -> str:
    """The table for ``width`` columns; ``full`` spells digests and folders out, ``absent`` tells why a layer has no
    folder, where the row does not."""
    header = ["LAYER", "INSTRUCTION", "SIZE", "TAR", "FILES", "DIFF ID", "DIGEST", "CHAIN ID", "FOLDER"]
    cells: list[list[str]] = []
    count = 0
    for row in rows:
        instruction = shorten(row.instruction, 60 if full else 40) or "(no history)"
        if row.diff_id is None or row.chain is None or row.digest is None:
            cells.append(["-", instruction, *[""] * (len(header) - 2)])
            continue
        count += 1
        cells.append(
            [
                str(count),
                instruction,
                size(row.size or 0),
                size(row.tar_size) if row.tar_size is not None else "?",
                str(row.entries if row.entries is not None else "?"),
                row.diff_id if full else row.diff_id.short,
                row.digest if full else row.digest.short,
                row.chain if full else row.chain.short,
                (row.folder if full else _short_folder(row.folder)) or absent or _absent(row),
            ]
        )
    text = table(header, cells, width=width, right=frozenset((0, 2, 3, 4)))
    stored = sum(row.size or 0 for row in rows)
    layers = show_count(count, "layer")
    image_id = image.image_id if full else image.image_id.short
    summary = f"{layers}, {size(stored)} {_how_stored(rows)} · image ID {image_id}"
    return f"{text}\n{summary}"


def _how_stored(rows: Sequence[LayerRow]) -> str:
    """A blob as large as its layer's tar is that tar."""
    match sorted({row.size == row.tar_size for row in rows if row.diff_id is not None}):
        case [True]:
            return "not compressed"
        case [False, True]:
            return "as stored"
    return "compressed"


def _absent(row: LayerRow) -> str:
    return "(in the registry only)" if row.tar_size is None else "(not unpacked)"


def _short_folder(folder: str) -> str:
    parts = folder.split("/")
    return f"overlay2/{parts[-2][:12]}…/{parts[-1]}" if len(parts) > 2 else folder
