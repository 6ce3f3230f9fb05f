"""A build cache that travels: step records and the layers that they name, as a JSON document and an OCI manifest.

::

    Manifest (artifactType: ours) ─ config ─▶ the document: one record for each step
                                  └ layers ─▶ layer blobs, as in an image

An image can carry the document too (``inline``): in its configuration, under a key of ours that other tools pass over;
the layers are then the image's own.

Of the inputs only digests travel: a build argument that a step of another stage was given is nobody's business. What
comes in is checked as far as it can be: each record's chain ID follows from its parent and its diff ID, and its layer
is among those that come along. Bytes are held against both digests when they are fetched (``unpack``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from layerbuild.digest import BlobDigest, ChainID, DiffID, chain_id
from layerbuild.errors import FormatError, NotFoundError
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig, canonical_json
from layerbuild.image.manifest import LAYER_TYPES, Descriptor, Manifest
from layerbuild.store.blobs import Blobs
from layerbuild.store.images import StoredImage

ARTIFACT_TYPE = "application/vnd.layerbuild.cache.v1"
RECORDS_TYPE = "application/vnd.layerbuild.cache.records.v1+json"
INLINE_KEY = "layerbuild.cache.v1"

#: Bytes of a document that is read; ten thousand steps make about 16 MB.
SIZE_LIMIT = 32 << 20

_VERSION = 1
_SCRATCH = "scratch"
# A manifest has at least one layer (image-spec manifest.md, "Guidance for an Empty Descriptor").
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
_BUILDKIT = "application/vnd.buildkit.cacheconfig.v0"


@frozen
class StackRead:
    """What a step read of a stack of layers: the same ``content`` (its digest) wherever the stack is the same."""

    chain: ChainID | None
    content: str


@frozen
class CachedStep:
    """A step as the cache of another machine knows it.

    ``inputs`` are digests (hex) of its inputs' values, by name; ``stacks`` what it read of stages and images, by the
    names of those inputs. The rest is as in a ``StepRecord``.
    """

    definition_key: str
    content_key: str
    parent: ChainID | None
    chain: ChainID | None
    diff_id: DiffID | None
    instruction: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    stacks: Mapping[str, StackRead] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def adds_up(self) -> bool:
        """Whether its chain follows from what it says it was made of."""
        if self.diff_id is None:
            return self.chain == self.parent
        return self.chain == chain_id(self.parent, self.diff_id)


@frozen
class BuildCache:
    """Records, and the blob of each layer that they name. ``key_format`` and ``tar_format`` tell which keys and which
    tar dialect made them; ``rejected`` counts records that did not add up, and were left out."""

    key_format: str
    tar_format: int
    steps: tuple[CachedStep, ...]
    layers: Mapping[DiffID, Descriptor]
    rejected: int = 0


def merged(caches: Sequence[BuildCache]) -> BuildCache:
    """Several caches of one program as one; of equal steps the first counts."""
    steps = {step.definition_key: step for cache in reversed(caches) for step in reversed(cache.steps)}
    layers = {diff_id: layer for cache in caches for diff_id, layer in cache.layers.items()}
    return replace(caches[0], steps=tuple(reversed(steps.values())), layers=layers)


def value_digest(value: str) -> str:
    """How an input's value is told in a record that travels."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


class ImageCache:
    """The cache that an image of the store carries: none is an empty one, since its steps may be known all the same."""

    def __init__(self, image: StoredImage, blobs: Blobs) -> None:
        self._image = image
        self._blobs = blobs

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"image {self._image.image_id.short}"

    def read(self) -> BuildCache:
        """Its records."""
        if INLINE_KEY not in json.loads(self._image.config.extra):
            return BuildCache("", 0, (), {})
        return read_cache(self._image.manifest, lambda blob: self._blobs.read(blob.digest))

    def fetch(self, layer: Descriptor, blobs: Blobs, told: Callable[[int], None]) -> None:
        """Never asked for: the layers of an image in the store are the store's affair."""
        raise NotFoundError(f"blob {layer.digest} is not in the store")


# -- as an artifact ----------------------------------------------------------------------------------------------------


def write_artifact(cache: BuildCache) -> tuple[Manifest, bytes]:
    """The manifest, and the bytes of its config blob. Of no layer at all, ``EMPTY`` is the one blob beside it."""
    document = _write(cache, seconds=True) | {"layers": list(cache.layers)}
    records = canonical_json(document)
    layers = tuple(cache.layers.values()) or (Descriptor(_EMPTY_TYPE, BlobDigest.of(EMPTY), len(EMPTY)),)
    config = Descriptor(RECORDS_TYPE, BlobDigest.of(records), len(records))
    return Manifest(config, layers, artifact_type=ARTIFACT_TYPE), records


def read_cache(manifest: Manifest, read: Callable[[Descriptor], bytes]) -> BuildCache:
    """The cache behind ``manifest``: an artifact, or an image that carries one. ``read`` gives a blob, verified.

    FormatError says what else it is, or what is wrong with it.
    """
    kind = manifest.config.media_type
    if kind == _BUILDKIT or any(layer.media_type == _BUILDKIT for layer in manifest.layers):
        raise FormatError("it is BuildKit's cache, which only BuildKit can read")
    if manifest.config.size > SIZE_LIMIT:
        raise FormatError(f"its records claim {manifest.config.size} bytes; {SIZE_LIMIT} is the limit")
    if kind == RECORDS_TYPE:
        return _read_artifact(manifest, read(manifest.config))
    if manifest.artifact_type or not manifest.layers or manifest.layers[0].media_type not in LAYER_TYPES:
        raise FormatError(f"it is no build cache, but of type {manifest.artifact_type or kind}")
    return _read_inline(manifest, read(manifest.config))


