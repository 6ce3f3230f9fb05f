"""What ``-o`` can ask for: one row for each format, and ``Output``, one ``-o`` taken apart.

The spelling is buildx's: comma-separated ``key=value`` (a value with commas in quotes), ``-o DIR`` for ``type=local``
and ``-o -`` for a tar of the root file system on standard output.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from layerbuild.digest import BlobDigest, Sink
from layerbuild.errors import UsageError, alike
from layerbuild.export.destination import Merge, move_into, new_file, new_folder
from layerbuild.export.docker_archive import write_docker_archive
from layerbuild.export.layers import merge_layers, write_layers
from layerbuild.export.oci_layout import merge_layout, write_layout, write_layout_archive
from layerbuild.export.package import AS_IT_IS, Compression, Package, Parcel, Wishes, pack
from layerbuild.export.rootfs import write_rootfs, write_rootfs_archive
from layerbuild.frozen import frozen
from layerbuild.image.annotations import Annotation, read_output_key, refuse_index
from layerbuild.image.manifest import Descriptor
from layerbuild.image.platforms import normal
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage, StoredIndex
from layerbuild.store.store import Store

STDOUT = "-"

_COMPRESSION = ("compression", "compression-level", "force-compression")
_DOCUMENTS = ("name", "oci-mediatypes", "annotation", *_COMPRESSION)
_REWRITE = "rewrite-timestamp"
_SPLIT = "platform-split"
_DEFAULTS = ("store", "unpack", "name-canonical")  # buildx's; taken where they say what is done anyway
_PUSHED = ("push", "push-by-digest", _REWRITE, *_DEFAULTS, *_DOCUMENTS)


@frozen
class Format:
    """A way for an image to leave. ``file`` writes it to a stream, ``folder`` into an empty folder; one of the two may
    be absent. Both get the output; ``folder`` returns notes for people. ``merge`` puts a finished folder into one that
    exists. ``keys`` are those that it takes beside ``type`` and ``dest``; "annotation" stands for all that begin so.
    ``several`` tells whether images for several platforms can leave in it. With neither ``file`` nor ``folder`` it has
    no ``dest``: the image stays in the store, or goes to registries, which is the caller's affair.
    """

    name: str
    summary: str
    keys: tuple[str, ...] = ()
    file: Callable[[Parcel, Output, Sink], None] | None = None
    folder: Callable[[Parcel, Output, Path], tuple[str, ...]] | None = None
    merge: Merge = move_into
    several: bool = True

    @property
    def has_documents(self) -> bool:
        """Whether what it writes has manifests, and not files alone."""
        return "annotation" in self.keys

    @property
    def stays(self) -> bool:
        """Whether it writes nothing on this machine but in the store."""
        return self.file is None and self.folder is None


def _oci_file(parcel: Parcel, _output: Output, sink: Sink) -> None:
    write_layout_archive([parcel], sink)


def _oci_folder(parcel: Parcel, _output: Output, folder: Path) -> tuple[str, ...]:
    write_layout([parcel], folder)
    return ()


def _docker_file(parcel: Parcel, _output: Output, sink: Sink) -> None:
    write_docker_archive([parcel], sink)


def _tar_file(parcel: Parcel, output: Output, sink: Sink) -> None:
    write_rootfs_archive(_folders(parcel, output), sink)


def _local_folder(parcel: Parcel, output: Output, folder: Path) -> tuple[str, ...]:
    return tuple(note for place, package in _places(parcel, output, folder) for note in write_rootfs(package, place))


def _layers_folder(parcel: Parcel, output: Output, folder: Path) -> tuple[str, ...]:
    for place, package in _places(parcel, output, folder):
        write_layers(package, place)
    return ()


def _folders(parcel: Parcel, output: Output) -> dict[str, Package]:
    """The images by the folder that each gets; empty: none of its own."""
    if not output.split and len(parcel.packages) == 1:
        return {"": parcel.packages[0]}
    # As buildx names them: linux_arm64, linux_arm_v7.
    return {str(normal(package.config.platform)).replace("/", "_"): package for package in parcel.packages}


def _places(parcel: Parcel, output: Output, folder: Path) -> Iterator[tuple[Path, Package]]:
    for name, package in _folders(parcel, output).items():
        place = folder / name
        place.mkdir(exist_ok=True)
        yield place, package


FORMATS = {
    row.name: row
    for row in (
        Format(
            "oci",
            "OCI image layout, as a tar or (tar=false) a folder",
            ("tar", _REWRITE, *_DOCUMENTS),
            file=_oci_file,
            folder=_oci_folder,
            merge=merge_layout,
        ),
        Format(
            "docker",
            "tar for docker load and podman load",
            (_REWRITE, *_DOCUMENTS),
            file=_docker_file,
            several=False,
        ),
        Format("tar", "tar of the root file system, all layers in one", (_REWRITE, _SPLIT), file=_tar_file),
        Format("local", "folder with the root file system", (_REWRITE, _SPLIT), folder=_local_folder),
        Format(
            "layers",
            "folder with a tarball for each layer, and layers.json",
            (_REWRITE, _SPLIT, *_DOCUMENTS),
            folder=_layers_folder,
            merge=merge_layers,
        ),
        Format("image", "image of the store; with push=true sent to the registries of its names", _PUSHED),
        Format("registry", "image sent to the registries of its names", _PUSHED),
        Format("cacheonly", "nothing: the store has what later builds hit"),
    )
}


@frozen
class Output:
    """One ``-o``. ``dest`` is a path, or "-" for standard output. ``wishes`` tell how the image is to leave.

    ``tar`` None: not said; then a ``dest`` that is a folder or ends in "/" means a folder. ``split`` tells whether each
    platform's files get a folder of their own, None: where there are several. ``push``: to the registries that the
    names lead to; ``by_digest``: under no tag.
    """

    type: str
    dest: str
    wishes: Wishes = AS_IT_IS
    tar: bool | None = None
    split: bool | None = None
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
            word = "annotation" if _is_annotation(key) else key
            _known("key", word, (*row.keys, *(() if row.stays else ("dest",))), f"{text} (type={chosen})")
        _refuse_kept_times(given)
        for key in _DEFAULTS:
            if _flag(given, key) is False:
                raise UsageError(f"output {text!r}: {key}=false can't be had", hint=f"leave {key} out")
        push, by_digest = _flag(given, "push"), bool(_flag(given, "push-by-digest"))
        output = cls(
            chosen,
            given.get("dest", [""])[-1],
            _wishes(given),
            _flag(given, "tar"),
            _flag(given, _SPLIT),
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

    def annotated(self, annotations: tuple[Annotation, ...]) -> Output:
        """The same with ``annotations`` said first, as far as it writes documents that they can go into."""
        if not FORMATS[self.type].has_documents:
            return self
        return replace(self, wishes=replace(self.wishes, annotations=(*annotations, *self.wishes.annotations)))

    def check(self, platforms: int) -> None:
        """UsageError if that many platforms can't leave this way; before anything is built for them."""
        if platforms > 1 and not FORMATS[self.type].several:
            raise UsageError(f"type={self.type} takes one platform only", hint="type=oci takes several")
        if platforms > 1 and self.split is False:
            raise UsageError("the files of several platforms can't lie in one folder", hint=f"leave {_SPLIT} out")
        if platforms == 1:
            refuse_index(self.wishes.annotations)

    def allowing(self, most_layers: int | None) -> Output:
        """The same for images with at most so many layers, None: as many as others run."""
        return replace(self, wishes=replace(self.wishes, most_layers=most_layers))

    def keeping(self, blobs: frozenset[BlobDigest]) -> Output:
        """The same, but the layers in ``blobs`` keep their bytes unless a compression is forced."""
        return replace(self, wishes=replace(self.wishes, kept=blobs))

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
            to = "`| docker load`" if self.type == "docker" else "stdout"
            raise UsageError(f"output {text!r} has no dest", hint=f"type={self.type},dest=PATH, or dest=- for {to}")
        if self.to_folder and self.dest == STDOUT:
            raise UsageError(f"output {text!r}: a folder can't go to standard output", hint="dest=PATH")


