"""Which image runs on which platform, and which one runs best.

A variant is a level of an architecture: a machine of one level runs what was made for it and for those below. Source:
image-spec image-index.md ("Platform Variants"), with the meaning that containerd gives an absent variant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from layerbuild.image.config import Platform

_USUAL = {"arm64": "v8", "arm": "v7", "amd64": "v1"}  # what no variant means
_LOWEST = {"arm": 5.0}
_LEVEL = re.compile(r"v(\d+(?:\.\d+)?)")
_UNKNOWN = Platform("unknown", "unknown")

_Item = TypeVar("_Item")


def distance(found: Platform, wanted: Platform) -> float | None:
    """How far ``found`` lies below ``wanted``, 0 if they are the same; None: it does not run there.

    >>> distance(Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7"))
    1.0
    """
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return None
    usual = _USUAL.get(wanted.architecture, "")
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
