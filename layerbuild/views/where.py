"""Where an image's layers lie on this disk, and what each thing in their folders is for.

The folders are laid out as Docker's overlay2 has them (moby, daemon/graphdriver/overlay2); what lowerdir, upperdir and
workdir mean is the kernel's word (filesystems/overlayfs.rst).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerbuild.errors import NotFoundError
from layerbuild.frozen import frozen
from layerbuild.store.images import StoredImage
from layerbuild.store.ownership import has_ranges
from layerbuild.store.store import Store
from layerbuild.views.layers import LayerRow, layer_rows
from layerbuild.views.text import shorten, table

_PARTS = (
    ("diff/", "what the layer adds; a character device 0 0 stands for a name that it deletes (a whiteout)"),
    ("link", "its short name: overlay2/l/<short name> leads to its diff/, and mount options stay short"),
    ("lower", "the short names of the layers below it, topmost first; the lowest layer has no such file"),
    ("work/", "overlay's workdir: scratch space while a RUN writes, of no meaning afterwards"),
    ("merged/", "where a RUN saw the stack as one tree; nothing is mounted there now"),
)


@frozen
class Place:
    """One layer of an image: its number (1 is the lowest), what made it, its names, and its folder."""

    layer: int
    instruction: str
    diff_id: str
    digest: str
    chain: str
    link: str
    folder: Path

    @property
    def diff(self) -> Path:
        """The folder that a mount of the image has among its lowerdirs."""
        return self.folder / "diff"


def places(store: Store, image: StoredImage) -> list[Place]:
    """Every layer of ``image``, lowest first, unpacked if it was not."""
    if image.top is None:
        return []
    stack = store.ensure_unpacked(image.top)
    rows = [row for row in layer_rows(store, image) if row.diff_id is not None]
    return [
        Place(
            number,
            row.instruction,
            str(row.diff_id),
            str(row.digest),
            str(row.chain),
            Path(snapshot.short).name,
            snapshot.diff.parent,
        )
        for number, (row, snapshot) in enumerate(zip(rows, stack, strict=True), start=1)
    ]


def one(found: list[Place], wanted: str, image: str) -> Place:
    """The layer called ``wanted``: a number, 1 being the lowest, or "top". NotFoundError."""
    number = len(found) if wanted == "top" else int(wanted) if wanted.isascii() and wanted.isdigit() else 0
    if not 1 <= number <= len(found):
        raise NotFoundError(f"{image} has no layer {wanted!r}", hint=f"1 to {len(found)}, or `top`")
    return found[number - 1]


def mount_line(store: Store, found: list[Place]) -> str:
    """The shell line that shows the image as a container sees it, at /mnt. The kernel wants two lower folders at least
    where there is no upper; a single layer is its own view."""
    lowers = ":".join(f"l/{place.link}" for place in reversed(found))
    if len(found) == 1:
        return f"mount --bind -o ro {found[0].diff} /mnt"
    extra = ",userxattr" if store.user_xattr else ""
    return f"cd {store.overlay} && mount -t overlay overlay -o ro,lowerdir={lowers}{extra} /mnt"


def entering(store: Store) -> str:
    """The shell line that enters a user namespace where files have the owners that the layers say: unshare(1)."""
    return "unshare --map-root-user --map-auto --mount" if has_ranges(store.root) else "unshare --map-root-user --mount"


def as_json(store: Store, image: StoredImage, found: list[Place]) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "image_id": image.image_id,
        "root": str(store.root),
        "layers": [
            {
                "layer": place.layer,
                "instruction": place.instruction,
                "diff_id": place.diff_id,
                "digest": place.digest,
                "chain_id": place.chain,
                "link": place.link,
                "folder": str(place.folder),
            }
            for place in found
        ],
        "mount": mount_line(store, found) if found else "",
    }


def absent_json(image: StoredImage, rows: Sequence[LayerRow]) -> dict[str, Any]:
    """The same for an image that is not in the store: its ``rows`` with a layer, without folders."""
    return {
        "image_id": image.image_id,
        "root": "",
        "layers": [
            {
                "layer": number,
                "instruction": row.instruction,
                "diff_id": row.diff_id,
                "digest": row.digest,
                "chain_id": row.chain,
                "link": "",
                "folder": "",
            }
            for number, row in enumerate(rows, start=1)
        ],
        "mount": "",
    }


def absent_text(image: str, rows: Sequence[LayerRow], *, hint: str, width: int) -> str:
    """The blobs of an image that is not in the store, and ``hint``, the line that brings it in."""
    cells = [
        [str(number), shorten(row.instruction, 32), str(row.digest)]
        for number, row in reversed(list(enumerate(rows, start=1)))
    ]
    lines = [
        f"{image} is not in the store. Its layers are blobs, packed, and have no folders on this disk:",
        "",
        table(["LAYER", "INSTRUCTION", "DIGEST"], cells, width=width, right=frozenset((0,))),
        "",
        "To have them unpacked, each in a folder of its own that a mount can name:",
        f"  {hint}",
    ]
    return "\n".join(lines)


def as_text(store: Store, image: StoredImage, found: list[Place], *, width: int) -> str:
    """The folders as a table, the parts of one explained, and how to mount them."""
    if not found:
        return f"image {image.image_id} has no layer, so it has no folder"
    cells = [
        [str(place.layer), shorten(place.instruction, 32), place.link, f"overlay2/{place.folder.name}"]
        for place in reversed(found)
    ]
    lines = [
        f"Everything lies in {store.root}",
        "",
        table(["LAYER", "INSTRUCTION", "LINK", "FOLDER"], cells, width=width, right=frozenset((0,))),
        "",
        "In each folder:",
        *(f"  {name:<8} {what}" for name, what in _PARTS),
        "",
        "A container has these layers as lowerdir, and an empty upperdir of its own. To see them as one:",
        *([f"  {entering(store)}"] if store.user_xattr else []),
        f"  {mount_line(store, found)}",
    ]
    return "\n".join(lines)
