"""What a recipe may ask about platforms."""

from __future__ import annotations

from collections.abc import Mapping

from layerbuild.image.config import Platform


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
