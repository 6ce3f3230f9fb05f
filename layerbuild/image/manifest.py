"""Manifests and indexes: what names a configuration and its layer blobs, and what names several manifests.

::

    Index ─ Descriptor ─▶ Manifest ─ Descriptor ─▶ ImageConfig
                                   └ Descriptor ─▶ layer blob …

OCI (image-spec manifest.md, image-index.md, descriptor.md) and Docker's older twins ("Image Manifest V 2, Schema 2")
differ in their media types only, so one class serves both. A blob from elsewhere keeps the bytes that it came with,
since its digest is over exact bytes; ``to_json`` is for what is made here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError
from layerbuild.frozen import frozen
from layerbuild.image.config import Pairs, Platform, canonical_json
from layerbuild.image.platforms import is_unknown

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
INDEX_TYPES = frozenset((OCI_INDEX, DOCKER_LIST))

#: Bytes. Registries refuse a larger manifest (distribution-spec: "at least 4 megabytes"), and so does this reader.
SIZE_LIMIT = 4 << 20

# BuildKit's attestations stand in an index as manifests for the platform unknown/unknown.
_ATTESTATION = "vnd.docker.reference.type"

_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

#: Layer media type → name of the codec. A codec's first row is the type that is written for it.
LAYER_TYPES: Mapping[str, str] = {
    _OCI_LAYER: "none",
    f"{_OCI_LAYER}+gzip": "gzip",
    f"{_OCI_LAYER}+zstd": "zstd",
    _OCI_FOREIGN: "none",
    f"{_OCI_FOREIGN}+gzip": "gzip",
    f"{_OCI_FOREIGN}+zstd": "zstd",
    _DOCKER_LAYER: "none",
    f"{_DOCKER_LAYER}.gzip": "gzip",
    f"{_DOCKER_LAYER}.zstd": "zstd",
    f"{_DOCKER_FOREIGN}.gzip": "gzip",
}

# RFC 6838, section 4.2: type "/" subtype, each a letter or digit and up to 126 more characters.
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII)


def layer_media_type(codec: str) -> str:
    """The OCI media type of a layer that ``codec`` compressed; FormatError for a codec that has none."""
    for media_type, name in LAYER_TYPES.items():
        if name == codec:
            return media_type
    raise FormatError(f"OCI has no media type for a layer compressed with {codec}", hint="use none, gzip or zstd")


def docker_layer_type(codec: str) -> str:
    """Docker's media type of a layer that ``codec`` compressed."""
    return next(kind for kind, name in LAYER_TYPES.items() if name == codec and kind.startswith(_DOCKER_LAYER))


def oci_layer_type(media_type: str) -> str:
    """The OCI media type of a layer whose media type is Docker's, or OCI's already."""
    foreign = media_type.startswith((_OCI_FOREIGN, _DOCKER_FOREIGN))
    suffix = layer_media_type(layer_codec(media_type)).removeprefix(_OCI_LAYER)
    return (_OCI_FOREIGN if foreign else _OCI_LAYER) + suffix


def layer_codec(media_type: str) -> str:
    """The name of the codec of a layer of that media type; FormatError if it is no layer's."""
    try:
        return LAYER_TYPES[media_type]
    except KeyError:
        hint = "an artifact or an encrypted image can't be unpacked as a file system"
        raise FormatError(f"{media_type} is not the media type of a layer", hint=hint) from None


