"""What FROM and COPY --from name: images of the local store, or of whatever can fetch one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from layerbuild.errors import NotFoundError, RegistryError, UsageError, alike
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store

Policy = Literal["always", "missing", "never"]

_HOST = "docker.io/library/base:host"  # the name that `base host` gives if it is told no other
_MAKES_HOST = "`layerbuild base host` makes it of this machine's programs"


class Puller(Protocol):
    """Brings an image from elsewhere into the store; RegistryError if it can't. ``tag``: under its name."""

    def pull(self, reference: Reference, platform: Platform, *, tag: bool = True) -> StoredImage: ...


class Bases:
    """Resolves image names, each once: a build sees one image under one name, whatever is tagged meanwhile.

    ``policy`` tells when ``puller`` is asked: always, for what is missing (or there for another platform), or never.
    ``own`` is the platform whose images get their names in the store. ``stages`` tells the names of the recipe's
    stages, one of which a name that no image has may have meant.
    """

    def __init__(
        self,
        store: Store,
        *,
        puller: Puller | None = None,
        policy: Policy = "missing",
        own: Platform | None = None,
    ) -> None:
        self._store = store
        self._puller = puller if policy != "never" else None
        self._always = policy == "always"
        self._own = own
        self._known: dict[tuple[str, Platform], StoredImage] = {}
        self.stages: Callable[[], Iterable[str]] = tuple

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
        reference = _reference(name)
        here, missing = self._here(name, reference, platform)
        if here is None and (near := alike(name.lower(), filter(None, self.stages()))):
            missing = f"did you mean the stage {near[0]}?"
        if here is not None and (reference is None or self._puller is None or not self._always):
            return here
        if reference is None or self._puller is None:
            hint = missing or "`layerbuild images` lists those there are; `layerbuild base` and `import` bring more"
            raise NotFoundError(f"base image {name!r} is not in the store for {platform}", hint=hint)
        try:
            return self._puller.pull(reference, platform, tag=self._own in (None, platform))
        except RegistryError as error:
            where = f"not in the store for {platform}" if missing else "not in the store"
            what = f"base image {name!r} {f'is {where}, and ' if here is None else ''}can't be pulled"
            text = f"{what}: {error.message}"
            kept = "the store has one, which --pull=missing takes" if here is not None else ""
            hint = "; ".join(filter(None, (kept, missing, error.hint)))
            raise RegistryError(text, hint=hint, status=error.status) from error

    def _here(self, name: str, reference: Reference | None, platform: Platform) -> tuple[StoredImage | None, str]:
        """What the store has for the platform; if nothing, a hint."""
        try:
            return self._store.images.resolve(name, platform=platform), ""
        except NotFoundError as error:
            found = self._store.images.for_platform(reference, platform) if reference is not None else None
            return found, _MAKES_HOST if str(reference) == _HOST and not self._is_there(name) else error.hint

    def _is_there(self, name: str) -> bool:
        """Whether the store has it, for whatever platform."""
        try:
            return bool(self._store.images.find(name))
        except NotFoundError:
            return False


def _reference(name: str) -> Reference | None:
    """The name as one that a registry may know; None for an ID, which only the store does."""
    if name.startswith("sha256:"):
        return None
    try:
        return Reference.parse(name)
    except UsageError:
        return None
