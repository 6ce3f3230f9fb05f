"""The tar of ``docker save``: ``manifest.json`` lists images, each with a configuration and its layers' tars, by path.

This is the form that Docker wrote before version 25, and that podman writes. Since 25 the same tar is also an OCI
layout, and is read as one. Here no path is a digest that can be relied on: the layers are held against the diff IDs of
the configuration. Later layers of equal content are links to the first (``../<id>/layer.tar``).
"""

from __future__ import annotations

import json

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.errors import DigestMismatch, FormatError, NotFoundError
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig
from layerbuild.image.manifest import OCI_CONFIG, Descriptor, Manifest, layer_media_type
from layerbuild.intake.layers import add_layer, take_tar
from layerbuild.intake.members import Members, read_small
from layerbuild.intake.oci_layout import tag_all
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord
from layerbuild.store.store import Store

MANIFEST_FILE = "manifest.json"


@frozen
class Saved:
    """One element of ``manifest.json``: member names, and the image's names."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


def load_docker_archive(store: Store, members: Members, *, name: str = "") -> list[StoredImage]:
    """Bring the images of a docker archive into the store, under the names that it gives them.

    ``name``, where given, chooses one of them. FormatError or DigestMismatch where the archive is wrong; then nothing
    is named.
    """
    saved = read_saved(read_small(members, MANIFEST_FILE), origin=members.origin)
    if name:
        saved = named(saved, name, origin=members.origin)
    digests = [_load(store, members, image) for image in saved]
    for image, digest in zip(saved, digests, strict=True):
        tag_all(store, image.names, digest)
    return [store.images.resolve(digest) for digest in digests]


def read_saved(data: bytes, *, origin: str) -> list[Saved]:
    """The images that a ``manifest.json`` lists; FormatError if it is none, or lists none."""
    try:
        saved = [
            Saved(_text(image["Config"]), _texts(image["Layers"]), _texts(image.get("RepoTags") or []))
            for image in json.loads(data)
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"{MANIFEST_FILE} in {origin} is not that of a docker archive: {error!r}") from error
    if not saved:
        raise FormatError(f"{origin} holds no image", hint=f"its {MANIFEST_FILE} is an empty list")
    return saved


def named(saved: list[Saved], name: str, *, origin: str) -> list[Saved]:
    """Those that are called ``name``; NotFoundError if none is."""
    wanted = str(Reference.parse(name))
    found = [image for image in saved if wanted in {str(Reference.parse(known)) for known in image.names}]
    if not found:
        known = ", ".join(each for image in saved for each in image.names)
        raise NotFoundError(f"{origin} has no image named {name!r}", hint=f"it has {known}" if known else "")
    return found


def _load(store: Store, members: Members, saved: Saved) -> BlobDigest:
    config_bytes = read_small(members, saved.config)
    config = ImageConfig.from_json(config_bytes)
    if len(config.diff_ids) != len(saved.layers):
        counts = f"{len(config.diff_ids)} layers, {MANIFEST_FILE} {len(saved.layers)}"
        raise FormatError(f"{saved.config} in {members.origin} has {counts}")
    parent: ChainID | None = None
    layers: list[Descriptor] = []
    for member, diff_id in zip(saved.layers, config.diff_ids, strict=True):
        blob = _blob(store, members, member, diff_id)
        layers.append(Descriptor(layer_media_type(blob.codec), blob.digest, blob.size))
        parent = add_layer(store, parent, diff_id, blob)
    described = Descriptor(OCI_CONFIG, BlobDigest.of(config_bytes), len(config_bytes))
    return store.images.put(Manifest(described, tuple(layers)).to_json(), config_bytes).manifest_digest


def _blob(store: Store, members: Members, member: str, diff_id: DiffID) -> BlobRecord:
    """The layer's blob in the store; one that the store has already is not read from the archive."""
    record = store.layers.get(diff_id)
    known = next((blob for blob in record.blobs if store.blobs.has(blob.digest)), None) if record else None
    if known is not None:
        return known
    if not member:  # as some builders save for a daemon that has the base
        hint = "load or pull the image that it was made from first"
        raise FormatError(f"{members.origin} leaves the layer {diff_id} out, and it is not here", hint=hint)
    with members.open(member) as source:
        found, blob = take_tar(store, source)
    if found != diff_id:
        raise DigestMismatch(f"{member} in {members.origin} has diff ID {found} instead of {diff_id}")
    return blob


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {value!r}")
    return tuple(map(_text, value))
