"""The tar of ``docker save`` before version 1.10: ``repositories`` names images, each of which is a folder with
``json`` and ``layer.tar``, and so is its parent.

::

    repositories            {"app": {"1.0": "<id>"}}
    <id>/json               v1 configuration, with "parent" (image-spec v1: moby, image/spec/v1.md)
    <id>/layer.tar          what this image adds to its parent

An ID says nothing of the content, so nothing can be verified but the tars themselves; configuration and history are put
together as Docker does when it loads such a tar (moby, image/tarexport, "legacyLoad").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.errors import FormatError, NotFoundError
from layerbuild.image.config import ImageConfig, canonical_json
from layerbuild.image.manifest import OCI_CONFIG, Descriptor, Manifest, layer_media_type
from layerbuild.intake.layers import add_layer, take_tar
from layerbuild.intake.members import Members, read_small
from layerbuild.intake.oci_layout import tag_all
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord
from layerbuild.store.store import Store

REPOSITORIES_FILE = "repositories"

_MOST_LAYERS = 1000  # of a chain of parents; Docker allows 127
_DROPPED = ("id", "parent", "parent_id", "layer_id", "Size", "throwaway")


def load_v1_archive(store: Store, members: Members, *, name: str = "") -> list[StoredImage]:
    """Bring the images that ``repositories`` names into the store, under these names. ``name``, where given, chooses
    one of them. FormatError where the archive is wrong; then nothing is named."""
    images = read_repositories(read_small(members, REPOSITORIES_FILE), origin=members.origin)
    if name:
        wanted = str(Reference.parse(name))
        images = {known: v1_id for known, v1_id in images.items() if str(Reference.parse(known)) == wanted}
        if not images:
            raise NotFoundError(f"{members.origin} has no image named {name!r}")
    layers: dict[str, tuple[DiffID, BlobRecord]] = {}
    digests = {v1_id: _load(store, members, v1_id, layers) for v1_id in dict.fromkeys(images.values())}
    for known, v1_id in images.items():
        tag_all(store, (known,), digests[v1_id])
    return [store.images.resolve(digest) for digest in dict.fromkeys(digests.values())]


def read_repositories(data: bytes, *, origin: str) -> dict[str, str]:
    """Names with tags, and the IDs that they mean; FormatError if it is no such list, or an empty one."""
    try:
        found = {f"{name}:{tag}": _id(v1_id) for name, tags in json.loads(data).items() for tag, v1_id in tags.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"{REPOSITORIES_FILE} in {origin} is not that of a docker archive: {error!r}") from error
    if not found:
        raise FormatError(f"{origin} holds no image", hint=f"its {REPOSITORIES_FILE} is empty")
    return found


def _load(store: Store, members: Members, v1_id: str, layers: dict[str, tuple[DiffID, BlobRecord]]) -> BlobDigest:
    chain = _chain(members, v1_id)
    parent: ChainID | None = None
    diff_ids: list[DiffID] = []
    blobs: list[Descriptor] = []
    for known, _ in chain:
        if known not in layers:
            with members.open(f"{known}/layer.tar") as source:
                layers[known] = take_tar(store, source)
        diff_id, blob = layers[known]
        parent = add_layer(store, parent, diff_id, blob)
        diff_ids.append(diff_id)
        blobs.append(Descriptor(layer_media_type(blob.codec), blob.digest, blob.size))
    config = _config(chain, diff_ids, origin=members.origin)
    described = Descriptor(OCI_CONFIG, BlobDigest.of(config), len(config))
    return store.images.put(Manifest(described, tuple(blobs)).to_json(), config).manifest_digest


def _chain(members: Members, v1_id: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The image and its ancestors with their configurations, the oldest first."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    seen: set[str] = set()
    while v1_id:
        if v1_id in seen or len(seen) > _MOST_LAYERS:
            raise FormatError(f"{v1_id} in {members.origin} is its own ancestor")
        seen.add(v1_id)
        raw = _read_json(read_small(members, f"{v1_id}/json"), f"{v1_id}/json in {members.origin}")
        found.append((v1_id, raw))
        v1_id = _id(raw["parent"]) if raw.get("parent") else ""
    return found[::-1]


def _read_json(data: bytes, name: str) -> Mapping[str, Any]:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise FormatError(f"{name} is not the configuration of an image")
    return raw


def _config(chain: list[tuple[str, Mapping[str, Any]]], diff_ids: list[DiffID], *, origin: str) -> bytes:
    v1_id, top = chain[-1]
    rest = {key: value for key, value in top.items() if key not in _DROPPED}
    history = [_history(raw) for _, raw in chain]
    raw = {"os": "linux", **rest, "history": history, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    try:
        return ImageConfig.from_json(canonical_json(raw)).to_json()
    except FormatError as error:
        raise FormatError(f"{v1_id}/json in {origin}: {error.message}") from error


def _history(raw: Mapping[str, Any]) -> dict[str, Any]:
    made = raw.get("container_config")
    command = made.get("Cmd") if isinstance(made, dict) else None
    entry = {
        "created": raw.get("created"),
        "created_by": " ".join(map(str, command)) if isinstance(command, list) else None,
        "author": raw.get("author"),
        "comment": raw.get("comment"),
    }
    return {key: value for key, value in entry.items() if value}


def _id(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise FormatError(f"{value!r} is not the ID of a v1 image")
    return value
