"""One tarball for each layer, numbered in order, and ``layers.json``, which tells what each of them is.

::

    01-copy-app-1f2e3d4c5b6a.tar.gz     number, the instruction in short, the diff ID's first digits
    02-run-make-app-0a1b2c3d4e5f.tar.gz
    layers.json                         for every history entry, with a layer or without: instruction, diff ID, …
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from layerbuild.digest import ChainID, DiffID, chain_ids
from layerbuild.errors import UsageError
from layerbuild.export.destination import move_into
from layerbuild.export.oci_layout import copy_blob
from layerbuild.export.package import Package
from layerbuild.image.config import History
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_codec

LIST_FILE = "layers.json"

_EXTENSIONS = {"none": ".tar", "gzip": ".tar.gz", "zstd": ".tar.zst"}
_LONGEST = 40
# Docker's classic builder wrote metadata as a comment of the shell, BuildKit the ARGs that RUN sees before the shell.
_SHELL = re.compile(r"(?:RUN )?(?:\|\d+ .*?)?/bin/sh -c (?:#\(nop\) )?\s*")
_OTHER = re.compile(r"[^a-z0-9]+")


def write_layers(package: Package, folder: Path) -> None:
    """Write the tarballs, exactly as the blobs are, and the list."""
    listed = describe(package)
    with package.store.blobs.sending() as sending:
        for entry, descriptor in _with_blobs(package, listed["history"]):
            copy_blob(sending, descriptor.digest, folder / entry["file"])
    (folder / LIST_FILE).write_text(json.dumps(listed, indent=2, ensure_ascii=False) + "\n")


def merge_layers(made: Path, place: Path) -> None:
    """Take the place of an earlier export: the tarballs that its list names go, anything else stays. With a folder for
    each platform, each takes the place of the one that is called the same."""
    if not (made / LIST_FILE).exists():
        for folder in list(made.iterdir()):
            (place / folder.name).mkdir(exist_ok=True)
            merge_layers(folder, place / folder.name)
        return
    old = place / LIST_FILE
    if old.is_file():
        for name in _listed_files(old):
            (place / name).unlink(missing_ok=True)
    elif any(path != made for path in place.iterdir()):
        raise UsageError(f"{place} is not empty, and no export of layers", hint="choose another dest")
    move_into(made, place)


def describe(package: Package) -> dict[str, Any]:
    """What ``layers.json`` says; sizes in bytes. A history that does not fit the layers is completed."""
    config = Image.of_base(package.config).config
    layers = iter(zip(package.manifest.layers, config.diff_ids, chain_ids(config.diff_ids), strict=True))
    history: list[dict[str, Any]] = []
    number = 0
    for entry in config.history:
        facts = {"instruction": entry.created_by, "created": entry.created, "empty_layer": entry.empty_layer}
        if not entry.empty_layer:
            number += 1
            facts |= _layer_facts(package, entry, number, *next(layers))
        history.append(facts)
    return {
        "image_id": package.image_id,
        "manifest_digest": package.digest,
        "names": [str(name) for name in package.names],
        "platform": str(config.platform),
        "history": history,
    }


def slug(created_by: str) -> str:
    """An instruction as part of a file name.

    >>> slug("RUN /bin/sh -c make /app # buildkit")
    'run-make-app'
    """
    text = created_by.removesuffix("# buildkit")
    shell = _SHELL.match(text)
    if shell:
        nothing = "#(nop)" in shell.group()
        text = ("" if nothing else "run ") + text[shell.end() :]
    words = _OTHER.sub("-", text.lower()).strip("-")
    return words[:_LONGEST].rstrip("-") or "layer"


def _layer_facts(
    package: Package, entry: History, number: int, descriptor: Descriptor, diff_id: DiffID, chain: ChainID
) -> dict[str, Any]:
    record = package.store.layers.get(diff_id)
    extension = _EXTENSIONS[layer_codec(descriptor.media_type)]
    return {
        "diff_id": diff_id,
        "chain_id": chain,
        "digest": descriptor.digest,
        "media_type": descriptor.media_type,
        "size": descriptor.size,
        "tar_size": record.tar_size if record else None,
        "file": f"{number:02d}-{slug(entry.created_by)}-{diff_id.short}{extension}",
    }


def _with_blobs(package: Package, history: list[dict[str, Any]]) -> zip[tuple[dict[str, Any], Descriptor]]:
    return zip((entry for entry in history if not entry["empty_layer"]), package.manifest.layers, strict=True)


def _listed_files(path: Path) -> list[str]:
    """The tarballs of an earlier list; only plain names, since the list may have been edited."""
    try:
        names = [entry.get("file", "") for entry in json.loads(path.read_text())["history"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} is not a list of layers", hint="choose another dest, or remove it") from error
    return [name for name in names if isinstance(name, str) and name and "/" not in name]
