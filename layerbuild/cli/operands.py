"""What an argument that names an image may be: a name in the store, or a layout or an archive on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.cli.place import inside, reading
from layerbuild.cli.recipes import this_platform
from layerbuild.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from layerbuild.digest import DiffID
    from layerbuild.layer.index import Index
    from layerbuild.store.images import StoredImage
    from layerbuild.store.store import Store
    from layerbuild.views.diff import Thing
    from layerbuild.views.layers import LayerRow


@dataclass(frozen=True, slots=True)
class Seen:
    """An image that can be looked at. ``name`` is what the caller called it; ``own``: it is in the caller's store."""

    name: str
    store: Store
    image: StoredImage
    own: bool = True

    def layers(self) -> list[LayerRow]:
        """Its history entries that have a layer, the lowest first."""
        from layerbuild.views.layers import layer_rows

        return [row for row in layer_rows(self.store, self.image) if row.diff_id is not None]

    def indexes(self, cleaning: ExitStack) -> list[Index]:
        """The indexes of its layers, the lowest first, open until ``cleaning`` ends."""
        from layerbuild.layer.index import Index

        paths = [self.store.layers.index_path(diff_id) for diff_id in self.image.config.diff_ids]
        try:
            return [cleaning.enter_context(Index.open(path)) for path in paths]
        except FileNotFoundError as error:
            hint = "build or import its image again"
            raise NotFoundError(f"the index of a layer of {self.name} is not in the store", hint=hint) from error


def place_of(text: str) -> tuple[Path, str] | None:
    """The path and the tag that ``text`` means, if it is ``PATH`` or ``PATH:TAG`` of something on the disk."""
    if os.path.exists(text):
        return Path(text), ""
    path, _, tag = text.rpartition(":")
    return (Path(path), tag) if path and os.path.exists(path) else None


@contextmanager
def seen(*texts: str) -> Iterator[list[Seen]]:
    """The images that ``texts`` name. What is in the store comes first; a path is brought into a store of its own,
    which goes when the context ends, so that a look leaves no trace."""
    with reading(contents=True) as store:
        known = [_known(store, text) for text in texts]
        places = [None if image else place_of(text) for image, text in zip(known, texts, strict=True)]
        if not any(places) and all(store.is_here(image.top) for image in known if image):
            yield [
                Seen(text, store, image or store.images.resolve(text)) for text, image in zip(texts, known, strict=True)
            ]
            return
    with inside() as (store, _), ExitStack() as cleaning:
        for image in known:
            if image is not None:  # what was pulled comes layer by layer, as it is looked for
                store.ensure_unpacked(image.top)
        yield [
            _loaded(store, text, *place, cleaning) if place else Seen(text, store, store.images.resolve(text))
            for text, place in zip(texts, places, strict=True)
        ]


def _known(store: Store, text: str) -> StoredImage | None:
    try:
        return store.images.resolve(text)
    except NotFoundError:
        return None


def _loaded(store: Store, text: str, path: Path, tag: str, cleaning: ExitStack) -> Seen:
    from layerbuild.intake.load import Shape, identify, load, load_layout_image
    from layerbuild.store.images import StoredImage
    from layerbuild.store.overlay import remove_any
    from layerbuild.store.store import Store

    place = store.temporary_name()
    cleaning.callback(remove_any, place)
    own = cleaning.enter_context(Store.open(place, user_xattr=store.user_xattr))
    if identify(path) is Shape.OCI_LAYOUT:
        images = [load_layout_image(own, path, platform=this_platform(), tag=tag)]
    else:
        images = load(own, path, platform=this_platform(), name=tag)
    if len(images) > 1:
        names = ", ".join(name for image in images for name in image.names)
        raise UsageError(f"{path} has several images: {names}", hint=f"name one of them: {path}:NAME")
    image = images[0]
    assert isinstance(image, StoredImage)  # of an image for several platforms one was asked for
    return Seen(text, own, image, own=False)


def layer_things(store: Store, diff_id: DiffID, cleaning: ExitStack) -> Iterator[Thing]:
    """What a layer of the store says, in its order; contents come from its folder, where one is unpacked."""
    from layerbuild.layer.entry import Kind
    from layerbuild.layer.index import Index
    from layerbuild.layer.union import Found, LayerView, Union
    from layerbuild.views.diff import Thing

    index = cleaning.enter_context(Index.open(store.layers.index_path(diff_id)))
    folder = next((found.diff for found in store.snapshots.all() if found.diff_id == diff_id and found.unpacked), None)
    alone = Union([LayerView(index, folder)])
    for entry in index:
        link = entry.target if entry.kind is Kind.HARDLINK else b""
        yield Thing(entry, link, partial(alone.content, Found(entry, entry, 0)) if folder is not None else None)
