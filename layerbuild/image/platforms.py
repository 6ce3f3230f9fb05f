"""Platforms: how they are spelled, which image will do on one, and which of several does best.

As containerd has it (its package ``platforms``: ``Parse``, ``Normalize``, ``Only``), so that a name means the same here
and there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

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
_NUMBERED = re.compile(r"v(\d+)(?:\.\d+)?", re.ASCII)


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


def rank(found: Platform, wanted: Platform) -> int | None:
    """How well an image for ``found`` does where ``wanted`` is: 0 is best, None: not at all.

    An older variant runs on a newer one, arm on arm64, and 386 on amd64.
    """
    if found.os != wanted.os:
        return None
    candidate = normal(found)
    runnable = _runnable(normal(wanted))
    key = (candidate.architecture, candidate.variant)
    return runnable.index(key) if key in runnable else None


def best(found: Iterable[Platform | None], wanted: Platform) -> int | None:
    """The position of the one that does best, of equals the first; None if none will do. A None has no platform."""
    ranked = [
        (level, position)
        for position, platform in enumerate(found)
        if platform is not None and (level := rank(platform, wanted)) is not None
    ]
    return min(ranked)[1] if ranked else None


def _runnable(wanted: Platform) -> list[tuple[str, str]]:
    """Architectures and variants, best first."""
    same = [(wanted.architecture, variant) for variant in _variants(wanted)]
    match wanted.architecture:
        case "amd64":
            return [*same, ("386", "")]
        case "arm64":
            return [*same, *(("arm", f"v{number}") for number in (8, 7, 6, 5))]
    return same


def _variants(wanted: Platform) -> list[str]:
    """The variant and the older ones, down to the oldest."""
    number = _NUMBERED.fullmatch(wanted.variant)
    oldest = {"amd64": 1, "arm64": 8, "arm": 4}.get(wanted.architecture)
    if number is None or oldest is None:
        return [wanted.variant]
    older = [normal(replace(wanted, variant=f"v{level}")).variant for level in range(int(number[1]) - 1, oldest, -1)]
    base = [] if wanted.architecture == "arm" else [""]
    return [wanted.variant, *older, *base]
