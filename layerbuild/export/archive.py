"""A tar of files by name, the same bytes for the same content: sorted, owned by root, of no time."""

from __future__ import annotations

from collections.abc import Mapping

from layerbuild.digest import BlobDigest, Sink
from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.layer.tar import END, header, padding
from layerbuild.store.blobs import Blobs

Content = bytes | BlobDigest


def write_archive(files: Mapping[str, Content], blobs: Blobs, sink: Sink) -> None:
    """Write ``files``, each with its bytes or with the blob that it is, and the folders that they lie in."""
    folders = {parent for name in files for parent in _parents(name)}
    with blobs.sending() as sending:
        for name in sorted({*files, *folders}, key=lambda name: sort_key(name.encode())):
            content = files.get(name)
            if content is None:
                sink.write(header(Entry(name.encode(), Kind.DIRECTORY, 0o755)))
                continue
            size = blobs.size(content) if isinstance(content, BlobDigest) else len(content)
            sink.write(header(Entry(name.encode(), Kind.FILE, 0o644, size=size)))
            if isinstance(content, BlobDigest):
                sending.send(content, sink)
            else:
                sink.write(content)
            sink.write(padding(size))
    sink.write(END)


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
