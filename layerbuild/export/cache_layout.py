"""A build cache in a folder: an OCI image layout, in which a tag names the cache's manifest.

Other tags of the folder stay, and so do the blobs that a cache of the same tag had before: somebody may be reading
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from layerbuild.digest import BlobDigest, VerifyingReader
from layerbuild.errors import FormatError, LayerbuildError, UsageError
from layerbuild.export.destination import writing
from layerbuild.export.oci_layout import INDEX_FILE, LAYOUT, LAYOUT_FILE, blob_name, copy_blob
from layerbuild.export.package import PIECE
from layerbuild.image.manifest import Descriptor, Index
from layerbuild.store.blobs import Blobs
from layerbuild.store.buildcache import EMPTY, BuildCache, write_artifact
from layerbuild.store.images import REF_NAME
from layerbuild.store.lease import folder_lock


def write_cache_layout(cache: BuildCache, blobs: Blobs, folder: Path, *, tag: str) -> Descriptor:
    """Put ``cache`` into ``folder`` under ``tag``, in place of what had that tag; its manifest's descriptor.

    ``blobs`` has the layers. The index is replaced last, so that it never names a blob that is not there. UsageError
    for a folder with other things in it.
    """
    manifest, records = write_artifact(cache)
    document = manifest.to_json()
    described = Descriptor(manifest.media_type, BlobDigest.of(document), len(document))
    with writing(folder):
        _prepare(folder)
        with folder_lock(folder):
            for layer in cache.layers.values():
                place = folder / blob_name(layer.digest)
                if not _holds(place, layer):
                    with _new(place) as path, blobs.sending() as sending:
                        copy_blob(sending, layer.digest, path)
            for data in (EMPTY, records, document):
                _put(folder / blob_name(BlobDigest.of(data)), data)
            _put(folder / LAYOUT_FILE, LAYOUT)
            named = replace(described, artifact_type=manifest.artifact_type, annotations=((REF_NAME, tag),))
            _put(folder / INDEX_FILE, _index_with(folder, named, tag=tag).to_json())
    return described


def _prepare(folder: Path) -> None:
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    # Blobs alone are what another process has begun: the layout's file comes after them.
    if present - {"blobs"} and LAYOUT_FILE not in present:
        raise UsageError(f"{folder} is not empty, and no OCI layout", hint="choose another dest")
    (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)


def _index_with(folder: Path, named: Descriptor, *, tag: str) -> Index:
    """The folder's index, with ``named`` as the only one of its tag. A damaged index is replaced."""
    try:
        old = Index.from_json((folder / INDEX_FILE).read_bytes())
    except (FileNotFoundError, FormatError):
        old = Index(())
    kept = tuple(entry for entry in old.manifests if entry.annotation(REF_NAME) != tag)
    return replace(old, manifests=(*kept, named))


def _holds(place: Path, blob: Descriptor) -> bool:
    """Whether the blob is there already, whole: a damaged one would be a miss for ever."""
    try:
        with VerifyingReader(place.open("rb"), blob.digest, size=blob.size) as reader:
            while reader.read(PIECE):
                pass
    except (FileNotFoundError, LayerbuildError):
        return False
    return True


def _put(place: Path, data: bytes) -> None:
    with _new(place) as path:
        path.write_bytes(data)


@contextmanager
def _new(place: Path) -> Iterator[Path]:
    """A name beside ``place`` for a file that takes its place when the context ends well."""
    path = place.with_name(f".{place.name}.{os.getpid()}")
    path.unlink(missing_ok=True)
    try:
        yield path
        path.replace(place)
    finally:
        path.unlink(missing_ok=True)
