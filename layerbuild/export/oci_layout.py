"""An OCI image layout, as a folder or as a tar (image-spec image-layout.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from layerbuild.digest import BlobDigest, Sink
from layerbuild.errors import UsageError
from layerbuild.export.archive import Content, write_archive
from layerbuild.export.package import Parcel
from layerbuild.image.annotations import with_pairs
from layerbuild.image.config import Pairs, canonical_json
from layerbuild.image.manifest import Descriptor, Index
from layerbuild.reference import Reference
from layerbuild.store.blobs import Sending
from layerbuild.store.images import FULL_NAME, REF_NAME

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})


def layout_files(parcels: Sequence[Parcel]) -> dict[str, Content]:
    """All files of a layout of ``parcels``, by name."""
    described = tuple(descriptor for parcel in parcels for descriptor in _descriptors(parcel))
    files: dict[str, Content] = {LAYOUT_FILE: LAYOUT, INDEX_FILE: Index(described).to_json()}
    for parcel in parcels:
        files |= {blob_name(digest): data for digest, data in parcel.documents.items()}
        for package in parcel.packages:
            files |= {blob_name(digest): digest for digest in package.stored_blobs}
    return files


def blob_name(digest: BlobDigest) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/sha256/{digest.hex}"


def write_layout_archive(parcels: Sequence[Parcel], sink: Sink) -> None:
    """The layout as a tar."""
    write_archive(layout_files(parcels), parcels[0].store.blobs, sink)


def write_layout(parcels: Sequence[Parcel], folder: Path) -> None:
    """The layout as a folder, which exists and is empty."""
    (folder / "blobs/sha256").mkdir(parents=True)
    with parcels[0].store.blobs.sending() as sending:
        for name, content in layout_files(parcels).items():
            if isinstance(content, BlobDigest):
                copy_blob(sending, content, folder / name)
            else:
                (folder / name).write_bytes(content)


def merge_layout(made: Path, place: Path) -> None:
    """Add a finished layout to the one at ``place``: images of other names stay, as do their blobs.

    The index is replaced last, so that it never names a blob that is not there yet.
    """
    present = [path.name for path in place.iterdir() if path != made]
    if present and not (place / LAYOUT_FILE).is_file():
        raise UsageError(f"{place} is not empty, and no OCI layout", hint="choose another dest")
    (place / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    for blob in (made / "blobs/sha256").iterdir():
        blob.replace(place / "blobs/sha256" / blob.name)
    new = Index.from_json((made / INDEX_FILE).read_bytes())
    if present:
        old = Index.from_json((place / INDEX_FILE).read_bytes())
        names = {_name(descriptor) for descriptor in new.manifests}
        kept = tuple(descriptor for descriptor in old.manifests if _name(descriptor) not in names)
        (made / INDEX_FILE).write_bytes(replace(old, manifests=kept + new.manifests).to_json())
    for name in (LAYOUT_FILE, INDEX_FILE):
        (made / name).replace(place / name)


def copy_blob(sending: Sending, digest: BlobDigest, target: Path) -> None:
    """Copy a blob out of the store, sharing its blocks where the file system can.

    Never as a hard link: whatever its new owner does to it (``cp`` of a newer file over it, ``chown -R``) would be done
    to the store, and a read-only mode would not keep root from it.
    """
    with target.open("xb") as file:
        sending.send(digest, file)


def _descriptors(parcel: Parcel) -> tuple[Descriptor, ...]:
    """One descriptor for each name (image-layout.md: the same digest may occur under several)."""
    plain = parcel.descriptor
    named = tuple(
        replace(plain, annotations=with_pairs(plain.annotations, _name_annotations(name))) for name in parcel.names
    )
    return named or (plain,)


def _name_annotations(name: Reference) -> Pairs:
    return ((FULL_NAME, str(name)), (REF_NAME, name.tag or str(name)))


def _name(descriptor: Descriptor) -> str:
    return descriptor.annotation(FULL_NAME) or descriptor.annotation(REF_NAME) or ""
