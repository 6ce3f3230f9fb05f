"""Images made straight from entries, and exports of them."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from layerbuild.export.formats import Exported, Output, write
from layerbuild.image.config import History, Platform, RuntimeConfig
from layerbuild.image.image import Image
from layerbuild.image.manifest import Descriptor, layer_media_type
from layerbuild.layer.capture import LayerWriter
from layerbuild.layer.codecs import GZIP
from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.reference import Reference
from layerbuild.store.images import StoredImage
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.store import Store

Files = Sequence[tuple[Entry, bytes | None]]


def file(path: str, text: str, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> tuple[Entry, bytes]:
    data = text.encode()
    return Entry(os.fsencode(path), Kind.FILE, mode, uid, gid, size=len(data), mtime=1000), data


def folder(path: str, *, mode: int = 0o755) -> tuple[Entry, None]:
    return Entry(os.fsencode(path), Kind.DIRECTORY, mode, mtime=2000), None


def link(path: str, target: str, kind: Kind = Kind.SYMLINK) -> tuple[Entry, None]:
    return Entry(os.fsencode(path), kind, 0o777, mtime=3000, target=os.fsencode(target)), None


def whiteout(path: str) -> tuple[Entry, None]:
    return Entry(os.fsencode(path), Kind.WHITEOUT), None


# Instruction and files; None: no layer. The tree in the end stands in test_export_rootfs.py.
LAYERS: Sequence[tuple[str, Files | None]] = (
    (
        "COPY . / # buildkit",
        [
            folder("bin"),
            file("bin/a", "shared", mode=0o4755),
            link("bin/b", "bin/a", Kind.HARDLINK),
            link("bin/c", "bin/a", Kind.HARDLINK),
            folder("etc"),
            file("etc/name", "bottom", uid=12, gid=34),
            folder("gone"),
            file("gone/file", "x"),
            folder("tmp", mode=0o1777),
        ],
    ),
    ("LABEL a=b", None),
    (
        "RUN |1 X=y /bin/sh -c rm -r /gone /bin/a && echo top > /etc/name # buildkit",
        [folder("bin"), whiteout("bin/a"), folder("etc"), file("etc/name", "top"), whiteout("gone")],
    ),
    (
        "RUN /bin/sh -c ln -s name /etc/link # buildkit",
        [folder("etc"), link("etc/link", "name"), (Entry(b"pipe", Kind.FIFO, 0o600, mtime=4000), None)],
    ),
    ('CMD ["/bin/b"]', None),
)


def make_image(store: Store, layers: Sequence[tuple[str, Files | None]], *, names: Sequence[str] = ()) -> StoredImage:
    image = Image.scratch(Platform("linux", "amd64"))
    descriptors = []
    for text, files in layers:
        record = _layer(store, image, files) if files is not None else None
        history = History(created="1980-01-01T00:00:00Z", created_by=text)
        image = image.with_step(history, RuntimeConfig(cmd=("/bin/b",)), layer=record.diff_id if record else None)
        if record:
            blob = record.blobs[0]
            descriptors.append(Descriptor(layer_media_type(blob.codec), blob.digest, blob.size))
    stored = store.images.put(image.manifest(descriptors).to_json(), image.config.to_json())
    for name in names:
        store.images.tag(Reference.parse(name), stored.manifest_digest)
    return store.images.resolve(stored.manifest_digest)


def _layer(store: Store, image: Image, files: Files) -> LayerRecord:
    workspace = store.workspaces.begin(image.top)
    temporary, index = store.blobs.temporary(), store.layers.temporary_index()
    with LayerWriter(temporary, index, codec=GZIP, folder=workspace.diff, user_xattr=store.user_xattr) as writer:
        for entry, content in sorted(files, key=lambda pair: sort_key(pair[0].path)):
            writer.add(entry, content)
        captured = writer.finish()
    store.blobs.adopt(temporary, captured.digest)
    store.layers.adopt_index(index, captured.diff_id)
    blob = BlobRecord(captured.digest, captured.size, captured.codec)
    record = LayerRecord(captured.diff_id, captured.tar_size, captured.entries, (blob,))
    store.workspaces.commit(workspace, record)
    return record


@dataclass(frozen=True)
class Sample:
    """An image and a folder to export it to."""

    store: Store
    image: StoredImage
    folder: Path

    def export(self, text: str) -> Exported:
        """``text`` is -o's value; a relative dest is below the sample's folder."""
        output = Output.parse(text)
        return write(self.store, self.image, replace(output, dest=f"{self.folder}/{output.dest}"), stdout=io.BytesIO())

    def stream(self, kind: str) -> bytes:
        out = io.BytesIO()
        write(self.store, self.image, Output.parse(f"type={kind},dest=-"), stdout=out)
        return out.getvalue()


def client(name: str) -> str:
    """The path of a client program, which gives a second opinion; the test is skipped where it is absent."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may do this")
