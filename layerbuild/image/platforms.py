"""Platforms: how they are spelled, which image will do on one, and which of several does best.

As containerd has it (its package ``platforms``: ``Parse``, ``Normalize``, ``Only``), so that a name means the same here
and there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from layerbuild.errors import UsageError
from layerbuild.image.config import Platform

_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1", "js"))
_SYSTEM_NAMES = {"macos": "darwin"}
_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armel": "arm/v6",
}
_USUAL_VARIANTS = {("amd64", "v1"): "", ("arm64", "v8"): "", ("arm", ""): "v7"}
_LEVEL = re.compile(r"v(\d+(?:\.\d+)?)", re.ASCII)
_LEVELS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}  # what no variant means
_LOWEST = {"arm": 5.0}
_RUNS_TOO = {"amd64": Platform("linux", "386"), "arm64": Platform("linux", "arm", "v8")}
_FAR = 100.0
_UNKNOWN = Platform("unknown", "unknown")

_Item = TypeVar("_Item")


def read_platform(text: str, *, default: Platform) -> Platform:
    """The platform that ``text`` names. A lone architecture is one of the default's system, a lone system has the
    default's architecture. UsageError if it names none.

    >>> read_platform("aarch64", default=Platform("linux", "amd64"))
    Platform(os='linux', architecture='arm64', variant='', os_version='', os_features=())
    """
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise UsageError(f'"{text}" is no platform', hint="write linux/amd64 or linux/arm/v7")
    if len(parts) == 1 and parts[0] in _SYSTEMS:
        return Platform(parts[0], default.architecture, default.variant)
    system, *rest = parts if len(parts) > 1 else (default.os, parts[0])
    architecture, _, implied = _ARCHITECTURES.get(rest[0], rest[0]).partition("/")
    variant = rest[1] if len(rest) > 1 else implied
    known = f"v{variant}" if variant.isdecimal() and architecture.startswith(("arm", "amd64")) else variant
    return normal(Platform(_SYSTEM_NAMES.get(system, system), architecture, known))


def normal(platform: Platform) -> Platform:
    """The one spelling of a platform: arm64 is arm64/v8, arm is arm/v7, and amd64 is amd64/v1."""
    key = (platform.architecture, platform.variant)
    return replace(platform, variant=_USUAL_VARIANTS.get(key, platform.variant))


def distance(found: Platform, wanted: Platform) -> float | None:
    """How far ``found`` lies below ``wanted``, 0 if they are the same; None: it does not run there.

    A variant is a level of an architecture: a machine of one level runs what was made for it and for those below; and
    arm64 runs arm, and amd64 runs 386, if there is nothing better.

    >>> distance(Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7"))
    1.0
    """
    if found.os != wanted.os:
        return None
    if found.architecture == wanted.architecture:
        return _levels_below(found, wanted)
    other = _RUNS_TOO.get(wanted.architecture)
    if other is None or found.architecture != other.architecture:
        return None
    below = _levels_below(found, other)
    return None if below is None else _FAR + below


def _levels_below(found: Platform, wanted: Platform) -> float | None:
    usual = _LEVELS.get(wanted.architecture, "")
    has, needs = found.variant or usual, wanted.variant or usual
    if has == needs:
        return 0.0
    levels = [float(level[1]) for level in map(_LEVEL.fullmatch, (has, needs)) if level]
    if len(levels) < 2 or not _LOWEST.get(wanted.architecture, 0.0) <= levels[0] < levels[1]:
        return None
    return levels[1] - levels[0]


def best(candidates: Iterable[tuple[Platform | None, _Item]], wanted: Platform) -> _Item | None:
    """The candidate that fits ``wanted`` best, of equal ones the first; None: none runs there."""
    fitting: list[tuple[float, _Item]] = []
    for platform, item in candidates:
        far = distance(platform, wanted) if platform is not None else None
        if far is not None:
            fitting.append((far, item))
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


def is_unknown(platform: Platform | None) -> bool:
    """Whether it is what BuildKit gives to attestations: no platform at all."""
    return platform == _UNKNOWN
