"""What ``-o`` can ask for: one row for each format, and ``Output``, one ``-o`` taken apart.

The spelling is buildx's: comma-separated ``key=value`` (a value with commas in quotes), ``-o DIR`` for ``type=local``
and ``-o -`` for a tar of the root file system on standard output.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

from layerbuild.digest import BlobDigest, Sink
from layerbuild.errors import UsageError
from layerbuild.export.destination import Merge, move_into, new_file, new_folder
from layerbuild.export.docker_archive import write_docker_archive
from layerbuild.export.layers import merge_layers, write_layers
from layerbuild.export.oci_layout import merge_layout, write_layout, write_layout_archive
from layerbuild.export.package import Compression, Package, pack
from layerbuild.export.rootfs import write_rootfs, write_rootfs_archive
from layerbuild.image.manifest import Descriptor
from layerbuild.layer.codecs import named
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store

STDOUT = "-"

_COMPRESSION = ("compression", "compression-level", "force-compression")
_DEFAULTS = ("store", "unpack", "name-canonical")  # buildx's; taken where they say what is done anyway
_PUSHED = ("name", "push", "push-by-digest", *_DEFAULTS, *_COMPRESSION)


@dataclass(frozen=True, slots=True)
class Format:
    """A way for an image to leave. ``file`` writes it to a stream, ``folder`` into an empty folder, returning notes for
    the user; one of the two may be absent. ``merge`` puts a finished folder into one that exists. ``keys`` are those
    that it takes beside ``type`` and ``dest``. With neither it has no ``dest``: the image stays in the store, or goes
    to registries, which is the caller's affair.
    """

    name: str
    summary: str
    keys: tuple[str, ...] = ()
    file: Callable[[Package, Sink], None] | None = None
    folder: Callable[[Package, Path], tuple[str, ...]] | None = None
    merge: Merge = move_into

    @property
    def stays(self) -> bool:
        """Whether it writes nothing on this machine but in the store."""
        return self.file is None and self.folder is None


FORMATS = {
    row.name: row
    for row in (
        Format(
            "oci",
            "OCI image layout, as a tar or (tar=false) a folder",
            ("name", "tar", *_COMPRESSION),
            file=write_layout_archive,
            folder=write_layout,
            merge=merge_layout,
        ),
        Format("docker", "tar for docker load and podman load", ("name", *_COMPRESSION), file=write_docker_archive),
        Format("tar", "tar of the root file system, all layers in one", file=write_rootfs_archive),
        Format("local", "folder with the root file system", folder=write_rootfs),
        Format(
            "layers",
            "folder with a tarball for each layer, and layers.json",
            ("name", *_COMPRESSION),
            folder=write_layers,
            merge=merge_layers,
        ),
        Format("image", "image of the store; with push=true sent to the registries of its names", _PUSHED),
        Format("registry", "image sent to the registries of its names", _PUSHED),
    )
}


@dataclass(frozen=True, slots=True)
class Output:
    """One ``-o``. ``dest`` is a path, or "-" for standard output. ``names`` empty: the names that the image has.

    ``tar`` None: not said; then a ``dest`` that is a folder or ends in "/" means a folder. ``push``: to the registries
    that the names lead to; ``by_digest``: under no tag.
    """

    type: str
    dest: str
    names: tuple[Reference, ...] = ()
    tar: bool | None = None
    compression: Compression | None = None
    push: bool = False
    by_digest: bool = False

    @classmethod
    def parse(cls, text: str) -> Output:
        """Take ``-o``'s value apart; a UsageError names what is wrong with it, and the nearest that is right."""
        fields = _fields(text)
        if len(fields) == 1 and not text.startswith("type="):
            return cls("tar", STDOUT) if text == STDOUT else cls("local", text)
        given = _given(text, fields)
        chosen = _known("format", given.pop("type", [""])[-1], tuple(FORMATS), text)
        row = FORMATS[chosen]
        for key in given:
            _known("key", key, (*row.keys, *(() if row.stays else ("dest",))), f"{text} (type={chosen})")
        for key in _DEFAULTS:
            if _flag(given, key) is False:
                raise UsageError(f"output {text!r}: {key}=false can't be had", hint=f"leave {key} out")
        push, by_digest = _flag(given, "push"), bool(_flag(given, "push-by-digest"))
        output = cls(
            chosen,
            given.get("dest", [""])[-1],
            tuple(Reference.parse(name) for value in given.get("name", ()) for name in value.split(",")),
            _flag(given, "tar"),
            read_compression(given),
            push=(chosen == "registry" or by_digest) if push is None else push,
            by_digest=by_digest,
        )
        output._check(text)
        return output

    @property
    def to_folder(self) -> bool:
        """Whether it writes a folder."""
        row = FORMATS[self.type]
        if row.file is None or row.folder is None:
            return row.file is None
        if self.tar is not None:
            return not self.tar
        return self.dest != STDOUT and (self.dest.endswith("/") or Path(self.dest).is_dir())

    @property
    def stays(self) -> bool:
        """Whether it writes nothing on this machine but in the store."""
        return FORMATS[self.type].stays

    def _check(self, text: str) -> None:
        if self.stays:
            if self.by_digest and not self.push:
                raise UsageError(f"output {text!r}: push-by-digest without push", hint="push=true")
            return
        if not self.dest:
            raise UsageError(f"output {text!r} has no dest", hint=f"type={self.type},dest=PATH, or dest=- for stdout")
        if self.to_folder and self.dest == STDOUT:
            raise UsageError(f"output {text!r}: a folder can't go to standard output", hint="dest=PATH")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. ``manifest`` is that of what left, which a new compression makes other than the store's."""

    type: str
    dest: str
    image_id: BlobDigest
    manifest: Descriptor
    notes: tuple[str, ...] = ()


