"""What FROM and COPY --from name: images of the local store, or of whatever can fetch one."""

from __future__ import annotations

from typing import Protocol

from layerbuild.errors import NotFoundError
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store


class Puller(Protocol):
    """Brings an image from elsewhere into the store."""

    def pull(self, reference: Reference, platform: Platform) -> StoredImage: ...


class Bases:
    """Resolves image names, each once: a build sees one image under one name, whatever is tagged meanwhile."""

    def __init__(self, store: Store, *, puller: Puller | None = None) -> None:
        self._store = store
        self._puller = puller
        self._known: dict[tuple[str, Platform], StoredImage] = {}

    def image(self, name: str, platform: Platform) -> StoredImage:
        """The image called ``name``; NotFoundError tells how to get one."""
        key = (name, platform)
        if key not in self._known:
            self._known[key] = self._find(name, platform)
        return self._known[key]

    def config(self, name: str, platform: Platform) -> ImageConfig:
        """Its configuration."""
        return self.image(name, platform).config

    def _find(self, name: str, platform: Platform) -> StoredImage:
        try:
            return self._store.images.resolve(name, platform=platform)
        except NotFoundError as error:
            if self._puller is not None:
                return self._puller.pull(Reference.parse(name), platform)
            hint = error.hint or "`layerbuild images` lists those there are; `layerbuild base` and `import` bring more"
            raise NotFoundError(f"base image {name!r} is not in the store for {platform}", hint=hint) from error
