"""``--platform``, and the platform of this machine."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from layerbuild.cli.options.command import Decorator, option
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.image.config import Platform

#: As with docker, what is built, pulled and run is for this platform where nothing is said.
PLATFORM_VARIABLE = "DOCKER_DEFAULT_PLATFORM"
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
}


def platform_option(
    *,
    multiple: bool = False,
    envvar: str | None = None,
    help: str = "Which of the images under that name.",
    heading: str = "",
) -> Decorator:
    """``--platform``; ``read_platforms`` or ``chosen_platform`` understands what it says."""
    return option("--platform", metavar="OS/ARCH", multiple=multiple, envvar=envvar, help=help, heading=heading)


def read_platforms(texts: tuple[str, ...]) -> tuple[Platform, ...]:
    """The platforms that ``--platform`` names, each once; ``local`` is this machine's. UsageError."""
    from layerbuild.image.platforms import read_platform

    found: dict[Platform, None] = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        try:
            platform = this_platform() if text == "local" else read_platform(text, default=this_platform())
        except UsageError as error:
            raise UsageError(f"--platform: {error.message}", hint=error.hint) from error
        found[platform] = None
    return tuple(found)


def chosen_platform(text: str | None) -> Platform | None:
    """The one platform that ``--platform`` names, None: nothing was said. UsageError."""
    if text is None:
        return None
    platforms = read_platforms((text,))
    if len(platforms) > 1:
        raise UsageError(f"--platform {text} names several platforms", hint=f"--platform {platforms[0]}, say")
    return platforms[0]


def this_platform() -> Platform:
    """The platform of this machine, in OCI's words (image-spec config.md: Go's names)."""
    from layerbuild.image.config import Platform

    machine = platform.machine()
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)
