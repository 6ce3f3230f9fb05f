"""A root file system becomes an image of one layer, as with ``docker import``.

The bytes of a tar are the layer: nothing is sorted or cleaned, and its diff ID is that of the tar as it was given. A
list of items (a folder, or this machine's programs) is written in this project's own form, so equal items give equal
bytes. Names that begin with ``.wh.`` mean deletions in a layer, to every program that will ever unpack it; a root file
system has nothing to delete, so they are refused here and not taken for plain files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from layerbuild.digest import DiffID
from layerbuild.errors import FormatError, MachineError
from layerbuild.image.config import History, Platform, RuntimeConfig
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_media_type
from layerbuild.intake.items import Item, folder_items
from layerbuild.intake.layers import add_layer, take_tar
from layerbuild.intake.members import existing
from layerbuild.layer.capture import LayerWriter
from layerbuild.layer.codecs import GZIP
from layerbuild.layer.entry import Kind
from layerbuild.layer.index import Index
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.store import Store


def import_tar(
    store: Store,
    source: Path | BinaryIO,
    *,
    platform: Platform,
    history: History,
    config: RuntimeConfig | None = None,
) -> StoredImage:
    """The tar ``source``, compressed in any way, as an image. ``config`` None: the usual PATH and nothing else.

    ``history`` tells where it came from; its time is the image's.
    """
    if isinstance(source, Path):
        with existing(source) as file:
            diff_id, blob = take_tar(store, file)
    else:
        diff_id, blob = take_tar(store, source)
    add_layer(store, None, diff_id, blob)
    _refuse_nothing(store, diff_id)
    _refuse_whiteouts(store, diff_id)
    return _image(store, diff_id, blob, platform=platform, history=history, config=config)


def import_folder(
    store: Store,
    folder: Path,
    *,
    platform: Platform,
    history: History,
    epoch: int | None,
    config: RuntimeConfig | None = None,
) -> StoredImage:
    """The folder as an image. Times later than ``epoch`` become it; None keeps them, in whole seconds."""
    items = folder_items(folder, epoch=epoch)
    return import_items(store, items, platform=platform, history=history, config=config)


def import_items(
    store: Store,
    items: Iterable[Item],
    *,
    platform: Platform,
    history: History,
    config: RuntimeConfig | None = None,
) -> StoredImage:
    """The items, which come in a layer's order, as an image; each file is read once."""
    workspace = store.workspaces.begin(None)
    temporary, index = store.blobs.temporary(), store.layers.temporary_index()
    try:
        with LayerWriter(temporary, index, codec=GZIP, folder=workspace.diff, user_xattr=store.user_xattr) as writer:
            for item in items:
                _add(writer, item)
            captured = writer.finish()
        store.blobs.adopt(temporary, captured.digest)
        store.layers.adopt_index(index, captured.diff_id)
        blob = BlobRecord(captured.digest, captured.size, captured.codec)
        layer = LayerRecord(captured.diff_id, captured.tar_size, captured.entries, (blob,))
        store.workspaces.commit(workspace, layer)
    except BaseException:
        store.workspaces.discard(workspace)
        temporary.unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        raise
    return _image(store, captured.diff_id, blob, platform=platform, history=history, config=config)


def _add(writer: LayerWriter, item: Item) -> None:
    if not isinstance(item.content, Path):
        writer.add(item.entry, item.content)
        return
    try:
        with item.content.open("rb") as file:
            writer.add(item.entry, file)
    except PermissionError as error:
        raise MachineError(f"{item.content} can't be read by this user", hint="run as root, or leave it out") from error


def _refuse_nothing(store: Store, diff_id: DiffID) -> None:
    layer = store.layers.get(diff_id)
    if layer is None or not layer.tar_size:
        # An archive of nothing still has its end: two blocks of zeros (POSIX pax, "ustar Interchange Format").
        raise FormatError(
            "this is no tar: not one byte came in", hint="the program that should write it may have failed"
        )


def _refuse_whiteouts(store: Store, diff_id: DiffID) -> None:
    with Index.open(store.layers.index_path(diff_id)) as index:
        for entry in index:
            if entry.kind is Kind.WHITEOUT or entry.opaque:
                raise FormatError(
                    f"this tar is no root file system: it deletes something at {os.fsdecode(entry.path)!r}",
                    hint="it is a single layer; import the whole image, as an OCI layout or docker archive",
                )


def _image(
    store: Store,
    diff_id: DiffID,
    blob: BlobRecord,
    *,
    platform: Platform,
    history: History,
    config: RuntimeConfig | None,
) -> StoredImage:
    empty = Image.scratch(platform)
    image = empty.with_step(history, empty.config.config if config is None else config, layer=diff_id)
    manifest = image.manifest([Descriptor(layer_media_type(blob.codec), blob.digest, blob.size)])
    return store.images.put(manifest.to_json(), image.config.to_json())
