"""Who builds: layerbuild and the peers that are installed. One class each, one table.

A build here is from a context folder to an OCI archive with gzip layers. Each builder has a folder of its own on the
benchmark's file system, into which the base is imported before the clock starts.
"""

from __future__ import annotations

import compileall
import json
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.docker import NEWEST, Daemon


@dataclass(frozen=True, slots=True)
class Bases:
    """The base images as OCI archives, by name."""

    archives: dict[str, Path]


class Builder(ABC):
    """``name`` tells the version."""

    name: str

    @abstractmethod
    def prepare(self, bases: Bases) -> None:
        """Import the bases."""

    @abstractmethod
    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        """Make ``out``: this is what is timed."""

    def forget(self) -> None:  # noqa: B027
        """Drop what earlier workloads have left, the cache too."""

    def daemons(self) -> tuple[int, ...]:
        """The processes that work for it and aren't its children."""
        return ()

    def close(self) -> None:  # noqa: B027
        """End what still runs."""


def compile_layerbuild() -> None:
    """As pip does with what it installs: in a source tree, with PYTHONDONTWRITEBYTECODE set, each start would do it."""
    compileall.compile_dir(Path(__file__).parent.parent / "layerbuild", quiet=1)


def run(command: Iterable[str | Path]) -> str:
    """Run to the end; its standard output. What it printed is shown if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


class Layerbuild(Builder):
    """This one; ``codec`` compresses its layers."""

    def __init__(self, folder: Path, *, codec: str = "gzip") -> None:
        self.name = "layerbuild" if codec == "gzip" else f"layerbuild {codec}"
        self._codec = codec
        self._command = [sys.executable, "-m", "layerbuild", "--root", str(folder / self.name.replace(" ", "-"))]

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            run([*self._command, "import", "--tag", name, archive])

    def forget(self) -> None:
        run([*self._command, "prune", "--all"])

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        codec = "" if self._codec == "gzip" else f",compression={self._codec}"
        options = ["--max-layers=1000", *([] if cache else ["--no-cache"])]
        run([*self._command, "build", "-q", *options, "-o", f"type=oci,dest={out}{codec}", context])


class Containers(Builder):
    """buildah and podman. Debian's crun refuses hybrid cgroups, so runc is asked for."""

    def __init__(self, folder: Path, program: str, *more: str) -> None:
        self._run = tempfile.TemporaryDirectory(prefix="lb-", dir="/run")  # no longer than podman and sockets take
        places = ("--root", folder / program, "--runroot", self._run.name, "--storage-driver", "overlay")
        self._command = [program, *map(str, places), *more]
        self._runtime = ["--runtime", "runc"]
        if program == "podman":  # it has that option for all commands
            self._command += self._runtime
            self._runtime = []
        self.name = f"{program} {run([program, '--version']).split()[2]}"

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            image = run([*self._command, "pull", "-q", f"oci-archive:{archive}"]).split()[-1]
            run([*self._command, "tag", image, f"localhost/{name}"])

    def forget(self) -> None:
        if run([*self._command, "images", "-q", "--filter", "reference=localhost/bench:latest"]).strip():
            run([*self._command, "rmi", "--force", "localhost/bench:latest"])
        run([*self._command, *(["rmi", "--prune"] if self._runtime else ["image", "prune", "--force"])])

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        options: list[str | Path] = ["--layers", "--pull=never", "--network=host", "--isolation=oci", *self._runtime]
        options += [] if cache else ["--no-cache"]
        run([*self._command, "build", *options, "-t", "bench", context])
        run([*self._command, "push", "--format", "oci", "bench", f"oci-archive:{out}"])

    def close(self) -> None:
        self._run.cleanup()


class Docker(Builder):
    """A daemon that is started here. That of Debian 12 has no OCI export: ``docker save`` makes an archive of plain
    layers there, which is less work. Today's writes an OCI archive itself."""

    def __init__(self, folder: Path, *, buildkit: bool, root: Path | None = None) -> None:
        if root is not None and not root.exists():
            raise RuntimeError("not unpacked; `make docker` does it")
        self._exports = root is not None
        kind = "buildkit" if buildkit else "classic"
        self._daemon = Daemon(folder / f"docker-{kind}{'-newest' * self._exports}", root=root)
        self._daemon.environment["DOCKER_BUILDKIT"] = "1" if buildkit else "0"
        self.name = f"{kind} (docker {self._daemon.version()})"

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            if self._exports:
                loaded = self._daemon("load", "-q", "-i", archive).split()[-1]
                self._daemon("tag", loaded, name)
                continue
            plain = archive.with_suffix(".docker.tar")
            run(["skopeo", "copy", f"oci-archive:{archive}", f"docker-archive:{plain}:{name}:latest"])
            self._daemon("load", "-i", plain)
            plain.unlink()

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        options: list[str | Path] = ["--network=host"]
        options += [] if cache else ["--no-cache"]
        if self._exports:
            output = f"type=oci,dest={out},compression=gzip"
            self._daemon("build", *options, "--provenance=false", "--output", output, context)
        else:
            self._daemon("build", *options, "-t", "bench", context)
            self._daemon("save", "-o", out, "bench")

    def forget(self) -> None:
        if "buildkit" in self.name:
            self._daemon("builder", "prune", "--all", "--force")
        self._daemon("image", "prune", "--force")

    def daemons(self) -> tuple[int, ...]:
        return (self._daemon.pid,)

    def close(self) -> None:
        self._daemon.close()


