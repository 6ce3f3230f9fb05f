"""Archives and ELF files made by hand, apart from the code that reads them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

OCI = "application/vnd.oci.image."
Files = dict[str, bytes]


def tar_of(members: Mapping[str, bytes | tuple[bytes, str] | None], *, mtime: int = 1000) -> bytes:
    """A tar: bytes are a file, None a folder, a pair is a kind of link and its target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = mtime, 0o755 if content is None else 0o644
            if isinstance(content, tuple):
                info.type, info.linkname = content
            elif content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


class Layout:
    """An OCI layout as a table of files."""

    def __init__(self) -> None:
        self.files: Files = {"oci-layout": as_json({"imageLayoutVersion": "1.0.0"})}
        self.entries: list[dict[str, Any]] = []

    def blob(self, media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
        digest = sha256(data)
        self.files[f"blobs/sha256/{digest[7:]}"] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def image(
        self, layers: Sequence[bytes], *, architecture: str = "amd64", zipped: bool = True, **more: Any
    ) -> dict[str, Any]:
        """A manifest with its blobs; ``layers`` are tars."""
        config = config_of(layers, architecture)
        kind = OCI + "layer.v1.tar"
        described = [
            self.blob(kind + "+gzip", gzip.compress(tar, mtime=0)) if zipped else self.blob(kind, tar) for tar in layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": self.blob(OCI + "config.v1+json", config),
            "layers": described,
        }
        return self.blob(OCI + "manifest.v1+json", as_json(manifest), **more)

    def index(self, entries: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        kind = OCI + "index.v1+json"
        return self.blob(kind, as_json({"schemaVersion": 2, "mediaType": kind, "manifests": list(entries)}), **more)

    def finish(self) -> Files:
        index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": self.entries}
        return self.files | {"index.json": as_json(index)}


def config_of(layers: Sequence[bytes], architecture: str = "amd64") -> bytes:
    diff_ids = [sha256(tar) for tar in layers]
    history = [{"created_by": f"layer {number}"} for number in range(len(layers))]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return as_json({"os": "linux", "architecture": architecture, "rootfs": rootfs, "history": history, "config": {}})


def named(name: str) -> dict[str, Any]:
    return {"annotations": {"io.containerd.image.name": name}}


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may do this")


def write_files(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def elf(
    *,
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    interpreter: str = "",
    needed: Sequence[str] = (),
    rpath: str = "",
    runpath: str = "",
) -> bytes:
    """An ELF file that holds nothing but what a loader reads first; strings are mapped 0x1000 above their offset."""
    wide = bits == 64
    strings, places = b"\0", {}
    for text in (*needed, rpath, runpath):
        places[text] = len(strings)
        strings += text.encode() + b"\0"
    head, segment_size = (64, 56) if wide else (52, 32)
    at_interpreter = head + 3 * segment_size
    name = interpreter.encode() + b"\0"
    at_strings = at_interpreter + len(name)
    tags = [(1, places[text]) for text in needed] + [(5, at_strings + 0x1000), (10, len(strings))]
    tags += [(15, places[rpath])] if rpath else []
    tags += [(29, places[runpath])] if runpath else []
    dynamic = b"".join(struct.pack(order + ("qQ" if wide else "iI"), *tag) for tag in [*tags, (0, 0)])
    at_dynamic = at_strings + len(strings)
    size = at_dynamic + len(dynamic)
    segments = [(1, 0, 0x1000, size), (2, at_dynamic, at_dynamic + 0x1000, len(dynamic))]
    segments.append((3 if interpreter else 0, at_interpreter, 0, len(name)))
    table = b"".join(
        struct.pack(order + "IIQQQQQQ", kind, 4, where, address, address, length, length, 1)
        if wide
        else struct.pack(order + "IIIIIIII", kind, where, address, address, length, length, 4, 1)
        for kind, where, address, length in segments
    )
    start = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    form = order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH")
    start += struct.pack(form, 3, machine, 1, 0, head, 0, 0, head, segment_size, 3, 0, 0, 0)
    return start + table + name + strings + dynamic
