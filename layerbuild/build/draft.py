"""An image whose layers may have no names yet: a base, and what each step changes."""

from __future__ import annotations

from layerbuild.build.unnamed import Promise
from layerbuild.digest import DiffID
from layerbuild.frozen import frozen
from layerbuild.image.config import History, RuntimeConfig
from layerbuild.image.image import Image


@frozen
class Change:
    """The arguments of ``Image.with_step``; ``layer`` may be a promise."""

    config: RuntimeConfig
    history: History | None = None
    layer: DiffID | Promise[DiffID] | None = None
    author: str | None = None


@frozen
class Draft:
    """``base`` with ``changes``, in order."""

    base: Image
    changes: tuple[Change, ...] = ()

    def then(self, change: Change) -> Draft:
        """The draft with one more change."""
        return Draft(self.base, (*self.changes, change))

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return len(self.base.config.diff_ids) + sum(change.layer is not None for change in self.changes)

    def image(self) -> Image:
        """The image; waits until every layer has a name."""
        image = self.base
        for change in self.changes:
            layer = change.layer.get() if isinstance(change.layer, Promise) else change.layer
            image = image.with_step(change.history, change.config, layer=layer, author=change.author)
        return image
