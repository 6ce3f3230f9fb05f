"""What `docker load` takes from us, and we from `docker save`: with a daemon of the test's own.

Layers compressed with zstd are not among it: Docker 20.10, which Debian 12 has, does not read them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import Layerbuild, missing

from bench.docker import Daemon

if TYPE_CHECKING:
    from stores import Templates

RECIPE = """\
FROM busybox
RUN echo made > /made; rm /bin/wget; mkdir /new; ln /made /new/again
CMD ["cat", "/new/again"]
"""


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Iterator[Daemon]:
    """A daemon that lives as long as this module, and touches nothing of the machine's own."""
    program("docker"), program("dockerd")
    if os.geteuid() != 0:
        missing("not run as root")
    try:
        daemon = Daemon(tmp_path_factory.mktemp("docker") / "daemon", options=("--storage-driver=vfs",))
    except RuntimeError as error:
        missing(str(error))
    yield daemon
    daemon.close()


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
def test_docker_loads_and_runs_it(docker: Daemon, built: Built, archive: str) -> None:
    assert "Loaded image: built:1" in docker("load", "-i", built.archives / archive)
    told = docker("image", "inspect", "--format", "{{.Id}}", "built:1").strip()
    assert told == image_id(built.layerbuild, "built:1")
    assert docker("run", "--rm", "--network", "none", "built:1") == "made\n"
    docker("rmi", "-f", "built:1")


def test_we_load_what_docker_saves(docker: Daemon, built: Built, context: Path) -> None:
    docker("load", "-i", built.archives / "output.tar")
    docker("tag", "built:1", "theirs:2")
    docker("save", "-o", context / "saved.tar", "theirs:2", "built:1")
    other = Layerbuild(context / "store")
    said = set(other("load", "-i", context / "saved.tar").splitlines())
    assert said >= {"Loaded image: built:1", "Loaded image: theirs:2"}
    assert image_id(other, "theirs:2") == image_id(built.layerbuild, "built:1")
    assert other("run", "theirs:2") == "made\n"
