"""``--cache-to`` and ``--cache-from``, spelled as in ``docker buildx build``.

A bare NAME is a cache in a registry; to take from, as in ``docker build``, an image of that name if the store has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from layerbuild.cli.options.command import CACHE, gathered, option
from layerbuild.cli.pushing import pushable
from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError, UsageError, alike
from layerbuild.frozen import frozen
from layerbuild.reference import DEFAULT_TAG, Reference

if TYPE_CHECKING:
    from layerbuild.export.package import Compression

_WRITTEN = ("mode", "compression", "compression-level", "force-compression", "oci-mediatypes", "image-manifest")
#: Type → the keys that it takes, the one that it must have first.
_TO: Mapping[str, tuple[str, ...]] = {
    "registry": ("ref", *_WRITTEN, "ignore-error"),
    "local": ("dest", "tag", *_WRITTEN, "ignore-error"),
    "inline": ("mode",),
}
_FROM: Mapping[str, tuple[str, ...]] = {"registry": ("ref",), "local": ("src", "tag", "digest")}
_MODES = ("min", "max")
_SERVICES = ("azblob", "gha", "s3")  # where buildx keeps caches besides


@frozen
class CacheTo:
    """Where a build's records and layers go: ``place`` is a reference, a folder, or empty (inline).

    ``every_stage``: those of all stages, not only of the image's own. ``ignore_error``: a failure is only told.
    """

    type: str
    place: str
    tag: str = DEFAULT_TAG
    every_stage: bool = False
    compression: Compression | None = None
    ignore_error: bool = False

    @classmethod
    def parse(cls, text: str) -> CacheTo:
        """Take ``--cache-to``'s value apart; UsageError."""
        keys = _keys("--cache-to", text, _TO)
        mode = _one_of("--cache-to", "mode", keys.get("mode", "min"), _MODES)
        if keys["type"] == "inline" and mode == "max":
            raise UsageError("--cache-to type=inline holds the image's own layers only", hint="mode=min, or a registry")
        for key in ("oci-mediatypes", "image-manifest"):
            if not _flag("--cache-to", key, keys.get(key, "true")):
                raise UsageError(f"--cache-to {key}=false: a cache is an OCI image manifest here", hint=f"{key}=true")
        return cls(
            keys["type"],
            keys.get(_TO[keys["type"]][0], "") if keys["type"] != "inline" else "",
            keys.get("tag", DEFAULT_TAG),
            mode == "max",
            _compression(keys),
            _flag("--cache-to", "ignore-error", keys.get("ignore-error", "false")),
        )


@frozen
class CacheFrom:
    """Where a cache is looked for: ``place`` is a reference or a folder. ``bare``: nothing but a name was said."""

    type: str
    place: str
    tag: str = DEFAULT_TAG
    digest: BlobDigest | None = None
    bare: bool = False

    @classmethod
    def parse(cls, text: str) -> CacheFrom:
        """Take ``--cache-from``'s value apart; UsageError."""
        keys = _keys("--cache-from", text, _FROM)
        try:
            digest = BlobDigest.parse(keys["digest"]) if "digest" in keys else None
        except FormatError as error:
            raise UsageError(f"--cache-from {text!r}: {error.message}", hint=error.hint) from error
        place = keys[_FROM[keys["type"]][0]]
        return cls(keys["type"], place, keys.get("tag", DEFAULT_TAG), digest, bare=place == text)


Asked = tuple[tuple[CacheFrom, ...], tuple[CacheTo, ...]]
_cache = partial(option, heading=CACHE)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; ``command`` gets both lists as ``caches``. UsageError for what can't be."""
    return gathered(
        command,
        "caches",
        _caches,
        _cache("--cache-from", metavar="NAME|type=…", multiple=True, help="Ask the cache of another machine, too."),
        _cache(
            "--cache-to",
            metavar="NAME|type=…",
            multiple=True,
            help="Give steps and layers away: registry, local, inline.",
        ),
    )


def _caches(*, cache_from: tuple[str, ...], cache_to: tuple[str, ...]) -> Asked:
    return tuple(CacheFrom.parse(text) for text in cache_from), tuple(CacheTo.parse(text) for text in cache_to)


# -- taking the values apart -------------------------------------------------------------------------------------------


def _keys(option: str, text: str, table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    import csv

    fields = next(csv.reader([text]), [])
    if len(fields) == 1 and "=" not in text:
        fields = ["type=registry", f"ref={text}"]
    keys: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(f"{option} {text!r}: {field!r} is not key=value", hint="type=registry,ref=NAME")
        keys[key.strip().lower()] = value
    if keys.get("type") in _SERVICES:
        hint = "a registry, or type=local with a folder that the CI system keeps"
        raise UsageError(f"{option} type={keys['type']}: a service of its own, which is not asked here", hint=hint)
    kind = _one_of(option, "type", keys.setdefault("type", "registry" if "ref" in keys else ""), tuple(table))
    for key in keys:
        if key != "type":
            _one_of(f"{option} type={kind}", "key", key, table[kind])
    needed = table[kind][0]
    if kind != "inline" and not keys.get(needed):
        raise UsageError(f"{option} {text!r} has no {needed}", hint=f"type={kind},{needed}=…")
    if "ref" in keys and option == "--cache-to":
        pushable(Reference.parse(keys["ref"]))
    elif "ref" in keys:
        Reference.parse(keys["ref"])
    return keys


def _one_of(option: str, what: str, word: str, known: tuple[str, ...]) -> str:
    if word in known:
        return word
    near = alike(word, known)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
    raise UsageError(f"{option}: " + (f"unknown {what} {word!r}" if word else f"no {what}"), hint=hint)


def _flag(option: str, key: str, value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise UsageError(f"{option} {key}={value}: expected true or false")
    return value.lower() in ("true", "1")


def _compression(keys: Mapping[str, str]) -> Compression | None:
    from layerbuild.export.formats import read_compression

    return read_compression({key: [value] for key, value in keys.items()})
