"""Every claim of an image, recomputed: all that does not hold is told, not only the first.

::

    index ─ descriptor ─▶ manifest ─ descriptor ─▶ configuration: diff IDs, history
                                   └ descriptor ─▶ layer blob ─▶ tar ─▶ diff ID, entries, whiteouts

Digests and sizes are taken over the bytes; a media type is held against what the blob is; the configuration's diff IDs
against the tars; the history against the layers; each tar against itself and the layers below it. Source: OCI
image-spec (descriptor.md, manifest.md, config.md, layer.md).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from layerbuild.digest import BlobDigest, DiffID, HashingWriter
from layerbuild.errors import FormatError, LayerbuildError
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig
from layerbuild.image.manifest import (
    DOCKER_CONFIG,
    INDEX_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    SIZE_LIMIT,
    Descriptor,
    Index,
    Manifest,
)
from layerbuild.intake.docker_archive import MANIFEST_FILE, Saved, named, read_saved
from layerbuild.intake.members import Members, read_small
from layerbuild.intake.oci_layout import INDEX_FILE, LAYOUT_FILE, blob_name, tagged
from layerbuild.layer.codecs import MAGIC_SIZE, detect
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.paths import join, split
from layerbuild.layer.tarreader import TarReader
from layerbuild.layer.whiteout import META_PREFIX, OPAQUE, hidden_name

_PIECE = 1 << 20
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_MOST = 100  # mismatches of one layer's entries


@frozen
class Claim:
    """A claim that does not hold. ``subject`` is what makes it; a ``remark`` breaks nothing, but should not be so."""

    subject: str
    text: str
    remark: bool = False


@frozen
class _Described:
    """A layer as a manifest or an archive names it, and the diff ID that it should have; None: nobody says."""

    subject: str
    member: str
    diff_id: DiffID | None
    descriptor: Descriptor | None = None


def check_layout(members: Members, *, tag: str = "") -> Iterator[Claim]:
    """All that does not hold of an OCI layout: of every image that it names, or of the one that ``tag`` names
    (NotFoundError)."""
    yield from _version(members)
    try:
        data = read_small(members, INDEX_FILE)
        yield from _json(INDEX_FILE, data)
        index = Index.from_json(data)
    except LayerbuildError as error:
        yield Claim(INDEX_FILE, error.message)
        return
    seen: set[BlobDigest] = set()
    for descriptor in tagged(members, index, tag) if tag else index.manifests:
        yield from _tree(members, descriptor, seen)


def check_archive(members: Members, *, name: str = "") -> Iterator[Claim]:
    """All that does not hold of a docker archive: of all its images, or of the one called ``name`` (NotFoundError)."""
    try:
        data = read_small(members, MANIFEST_FILE)
        yield from _json(MANIFEST_FILE, data)
        images = read_saved(data, origin=members.origin)
    except LayerbuildError as error:
        yield Claim(MANIFEST_FILE, error.message)
        return
    for saved in named(images, name, origin=members.origin) if name else images:
        yield from _saved(members, saved)


def check_image(members: Members, descriptor: Descriptor) -> Iterator[Claim]:
    """All that does not hold of the one image whose manifest ``descriptor`` names."""
    yield from _tree(members, descriptor, set())


def _version(members: Members) -> Iterator[Claim]:
    try:
        data = read_small(members, LAYOUT_FILE)
        yield from _json(LAYOUT_FILE, data)
        version = json.loads(data)["imageLayoutVersion"]
    except (LayerbuildError, ValueError, TypeError, KeyError) as error:
        yield Claim(LAYOUT_FILE, f"is no layout file: {error}")
        return
    if version != "1.0.0":
        yield Claim(LAYOUT_FILE, f"says version {version!r}; 1.0.0 is known")


# -- descriptors -------------------------------------------------------------------------------------------------------


def _tree(members: Members, descriptor: Descriptor, seen: set[BlobDigest]) -> Iterator[Claim]:
    """What a descriptor leads to: a manifest, or an index of more of them."""
    if descriptor.digest in seen:  # one image under two names
        return
    seen.add(descriptor.digest)
    subject = _subject("manifest", descriptor)
    if descriptor.media_type not in MANIFEST_TYPES | INDEX_TYPES:
        yield Claim(subject, f"has the media type {descriptor.media_type}, which is no manifest's", remark=True)
        yield from _blob(members, subject, descriptor)
        return
    yield from _blob(members, subject, descriptor)
    data = _small(members, descriptor)
    if data is None:
        return
    yield from _json(subject, data)
    try:
        if descriptor.media_type in INDEX_TYPES:
            for inner in Index.from_json(data).manifests:
                yield from _tree(members, inner, seen)
            return
        manifest = Manifest.from_json(data)
    except FormatError as error:
        yield Claim(subject, error.message)
        return
    if manifest.media_type != descriptor.media_type:
        yield Claim(subject, f"says that it is a {manifest.media_type}; its descriptor says {descriptor.media_type}")
    yield from _manifest(members, subject, manifest, descriptor)


def _manifest(members: Members, subject: str, manifest: Manifest, descriptor: Descriptor) -> Iterator[Claim]:
    is_image = manifest.config.media_type in (OCI_CONFIG, DOCKER_CONFIG)
    if not is_image or descriptor.is_attestation:
        if not is_image:
            yield Claim(subject, f"is no image's: its configuration is a {manifest.config.media_type}", remark=True)
        for blob in (manifest.config, *manifest.layers):
            yield from _blob(members, _subject("blob", blob), blob)
        return
    where = _subject("configuration", manifest.config)
    yield from _blob(members, where, manifest.config)
    data = _small(members, manifest.config)
    config = None
    if data is not None:
        yield from _configuration(where, data)
        config = _config(data)
    if config is not None and descriptor.platform is not None and str(config.platform) != str(descriptor.platform):
        yield Claim(where, f"is for {config.platform}; the index says {descriptor.platform}")
    diff_ids: Sequence[DiffID] = config.diff_ids if config is not None else ()
    if not manifest.layers:
        yield Claim(subject, "has no layers; for portability it should have one (image-spec, manifest.md)", remark=True)
    if config is not None and len(diff_ids) != len(manifest.layers):
        yield Claim(subject, f"has {len(manifest.layers)} layers; its configuration names {len(diff_ids)} diff IDs")
    yield from _layers(
        members,
        [
            _Described(_subject("layer", layer), blob_name(layer.digest), _nth(diff_ids, number), layer)
            for number, layer in enumerate(manifest.layers)
        ],
    )


def _blob(members: Members, subject: str, descriptor: Descriptor) -> Iterator[Claim]:
    """Its digest and its size."""
    name = blob_name(descriptor.digest)
    if not members.has(name):
        if not descriptor.urls:
            yield Claim(subject, "is missing")
        return
    hashing = HashingWriter()
    with members.open(name) as source:
        while piece := source.read(_PIECE):
            hashing.write(piece)
    if hashing.size != descriptor.size:
        yield Claim(subject, f"has {hashing.size} bytes; its descriptor says {descriptor.size}")
    if hashing.digest() != descriptor.digest:
        yield Claim(subject, f"has the digest {hashing.digest()}")


def _small(members: Members, descriptor: Descriptor) -> bytes | None:
    """A JSON blob, if it is there and of a size that such a blob may have."""
    name = blob_name(descriptor.digest)
    if not members.has(name) or members.size(name) > SIZE_LIMIT:
        return None
    return read_small(members, name)


def _json(subject: str, data: bytes) -> Iterator[Claim]:
    """Keys that are there twice: readers take one or the other."""
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        known = dict(items)
        twice.extend(key for key in known if sum(other == key for other, _ in items) > 1)
        return known

    try:
        json.loads(data, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        yield Claim(subject, f"is no JSON: {error}")
    for key in twice:
        yield Claim(subject, f"has the key {key!r} twice")


# -- the configuration -------------------------------------------------------------------------------------------------


def _config(data: bytes) -> ImageConfig | None:
    try:
        return ImageConfig.from_json(data)
    except FormatError:
        return None


def _configuration(subject: str, data: bytes) -> Iterator[Claim]:
    yield from _json(subject, data)
    try:
        raw = json.loads(data)
        config = ImageConfig.from_json(data)
    except (ValueError, FormatError) as error:
        yield Claim(subject, f"is no image configuration: {getattr(error, 'message', error)}")
        return
    for key in ("architecture", "os"):
        if not raw.get(key):
            yield Claim(subject, f"says no {key}, which is required")
    kind = (raw.get("rootfs") or {}).get("type")
    if kind != "layers":
        yield Claim(subject, f"has a rootfs of type {kind!r}; it must be 'layers'")
    times = [config.created, *(entry.created for entry in config.history)]
    for said in dict.fromkeys(time for time in times if time and not _TIME.fullmatch(time)):
        yield Claim(subject, f"has the time {said!r}, which is not RFC 3339")
    with_layer = sum(not entry.empty_layer for entry in config.history)
    if config.history and with_layer != len(config.diff_ids):
        yield Claim(subject, f"has {with_layer} history entries with a layer for {len(config.diff_ids)} layers")
    for variable in (raw.get("config") or {}).get("Env") or ():
        if "=" not in variable:
            yield Claim(subject, f"has the variable {variable!r} without a value", remark=True)


# -- layers ------------------------------------------------------------------------------------------------------------


def _layers(members: Members, layers: Sequence[_Described]) -> Iterator[Claim]:
    below = _Below()
    known: dict[str, str] = {}
    for layer in layers:
        if layer.diff_id is not None and layer.diff_id in known:
            yield Claim(layer.subject, f"is the same as {known[layer.diff_id]}", remark=True)
        known[layer.diff_id or layer.subject] = layer.subject
        if layer.descriptor is not None:
            yield from _blob(members, layer.subject, layer.descriptor)
        if members.has(layer.member):
            yield from _layer(members, layer, below)
        elif layer.descriptor is None:
            yield Claim(layer.subject, f"{layer.member} is missing")


def _layer(members: Members, layer: _Described, below: _Below) -> Iterator[Claim]:
    with members.open(layer.member) as source:
        buffered = io.BufferedReader(cast(io.RawIOBase, source), _PIECE)
        codec = detect(buffered.peek(MAGIC_SIZE)[:MAGIC_SIZE])
        if layer.descriptor is not None:
            said = LAYER_TYPES.get(layer.descriptor.media_type)
            if said is None:
                yield Claim(layer.subject, f"has the media type {layer.descriptor.media_type}, which is no layer's")
            elif said != codec.name:
                yield Claim(layer.subject, f"is {codec.name}; its media type says {said}")
        tar = _Counted(codec.decompressor(buffered))
        try:
            yield from below.take(layer.subject, TarReader(cast(BinaryIO, tar), name=layer.subject))
            tar.drain()
        except FormatError as error:
            yield Claim(layer.subject, error.message)
            return
    if layer.diff_id is not None and tar.digest != layer.diff_id:
        yield Claim(layer.subject, f"has the diff ID {tar.digest}; the configuration says {layer.diff_id}")


class _Counted:
    """Passes a tar on, and knows its digest."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = HashingWriter()

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._hash.write(data)
        return data

    def drain(self) -> None:
        while self.read(_PIECE):
            pass

    @property
    def digest(self) -> str:
        return self._hash.digest()