@frozen
class Exported:
    """What was written. ``descriptor`` tells of the manifest or index that left: wishes may make it other than the
    store's."""

    type: str
    dest: str
    descriptor: Descriptor
    notes: tuple[str, ...] = ()


def write(store: Store, image: StoredImage | StoredIndex, output: Output, *, stdout: BinaryIO) -> Exported:
    """Export an image, or those of an index. Nothing is left at ``dest`` unless all of it was written; ``stdout`` takes
    what goes to "-"."""
    parcel = pack(store, image, output.wishes)
    output.check(len(parcel.packages))
    row = FORMATS[output.type]
    if row.has_documents:
        parcel.check_depth(output.wishes.most_layers)
    notes = parcel.notes
    if output.to_folder:
        assert row.folder is not None
        with new_folder(Path(output.dest), merge=row.merge) as folder:
            notes += row.folder(parcel, output, folder)
    else:
        assert row.file is not None
        with sink(output.dest, stdout) as file:
            row.file(parcel, output, file)
    return Exported(output.type, output.dest, parcel.descriptor, notes)


@contextmanager
def sink(dest: str, stdout: BinaryIO) -> Iterator[BinaryIO]:
    """Where a file goes that is to be at ``dest``: a new file, or ``stdout`` for "-"."""
    if dest != STDOUT:
        with new_file(Path(dest)) as file:
            yield file
        return
    yield stdout
    stdout.flush()


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
        key = key.strip()
        given.setdefault(key if _is_annotation(key) else key.lower(), []).append(value)
    return given


