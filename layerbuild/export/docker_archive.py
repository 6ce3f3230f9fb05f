"""The tar that ``docker load`` and ``podman load`` read: ``manifest.json`` beside an OCI layout, as Docker has written
it since version 25. Layers stay compressed: both programs look at the bytes to find out, and so digests stay the same.
"""

from __future__ import annotations

from layerbuild.digest import Sink
from layerbuild.export.archive import write_archive
from layerbuild.export.oci_layout import blob_name, layout_files
from layerbuild.export.package import Package
from layerbuild.image.config import canonical_json

MANIFEST_FILE = "manifest.json"


def write_docker_archive(package: Package, sink: Sink) -> None:
    """The archive, with one image in it. A name without a tag can't be told there, and is left out."""
    listed = {
        "Config": blob_name(package.image_id),
        "RepoTags": [name.familiar for name in package.names if name.tag] or None,
        "Layers": [blob_name(layer.digest) for layer in package.manifest.layers],
    }
    files = layout_files(package) | {MANIFEST_FILE: canonical_json([listed])}
    write_archive(files, package.store.blobs, sink)