def _read_artifact(manifest: Manifest, data: bytes) -> BuildCache:
    raw = _parsed(data)
    diff_ids = _diff_ids(raw.get("layers"))
    described = [layer for layer in manifest.layers if layer.media_type in LAYER_TYPES]
    if len(diff_ids) != len(described):
        raise FormatError(f"its records name {len(diff_ids)} layers, its manifest {len(described)}")
    return _read(raw, dict(zip(diff_ids, described, strict=True)))


# -- inline ------------------------------------------------------------------------------------------------------------


def with_inline(config: ImageConfig, cache: BuildCache | None) -> ImageConfig:
    """``config`` with the records of ``cache`` in it; None: without those that a base may have brought."""
    extra = json.loads(config.extra)
    if cache is None and INLINE_KEY not in extra:
        return config
    extra.pop(INLINE_KEY, None)
    if cache is not None:
        # Without times: the same build gives the same image.
        extra[INLINE_KEY] = _write(cache, seconds=False)
    return replace(config, extra=canonical_json(extra).decode())


def _read_inline(manifest: Manifest, data: bytes) -> BuildCache:
    config = ImageConfig.from_json(data)
    raw = json.loads(config.extra).get(INLINE_KEY)
    if raw is None:
        raise FormatError("it is an image without a build cache", hint="build it with --cache-to type=inline")
    if len(config.diff_ids) != len(manifest.layers):
        raise FormatError(f"the image has {len(config.diff_ids)} layers, its manifest {len(manifest.layers)}")
    return _read(raw, dict(zip(config.diff_ids, manifest.layers, strict=True)))


# -- the document ------------------------------------------------------------------------------------------------------


def _write(cache: BuildCache, *, seconds: bool) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "keyFormat": cache.key_format,
        "tarFormat": cache.tar_format,
        "steps": [_write_step(step, seconds=seconds) for step in cache.steps],
    }


def _write_step(step: CachedStep, *, seconds: bool) -> dict[str, Any]:
    written: dict[str, Any] = {
        "definition": step.definition_key,
        "content": step.content_key,
        "parent": step.parent,
        "chain": step.chain,
        "diffID": step.diff_id,
        "instruction": step.instruction,
        "inputs": dict(step.inputs),
        "stacks": {
            name: {"chain": read.chain or _SCRATCH, "content": read.content} for name, read in step.stacks.items()
        },
        "seconds": round(step.seconds, 3) if seconds else None,
    }
    return {key: value for key, value in written.items() if value}


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its records are no JSON document: {error}") from error
    if not isinstance(raw, dict):
        raise FormatError("its records are no JSON object")
    return raw


def _read(raw: Mapping[str, Any], layers: Mapping[DiffID, Descriptor]) -> BuildCache:
    if not isinstance(raw, dict) or raw.get("version") != _VERSION:
        found = raw.get("version") if isinstance(raw, dict) else raw
        raise FormatError(f"its records are of version {found!r}; this layerbuild reads {_VERSION}")
    try:
        steps = [_read_step(step) for step in raw["steps"]]
        key_format, tar_format = _text(raw["keyFormat"]), _whole(raw["tarFormat"])
    except (FormatError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"its records are damaged: {error}") from error
    sound = tuple(step for step in steps if step.adds_up and (step.diff_id is None or step.diff_id in layers))
    return BuildCache(key_format, tar_format, sound, layers, rejected=len(steps) - len(sound))


def _read_step(raw: Mapping[str, Any]) -> CachedStep:
    return CachedStep(
        definition_key=_text(raw["definition"]),
        content_key=_text(raw["content"]),
        parent=_chain(raw.get("parent")),
        chain=_chain(raw.get("chain")),
        diff_id=DiffID.parse(_text(raw["diffID"])) if raw.get("diffID") else None,
        instruction=_text(raw["instruction"]),
        inputs={_text(name): _text(value) for name, value in raw.get("inputs", {}).items()},
        stacks={_text(name): _read_stack(value) for name, value in raw.get("stacks", {}).items()},
        seconds=_seconds(raw.get("seconds", 0)),
    )


def _read_stack(raw: Mapping[str, Any]) -> StackRead:
    return StackRead(None if raw["chain"] == _SCRATCH else ChainID.parse(_text(raw["chain"])), _text(raw["content"]))


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise FormatError(f"expected a whole number, found {value!r}")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1e9:  # NaN is neither
        raise FormatError(f"{value!r} is no number of seconds")
    return float(value)


def _chain(value: object) -> ChainID | None:
    return None if value is None else ChainID.parse(_text(value))


def _diff_ids(value: object) -> Sequence[DiffID]:
    if not isinstance(value, list):
        raise FormatError("its records do not name their layers")
    return [DiffID.parse(_text(text)) for text in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FormatError(f"expected text, found {value!r}")
    return value
