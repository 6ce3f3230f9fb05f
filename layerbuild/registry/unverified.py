"""An image as a registry has it, whatever it claims: for who verifies."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from layerbuild.digest import BlobDigest
from layerbuild.errors import FormatError, RegistryError
from layerbuild.image.config import Platform
from layerbuild.image.manifest import Descriptor
from layerbuild.reference import Reference
from layerbuild.registry.client import Client, Repository
from layerbuild.registry.pull import blamed, manifest_for

_BLOBS = "blobs/sha256/"  # image-spec image-layout.md
_PIECE = 1 << 20


class Unverified:
    """The blobs of a repository as the files of an OCI layout, fetched into ``folder`` when first asked for. No digest
    is looked at."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self._repository = repository
        self._folder = folder

    @property
    def origin(self) -> str:
        return str(self._repository.endpoint)

    def put(self, digest: BlobDigest, data: bytes) -> None:
        """Have a blob that is known already: a manifest is none to the registry."""
        (self._folder / digest.hex).write_bytes(data)

    def has(self, name: str) -> bool:
        """Whether the registry has that blob."""
        return self._fetched(name) is not None

    def open(self, name: str) -> BinaryIO:
        """Its bytes; FormatError where there is none."""
        return self._existing(name).open("rb")

    def size(self, name: str) -> int:
        """The number of its bytes; FormatError where there is none."""
        return self._existing(name).stat().st_size

    def _existing(self, name: str) -> Path:
        path = self._fetched(name)
        if path is None:
            raise FormatError(f"{self.origin} has no blob {name.removeprefix(_BLOBS)}")
        return path

    def _fetched(self, name: str) -> Path | None:
        digest = BlobDigest.parse(f"sha256:{name.removeprefix(_BLOBS)}")
        path = self._folder / digest.hex
        if path.exists():
            return path
        size = self._repository.blob_size(digest)
        if size is None:
            return None
        if size < 0:
            raise RegistryError(f"{self._repository.host} does not tell how large the blob {digest} is")
        with self._repository.blob(digest, size) as reader, path.open("wb") as file:
            while data := reader.read(_PIECE):
                file.write(data)
        return path


def unverified(
    client: Client, reference: Reference, platform: Platform, *, folder: Path
) -> tuple[Unverified, Descriptor]:
    """The image for ``platform`` under a name, and what describes it: its index, or the registry. RegistryError if no
    place has it."""

    def ask(repository: Repository) -> tuple[Unverified, Descriptor]:
        with blamed(repository, reference):
            _, described, data = manifest_for(repository, reference, platform)
        blobs = Unverified(repository, folder)
        blobs.put(described.digest, data)
        return blobs, described

    return client.first(reference, ask, note=lambda text: None)
