"""Platform names: ``os/architecture/variant``, as ``--platform`` takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from layerbuild.errors import RecipeError
from layerbuild.image.config import Platform

_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1", "js"))
_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armel": "arm/v6",
}


def read_platform(text: str, *, default: Platform) -> Platform:
    """The platform that ``text`` names. A lone architecture is one of the default's system, a lone system has the
    default's architecture. RecipeError, without a place, if it names none.

    >>> read_platform("aarch64", default=Platform("linux", "amd64"))
    Platform(os='linux', architecture='arm64', variant='', os_version='', os_features=())
    """
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise RecipeError(f'"{text}" is no platform', hint="write linux/amd64 or linux/arm/v7")
    if len(parts) == 1 and parts[0] in _SYSTEMS:
        return Platform(parts[0], default.architecture, default.variant)
    system, *rest = parts if len(parts) > 1 else (default.os, parts[0])
    architecture, _, implied = _ARCHITECTURES.get(rest[0], rest[0]).partition("/")
    return Platform(system, architecture, _variant(architecture, rest[1] if len(rest) > 1 else implied))


def _variant(architecture: str, given: str) -> str:
    variant = f"v{given}" if given.isdecimal() else given
    if architecture == "arm64":
        return "" if variant == "v8" else variant  # v8 is what arm64 means
    return variant or ("v7" if architecture == "arm" else "")


def platform_args(*, build: Platform, target: Platform) -> Mapping[str, str]:
    """The predefined ARGs that tell where the build runs, and what it is for."""
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": platform.os_version,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return found