@frozen
class Descriptor:
    """A pointer to a blob: what it is, its digest, its size in bytes.

    ``data`` is the content itself where it is embedded, None where it is not; it is checked on reading. ``extra`` holds
    unknown keys as canonical JSON, so that they survive a round trip.
    """

    media_type: str
    digest: BlobDigest
    size: int
    annotations: Pairs = ()
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
    data: bytes | None = None
    extra: str = "{}"

    @classmethod
    def from_json(cls, data: bytes) -> Descriptor:
        """Read a lone descriptor; FormatError if it is none."""
        return _parse(data, "descriptor", _read_descriptor)

    def to_json(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(_write_descriptor(self))

    @property
    def is_attestation(self) -> bool:
        """Whether it only says something about another manifest of its index, as BuildKit's provenance does."""
        return self.annotation(_ATTESTATION) is not None or is_unknown(self.platform)

    def annotation(self, key: str) -> str | None:
        """The annotation's value, None where it is absent."""
        return dict(self.annotations).get(key)


@frozen
class Manifest:
    """One image for one platform (or an artifact in that form): its configuration and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: Pairs = ()
    artifact_type: str = ""
    subject: Descriptor | None = None
    extra: str = "{}"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest; FormatError if it is none."""
        return _parse(data, "image manifest", _read_manifest)

    @property
    def is_image(self) -> bool:
        """Whether it is an image, and no artifact."""
        return self.config.media_type in (OCI_CONFIG, DOCKER_CONFIG)

    def to_json(self) -> bytes:
        """Canonical bytes: equal manifests give equal bytes, hence equal digests."""
        return canonical_json(_write_manifest(self))


@frozen
class Index:
    """Several manifests under one name, one for each platform; Docker calls it a manifest list."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: Pairs = ()
    artifact_type: str = ""
    subject: Descriptor | None = None
    extra: str = "{}"

    @classmethod
    def from_json(cls, data: bytes) -> Index:
        """Read an index; FormatError if it is none."""
        return _parse(data, "image index", _read_index)

    def to_json(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(_write_index(self))


def read_manifest(data: bytes) -> Manifest | Index:
    """Tell by the bytes which of the two they are, and read them.

    ``mediaType`` decides; where it is absent (OCI allowed that), the key ``manifests`` or ``layers`` does. A document
    with both is refused: two readers could take it for two different images (image-spec, manifest.md; CVE-2021-41190).
    """
    return _parse(data, "image manifest or index", _read_either)


# -- reading -----------------------------------------------------------------------------------------------------------

_Read = TypeVar("_Read")

_DESCRIPTOR_KEYS = frozenset(("mediaType", "digest", "size", "annotations", "platform", "urls", "artifactType", "data"))
_SHARED_KEYS = frozenset(("schemaVersion", "mediaType", "annotations", "artifactType", "subject"))


def _parse(data: bytes, what: str, read: Callable[[Mapping[str, Any]], _Read]) -> _Read:
    if len(data) > SIZE_LIMIT:
        raise FormatError(f"this {what} has {len(data)} bytes; {SIZE_LIMIT} is the limit")
    try:
        raw = json.loads(data)
        if not isinstance(raw, dict):
            raise ValueError("it is not a JSON object")
        return read(raw)
    except FormatError as error:
        raise FormatError(f"this is no valid {what}: {error.message}", hint=error.hint) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"this is no valid {what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _read_either(raw: Mapping[str, Any]) -> Manifest | Index:
    if "manifests" in raw and ("layers" in raw or "config" in raw):
        raise ValueError("it claims to be a manifest and an index at once")
    if raw.get("schemaVersion") == 1:
        hint = "ask its publisher for a schema 2 or an OCI image; Docker gave schema 1 up in 2019"
        raise FormatError("it is of Docker's schema 1", hint=hint)
    if raw.get("mediaType") in INDEX_TYPES or ("mediaType" not in raw and "manifests" in raw):
        return _read_index(raw)
    return _read_manifest(raw)


def _read_manifest(raw: Mapping[str, Any]) -> Manifest:
    return Manifest(
        config=_read_descriptor(raw["config"]),
        layers=tuple(_read_descriptor(layer) for layer in _list(raw["layers"])),
        media_type=_kind(raw, MANIFEST_TYPES, OCI_MANIFEST),
        annotations=_annotations(raw),
        artifact_type=_media_type(raw, "artifactType", required=False),
        subject=_read_descriptor(raw["subject"]) if raw.get("subject") is not None else None,
        extra=_unknown(raw, _SHARED_KEYS | {"config", "layers"}),
    )


def _read_index(raw: Mapping[str, Any]) -> Index:
    return Index(
        manifests=tuple(_read_descriptor(entry) for entry in _list(raw["manifests"])),
        media_type=_kind(raw, INDEX_TYPES, OCI_INDEX),
        annotations=_annotations(raw),
        artifact_type=_media_type(raw, "artifactType", required=False),
        subject=_read_descriptor(raw["subject"]) if raw.get("subject") is not None else None,
        extra=_unknown(raw, _SHARED_KEYS | {"manifests"}),
    )


def _kind(raw: Mapping[str, Any], accepted: frozenset[str], default: str) -> str:
    if raw.get("schemaVersion") != 2:
        raise ValueError(f"schemaVersion is {raw.get('schemaVersion')!r} instead of 2")
    media_type = raw.get("mediaType", default)
    if media_type not in accepted:
        raise ValueError(f"its media type is {media_type!r}")
    return str(media_type)


def _read_descriptor(raw: Mapping[str, Any]) -> Descriptor:
    digest = BlobDigest.parse(_text(raw["digest"]))
    size = raw["size"]
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise ValueError(f"size is {size!r}")
    return Descriptor(
        media_type=_media_type(raw, "mediaType"),
        digest=digest,
        size=size,
        annotations=_annotations(raw),
        platform=_read_platform(raw["platform"]) if raw.get("platform") is not None else None,
        urls=tuple(_url(url) for url in _list(raw.get("urls") or [])),
        artifact_type=_media_type(raw, "artifactType", required=False),
        data=_embedded(raw["data"], digest, size) if "data" in raw else None,
        extra=_unknown(raw, _DESCRIPTOR_KEYS),
    )


def _embedded(text: object, digest: BlobDigest, size: int) -> bytes:
    # descriptor.md, "Embedded Content": a reader that uses it must check size and digest first.
    data = base64.b64decode(_text(text), validate=True)
    if len(data) != size or BlobDigest.of(data) != digest:
        raise ValueError(f"the embedded data of {digest} is not what the digest says")
    return data


def _read_platform(raw: Mapping[str, Any]) -> Platform:
    return Platform(
        os=_text(raw["os"]),
        architecture=_text(raw["architecture"]),
        variant=_text(raw.get("variant", "")),
        os_version=_text(raw.get("os.version", "")),
        os_features=tuple(_text(feature) for feature in _list(raw.get("os.features") or [])),
    )


def _annotations(raw: Mapping[str, Any]) -> Pairs:
    given = raw.get("annotations")
    if given is None:
        return ()
    if not isinstance(given, dict):
        raise ValueError("annotations is not an object")
    return tuple(sorted((key, _text(value)) for key, value in given.items()))


def _media_type(raw: Mapping[str, Any], key: str, *, required: bool = True) -> str:
    if not required and not raw.get(key):
        return ""
    text = _text(raw[key])
    if not _MEDIA_TYPE.fullmatch(text):
        raise ValueError(f"{key} is {text!r}")
    return text


def _url(value: object) -> str:
    text = _text(value)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):  # RFC 3986, section 3: a URI begins with its scheme
        raise ValueError(f"{text!r} is not a URL")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {value!r}")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, found {value!r}")
    return value


def _unknown(raw: Mapping[str, Any], known: frozenset[str]) -> str:
    return canonical_json({key: value for key, value in raw.items() if key not in known}).decode()


# -- writing -----------------------------------------------------------------------------------------------------------


def _write_manifest(manifest: Manifest) -> dict[str, Any]:
    return {
        **_write_shared(manifest),
        "config": _write_descriptor(manifest.config),
        "layers": [_write_descriptor(layer) for layer in manifest.layers],
    }


def _write_index(index: Index) -> dict[str, Any]:
    return {**_write_shared(index), "manifests": [_write_descriptor(entry) for entry in index.manifests]}


def _write_shared(document: Manifest | Index) -> dict[str, Any]:
    optional: dict[str, Any] = {
        "annotations": dict(document.annotations),
        "artifactType": document.artifact_type,
        "subject": _write_descriptor(document.subject) if document.subject else None,
    }
    written = {key: value for key, value in optional.items() if value}
    return {**json.loads(document.extra), **written, "schemaVersion": 2, "mediaType": document.media_type}


def _write_descriptor(descriptor: Descriptor) -> dict[str, Any]:
    optional: dict[str, Any] = {
        "annotations": dict(descriptor.annotations),
        "platform": _write_platform(descriptor.platform) if descriptor.platform else None,
        "urls": list(descriptor.urls),
        "artifactType": descriptor.artifact_type,
    }
    written = {key: value for key, value in optional.items() if value}
    if descriptor.data is not None:
        written["data"] = base64.b64encode(descriptor.data).decode()
    required = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
    return {**json.loads(descriptor.extra), **written, **required}


def _write_platform(platform: Platform) -> dict[str, Any]:
    written: dict[str, Any] = {
        "os": platform.os,
        "architecture": platform.architecture,
        "variant": platform.variant,
        "os.version": platform.os_version,
        "os.features": list(platform.os_features),
    }
    return {key: value for key, value in written.items() if value or key in ("os", "architecture")}
