"""How a build is to be done. A module of its own, since the command line needs it before all the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from layerbuild.build.credentials import Credentials
from layerbuild.frozen import frozen
from layerbuild.image.config import Pairs, Platform
from layerbuild.leaks import AllowList
from layerbuild.reference import Reference


class Gate(StrEnum):
    """What happens on something that looks like a secret: nothing is looked at, it is told, or the build ends."""

    OFF = "off"
    WARN = "warn"
    FAIL = "fail"


@frozen
class Options:
    """How to build. ``labels`` come last, without history; ``codec`` compresses the layers that are made, at ``level``
    (None: its usual one). ``one_id``: the build's user namespace has the id 0 alone. ``no_cache`` lets every step run,
    ``no_cache_stages`` those of the stages with these names (lower case). ``entitlements`` are what RUN steps may have
    beyond the usual; ``cache_namespace`` keeps cache mounts apart from those of other builds; ``jobs`` is how many
    stages may be at work, and layers be made, at once; ``inline_cache``: the image carries its step records.
    ``platform`` is the one that was asked for, which the image then says it is for; None: what its base says.
    ``annotations`` are its manifest's.

    ``fail_on_miss``: a step that would have to run ends the build. ``gate`` is for what looks like a secret,
    ``allowed`` what may look so. ``request`` is noted in the build's record, to plan it again. ``remember`` False: no
    later build is to hit what this one makes. ``step_by_step``: a step's layer is whole before the next step begins,
    and the folders of each RUN are told of.
    """

    names: tuple[Reference, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    codec: str = "gzip"
    level: int | None = None
    one_id: bool = False
    entitlements: frozenset[str] = frozenset()
    cache_namespace: str = ""
    jobs: int = 1
    inline_cache: bool = False
    credentials: Credentials = field(default_factory=Credentials)
    platform: Platform | None = None
    annotations: Pairs = ()
    fail_on_miss: bool = False
    gate: Gate = Gate.WARN
    allowed: AllowList = field(default_factory=AllowList)
    request: Mapping[str, Any] = field(default_factory=dict)
    remember: bool = True
    step_by_step: bool = False