def _is_annotation(key: str) -> bool:
    return re.match(r"annotation[-.\[]", key) is not None


def _wishes(given: dict[str, list[str]]) -> Wishes:
    return Wishes(
        names=tuple(Reference.parse(name) for value in given.get("name", ()) for name in value.split(",")),
        compression=read_compression(given),
        oci_types=_flag(given, "oci-mediatypes"),
        annotations=tuple(
            read_output_key(key, value) for key, values in given.items() if _is_annotation(key) for value in values
        ),
    )


def _refuse_kept_times(given: dict[str, list[str]]) -> None:
    """``rewrite-timestamp=true`` is what happens anyway; the other can't be done to layers that are made already."""
    if _flag(given, _REWRITE) is False:
        raise UsageError(
            f"{_REWRITE}=false: the times of layers are decided when they are made", hint="build --timestamp keep"
        )


def _known(what: str, word: str, known: tuple[str, ...], text: str) -> str:
    if word in known:
        return word
    near = alike(word, known)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
    raise UsageError(f"output {text!r}: " + (f"unknown {what} {word!r}" if word else f"no {what}"), hint=hint)


def _flag(given: dict[str, list[str]], key: str) -> bool | None:
    if key not in given:
        return None
    value = given[key][-1].lower()
    if value not in ("true", "false", "1", "0", ""):
        raise UsageError(f"{key}={value}: expected true or false")
    return value in ("true", "1", "")  # BuildKit takes a key without a value for a wish


def read_compression(given: dict[str, list[str]]) -> Compression | None:
    """What the keys ``compression``, ``compression-level`` and ``force-compression`` say together, None: nothing; the
    last two alone mean gzip, as BuildKit has it. UsageError."""
    if not any(key in given for key in _COMPRESSION):
        return None
    from layerbuild.layer.codecs import GZIP, named

    force = _flag(given, "force-compression")
    level = given.get("compression-level", [None])[-1]
    name = given.get("compression", [GZIP.name])[-1]
    codec = named({"uncompressed": "none"}.get(name, name))
    if level is not None and (not level.isdigit() or int(level) not in codec.levels):
        known = f"levels {codec.levels.start} to {codec.levels.stop - 1}"
        raise UsageError(f"compression-level={level}: {codec.name} has {known}")
    return Compression(codec.name, None if level is None else int(level), force=bool(force))
