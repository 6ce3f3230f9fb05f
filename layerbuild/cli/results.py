"""What is told of an image that was made or brought in: to people, and in files for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.cli.place import is_special, write_whole

if TYPE_CHECKING:
    from layerbuild.image.manifest import Descriptor
    from layerbuild.store.images import StoredImage, StoredIndex


def identifier(found: StoredImage | StoredIndex) -> str:
    """The image ID; an index has none, and is known by its digest."""
    return getattr(found, "image_id", found.digest)


def remove_stale(files: Mapping[str, Path | None]) -> None:
    """What an earlier build told must not be taken for what this one tells, should it fail."""
    for path in files.values():
        if path is not None and not is_special(path):
            path.unlink(missing_ok=True)


def write_files(files: Mapping[str, Path | None], found: StoredImage | StoredIndex, exported: Descriptor) -> None:
    """Write the files that were asked for, by what is to be in them: "id", "digest" (of what left) or "metadata"."""
    metadata = json.dumps(_metadata(found, exported), indent=2) + "\n"
    texts = {"id": identifier(found), "digest": exported.digest, "metadata": metadata}
    for kind, path in files.items():
        if path is not None:
            write_whole(path, texts[kind])


def _metadata(found: StoredImage | StoredIndex, exported: Descriptor) -> dict[str, Any]:
    """buildx's keys, so that what reads its file reads ours. Its ``buildx.build.ref`` names a record that a daemon
    keeps of the build; there is none."""
    told: dict[str, Any] = {
        "containerimage.config.digest": getattr(found, "image_id", None),
        "containerimage.digest": exported.digest,
        "containerimage.descriptor": json.loads(exported.to_json()),
        "image.name": ",".join(found.names) or None,
    }
    return {key: value for key, value in told.items() if value is not None}
