"""An image while it grows.

Each step adds at most one history entry and at most one layer, both through ``with_step``, so that "as many history
entries with a layer as there are diff IDs" (image-spec, config.md) holds at every moment and nobody has to count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from layerbuild.digest import BlobDigest, ChainID, DiffID, chain_ids
from layerbuild.frozen import frozen
from layerbuild.image.config import History, ImageConfig, Pairs, Platform, RuntimeConfig
from layerbuild.image.manifest import OCI_CONFIG, Descriptor, Manifest


@frozen
class Image:
    """A configuration whose history and layers agree. Make one with ``scratch`` or ``of_base``."""

    config: ImageConfig

    @classmethod
    def scratch(cls, platform: Platform) -> Self:
        """The image without layers that FROM scratch starts with."""
        return cls(ImageConfig.scratch(platform))

    @classmethod
    def of_base(cls, config: ImageConfig) -> Self:
        """An image to build upon, made elsewhere. Its history is made to agree with its layers.

        History is optional and some tools write none, or too little: a layer without an entry gets one that says so.
        Of too many entries with a layer the lowest lose it, as in BuildKit.
        """
        return cls(replace(config, history=_agreeing(config)))

    def with_step(
        self,
        history: History | None,
        config: RuntimeConfig,
        *,
        layer: DiffID | None = None,
        author: str | None = None,
    ) -> Self:
        """The image after one step: ``config`` is the configuration after it, ``layer`` what it added, None: no layer.

        ``history`` None is a step that leaves no entry (ONBUILD); it can't bring a layer. Its ``empty_layer`` is set
        here, and its time, where it has one, becomes the image's. ``author`` None leaves the author as it is.
        """
        before = self.config
        if history is None:
            if layer is not None:
                raise ValueError("a layer needs a history entry")
            return type(self)(replace(before, config=config, author=before.author if author is None else author))
        after = replace(
            before,
            config=config,
            diff_ids=(*before.diff_ids, layer) if layer is not None else before.diff_ids,
            history=(*before.history, replace(history, empty_layer=layer is None)),
            created=history.created or before.created,
            author=before.author if author is None else author,
        )
        return type(self)(after)

    @property
    def chains(self) -> tuple[ChainID, ...]:
        """The chain ID of each layer, bottom first."""
        return chain_ids(self.config.diff_ids)

    @property
    def top(self) -> ChainID | None:
        """The chain ID of the whole stack; None: no layers."""
        return self.chains[-1] if self.config.diff_ids else None

    @property
    def image_id(self) -> BlobDigest:
        """sha256 of the configuration."""
        return self.config.image_id

    def manifest(self, layers: Sequence[Descriptor], *, annotations: Pairs = ()) -> Manifest:
        """The manifest that names this configuration and ``layers``: the blob of each diff ID, in their order."""
        if len(layers) != len(self.config.diff_ids):
            raise ValueError(f"{len(layers)} blobs for {len(self.config.diff_ids)} layers")
        written = self.config.to_json()
        config = Descriptor(OCI_CONFIG, BlobDigest.of(written), len(written))
        return Manifest(config, tuple(layers), annotations=annotations)


def _agreeing(config: ImageConfig) -> tuple[History, ...]:
    with_layer = [number for number, entry in enumerate(config.history) if not entry.empty_layer]
    surplus = len(with_layer) - len(config.diff_ids)
    if surplus > 0:
        emptied = frozenset(with_layer[:surplus])
        return tuple(
            replace(entry, empty_layer=True) if number in emptied else entry
            for number, entry in enumerate(config.history)
        )
    absent = History(created=config.created, comment="the base has no history for this layer")
    return config.history + (absent,) * -surplus
