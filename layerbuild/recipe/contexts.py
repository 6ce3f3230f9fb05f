"""Named contexts: names of stages or images in a recipe to which the caller gives another meaning.

A name is compared as the name of an image is: ``busybox`` also means ``docker.io/library/busybox:latest``. What a name
stands for is an image, by its reference, or files (None), which whoever builds has at hand. ``scratch`` and ``context``
keep their meaning. ``name::platform`` holds in the stages of that platform alone, and there comes before ``name``.
Source: BuildKit's ``dockerui``, ``docker buildx build --build-context``.
"""

from __future__ import annotations

from collections.abc import Mapping

from layerbuild.errors import UsageError
from layerbuild.image.config import Platform
from layerbuild.image.platforms import read_platform
from layerbuild.reference import Reference

NamedContexts = Mapping[str, str | None]
"""By ``context_key``: the image that stands for the name, None: files."""

RESERVED = ("scratch", "context")

_FOR = "::"


def context_key(text: str, *, default: Platform) -> tuple[str, Platform]:
    """The key of a context that the caller calls ``text``, and the platform that it is for: the one behind ``::``, else
    ``default``. UsageError if that is none."""
    name, limited, platform = text.partition(_FOR)
    if not limited:
        return context_name(name), default
    try:
        meant = read_platform(platform, default=default)
    except UsageError as error:
        raise UsageError(f"the context {text!r}: {error.message}", hint=error.hint) from error
    return f"{context_name(name)}{_FOR}{meant}", meant


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


def replaced(name: str, contexts: NamedContexts, platform: Platform | None) -> str | None:
    """The key of the named context that stands for ``name`` in a stage of ``platform``, None: there is none."""
    key = context_name(name)
    if key in RESERVED:
        return None
    return next((each for each in (f"{key}{_FOR}{platform}", key) if each in contexts), None)
