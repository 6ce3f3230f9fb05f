"""What an argument that names an image may be: a name in the store, a layout or an archive on the disk, or a name with
its registry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches
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
    from layerbuild.image.config import Platform
    from layerbuild.layer.index import Index
    from layerbuild.store.images import StoredImage
    from layerbuild.store.store import Store
    from layerbuild.views.diff import Thing
    from layerbuild.views.layers import LayerRow


# As skopeo and podman spell where an image lies (containers-transports(5))
_TRANSPORT = re.compile(r"oci:|oci-archive:|docker-archive:|docker://")


@frozen
class Seen:
    """An image that can be looked at. ``name`` is what the caller called it; ``own``: it is in the caller's store."""

    name: str
    store: Store
    image: StoredImage
    own: bool = True

    def rows(self) -> list[LayerRow]:
        """Its history, oldest first. What was brought for the look lies in no folder that anybody could find."""
        from layerbuild.views.layers import layer_rows

        rows = layer_rows(self.store, self.image)
        return rows if self.own else [replace(row, folder="") for row in rows]

    def layers(self) -> list[LayerRow]:
        """Those entries that have a layer, the lowest first."""
        return [row for row in self.rows() if row.diff_id is not None]

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
def seen(*texts: str, platform: Platform | None = None, whole: bool = True) -> Iterator[list[Seen]]:
    """The images that ``texts`` name; of one for several platforms that for ``platform``, None: this machine's.

    What is in the store comes first. A path is brought into a store of its own, which goes when the context ends, so
    that a look leaves no trace; so is what is not here and is named with its registry: a short name that is not in the
    store is rather mistyped. ``whole``: their layers are there to be read; else those of a registry may stay there.
    """
    with reading(contents=whole) as store:
        known = [_known(store, text, platform) for text in texts]
        if all(image is not None and (not whole or store.is_here(image.top)) for image in known):
            yield [Seen(text, store, image) for text, image in zip(texts, known, strict=True) if image is not None]
            return
    with inside() as (store, _), ExitStack() as cleaning:
        looking = _Looking(store, platform or this_platform(), whole, cleaning)
        yield [looking.brought(text, image) for text, image in zip(texts, known, strict=True)]


def _known(store: Store, text: str, platform: Platform | None) -> StoredImage | None:
    """The image that the store has by that name, None if it is elsewhere; NotFoundError if it is nowhere."""
    try:
        return store.images.resolve(text, platform=platform)
    except NotFoundError:
        if place_of(text) or tells_registry(text):
            return None
        refuse_path(text)
        raise


def refuse_path(text: str) -> None:
    """NotFoundError for what can be nothing but a path, of which there is nothing."""
    if found := _TRANSPORT.match(text):
        rest = text[found.end() :]
        if found[0] == "docker://" or place_of(rest):
            raise NotFoundError(f"there is no {text}", hint=f"leave {found[0]} out: {rest}")
    if text.startswith(("/", "./", "../")) or text.endswith((".tar", ".tgz", ".tar.gz", ".tar.zst")):
        folder, name = os.path.split(text)
        beside = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        near = [os.path.join(folder, each) for each in get_close_matches(name, beside, n=3)]
        raise NotFoundError(f"there is no {text}", hint=f"did you mean {' or '.join(near)}?" if near else "")


def tells_registry(text: str) -> bool:
    """Whether the name begins with a registry, as `docker.io/library/debian` does, and `debian` and `me/app` do not."""
    try:
        reference = Reference.parse(text)
    except UsageError:
        return False
    return text.startswith(f"{reference.registry}/")


@frozen
class _Looking:
    """A look at images some of which are elsewhere; ``cleaning`` takes away what is brought for it."""

    store: Store
    platform: Platform
    whole: bool
    cleaning: ExitStack

    def brought(self, text: str, known: StoredImage | None) -> Seen:
        """An image, from wherever it is; ``known``, if the store has it by that name."""
        if known is not None:  # what was pulled comes layer by layer, as it is looked for
            if self.whole:
                self.store.ensure_unpacked(known.top)
            return Seen(text, self.store, known)
        place = place_of(text)
        return self._loaded(text, *place) if place else self._pulled(text)

    def _pulled(self, text: str) -> Seen:
        own = self._throw_away()
        own.supplier = bringer = Bringer(own, observer("auto"))
        image = bringer.pull(Reference.parse(text), self.platform)
        if self.whole:
            own.ensure_unpacked(image.top)
        return Seen(text, own, image, own=False)

    def _loaded(self, text: str, path: Path, tag: str) -> Seen:
        from layerbuild.intake.load import Shape, identify, load, load_layout_image
        from layerbuild.store.images import StoredImage

        own = self._throw_away()
        if identify(path) is Shape.OCI_LAYOUT:
            images = [load_layout_image(own, path, platform=self.platform, tag=tag)]
        else:
            images = load(own, path, platform=self.platform, name=tag)
        if len(images) > 1:
            names = ", ".join(name for image in images for name in image.names)
            raise UsageError(f"{path} has several images: {names}", hint=f"name one of them: {path}:NAME")
        image = images[0]
        assert isinstance(image, StoredImage)  # of an image for several platforms one was asked for
        return Seen(text, own, image, own=False)

    def _throw_away(self) -> Store:
        """A store below the caller's own, on a disk that can hold one."""
        from layerbuild.store.overlay import remove_any
        from layerbuild.store.store import Store

        place = self.store.temporary_name()
        self.cleaning.callback(remove_any, place)
        return self.cleaning.enter_context(
            Store.open(place, user_xattr=self.store.user_xattr, platform=this_platform())
        )


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
