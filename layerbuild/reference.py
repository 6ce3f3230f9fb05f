"""Names of images: ``registry/name:tag@digest``.

Short names are completed as Docker completes them: ``debian`` is ``docker.io/library/debian:latest``. Source:
distribution/reference (grammar), and Docker's rule that the first path component is a registry only if it holds a
``.`` or a ``:``, or is ``localhost``, or has an upper-case letter.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError, UsageError
from layerbuild.frozen import frozen

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


@frozen
class Reference:
    """A complete image name. ``tag`` is empty only where a digest alone names the image."""

    registry: str
    repository: str
    tag: str = ""
    digest: BlobDigest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Complete and check ``text``; a UsageError says which part is wrong."""
        rest, _, digest_text = text.partition("@")
        try:
            digest = BlobDigest.parse(digest_text) if digest_text else None
        except FormatError as error:
            raise UsageError(f"invalid image reference {text!r}: {error.message}", hint=error.hint) from error
        head, slash, last = rest.rpartition("/")
        name, colon, tag = last.partition(":")
        path = head + slash + name
        if colon and not _TAG.fullmatch(tag):
            raise UsageError(f"invalid image reference {text!r}: {tag!r} is not a tag")
        registry, repository = _split_registry(path)
        if not _is_host(registry):
            raise UsageError(f"invalid image reference {text!r}: {registry!r} is not a registry host")
        if not _REPOSITORY.fullmatch(repository):
            hint = f"repository names are lower case: {text.lower()}" if repository != repository.lower() else ""
            raise UsageError(f"invalid image reference {text!r}: {repository!r} is not a repository name", hint=hint)
        return cls(registry, repository, tag or ("" if digest else DEFAULT_TAG), digest)

    @property
    def familiar(self) -> str:
        """The shortest spelling that means the same: ``docker.io/library/debian:12`` is ``debian:12``."""
        name = self.name
        if self.registry == DEFAULT_REGISTRY:
            name = self.repository.removeprefix("library/")
        return name + self._suffix

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def untagged(self) -> Reference:
        """The same repository without tag and digest."""
        return replace(self, tag="", digest=None)

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix


def _is_host(text: str) -> bool:
    if not _REGISTRY.fullmatch(text):
        return False
    try:
        parts = urlsplit(f"//{text}")  # which knows addresses in brackets, and how large a port may be
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _split_registry(path: str) -> tuple[str, str]:
    first, slash, rest = path.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        first, rest = DEFAULT_REGISTRY, path
    if first == "index.docker.io":
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest
