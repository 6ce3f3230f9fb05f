"""The caches of other machines: what a build asks, and what it gives away."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.errors import LayerbuildError, NotFoundError
from layerbuild.frozen import frozen
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.build.imports import CacheSource
    from layerbuild.build.loop import Build
    from layerbuild.cli.options.caches import Asked, CacheFrom, CacheTo
    from layerbuild.cli.options.sources import Request
    from layerbuild.events import Observer
    from layerbuild.image.config import Platform
    from layerbuild.image.manifest import Descriptor, Index
    from layerbuild.store.buildcache import BuildCache
    from layerbuild.store.store import Store


@frozen
class Caches:
    """All that ``build`` was told of caches."""

    taken: tuple[CacheFrom, ...]
    given: tuple[CacheTo, ...]
    inline: bool

    @classmethod
    def of(cls, asked: Asked, request: Request) -> Caches:
        """Those that count for ``request``. A build argument BUILDKIT_INLINE_CACHE asks for an inline one, as in
        BuildKit."""
        taken, given = asked
        inline = any(target.type == "inline" for target in given)
        inline = inline or request.build_args.get("BUILDKIT_INLINE_CACHE") in ("1", "true")
        return cls(() if request.no_cache else taken, given, inline)

    def sources(self, store: Store, platform: Platform, observe: Observer) -> list[CacheSource]:
        """The caches to ask for a build for ``platform``, which nobody has looked at yet."""
        return [_source(store, taken, platform, observe) for taken in self.taken]

    def write(self, store: Store, builds: Sequence[Build], observe: Observer) -> None:
        """Give away what ``builds``, which have ended well, went through: one for each platform."""
        from layerbuild.store.buildcache import merged

        for target in self.given:
            if target.type == "inline":
                continue  # it is in the image already
            try:
                cache = merged([build.cache(every_stage=target.every_stage) for build in builds])
                _write(store, target, cache, observe)
            except LayerbuildError as error:
                if not target.ignore_error:
                    raise
                builds[0].note(f"the cache was not written to {target.place}: {error.message}")


def _source(store: Store, taken: CacheFrom, platform: Platform, observe: Observer) -> CacheSource:
    if taken.bare:
        from layerbuild.store.buildcache import ImageCache

        for wanted in (platform, None):  # one for another platform tells of what is copied
            with suppress(NotFoundError):
                return ImageCache(store.images.resolve(taken.place, platform=wanted), store.blobs)
    if taken.type == "local":
        from layerbuild.intake.cache_layout import CacheLayout

        return CacheLayout(Path(taken.place), tag=taken.tag, digest=taken.digest)
    from layerbuild.cli.registries import client
    from layerbuild.events import Note
    from layerbuild.image.platforms import best
    from layerbuild.registry.cache import RegistryCache

    def choose(index: Index) -> Descriptor | None:
        return best(((entry.platform, entry) for entry in index.manifests), platform)

    reference = Reference.parse(taken.place)
    return RegistryCache(client(), reference, choose=choose, note=lambda text: observe(Note(text)))


def _write(store: Store, target: CacheTo, cache: BuildCache, observe: Observer) -> None:
    from layerbuild.export.package import converted

    wanted = target.compression
    if wanted is not None:
        layers = {diff_id: converted(store, layer, diff_id, wanted) for diff_id, layer in cache.layers.items()}
        cache = replace(cache, layers=layers)
    if target.type == "local":
        from layerbuild.export.cache_layout import write_cache_layout

        write_cache_layout(cache, store.blobs, Path(target.place), tag=target.tag)
        return
    from layerbuild.cli.pushing import Pushing
    from layerbuild.registry.cache import cache_shipment

    shipment, beside = cache_shipment(cache)
    with Pushing(store, [Reference.parse(target.place)], observe, beside=beside) as pushing:
        pushing.push(shipment)
