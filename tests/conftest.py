"""What all tests share: programs that must be there, and the command line run as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import forkserver
import places
import pytest
import registries
from hypothesis import settings
from loopback import Web
from places import fresh
from stores import Templates, write_busybox
from support import PROJECT, USER, Layerbuild, missing

from layerbuild.isolate import linux

# How long an example takes depends on what else the machine does; speed is shown in bench/.
settings.register_profile("layerbuild", deadline=None)
settings.load_profile("layerbuild")

_counter = iter(range(1_000_000))


def pytest_configure() -> None:
    """As root each process of the tests has its mounts to itself: none that others make come and go in it, and its own
    end with it. What a shell has what it runs in the background ignore, and nohup(1), stops a build here all the
    same."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    if os.geteuid() == 0:
        linux.unshare(linux.CLONE_NEWNS)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def pytest_unconfigure() -> None:
    places.remove()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Under LAYERBUILD_REQUIRE=all every skip is a failure: there a check that did not run must not look green. Only
    the corpus of other builders' cases, which is no part of the project, may be absent."""
    outcome = yield
    report = outcome.get_result()
    expected = hasattr(report, "wasxfail")  # for pytest a failure that was expected is skipped, too
    if report.skipped and not expected and os.environ.get("LAYERBUILD_REQUIRE") == "all":
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "corpus absent" not in reason:
            report.outcome, report.longrepr = "failed", f"LAYERBUILD_REQUIRE=all: {reason}"


@pytest.fixture(scope="module", autouse=True)
def _forked(request: pytest.FixtureRequest) -> Iterator[None]:
    with forkserver.used() if request.node.get_closest_marker("forked") is not None else nullcontext():
        yield


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """The path of a program; the test is skipped where it is absent."""

    def find(name: str) -> str:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path is None:
            missing(f"{name} is not installed (`make test` names the packages)")
        return str(path)

    return find


@pytest.fixture(scope="session")
def as_user() -> Iterator[Callable[[Path], Layerbuild]]:
    """Makes a Layerbuild that runs as an ordinary user without ranges of ids, whoever runs the tests."""
    if os.geteuid() != 0:
        yield lambda root: Layerbuild(root, rootless=True)
        return
    with _elsewhere() as (binds, python, env):
        yield lambda root: Layerbuild(root, _becoming(binds), python, env, rootless=True)


@pytest.fixture(scope="session")
def as_ranged(program: Callable[[str], str]) -> Iterator[Callable[[Path], Layerbuild]]:
    """Makes a Layerbuild that runs as an ordinary user who has ranges of ids. The files that say so are mounted, for
    that process alone, over the machine's own."""
    if os.geteuid() != 0:
        missing("not run as root")
    program("newuidmap")
    with _elsewhere() as (binds, python, env):
        folder = Path(env["PYTHONHOME"]).parent
        said = {
            "passwd": f"root:x:0:0::/root:/bin/sh\ntester:x:{USER}:{USER}::/nonexistent:/bin/sh\n",
            "subuid": "tester:200000:65536\n",
            "subgid": f"other:5:1\n{USER}:300000:65536\n",
        }
        for name, text in said.items():
            (folder / name).write_text(text)
        mounts = [binds, *(f"mount --bind '{folder / name}' '/etc/{name}'" for name in said)]
        yield lambda root: Layerbuild(root, _becoming(" && ".join(mounts)), python, env, rootless=True)
        for name in said:
            (folder / name).unlink()


def _becoming(mounts: str) -> tuple[str, ...]:
    become = f'exec setpriv --reuid {USER} --regid {USER} --clear-groups -- "$@"'
    return ("unshare", "--mount", "sh", "-c", f"{mounts} && {become}", "sh")


@contextmanager
def _elsewhere() -> Iterator[tuple[str, tuple[str, ...], dict[str, str]]]:
    """The interpreter and the project may lie where only root can look: what shows them elsewhere, for one process
    alone, the interpreter there, and its environment."""
    public = fresh("user")
    places = {
        "python": Path(sys.base_prefix),
        "project": PROJECT,
        "packages": Path(sysconfig.get_path("purelib")),
    }
    for name in places:
        (public / name).mkdir(parents=True, exist_ok=True)
    binds = " && ".join(f"mount --bind '{path}' '{public / name}'" for name, path in places.items())
    env = {
        "PYTHONHOME": str(public / "python"),
        "PYTHONPATH": f"{public / 'project'}:{public / 'packages'}",
        "LD_LIBRARY_PATH": str(public / "python" / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = public / "python" / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield binds, (str(python),), env
    for name in places:
        (public / name).rmdir()  # only ever mount points: nothing is removed through them
    public.rmdir()


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Path:
    """The root file system of a small image: busybox with a link for each of its programs."""
    path = tmp_path_factory.mktemp("busybox") / "rootfs.tar"
    write_busybox(program("busybox"), path)
    return path


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Iterator[registries.Registry]:
    """A registry on loopback that anybody may read and write."""
    with registries.running(program("docker-registry"), tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def closed_registry(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]
) -> Iterator[registries.Registry]:
    """A registry on loopback that wants ``registries.USER`` and ``registries.PASSWORD``."""
    folder = tmp_path_factory.mktemp("closed-registry")
    with registries.running(program("docker-registry"), folder, htpasswd=program("htpasswd")) as running:
        yield running


@pytest.fixture(scope="session")
def templates(
    request: pytest.FixtureRequest, as_user: Callable[[Path], Layerbuild], busybox_tar: Path
) -> Iterator[Templates]:
    make = {"root": Layerbuild, "user": as_user, "ranged": lambda root: request.getfixturevalue("as_ranged")(root)}
    yield Templates(fresh("stores"), fresh("stores", in_memory=True), make, busybox_tar)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A web server on loopback, of the files in its ``www``."""
    (tmp_path / "www").mkdir()
    with Web(tmp_path / "www") as web:
        yield web


def _in_memory(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("memory") is not None


@pytest.fixture(params=["root", "user"])
def layerbuild(request: pytest.FixtureRequest) -> Iterator[Layerbuild]:
    """The command line with a fresh store that holds ``busybox``, and ``base:host`` for tests that are marked with
    ``host``; each test runs as root and user."""
    if request.param == "root" and os.geteuid() != 0:
        missing("not run as root")
    yield from _fresh(request, request.param)


@pytest.fixture
def rooted(request: pytest.FixtureRequest) -> Iterator[Layerbuild]:
    """The same as root only, for what does not depend on the user."""
    if os.geteuid() != 0:
        missing("not run as root")
    yield from _fresh(request, "root")


def _fresh(request: pytest.FixtureRequest, who: str) -> Iterator[Layerbuild]:
    templates, in_memory = request.getfixturevalue("templates"), _in_memory(request)
    folder = (templates.memory if in_memory else templates.folder) / f"{who}-{next(_counter)}"
    host = request.node.get_closest_marker("host") is not None
    yield templates.copy(who, folder, in_memory=in_memory, host=host)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def context(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for a build context, readable by every user."""
    folder = fresh("context", in_memory=_in_memory(request))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
