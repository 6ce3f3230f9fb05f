"""``inspect`` in the shape of ``docker image inspect``, with the overlay2 graph driver that it once showed.

Source: Docker Engine API, "ImageInspect"; moby, daemon/graphdriver/overlay2 (GetMetadata).
"""

from __future__ import annotations

import json
from typing import Any

from layerbuild.image.config import write_runtime
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store
from layerbuild.views.text import rfc3339


def inspect(store: Store, image: StoredImage, *, folders: bool = True) -> dict[str, Any]:
    """One image as Docker tells it. ``GraphDriver.Data`` names the folders of the topmost layer; ``LowerDir`` is
    absent for an image of one layer, and all of it where the image has none, or not all are here. ``folders``: those
    of ``store`` are there to stay, and worth being told."""
    config = image.config
    names = [Reference.parse(name) for name in image.names]
    return {
        "Id": image.image_id,
        "RepoTags": [name.familiar for name in names if name.tag],
        "RepoDigests": sorted({f"{name.untagged.familiar}@{image.index or image.manifest_digest}" for name in names}),
        "Parent": "",
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created or rfc3339(image.created_at),
        "DockerVersion": "",
        "Author": config.author,
        "Config": _docker_config(image),
        "Architecture": config.platform.architecture,
        **({"Variant": config.platform.variant} if config.platform.variant else {}),
        "Os": config.platform.os,
        "Size": sum(_tar_size(store, image, position) for position in range(len(config.diff_ids))),
        "GraphDriver": {"Data": _graph_driver(store, image) if folders else None, "Name": "overlay2"},
        "RootFS": {"Type": "layers", **({"Layers": list(config.diff_ids)} if config.diff_ids else {})},
        "Layers": _layers(store, image, folders=folders),
        "Metadata": {"LastTagTime": rfc3339(image.created_at)},
        "Descriptor": {
            "mediaType": image.manifest.media_type,
            "digest": image.manifest_digest,
            "size": store.blobs.size(image.manifest_digest),
        },
    }


def _layers(store: Store, image: StoredImage, *, folders: bool) -> list[dict[str, str]]:
    """What Docker does not tell: the names of each layer side by side, the lowest first; no folder where it has not
    come."""
    found = zip(image.config.diff_ids, image.manifest.layers, image.chains, strict=True)
    snapshots = ((diff_id, blob, chain, store.snapshots.get(chain)) for diff_id, blob, chain in found)
    return [
        {
            "DiffID": diff_id,
            "Digest": blob.digest,
            "ChainID": chain,
            "Folder": str(snapshot.folder) if folders and snapshot is not None and snapshot.unpacked else "",
        }
        for diff_id, blob, chain, snapshot in snapshots
    ]


def _docker_config(image: StoredImage) -> dict[str, Any]:
    always: dict[str, Any] = {
        "Env": None,
        "Cmd": None,
        "Entrypoint": None,
        "Volumes": None,
        "WorkingDir": "",
        "User": "",
    }
    return {**always, "Labels": None, "OnBuild": None, **write_runtime(image.config.config)}


def _tar_size(store: Store, image: StoredImage, position: int) -> int:
    layer = store.layers.get(image.config.diff_ids[position])
    return layer.tar_size if layer else image.manifest.layers[position].size


def _graph_driver(store: Store, image: StoredImage) -> dict[str, str] | None:
    if image.top is None or store.snapshots.get(image.top) is None:
        return None
    *below, top = stack = store.snapshots.stack(image.top)
    if not all(snapshot.unpacked for snapshot in stack):
        return None
    lower = ":".join(str(snapshot.diff) for snapshot in reversed(below))
    return {
        **({"LowerDir": lower} if lower else {}),
        "MergedDir": str(top.merged),
        "UpperDir": str(top.diff),
        "WorkDir": str(top.work),
    }


def text(found: list[dict[str, Any]]) -> str:
    """Docker prints a list, one element for each name asked for."""
    return json.dumps(found, indent=4, ensure_ascii=False)
