"""What an argument that names an image may be: a name in the store, a layout or an archive on the disk, or a name with
its registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.cli.console import observer
from layerbuild.cli.options.platforms import this_platform
from layerbuild.cli.place import inside, reading
from layerbuild.cli.registries import Bringer
from layerbuild.errors import NotFoundError, UsageError
from layerbuild.frozen import frozen
from layerbuild.reference import Reference

if TYPE_CHECKING:
    from layerbuild.digest import DiffID
    from layerbuild.layer.index import Index
    from layerbuild.store.images import StoredImage
    from layerbuild.store.store import Store
    from layerbuild.views.diff import Thing
    from layerbuild.views.layers import LayerRow


@frozen
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
    """The images that ``texts`` name. What is in the store comes first. A path is brought into a store of its own,
    which goes when the context ends, so that a look leaves no trace; so is what is not here and is named with its
    registry: a short name that is not in the store is rather mistyped."""
    with reading(contents=True) as store:
        known = [_known(store, text) for text in texts]
        if all(image is not None and store.is_here(image.top) for image in known):
            yield [Seen(text, store, image) for text, image in zip(texts, known, strict=True) if image is not None]
            return
    with inside() as (store, _), ExitStack() as cleaning:
        yield [_brought(store, text, image, cleaning) for text, image in zip(texts, known, strict=True)]


def _brought(store: Store, text: str, known: StoredImage | None, cleaning: ExitStack) -> Seen:
    """An image with its layers, from wherever it is; ``known``, if the store has it by that name."""
    if known is not None:  # what was pulled comes layer by layer, as it is looked for
        store.ensure_unpacked(known.top)
        return Seen(text, store, known)
    place = place_of(text)
    return _loaded(store, text, *place, cleaning) if place else _pulled(store, text, cleaning)


def _known(store: Store, text: str) -> StoredImage | None:
    """The image that the store has by that name, None if it is elsewhere; NotFoundError if it is nowhere."""
    try:
        return store.images.resolve(text)
    except NotFoundError:
        if place_of(text) or _tells_registry(text):
            return None
        raise


def _tells_registry(text: str) -> bool:
    """Whether the name begins with a registry, as `docker.io/library/debian` does, and `debian` and `me/app` do not."""
    try:
        reference = Reference.parse(text)
    except UsageError:
        return False
    return text.startswith(f"{reference.registry}/")


def _pulled(store: Store, text: str, cleaning: ExitStack) -> Seen:
    own = _throw_away(store, cleaning)
    own.supplier = bringer = Bringer(own, observer("auto"))
    image = bringer.pull(Reference.parse(text), this_platform())
    own.ensure_unpacked(image.top)
    return Seen(text, own, image, own=False)


def _throw_away(store: Store, cleaning: ExitStack) -> Store:
    """A store below the caller's own, on a disk that can hold one, until ``cleaning`` ends."""
    from layerbuild.store.overlay import remove_any
    from layerbuild.store.store import Store

    place = store.temporary_name()
    cleaning.callback(remove_any, place)
    return cleaning.enter_context(Store.open(place, user_xattr=store.user_xattr, platform=this_platform()))


def _loaded(store: Store, text: str, path: Path, tag: str, cleaning: ExitStack) -> Seen:
    from layerbuild.intake.load import Shape, identify, load, load_layout_image
    from layerbuild.store.images import StoredImage

    own = _throw_away(store, cleaning)
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
    from layerbuild.layer.union import Found, LayerView, Union, in_folder
    from layerbuild.views.diff import Thing

    index = cleaning.enter_context(Index.open(store.layers.index_path(diff_id)))
    folder = next((found.diff for found in store.snapshots.all() if found.diff_id == diff_id and found.unpacked), None)
    alone = Union([LayerView(index, in_folder(folder) if folder is not None else None)])
    for entry in index:
        link = entry.target if entry.kind is Kind.HARDLINK else b""
        yield Thing(entry, link, partial(alone.content, Found(entry, entry, 0)) if folder is not None else None)
