"""How a build is to be done. A module of its own, since the command line needs it before all the rest."""

from __future__ import annotations

from dataclasses import dataclass

from layerbuild.build.times import Times
from layerbuild.reference import Reference


@dataclass(frozen=True, slots=True)
class Options:
    """How to build. ``created`` is the RFC 3339 time that history entries get; ``labels`` come last, without history;
    ``codec`` compresses the layers that are made. ``one_id``: the build's user namespace has the id 0 alone."""

    times: Times
    created: str
    names: tuple[Reference, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    codec: str = "gzip"
    one_id: bool = False
