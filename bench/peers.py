"""Who builds: layerbuild, the peers that are installed, and the floor. One class each, one table.

A build here is from a context folder to an OCI archive with gzip layers. Each builder has a folder of its own on the
benchmark's file system, into which the base is imported before the clock starts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Bases:
    """The base images as OCI archives, by name."""

    archives: dict[str, Path]


class Builder(Protocol):
    """``prepare`` imports the bases; ``build`` makes ``out`` and is what is timed; ``close`` ends what still runs."""

    name: str

    def prepare(self, bases: Bases) -> None: ...
    def build(self, context: Path, out: Path, *, cache: bool) -> None: ...
    def daemons(self) -> tuple[int, ...]: ...
    def close(self) -> None: ...


def run(command: Iterable[str | Path], **options: object) -> None:
    """Run to the end; what it printed is shown if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


class Layerbuild:
    def __init__(self, folder: Path, *, codec: str = "gzip") -> None:
        self.name = "layerbuild" if codec == "gzip" else f"layerbuild {codec}"
        self._codec = codec
        self._command = [sys.executable, "-m", "layerbuild", "--root", str(folder / self.name.replace(" ", "-"))]

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            run([*self._command, "import", "--tag", name, archive])

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        codec = "" if self._codec == "gzip" else f",compression={self._codec}"
        options = [] if cache else ["--no-cache"]
        run([*self._command, "build", "-q", *options, "-o", f"type=oci,dest={out}{codec}", context])

    def daemons(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass


class Buildah:
    """Debian's crun refuses hybrid cgroups, so runc is asked for."""

    name = "buildah"

    def __init__(self, folder: Path) -> None:
        self._options = [
            "--root",
            folder / "buildah",
            "--runroot",
            folder / "buildah-run",
            "--storage-driver",
            "overlay",
        ]

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            run(["buildah", *self._options, "pull", f"oci-archive:{archive}"])
            listed = [*map(str, ["buildah", *self._options])]
            found = subprocess.run([*listed, "images", "-q", "--no-trunc"], capture_output=True, text=True, check=True)
            run(["buildah", *self._options, "tag", found.stdout.split()[0], f"localhost/{name}"])

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        command = (
            [self.name, *self._options, "--runtime", "runc"] if self.name == "podman" else [self.name, *self._options]
        )
        options: list[str | Path] = ["--layers", "--pull=never", "--network=host", "--isolation=oci"]
        options += ["--runtime", "runc"] if self.name == "buildah" else []
        options += [] if cache else ["--no-cache"]
        run([*command, "build", *options, "-t", "bench", context])
        run([*command, "push", "--format", "oci", "bench", f"oci-archive:{out}"])

    def daemons(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass


class Podman(Buildah):
    name = "podman"

    def __init__(self, folder: Path) -> None:
        self._options = [
            *("--root", folder / "podman", "--runroot", folder / "podman-run", "--storage-driver", "overlay"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "none"),
        ]

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            command = list(map(str, ["podman", *self._options, "pull", "-q", f"oci-archive:{archive}"]))
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            run(["podman", *self._options, "tag", found.stdout.split()[-1], f"localhost/{name}"])


class DockerClassic:
    """Docker's own builder, with a daemon that is started here; ``docker save`` exports, without compression."""

    name = "docker classic"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "docker"
        self._folder.mkdir()
        self._socket = f"unix://{self._folder}/socket"
        self._environment = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_HOST": self._socket}
        log = (self._folder / "log").open("wb")
        options = ["--data-root", self._folder / "data", "--exec-root", self._folder / "exec", "-H", self._socket]
        options += ["--pidfile", self._folder / "pid", "--iptables=false", "--ip6tables=false", "--bridge=none"]
        self._daemon = subprocess.Popen(["dockerd", *map(str, options)], stdout=log, stderr=log)
        end = time.monotonic() + 20
        while subprocess.run(["docker", "version"], env=self._environment, capture_output=True, check=False).returncode:
            if self._daemon.poll() is not None or time.monotonic() > end:
                self.close()
                last = (self._folder / "log").read_text(errors="replace").splitlines()[-1:]
                raise RuntimeError(f"dockerd does not start: {' '.join(last)[:200]}")
            time.sleep(0.2)

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            plain = archive.with_suffix(".docker.tar")
            run(["skopeo", "copy", f"oci-archive:{archive}", f"docker-archive:{plain}:{name}:latest"])
            run(["docker", "load", "-i", plain], env=self._environment)
            plain.unlink()

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        options = [] if cache else ["--no-cache"]
        run(["docker", "build", "--network=host", *options, "-t", "bench", context], env=self._environment)
        run(["docker", "save", "-o", out, "bench"], env=self._environment)

    def daemons(self) -> tuple[int, ...]:
        return (self._daemon.pid,)

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait()


class BuildKit:
    """Whatever ``buildctl`` reaches (BUILDKIT_HOST). Its store lies where its daemon put it."""

    name = "buildkit"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "buildkit"
        self._folder.mkdir()
        run(["buildctl", "debug", "workers"])
        self._bases: list[str] = []

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            layout = self._folder / name
            layout.mkdir()
            run(["tar", "-xf", archive, "-C", layout])
            digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
            self._bases += ["--oci-layout", f"{name}={layout}", "--opt", f"context:{name}=oci-layout://{name}@{digest}"]

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        options = [] if cache else ["--no-cache"]
        where = ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        output = ["--output", f"type=oci,dest={out},compression=gzip"]
        run(["buildctl", "build", "--frontend", "dockerfile.v0", *where, *options, *self._bases, *output])

    def daemons(self) -> tuple[int, ...]:
        found = subprocess.run(["pidof", "buildkitd"], capture_output=True, text=True, check=False)
        return tuple(map(int, found.stdout.split()))

    def close(self) -> None:
        pass


#: Which program must be there, and what it makes.
PEERS: dict[str, tuple[str, Callable[[Path], Builder]]] = {
    "layerbuild": ("", Layerbuild),
    "layerbuild zstd": ("", lambda folder: Layerbuild(folder, codec="zstd")),
    "buildkit": ("buildctl", BuildKit),
    "buildah": ("buildah", Buildah),
    "podman": ("podman", Podman),
    "docker classic": ("dockerd", DockerClassic),
}


def available(names: Iterable[str], folder: Path, bases: Bases, say: Callable[[str], None]) -> list[Builder]:
    """Those of ``names`` that work here; why another one does not is said."""
    found: list[Builder] = []
    for name in names:
        program, make = PEERS[name]
        if program and shutil.which(program) is None:
            say(f"{name}: left out, there is no {program}")
            continue
        builder: Builder | None = None
        try:
            builder = make(folder)
            builder.prepare(bases)
            found.append(builder)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            if builder is not None:
                builder.close()
            said = f"{error} {error.stderr}" if isinstance(error, subprocess.CalledProcessError) else str(error)
            say(f"{name}: left out: {said.strip()[-300:]}")
    return found
