"""A registry that does what it is told, also wrong: an image behind a web server of the tests' own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loopback import Asked, Reply, Web
from support import add_member

OCI = "application/vnd.oci.image."
Page = Reply | Callable[[Asked], Reply]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(number: int, *, size: int = 300_000) -> bytes:
    """A tar with one file that does not compress."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_member(tar, f"file{number}", content=random.Random(number).randbytes(size))
    return out.getvalue()


class Image:
    """An image as bytes: ``layers`` are tars, ``blobs`` what a registry has of it, by digest."""

    def __init__(self, *layers: bytes, architecture: str = "amd64", variant: str = "", **manifest: Any) -> None:
        self.blobs: dict[str, bytes] = {}
        config = {
            "os": "linux",
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
            "config": {},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": self._blob("config.v1+json", json.dumps(config).encode()),
            "layers": [self._blob("layer.v1.tar+gzip", gzip.compress(layer, 1, mtime=0)) for layer in layers],
            **manifest,
        }
        self.manifest = json.dumps(document).encode()
        self.layers = [entry["digest"] for entry in document["layers"]]

    def _blob(self, kind: str, data: bytes) -> dict[str, Any]:
        self.blobs[digest_of(data)] = data
        return {"mediaType": OCI + kind, "digest": digest_of(data), "size": len(data)}


class Registry:
    """Serves images on ``web``. ``first`` are replies for a path that are given, each once, before the right one."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.first: dict[str, list[Page]] = {}
        web.pages["/v2/"] = Reply(b"{}")

    @property
    def host(self) -> str:
        return self.web.host

    def add(self, name: str, image: Image, *, tag: str = "latest") -> None:
        for digest, data in image.blobs.items():
            self.page(f"/v2/{name}/blobs/{digest}", self._ranged(data))
        self.document(name, image.manifest, OCI + "manifest.v1+json", tag)

    def document(self, name: str, data: bytes, media_type: str, tag: str) -> None:
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)}
        for target in (tag, digest_of(data)):
            self.page(f"/v2/{name}/manifests/{target}", Reply(data, headers=headers))

    def page(self, path: str, page: Page) -> None:
        def answer(asked: Asked) -> Reply:
            waiting = self.first.get(path)
            chosen = waiting.pop(0) if waiting else page
            return chosen(asked) if callable(chosen) else chosen

        self.web.pages[path] = answer

    def asked(self, part: str) -> list[Asked]:
        return [asked for asked in self.web.asked if part in asked.path]

    @staticmethod
    def _ranged(data: bytes) -> Callable[[Asked], Reply]:
        def answer(asked: Asked) -> Reply:
            if "range" not in asked.headers:
                return Reply(data)
            start, end = map(int, asked.headers["range"].removeprefix("bytes=").split("-"))
            assert end == len(data) - 1
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return Reply(data[start:], 206, headers)

        return answer


def certificate(openssl: str, folder: Path, *, names: str = "IP:127.0.0.1,DNS:localhost", days: int = 2) -> Path:
    """A certificate for ``names`` that nobody has signed, with its key; ``days`` -1: it ended yesterday."""
    file = folder / "certificate.pem"
    request, key, signed = folder / "request", folder / "key", folder / "cert"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=tests"]
    own = [f"subjectAltName={names}", "basicConstraints=critical,CA:TRUE", "subjectKeyIdentifier=hash"]
    said = [word for text in own for word in ("-addext", text)] + ["-keyout", key, "-out", request]
    subprocess.run([openssl, "req", *kind, *said], check=True, capture_output=True)
    sign = ["-req", "-in", request, "-signkey", key, "-copy_extensions", "copy", "-days", str(days), "-out", signed]
    subprocess.run([openssl, "x509", *sign], check=True, capture_output=True)
    file.write_bytes(signed.read_bytes() + key.read_bytes())
    return file
