"""A small registry of the tests' own that takes uploads, and fails in the ways that it is told to."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from layerbuild.digest import BlobDigest


@dataclass
class Fault:
    """What happens to the first ``times`` requests of ``method`` whose path and query match ``path``.

    ``status``: the answer, once the body has been read and thrown away. ``cut``: so many bytes of the body are taken
    in, then the connection breaks; ``lost``: they are not kept.
    """

    method: str
    path: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()
    cut: int | None = None
    lost: bool = False
    times: int = 1

    def meets(self, method: str, path: str) -> bool:
        met = self.times > 0 and method == self.method and re.search(self.path, path) is not None
        self.times -= met
        return met


class UploadServer:
    """A registry in memory. ``asked`` is every request, as ``METHOD path``; ``sent`` counts bytes of upload bodies.

    ``pieces`` False: it knows no PATCH; ``whole`` False: no PUT with a body. ``largest``: bytes of a body that it
    takes. ``smallest``: what it says of pieces. ``token``: what Authorization must hold; it is asked for anew by
    ``renew``.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.sent = 0
        self.pieces = True
        self.whole = True
        self.largest = 1 << 40
        self.smallest = 0
        self.token = ""
        self.tokens = 0
        self.on_request: Callable[[str], None] = lambda what: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, line) is not None for line in self.asked)

    def renew(self) -> str:
        """A token of a new sort: the one before is worth nothing any more."""
        self.tokens += 1
        self.token = f"token-{self.tokens}"
        return self.token

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def __init__(self, server: UploadServer, *arguments: object) -> None:
        self._state = server
        self._left = 0
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that gave up
            super().handle()

    # -- one request

    def _handle(self) -> None:
        self._left = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        what = f"{self.command} {self.path}"
        self._state.asked.append(what)
        self._state.on_request(what)
        fault = next((fault for fault in self._state.faults if fault.meets(self.command, self.path)), None)
        if fault is not None:
            self._fail(fault)
        elif parts.path == "/token":
            self._say(200, json.dumps({"token": self._state.renew()}).encode())
        elif self._state.token and self.headers.get("Authorization") != f"Bearer {self._state.token}":
            realm = f'Bearer realm="http://{self._state.host}/token",service="tests"'
            self._say(401, headers={"WWW-Authenticate": realm})
        elif parts.path == "/v2/":
            self._say(200)
        elif self._left > self._state.largest:
            self._say(413)
        else:
            self._route(parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()})

    do_HEAD = do_GET = do_POST = do_PATCH = do_PUT = _handle

    def _route(self, path: str, query: dict[str, str]) -> None:
        for pattern, serve in (
            (r"/v2/(.+)/blobs/uploads/", self._begin),
            (r"/v2/(.+)/blobs/uploads/([0-9a-f-]+)", self._upload),
            (r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", self._blob),
            (r"/v2/(.+)/manifests/([^/]+)", self._manifest),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                serve(*found.groups(), query)
                return
        self._say(404)

    def _begin(self, name: str, query: dict[str, str]) -> None:
        self._body()
        data = self._state.blobs.get(query.get("from", ""), {}).get(query.get("mount", ""))
        if data is not None:
            self._state.blobs.setdefault(name, {})[query["mount"]] = data
            self._say(201, headers={"Location": f"/v2/{name}/blobs/{query['mount']}"})
            return
        upload = str(uuid.uuid4())
        self._state.uploads[upload] = bytearray()
        self._accept(name, upload)

    def _upload(self, name: str, upload: str, query: dict[str, str]) -> None:
        there = self._state.uploads.get(upload)
        if there is None:
            self._say(404, errors=(("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),))
        elif self.command == "GET":
            self._accept(name, upload, 204)
        elif (self.command == "PATCH" and not self._state.pieces) or (
            self.command == "PUT" and self._left and not self._state.whole
        ):
            self._say(405, errors=(("UNSUPPORTED", "the operation is unsupported"),))
        elif self.command == "PATCH" and int(self.headers["Content-Range"].partition("-")[0]) != len(there):
            self._say(416)
        else:
            there += self._body()
            if self.command == "PATCH":
                self._accept(name, upload)
            else:
                self._complete(name, upload, query["digest"])

    def _complete(self, name: str, upload: str, digest: str) -> None:
        data = bytes(self._state.uploads.pop(upload))
        if BlobDigest.of(data) != digest:
            self._say(400, errors=(("DIGEST_INVALID", "provided digest did not match uploaded content"),))
            return
        self._state.blobs.setdefault(name, {})[digest] = data
        self._say(201, headers={"Location": f"/v2/{name}/blobs/{digest}"})

    def _accept(self, name: str, upload: str, status: int = 202) -> None:
        count = len(self._state.uploads[upload])
        headers = {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": f"0-{max(0, count - 1)}"}
        if self._state.smallest:
            headers["OCI-Chunk-Min-Length"] = str(self._state.smallest)
        self._say(status, headers=headers)

    def _blob(self, name: str, digest: str, query: dict[str, str]) -> None:
        data = self._state.blobs.get(name, {}).get(digest)
        self._say(404) if data is None else self._say(200, data)

    def _manifest(self, name: str, target: str, query: dict[str, str]) -> None:
        known = self._state.manifests.setdefault(name, {})
        if self.command == "PUT":
            self._put_manifest(known, name, target)
        elif target in known:
            kind, data = known[target]
            self._say(200, data, {"Content-Type": kind, "Docker-Content-Digest": BlobDigest.of(data)})
        else:
            self._say(404, errors=(("MANIFEST_UNKNOWN", "manifest unknown"),))

    def _put_manifest(self, known: dict[str, tuple[str, bytes]], name: str, target: str) -> None:
        data = self._body()
        raw = json.loads(data)
        needed = [raw["config"], *raw["layers"]] if "layers" in raw else []
        blobs = self._state.blobs.get(name, {})
        if not all(blob["digest"] in blobs for blob in needed) or not all(
            entry["digest"] in known for entry in raw.get("manifests", [])
        ):
            self._say(404, errors=(("MANIFEST_BLOB_UNKNOWN", "manifest references unknown content"),))
            return
        for key in (target, BlobDigest.of(data)):
            known[key] = (self.headers["Content-Type"], data)
        self._say(201, headers={"Docker-Content-Digest": BlobDigest.of(data)})

    # -- faults, bodies, answers

    def _fail(self, fault: Fault) -> None:
        if fault.cut is None:
            self._body()
            self._say(fault.status, headers=fault.headers, errors=fault.errors)
            return
        data = self._body(fault.cut)
        found = re.search(r"uploads/([0-9a-f-]+)", self.path)
        if found and not fault.lost:
            self._state.uploads[found[1]] += data
        # With nothing to linger for, closing resets the connection.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _body(self, most: int | None = None) -> bytes:
        data = self.rfile.read(self._left if most is None else min(most, self._left))
        self._left -= len(data)
        if "/uploads/" in self.path:
            self._state.sent += len(data)
        return data

    def _say(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        errors: tuple[tuple[str, str], ...] = (),
    ) -> None:
        if errors:
            body = json.dumps({"errors": [{"code": code, "message": text} for code, text in errors]}).encode()
        while self._left:  # an answer that comes before the body has been read may break the connection
            self._left -= len(self.rfile.read(min(self._left, 1 << 20)))
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)
