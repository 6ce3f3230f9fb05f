"""Find out what somebody hands us, by its content, and bring it in.

::

    a folder  with index.json and oci-layout ──────▶ OCI layout
              otherwise ───────────────────────────▶ root file system
    a tar     with index.json and oci-layout ──────▶ OCI layout (docker save since 25 is one, too)
              with manifest.json that lists images ▶ docker archive
              with repositories that names images ─▶ docker archive of before 1.10
              otherwise ───────────────────────────▶ root file system
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from layerbuild.errors import FormatError
from layerbuild.image.config import Platform
from layerbuild.intake.docker_archive import MANIFEST_FILE, load_docker_archive
from layerbuild.intake.members import FolderMembers, Members, TarMembers, existing, member_names, plain_tar
from layerbuild.intake.oci_layout import INDEX_FILE, LAYOUT_FILE, load_layout, load_one
from layerbuild.intake.v1_archive import REPOSITORIES_FILE, load_v1_archive
from layerbuild.layer.codecs import decompress
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.store import Store


class Shape(Enum):
    """What an archive is."""

    OCI_LAYOUT = "OCI image layout"
    DOCKER_ARCHIVE = "docker archive"
    V1_ARCHIVE = "docker archive of before 1.10"
    ROOTFS = "root file system"


def load(
    store: Store, source: Path | BinaryIO, *, platform: Platform | None = None, name: str = ""
) -> list[StoredImage | StoredIndex]:
    """Bring in the images of an OCI layout or a docker archive: folder, tar, compressed tar, or a stream of one.

    They get the names that the archive gives them. ``name`` chooses one of several, ``platform`` the best for it of an
    image for several platforms; None: all of them. A root file system is a
    FormatError, whose hint tells what brings it in.
    """
    with opened(store, source) as members:
        match shape_of(members.has):
            case Shape.OCI_LAYOUT:
                return load_layout(store, members, platform=platform, name=name)
            case Shape.DOCKER_ARCHIVE:
                return [*load_docker_archive(store, members, name=name)]
            case Shape.V1_ARCHIVE:
                return [*load_v1_archive(store, members, name=name)]
            case Shape.ROOTFS:
                raise FormatError(
                    f"{members.origin} is neither an OCI layout nor a docker archive",
                    hint="a tar of a root file system comes in with `layerbuild import`",
                )


def load_layout_image(
    store: Store, layout: Path, *, platform: Platform | None = None, tag: str = "", digest: str = ""
) -> StoredImage | StoredIndex:
    """Bring in one image of an OCI layout, folder or tar, without any name; for ``platform``, None: for all that it is
    for. FormatError if it is no layout."""
    with opened(store, layout) as members:
        if shape_of(members.has) is not Shape.OCI_LAYOUT:
            raise FormatError(f"{layout} is no OCI layout", hint="one has the files oci-layout and index.json")
        return load_one(store, members, platform=platform, tag=tag, digest=digest)


def identify(source: Path) -> Shape:
    """What a file or folder is. Of a tar only the names are looked at, and nothing is written."""
    if source.is_dir():
        return shape_of(FolderMembers(source).has)
    with existing(source) as file:
        names = member_names(decompress(file)[1], origin=str(source))
    return shape_of(names.__contains__)


def shape_of(has: Callable[[str], bool]) -> Shape:
    """What an archive is that ``has`` the files of these names."""
    if has(LAYOUT_FILE) and has(INDEX_FILE):
        return Shape.OCI_LAYOUT
    if has(MANIFEST_FILE):
        return Shape.DOCKER_ARCHIVE
    return Shape.V1_ARCHIVE if has(REPOSITORIES_FILE) else Shape.ROOTFS


@contextmanager
def opened(store: Store, source: Path | BinaryIO) -> Iterator[Members]:
    """The members of ``source``; a compressed or streamed tar is unpacked into the store's ``tmp`` meanwhile."""
    if isinstance(source, Path) and source.is_dir():
        yield FolderMembers(source)
        return
    origin = str(source) if isinstance(source, Path) else "the input"
    with plain_tar(source, temporary=store.blobs.temporary) as file:
        yield TarMembers(file, origin=origin)