_Folder = dict[bytes, Any]  # what is in a folder by name: another folder, or None for what is none


class _Below:
    """The merged paths of the layers so far, and what is wrong with the next one's."""

    def __init__(self) -> None:
        self._root: _Folder = {}

    def take(self, subject: str, reader: TarReader) -> Iterator[Claim]:
        """The faults of a layer's entries, the first of them."""
        for number, (text, remark) in enumerate(self._faults(reader)):
            if number < _MOST:
                yield Claim(subject, text, remark)

    def _faults(self, reader: TarReader) -> Iterator[tuple[str, bool]]:
        own: dict[bytes, Kind] = {}
        gone: list[bytes] = []
        opaque: list[bytes] = []
        links: list[Entry] = []
        for entry in reader:
            folder, name = split(entry.path)
            hidden = hidden_name(name)
            if hidden is None:
                if entry.path in own and not (entry.kind is own[entry.path] is Kind.DIRECTORY):
                    yield f"has {_shown(entry.path)} twice", False
                own[entry.path] = entry.kind
                if entry.kind is Kind.HARDLINK:
                    links.append(entry)
                continue
            yield from self._whiteout(entry, folder, name, hidden)
            if name == OPAQUE:
                opaque.append(folder)
            elif hidden not in (b"", b".", b".."):
                gone.append(join(folder, hidden))
        for link in links:
            if link.target not in own and not self._has(link.target):
                yield f"has the hard link {_shown(link.path)} to {_shown(link.target)}, which is not there", False
        for path in gone:
            if path in own and own[path] is not Kind.DIRECTORY:
                yield f"has {_shown(path)} and deletes it", False
        self._apply(own, gone, opaque)

    def _whiteout(self, entry: Entry, folder: bytes, name: bytes, hidden: bytes) -> Iterator[tuple[str, bool]]:
        shown = _shown(entry.path)
        if hidden in (b"", b".", b".."):
            yield f"has the whiteout {shown}, which names nothing that can be deleted", False
            return
        if entry.kind is not Kind.FILE or entry.size:
            yield f"has the whiteout {shown}, which is no empty file", False
        if name == OPAQUE:
            return
        if name.startswith(META_PREFIX):
            yield f"has {shown}, a file of aufs's own", True
        path = join(folder, hidden)
        if not self._has(path):
            yield f"deletes {_shown(path)}, which is not there", True

    def _apply(self, own: dict[bytes, Kind], gone: list[bytes], opaque: list[bytes]) -> None:
        for path in opaque:
            self._folder(path, make=True).clear()
        for path in gone:
            folder, name = split(path)
            self._folder(folder, make=False).pop(name, None)
        for path, kind in own.items():
            folder, name = split(path)
            if kind is Kind.DIRECTORY:
                self._folder(path, make=True)
            elif path:
                self._folder(folder, make=True)[name] = None

    def _has(self, path: bytes) -> bool:
        folder, name = split(path)
        return name in self._folder(folder, make=False)

    def _folder(self, path: bytes, *, make: bool) -> _Folder:
        """The folder at ``path``; an empty one that leads nowhere if there is none and none is to be made."""
        found = self._root
        for name in path.split(b"/") if path else ():
            below = found.get(name)
            if below is None:
                below = {}
                if make:
                    found[name] = below
            found = below
        return found


# -- docker archives ---------------------------------------------------------------------------------------------------


def _saved(members: Members, saved: Saved) -> Iterator[Claim]:
    subject = f"configuration {saved.config}"
    try:
        data = read_small(members, saved.config)
    except FormatError as error:
        yield Claim(subject, error.message)
        return
    found = BlobDigest.of(data)
    said = re.fullmatch(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?", saved.config)
    if said is not None and said[1] != found.hex:
        yield Claim(subject, f"has the digest {found}")
    yield from _configuration(subject, data)
    config = _config(data)
    diff_ids: Sequence[DiffID] = config.diff_ids if config is not None else ()
    if config is not None and len(diff_ids) != len(saved.layers):
        yield Claim(subject, f"names {len(diff_ids)} diff IDs for {len(saved.layers)} layers")
    layers = [
        _Described(f"layer {member}", member, _nth(diff_ids, number)) for number, member in enumerate(saved.layers)
    ]
    yield from _layers(members, layers)


def _nth(diff_ids: Sequence[DiffID], number: int) -> DiffID | None:
    return diff_ids[number] if number < len(diff_ids) else None


def _subject(what: str, descriptor: Descriptor) -> str:
    return f"{what} {descriptor.digest}"


def _shown(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")
