"""Real registries on loopback, for tests: Debian's docker-registry, open or behind a password."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "somebody", "a secret: never shown"


@dataclass(frozen=True)
class Registry:
    """A registry that listens. ``folder`` has its blobs; ``log`` is what it was asked, as it wrote it down."""

    host: str
    folder: Path
    log: Path

    def name(self, repository: str) -> str:
        return f"{self.host}/{repository}"

    def requests(self, start: int = 0) -> list[str]:
        """``METHOD /path`` of each request since the position ``start`` of its log, in order."""
        lines = self.log.read_bytes()[start:].decode().splitlines()
        return [line.split('"')[1].rpartition(" ")[0] for line in lines if " HTTP/1.1" in line and '"' in line]

    @property
    def position(self) -> int:
        """The end of its log."""
        return self.log.stat().st_size


@contextmanager
def running(program: str, folder: Path, *, htpasswd: str = "") -> Iterator[Registry]:
    """Run docker-registry with its files in ``folder``; ``htpasswd`` is the program that makes the password file."""
    port = _free_port()
    config = f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}/files\n  delete:\n    enabled: true\n"
    config += f"http:\n  addr: 127.0.0.1:{port}\nlog:\n  level: warn\n"
    if htpasswd:
        made = subprocess.run([htpasswd, "-Bbn", USER, PASSWORD], capture_output=True, check=True).stdout
        (folder / "users").write_bytes(made)
        config += f"auth:\n  htpasswd:\n    realm: tests\n    path: {folder}/users\n"
    (folder / "config.yml").write_text(config)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=output, stderr=output)
        try:
            _wait_for(port, process)
            yield Registry(f"127.0.0.1:{port}", folder / "files", log)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/")
            connection.getresponse()
            return
        except OSError:
            assert process.poll() is None, "the registry has ended"
            time.sleep(0.05)
    raise AssertionError("the registry does not listen")
