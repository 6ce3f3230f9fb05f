"""Named contexts: names of stages or images in a recipe to which the caller gives another meaning.

A name is compared as the name of an image is: ``busybox`` also means ``docker.io/library/busybox:latest``. What a name
stands for is an image, by its reference, or files (None), which whoever builds has at hand. ``scratch`` and ``context``
keep their meaning. Source: BuildKit's ``dockerui``, ``docker buildx build --build-context``.
"""

from __future__ import annotations

from collections.abc import Mapping

from layerbuild.errors import UsageError
from layerbuild.reference import Reference

NamedContexts = Mapping[str, str | None]
"""By ``context_name``: the image that stands for the name, None: files."""

RESERVED = ("scratch", "context")


def context_name(text: str) -> str:
    """The form in which names are compared.

    >>> context_name("docker.io/library/Busybox:latest")
    'busybox'
    """
    lowered = text.lower()
    try:
        return Reference.parse(lowered).familiar.removesuffix(":latest")
    except UsageError:
        return lowered


def replaced(name: str, contexts: NamedContexts) -> str | None:
    """The named context that stands for ``name``, None: there is none."""
    key = context_name(name)
    return key if key in contexts and key not in RESERVED else None
