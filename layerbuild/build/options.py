"""How a build is to be done. A module of its own, since the command line needs it before all the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerbuild.build.credentials import Credentials
from layerbuild.image.config import Pairs, Platform
from layerbuild.reference import Reference


@dataclass(frozen=True, slots=True)
class Options:
    """How to build. ``labels`` come last, without history; ``codec`` compresses the layers that are made. ``one_id``:
    the build's user namespace has the id 0 alone. ``no_cache`` lets every step run, ``no_cache_stages`` those of the
    stages with these names (lower case). ``entitlements`` are what RUN steps may have beyond the usual;
    ``cache_namespace`` keeps cache mounts apart from those of other builds; ``jobs`` is how many stages may be at work,
    and layers be made, at once; ``inline_cache``: the image carries its step records. ``platform`` is the one that was
    asked for, which the image then says it is for; None: what its base says. ``annotations`` are its manifest's.
    """

    names: tuple[Reference, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    codec: str = "gzip"
    one_id: bool = False
    entitlements: frozenset[str] = frozenset()
    cache_namespace: str = ""
    jobs: int = 1
    inline_cache: bool = False
    credentials: Credentials = field(default_factory=Credentials)
    platform: Platform | None = None
    annotations: Pairs = ()