def write(store: Store, image: StoredImage, output: Output, *, stdout: BinaryIO) -> Exported:
    """Export ``image``. Nothing is left at ``dest`` unless all of it was written; ``stdout`` takes what goes to "-"."""
    names = output.names or tuple(Reference.parse(name) for name in image.names)
    package = pack(store, image, names=names, compression=output.compression)
    row = FORMATS[output.type]
    notes: tuple[str, ...] = ()
    if output.to_folder:
        assert row.folder is not None
        with new_folder(Path(output.dest), merge=row.merge) as folder:
            notes = row.folder(package, folder)
    else:
        assert row.file is not None
        if output.dest == STDOUT:
            row.file(package, stdout)
            stdout.flush()
        else:
            with new_file(Path(output.dest)) as file:
                row.file(package, file)
    described = Descriptor(package.manifest.media_type, package.digest, len(package.manifest_bytes))
    return Exported(output.type, output.dest, package.image_id, described, notes)


# -- taking -o apart ---------------------------------------------------------------------------------------------------


def _fields(text: str) -> list[str]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"output {text!r} is not a list of key=value: {error}") from error
    if not rows or not rows[0]:
        raise UsageError("an output must not be empty", hint=f"type=TYPE,dest=PATH with one of {', '.join(FORMATS)}")
    return rows[0]


def _given(text: str, fields: list[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(f"output {text!r}: {field!r} is not key=value", hint="type=TYPE,dest=PATH")
        given.setdefault(key.strip().lower(), []).append(value)
    return given


def _known(what: str, word: str, known: tuple[str, ...], text: str) -> str:
    if word in known:
        return word
    near = get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
    raise UsageError(f"output {text!r}: " + (f"unknown {what} {word!r}" if word else f"no {what}"), hint=hint)


def _flag(given: dict[str, list[str]], key: str) -> bool | None:
    if key not in given:
        return None
    value = given[key][-1].lower()
    if value not in ("true", "false", "1", "0"):
        raise UsageError(f"{key}={value}: expected true or false")
    return value in ("true", "1")


def read_compression(given: dict[str, list[str]]) -> Compression | None:
    """What the keys ``compression``, ``compression-level`` and ``force-compression`` say together; UsageError."""
    force = _flag(given, "force-compression")
    level = given.get("compression-level", [None])[-1]
    if "compression" not in given:
        if force is not None or level is not None:
            raise UsageError("compression-level and force-compression need a compression", hint="compression=gzip")
        return None
    codec = named({"uncompressed": "none"}.get(given["compression"][-1], given["compression"][-1]))
    if level is not None and (not level.isdigit() or int(level) not in codec.levels):
        known = f"levels {codec.levels.start} to {codec.levels.stop - 1}"
        raise UsageError(f"compression-level={level}: {codec.name} has {known}")
    return Compression(codec.name, None if level is None else int(level), force=bool(force))
