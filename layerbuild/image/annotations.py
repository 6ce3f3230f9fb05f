"""Annotations as they are asked for, and the documents of an image that they go into.

::

    -o …,annotation-manifest[linux/arm64].KEY=VALUE     --annotation manifest[linux/arm64]:KEY=VALUE

    manifest             the manifest of each image, or of the one for that platform; also where nothing is said
    index                the index over images for several platforms
    manifest-descriptor  what the index says of a manifest; without an index, what a layout says of it
    index-descriptor     what a layout says of the index

The spelling is buildx's (docs.docker.com, "Annotations"; BuildKit, exporter/containerimage/exptypes/annotations.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from layerbuild.errors import UsageError, alike
from layerbuild.frozen import frozen
from layerbuild.image.config import Pairs, Platform
from layerbuild.image.platforms import distance, normal, read_platform

MANIFEST = "manifest"
INDEX = "index"
MANIFEST_DESCRIPTOR = "manifest-descriptor"
INDEX_DESCRIPTOR = "index-descriptor"

_KINDS = (MANIFEST, INDEX, MANIFEST_DESCRIPTOR, INDEX_DESCRIPTOR)
_TARGET = re.compile(r"(?P<kind>[a-z-]*)(?:\[(?P<platform>[^\]]+)\])?")
_KEY = re.compile(r"annotation(?:-(?P<kind>[a-z-]+))?(?:\[(?P<platform>[^\]]+)\])?\.(?P<key>\S+)")


@frozen
class Annotation:
    """One of them, for one kind of document; ``platform`` None: for all platforms."""

    key: str
    value: str
    kind: str = MANIFEST
    platform: Platform | None = None


def read_output_key(key: str, value: str) -> Annotation:
    """What a key of ``-o`` that begins with ``annotation`` asks for; UsageError."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise UsageError(f"{key}={value} is no annotation", hint="annotation[-KIND][[PLATFORM]].KEY=VALUE")
    return _annotation(found["kind"], found["platform"], found["key"], value)


def read_option(text: str) -> tuple[Annotation, ...]:
    """What ``--annotation`` asks for: ``[KIND[PLATFORM],…:]KEY=VALUE``; UsageError."""
    name, equals, value = text.partition("=")
    targets, colon, key = name.rpartition(":")
    if not equals or not key:
        raise UsageError(f"--annotation {text!r} is not KEY=VALUE", hint='--annotation "index:KEY=VALUE", say')
    if not colon:
        return (Annotation(key, value),)
    found = []
    for target in targets.split(","):
        form = _TARGET.fullmatch(target)
        if form is None:
            raise UsageError(f"--annotation {text!r}: {target!r} is no kind", hint=f"one of {', '.join(_KINDS)}")
        found.append(_annotation(form["kind"], form["platform"], key, value))
    return tuple(found)


def chosen(annotations: Iterable[Annotation], kind: str, platform: Platform | None = None) -> Pairs:
    """Those that are said of documents of one kind, by key; of equal keys the last counts. ``platform``: only those for
    this platform, None: only those for all."""
    found = {
        annotation.key: annotation.value
        for annotation in annotations
        if annotation.kind == kind and _concerns(annotation, platform)
    }
    return tuple(sorted(found.items()))


def chosen_for(annotations: Iterable[Annotation], kind: str, platform: Platform) -> Pairs:
    """Those for a document of one platform: what is said of all platforms, and what is said of this one."""
    said = tuple(annotations)
    return with_pairs(chosen(said, kind), chosen(said, kind, platform))


def refuse_index(annotations: Iterable[Annotation]) -> None:
    """UsageError if one is of an index, for an image that has none."""
    for annotation in annotations:
        if annotation.kind in (INDEX, INDEX_DESCRIPTOR):
            raise UsageError(
                f"annotation {annotation.key} is of the {annotation.kind}, and an image for one platform has no index",
                hint=f"annotate its {MANIFEST}",
            )


def with_pairs(pairs: Pairs, more: Pairs) -> Pairs:
    """``pairs`` with ``more`` added, in order; of equal keys the new one counts."""
    return tuple(sorted({**dict(pairs), **dict(more)}.items()))


def _concerns(annotation: Annotation, platform: Platform | None) -> bool:
    if annotation.platform is None or platform is None:
        return annotation.platform is platform
    return distance(platform, annotation.platform) == 0


def _annotation(kind: str | None, platform: str | None, key: str, value: str) -> Annotation:
    chosen_kind = kind or MANIFEST
    if chosen_kind not in _KINDS:
        near = alike(chosen_kind, _KINDS)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(_KINDS)}"
        raise UsageError(f"unknown kind of annotation {chosen_kind!r}", hint=hint)
    wanted = None
    if platform is not None:
        if chosen_kind in (INDEX, INDEX_DESCRIPTOR):
            raise UsageError(f"an annotation of the {chosen_kind} can't be for a platform", hint="leave it out")
        wanted = normal(read_platform(platform, default=Platform("linux", "amd64")))
    return Annotation(key, value, chosen_kind, wanted)
