"""A Docker daemon of one's own: Debian's of this release, or a newer one that ``make docker`` has unpacked.

The newer one brings today's BuildKit. It keeps images in containerd, so that it can export OCI archives.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: Where ``make docker`` unpacks Debian's newest docker.io, in the virtual environment.
NEWEST = Path(sys.prefix) / "docker"

_SECONDS = 60


class Daemon:
    """dockerd with all that it keeps below ``folder``; it changes nothing of the machine's network.

    ``root`` is the folder that its programs are unpacked in, the machine's own if None. Raises RuntimeError if it does
    not start, OSError if it isn't there.
    """

    def __init__(self, folder: Path, *, root: Path | None = None, options: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "log"
        self._run = tempfile.TemporaryDirectory(prefix="lb-", dir="/run")  # a socket's path has to be short
        socket = f"unix://{self._run.name}/socket"
        path = os.environ["PATH"] if root is None else f"{root}/usr/sbin:{root}/usr/bin:{os.environ['PATH']}"
        # The client in its own package's place: another one of that name may come first on the path.
        found = shutil.which("dockerd", path=f"{path}:/usr/sbin")
        if found is None:
            raise FileNotFoundError("there is no dockerd")
        self.client = str(Path(found).parent.parent / "bin/docker")
        self.environment = {**os.environ, "PATH": path, "DOCKER_HOST": socket, "DOCKER_CONFIG": str(folder / "client")}
        plugins = folder / "client/cli-plugins"
        plugins.mkdir(parents=True)
        if root is not None:
            (plugins / "docker-buildx").symlink_to(root / "usr/libexec/docker/cli-plugins/docker-buildx")
        settings = {"features": {"containerd-snapshotter": True}} if root is not None else {}
        (folder / "daemon.json").write_text(json.dumps(settings))
        command = [found, "--config-file", folder / "daemon.json", "--pidfile", f"{self._run.name}/pid", "-H", socket]
        command += ["--data-root", folder / "data", "--exec-root", f"{self._run.name}/exec"]
        command += ["--iptables=false", "--ip6tables=false", "--bridge=none", *options]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=self.environment)
        self._wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def version(self) -> str:
        """Of the daemon, as it says."""
        return self("version", "--format", "{{.Server.Version}}").strip()

    def __call__(self, *arguments: str | Path) -> str:
        """Standard output of the client; RuntimeError with its standard error if it fails."""
        words = [self.client, *map(str, arguments)]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"[-4000:])
        return done.stdout

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(_SECONDS)
        for mounted in Path(self._run.name, "exec/netns").glob("*"):  # the host's network, after a step that had it
            subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)
        self._run.cleanup()

    def _wait(self) -> None:
        end = time.monotonic() + _SECONDS
        while True:
            try:
                self("version")
                return
            except RuntimeError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.close()
                    lines = self._log.read_text(errors="replace").splitlines()
                    raise RuntimeError(f"dockerd does not start: {' '.join(lines[-3:])[:600]}") from None
            time.sleep(0.2)
