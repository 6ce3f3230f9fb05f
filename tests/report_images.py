"""Images for reports, put into a store by its own writer: their layers are indexes, and nothing was built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from layerbuild.digest import DiffID
from layerbuild.image.config import History, ImageConfig, Platform, RuntimeConfig
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_media_type
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import IndexWriter
from layerbuild.reference import Reference
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.store import Store

HOSTILE = (
    b"</script><script>document.title='taken'</script>",
    b"<img src=x onerror=\"document.title='taken'\">",
    b"{{ 7 * 7 }} ${7 * 7} <!-- <script>",
    b"bad \xff\xfe utf-8",
    b"new\nline\ttab\x1b[31m",
    "right\u202eto left\u2028".encode(),
    b"' \" & ; \\",
)
INSTRUCTIONS = ("base", "COPY </script> <b>bold</b> \x1b[0m /srv\nCOPY 2 /srv", "RUN rm -r /srv/old")


def folder(path: bytes) -> Entry:
    return Entry(path, Kind.DIRECTORY, 0o755)


def file(path: bytes, size: int) -> Entry:
    return Entry(path, Kind.FILE, 0o644, size=size, digest=f"{size:064x}")


def gone(path: bytes) -> Entry:
    return Entry(path, Kind.WHITEOUT)


def small() -> list[tuple[Entry, ...]]:
    """Three layers; the second has every name that means harm, the third hides."""
    return [
        (folder(b"usr"), folder(b"usr/bin"), file(b"usr/bin/sh", 120_000), file(b"usr/bin/ls", 90_000)),
        (
            folder(b"srv"),
            folder(b"srv/old"),
            file(b"srv/old/data", 70_000),
            *(file(b"srv/" + name, 9_000 + at) for at, name in enumerate(HOSTILE)),
        ),
        (folder(b"srv"), gone(b"srv/old"), folder(b"usr"), folder(b"usr/bin"), file(b"usr/bin/ls", 91_000)),
    ]


def large(count: int) -> Iterator[Iterable[Entry]]:
    """``count`` files in four layers: deep, wide, and one folder with a quarter of them."""
    each = count // 4
    yield (file(b"usr/lib/%d/%d/%d" % (at % 37, at % 1009, at), at % 5000) for at in range(each))
    yield (file(b"srv/flat/file-%06d" % at, 1000) for at in range(each))
    yield (file(b"usr/lib/%d/%d/%d" % (at % 37, at % 1009, at), 1 + at % 7000) for at in range(each))
    yield (file(b"opt/" + b"deep/" * (at % 40) + b"%d" % at, at) for at in range(each))


def put_image(store: Store, layers: Iterable[Iterable[Entry]], instructions: Sequence[str], *, name: str) -> None:
    """Record an image of these layers, one history line for each, and one more for its configuration."""
    image, chain, blobs = Image.of_base(ImageConfig(Platform("linux", "amd64"))), None, []
    for number, (entries, instruction) in enumerate(zip(layers, instructions, strict=True)):
        layer = _layer(store, f"{name} {number}", entries)
        chain = store.workspaces.commit(store.workspaces.begin(chain), layer).chain
        image = image.with_step(History(created_by=instruction), RuntimeConfig(), layer=layer.diff_id)
        blobs.append(Descriptor(layer_media_type("none"), layer.blobs[0].digest, layer.blobs[0].size))
    image = image.with_step(History(created_by='CMD ["</style>"]'), RuntimeConfig(cmd=("</style>",)))
    stored = store.images.put(image.manifest(blobs).to_json(), image.config.to_json())
    store.images.tag(Reference.parse(name), stored.manifest_digest)


def _layer(store: Store, text: str, entries: Iterable[Entry]) -> LayerRecord:
    """A layer with such an index; what stands in for its tar is ``text``."""
    index = store.layers.temporary_index()
    with IndexWriter(index) as writer:
        for entry in entries:
            writer.add(entry)
        count = writer.finish()
    diff_id = DiffID.of(text.encode())
    store.layers.adopt_index(index, diff_id)
    blob = BlobRecord(store.blobs.add(text.encode()), len(text), "none")
    return LayerRecord(diff_id, len(text), count, (blob,))