# Mounted for the command alone: repack would take it for the image's. W9 asks the network.
_IN_CHROOT = """mount --rbind /dev "$0"/dev
for name in hosts resolv.conf; do
  [ -e "$0"/etc/$name ] || { mkdir -p "$0"/etc && : > "$0"/etc/$name; }
  mount --bind /etc/$name "$0"/etc/$name
done
chroot "$0" sh -c "$1"
"""


class Umoci(Builder):
    """It knows no recipes: a script unpacks the base, carries each step out under chroot and repacks what has changed.
    Recipes of one stage only, and no cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "umoci"
        self._folder.mkdir()
        self._turn = 0
        self.name = f"umoci {run(['umoci', '--version']).split()[2]}"

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            run(["skopeo", "copy", f"oci-archive:{archive}", f"oci:{self._folder}/{name}:base"])

    def forget(self) -> None:
        for kind in ("layout", "bundle"):
            run(["rm", "-rf", *self._folder.glob(f"{kind}-*")])

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        (_, base), *steps = (line.split(maxsplit=1) for line in (context / "Dockerfile").read_text().splitlines())
        base = base.split()[0]
        if cache or any(keyword == "FROM" for keyword, _ in steps):
            raise RuntimeError("umoci has no cache, and this script no stages")
        self._turn += 1
        layout, bundle = (self._folder / f"{kind}-{self._turn}" for kind in ("layout", "bundle"))
        root = bundle / "rootfs"
        run(["cp", "-r", self._folder / base, layout])
        run(["umoci", "unpack", "--image", f"{layout}:base", bundle])
        for keyword, rest in steps:
            if keyword == "RUN":
                run(["unshare", "-m", "sh", "-c", _IN_CHROOT, root, rest])
            elif keyword == "COPY":
                source, dest = rest.split()
                (root / dest.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                run(["cp", "-r", context / source, root / dest.lstrip("/")])
            if keyword in ("RUN", "COPY"):
                run(["umoci", "repack", "--refresh-bundle", "--image", f"{layout}:base", bundle])
        run(["tar", "-C", layout, "-cf", out, "."])


class BuildKit(Builder):
    """Whatever ``buildctl`` reaches (BUILDKIT_HOST). Its store lies where its daemon put it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "buildkit"
        self._folder.mkdir()
        run(["buildctl", "debug", "workers"])
        self.name = f"buildkit {run(['buildctl', '--version']).split()[2]}"
        self._bases: list[str] = []

    def prepare(self, bases: Bases) -> None:
        for name, archive in bases.archives.items():
            layout = self._folder / name
            layout.mkdir()
            run(["tar", "-xf", archive, "-C", layout])
            digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
            self._bases += ["--oci-layout", f"{name}={layout}", "--opt", f"context:{name}=oci-layout://{name}@{digest}"]

    def forget(self) -> None:
        run(["buildctl", "prune", "--all"])

    def build(self, context: Path, out: Path, *, cache: bool) -> None:
        options = [] if cache else ["--no-cache"]
        where = ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        output = ["--output", f"type=oci,dest={out},compression=gzip"]
        run(["buildctl", "build", "--frontend", "dockerfile.v0", *where, *options, *self._bases, *output])

    def daemons(self) -> tuple[int, ...]:
        found = subprocess.run(["pidof", "buildkitd"], capture_output=True, text=True, check=False)
        return tuple(map(int, found.stdout.split()))


_WITHOUT_SYSTEMD = ("--cgroup-manager=cgroupfs", "--events-backend=none")

#: Which program must be there, and what it makes.
PEERS: dict[str, tuple[str, Callable[[Path], Builder]]] = {
    "layerbuild": ("", Layerbuild),
    "layerbuild zstd": ("", lambda folder: Layerbuild(folder, codec="zstd")),
    "buildkit": ("buildctl", BuildKit),
    "docker": ("skopeo", lambda folder: Docker(folder, buildkit=True, root=NEWEST)),
    "docker-debian": ("dockerd", lambda folder: Docker(folder, buildkit=True)),
    "docker-classic": ("dockerd", lambda folder: Docker(folder, buildkit=False)),
    "buildah": ("buildah", lambda folder: Containers(folder, "buildah")),
    "podman": (
        "podman",
        lambda folder: Containers(folder, "podman", "--cgroup-manager=cgroupfs", "--events-backend=none"),
    ),
    "umoci": ("umoci", Umoci),
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
        except (OSError, RuntimeError) as error:
            if builder is not None:
                builder.close()
            say(f"{name}: left out: {str(error).strip()[-300:]}")
    return found
