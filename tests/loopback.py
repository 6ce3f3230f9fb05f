"""A web server on loopback that tests fill and listen to, git repositories behind it, and an SSH server."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from traces import wait_until

EPOCH = 1_000_000_000  # seconds since 1970: when everything in a repository was committed


@dataclass
class Reply:
    """What the server says. ``cut`` declares more bytes than it sends; ``stall`` sends half of them, and then nothing
    until the server ends; ``chunked`` does not declare how many there are."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    stall: bool = False
    chunked: bool = False


@dataclass(frozen=True)
class Asked:
    """A request: its path and its headers, by lower-case name; its method and its body."""

    path: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""


class Web:
    """Serves ``pages``: by path a reply, or a function from a request to one; else the files below ``folder``.

    Pages have an ETag of their content, and conditions are honoured. ``guard``, where there is one, answers in place of
    all of them. ``asked`` is every request, in order. ``certificate`` is a file with certificate and key: then it
    speaks TLS; ``mutual``: only to who shows that one, too.
    """

    def __init__(self, folder: Path, *, certificate: Path | None = None, mutual: bool = False) -> None:
        self.folder = folder
        self.ended = threading.Event()
        self.pages: dict[str, Reply | Callable[[Asked], Reply]] = {}
        self.guard: Callable[[Asked], Reply] | None = None
        self.asked: list[Asked] = []
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if mutual:
                context.load_verify_locations(certificate)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}{'@' * bool(user)}{self.host}/{path}"

    def put(self, path: str, body: bytes | str, *, modified: int | None = None, etag: bool = True) -> str:
        """Serve ``body`` at ``path``; its URL."""
        data = body.encode() if isinstance(body, str) else body
        headers = {"ETag": f'"{hash(data)}"'} if etag else {}
        if modified is not None:
            headers["Last-Modified"] = formatdate(modified, usegmt=True)
        self.pages[f"/{path}"] = Reply(data, headers=headers)
        return self.url(path)

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if self.guard is not None:
            return self.guard(asked)
        path = asked.path.partition("?")[0]
        page = self.pages.get(path)
        if page is None:
            file = self.folder / path.lstrip("/")
            return Reply(file.read_bytes()) if file.is_file() else Reply(b"nothing here", 404)
        reply = page(asked) if callable(page) else page
        etag, modified = reply.headers.get("ETag"), reply.headers.get("Last-Modified")
        same = etag and asked.headers.get("if-none-match") == etag
        same = same or ("if-none-match" not in asked.headers and asked.headers.get("if-modified-since", "") == modified)
        return Reply(b"", 304, reply.headers) if same and reply.status == 200 else reply

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # the client went away, as it does in these tests
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, web: Web, *arguments: object) -> None:
        self._web = web
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        reply = self._web.answer(Asked(self.path, headers, self.command, body))
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if not reply.chunked and "Content-Length" not in reply.headers:
            self.send_header("Content-Length", str(len(reply.body) + reply.cut))
        self.end_headers()
        if self.command == "HEAD":
            return
        if not reply.stall:
            self.wfile.write(reply.body)
            return
        self.wfile.write(reply.body[: len(reply.body) // 2])
        self.wfile.flush()
        self._web.ended.wait(30)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


def git(folder: Path, *words: str) -> str:
    """Run git as somebody, at a fixed time."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _SOMEBODY.items()}
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **who}
    done = subprocess.run(
        ["git", "-C", folder, *words], env=environment, check=True, capture_output=True, text=True, umask=0o022
    )
    return done.stdout.strip()


_SOMEBODY = {"NAME": "somebody", "EMAIL": "somebody@example.com", "DATE": f"{EPOCH} +0000"}


def commit(work: Path, files: Mapping[str, str], *, tag: str = "") -> str:
    """Commit ``files`` in the repository at ``work``, which is made if it is absent; the commit."""
    if not work.exists():
        work.mkdir()
        git(work, "init", "--quiet", "-b", "main")
    for name, content in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(content)
    git(work, "add", ".")
    git(work, "commit", "--quiet", "--allow-empty", "-m", "a commit")
    if tag:
        git(work, "tag", "-a", tag, "-m", tag)
    return git(work, "rev-parse", "HEAD")


def publish(work: Path, web: Web, name: str) -> str:
    """Serve the repository at ``work`` as plain files; its URL."""
    bare = web.folder / f"{name}.git"
    subprocess.run(["rm", "-rf", bare], check=True)
    git(work, "clone", "--quiet", "--bare", str(work), str(bare))
    git(bare, "update-server-info")
    return web.url(f"{name}.git")


@contextmanager
def ssh_server(program: Callable[[str], str], folder: Path, *, lets_in: Path) -> Iterator[int]:
    """The port of an SSH server that lets root in with the public key ``lets_in``; ``folder`` is empty."""
    keygen = (program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder / "host")
    subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": lets_in,
        "ListenAddress": f"127.0.0.1:{port}",
        "PermitRootLogin": "prohibit-password",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PidFile": "none",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks itself in; it starts by its whole path only
    running = subprocess.Popen([program("sshd"), "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port))
        yield port
    finally:
        running.terminate()
        running.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
