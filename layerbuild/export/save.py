"""Several images in one file, as ``docker save`` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from layerbuild.errors import UsageError
from layerbuild.export.docker_archive import write_docker_archive
from layerbuild.export.formats import sink
from layerbuild.export.oci_layout import write_layout_archive
from layerbuild.export.package import Parcel, Wishes, pack
from layerbuild.image.config import Platform
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.store import Store

_WRITERS = {"docker": write_docker_archive, "oci": write_layout_archive}


def save(
    store: Store,
    texts: Sequence[str],
    dest: str,
    *,
    form: str,
    platform: Platform | None,
    stdout: BinaryIO,
    most_layers: int | None = None,
) -> tuple[str, ...]:
    """Write what ``texts`` name to ``dest`` ("-": to ``stdout``) in the form "docker" or "oci"; notes for people.

    An image that is given by a name bears that name there; by its ID, none. In Docker's form an index is the one image
    of it that ``platform`` chooses, in OCI's it is that only if a platform is given. UsageError for an image with more
    layers than ``most_layers``, None: than others run.
    """
    named: dict[str, tuple[StoredImage | StoredIndex, list[Reference]]] = {}
    for text in texts:
        found = store.images.find(text)
        if platform is not None or (form == "docker" and isinstance(found, StoredIndex)):
            found = store.images.resolve(text, platform=platform)
        _, names = named.setdefault(found.digest, (found, []))
        name = _name(text, found)
        names += [name] if name is not None and name not in names else []
    parcels = [_parcel(store, found, names) for found, names in named.values()]
    for parcel in parcels:
        parcel.check_depth(most_layers)
    with sink(dest, stdout) as file:
        _WRITERS[form](parcels, file)
    return tuple(note for parcel in parcels for note in parcel.notes)


def _parcel(store: Store, found: StoredImage | StoredIndex, names: list[Reference]) -> Parcel:
    return pack(store, found, Wishes(names=tuple(names)), unnamed=not names)


def _name(text: str, found: StoredImage | StoredIndex) -> Reference | None:
    """The name of ``found`` that ``text`` spells, None if it spells an ID."""
    try:
        reference = Reference.parse(text)
    except UsageError:
        return None
    return reference if str(reference) in found.names else None
