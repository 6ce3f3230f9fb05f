"""What `docker load` takes from us, and we from `docker save`: with a daemon of the test's own.

Layers compressed with zstd are not among it: Docker 20.10, which Debian 12 has, does not read them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import Layerbuild, missing

if TYPE_CHECKING:
    from stores import Templates

RECIPE = """\
FROM busybox
RUN echo made > /made; rm /bin/wget; mkdir /new; ln /made /new/again
CMD ["cat", "/new/again"]
"""
_SECONDS = 60

Docker = Callable[..., str]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Iterator[Docker]:
    """The client of a daemon that lives as long as this module, and touches nothing of the machine's own."""
    client, daemon = program("docker"), program("dockerd")
    if os.geteuid() != 0:
        missing("not run as root")
    folder = tmp_path_factory.mktemp("docker")
    socket = f"unix://{folder}/socket"
    places = ("--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid", "-H", socket)
    apart = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([daemon, *places, *apart], stdout=log, stderr=log)

    def call(*arguments: str | Path) -> str:
        done = subprocess.run([client, "-H", socket, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {arguments}: {done.stderr}"
        return done.stdout

    try:
        _wait(process, [client, "-H", socket, "version"], folder / "log")
        yield call
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _wait(process: subprocess.Popen[bytes], ask: list[str], log: Path) -> None:
    for _ in range(_SECONDS * 2):
        if subprocess.run(ask, capture_output=True, check=False).returncode == 0:
            return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    lines = log.read_text().splitlines()[-3:]
    missing(f"dockerd does not start on this machine: {' '.join(lines)}")


@pytest.fixture(scope="module")
def built(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """An image, and archives of it, for all tests of this module."""
    if os.geteuid() != 0:
        missing("not run as root")
    folder, context = templates.folder / "docker", tmp_path_factory.mktemp("context")
    layerbuild = templates.copy("root", folder)
    plain = f"type=docker,dest={context}/none.tar,compression=none,force-compression=true"
    layerbuild.build(context, RECIPE, "-t", "built:1", "-o", f"type=docker,dest={context}/output.tar", "-o", plain)
    layerbuild("save", "-o", context / "saved.tar", "built:1", "busybox")
    yield Built(layerbuild, context)
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Built:
    layerbuild: Layerbuild
    archives: Path


def image_id(layerbuild: Layerbuild, name: str) -> str:
    return str(layerbuild.json("layers", name)["image_id"])


@pytest.mark.parametrize("archive", ["output.tar", "saved.tar", "none.tar"])
def test_docker_loads_and_runs_it(docker: Docker, built: Built, archive: str) -> None:
    assert "Loaded image: built:1" in docker("load", "-i", built.archives / archive)
    told = docker("image", "inspect", "--format", "{{.Id}}", "built:1").strip()
    assert told == image_id(built.layerbuild, "built:1")
    assert docker("run", "--rm", "--network", "none", "built:1") == "made\n"
    docker("rmi", "-f", "built:1")


def test_we_load_what_docker_saves(docker: Docker, built: Built, context: Path) -> None:
    docker("load", "-i", built.archives / "output.tar")
    docker("tag", "built:1", "theirs:2")
    docker("save", "-o", context / "saved.tar", "theirs:2", "built:1")
    other = Layerbuild(context / "store")
    said = set(other("load", "-i", context / "saved.tar").splitlines())
    assert said >= {"Loaded image: built:1", "Loaded image: theirs:2"}
    assert image_id(other, "theirs:2") == image_id(built.layerbuild, "built:1")
    assert other("run", "theirs:2") == "made\n"
