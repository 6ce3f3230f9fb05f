"""The tar that ``docker load`` and ``podman load`` read: ``manifest.json`` beside an OCI layout, as Docker has written
it since version 25. Layers stay compressed: both programs look at the bytes to find out, and so digests stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerbuild.digest import Sink
from layerbuild.errors import UsageError
from layerbuild.export.archive import write_archive
from layerbuild.export.oci_layout import blob_name, layout_files
from layerbuild.export.package import Package, Parcel
from layerbuild.image.config import canonical_json

MANIFEST_FILE = "manifest.json"


def write_docker_archive(parcels: Sequence[Parcel], sink: Sink) -> None:
    """The archive, with an image for each of ``parcels``; UsageError for an index, of which the form knows nothing."""
    for parcel in parcels:
        if parcel.index_bytes is not None:
            platforms = ", ".join(str(package.config.platform) for package in parcel.packages)
            raise UsageError(
                f"an archive for `docker load` can't hold an image for several platforms ({platforms})",
                hint="choose one with --platform, or write the format oci",
            )
    listed = [_listed(package) for parcel in parcels for package in parcel.packages]
    files = layout_files(parcels) | {MANIFEST_FILE: canonical_json(listed)}
    write_archive(files, parcels[0].store.blobs, sink)


def _listed(package: Package) -> dict[str, Any]:
    """What the list says of one image. A name without a tag can't be told there, and is left out."""
    return {
        "Config": blob_name(package.image_id),
        "RepoTags": [name.familiar for name in package.names if name.tag] or None,
        "Layers": [blob_name(layer.digest) for layer in package.manifest.layers],
    }
