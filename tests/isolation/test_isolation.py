"""Commands that try to get out of the sandbox or to see the machine: as root and as a user, and nothing comes of it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from attempts import EXPECTED, SHELL
from places import fresh
from stores import Templates
from support import USER, Layerbuild, missing
from traces import assert_whole, groups_left_behind, mounts, wait_until

pytestmark = pytest.mark.machine

SOURCE = Path(__file__).with_name("attempts.c")
TOKEN = "canary-of-the-machine"
RECIPE = f"""\
FROM busybox
ARG HOST_PID CANARY HOST_DISK HOST_KEY SHM_KEY ABSTRACT PORT
COPY attempts /bin/
RUN --mount=type=tmpfs,target=/mounted/tmpfs --mount=type=cache,target=/mounted/cache \\
    --mount=type=bind,target=/mounted/context --mount=type=bind,rw,target=/mounted/writable \\
    attempts processes mounts paths disk devices kernel namespaces network shared-network others chroot
RUN --network=none --mount=type=bind,target=/mounted/context \\
    PREFIX='alone: ' attempts network isolated-network
RUN --mount=type=bind,target=/mounted/context <<'EOF'
{SHELL}
EOF
COPY planted /links/folder/
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Path:
    """A folder with attempts.c as a static program, and a program whose dynamic loader is /proc/self/exe."""
    folder = tmp_path_factory.mktemp("attempts")
    gcc = program("gcc")
    subprocess.run([gcc, "-static", "-O1", "-o", folder / "attempts", SOURCE, "-lrt"], check=True)
    source = "int main(void) { return 0; }"
    command = [gcc, "-o", str(folder / "loaded"), "-Wl,--dynamic-linker=/proc/self/exe", "-x", "c", "-"]
    subprocess.run(command, input=source.encode(), check=True)
    return folder


@dataclass(frozen=True)
class Target:
    """What the attempts aim at, and who is to make them."""

    layerbuild: Layerbuild
    folder: Path
    environment: dict[str, str]

    @property
    def canary(self) -> Path:
        return self.folder / "canary"


@pytest.fixture(scope="module", params=["root", "user", "ranged"])
def target(request: pytest.FixtureRequest, templates: Templates) -> Iterator[Target]:
    if request.param == "root" and os.geteuid() != 0:
        missing("not run as root")
    folder = fresh("isolation") / "store"
    with ExitStack() as cleaning:
        cleaning.callback(shutil.rmtree, folder, ignore_errors=True)
        layerbuild = templates.copy(request.param, folder)
        (folder / "canary").write_text(TOKEN)
        owner = USER if layerbuild.rootless and os.geteuid() == 0 else os.geteuid()
        os.chown(folder / "canary", owner, owner)
        yield Target(layerbuild, folder, cleaning.enter_context(machine(folder, owner)))


@contextmanager
def machine(folder: Path, owner: int) -> Iterator[dict[str, str]]:
    """Things of this machine that nobody in a container should get at, as the variables of attempts.c."""
    libc = ctypes.CDLL(None, use_errno=True)
    become = {"user": owner, "group": owner, "extra_groups": ()} if owner != os.geteuid() else {}
    shared = Path("/dev/shm/layerbuild-canary")
    device = folder.stat().st_dev
    with ExitStack() as cleaning:
        victim = subprocess.Popen(["sleep", "1000"], **become)
        cleaning.callback(victim.wait)
        cleaning.callback(victim.kill)
        memory = libc.shmget(0x1A7E4B, 4096, 0o1666)  # IPC_CREAT
        cleaning.callback(libc.shmctl, memory, 0, None)  # IPC_RMID
        queue = ctypes.CDLL("librt.so.1", use_errno=True)
        assert queue.mq_open(b"/layerbuild-canary", os.O_CREAT | os.O_RDWR, 0o666, None) >= 0
        cleaning.callback(queue.mq_unlink, b"/layerbuild-canary")
        shared.write_text(TOKEN)
        cleaning.callback(shared.unlink)
        abstract = cleaning.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{folder}")
        service = cleaning.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract.listen()
        yield {
            "HOST_PID": str(victim.pid),
            "CANARY": str(folder / "canary"),
            "HOST_DISK": f"{os.major(device)}:{os.minor(device)}",
            "HOST_KEY": str(add_key(libc)),
            "SHM_KEY": str(0x1A7E4B),
            "ABSTRACT": str(folder),
            "PORT": str(service.getsockname()[1]),
        }
        assert victim.poll() is None, "a process of the machine was killed"
        assert "TracerPid:\t0" in Path(f"/proc/{victim.pid}/status").read_text()


def add_key(libc: ctypes.CDLL) -> int:
    """A key in this session's keyring, which every program started here shares: add_key(2)."""
    number = 248 if platform.machine() == "x86_64" else 217
    key = libc.syscall(number, b"user", b"layerbuild-canary", TOKEN.encode(), ctypes.c_size_t(len(TOKEN)), -3)
    assert key > 0, os.strerror(ctypes.get_errno())
    return int(key)


def state(target: Target) -> dict[str, object]:
    """What must be after all attempts as it was before."""
    names = ("kernel/core_pattern", "kernel/panic", "kernel/hostname")
    null, canary = os.stat("/dev/null"), target.canary.stat()
    return {
        "settings": [Path("/proc/sys", name).read_text() for name in names],
        "null": (null.st_mode, null.st_uid, null.st_gid),
        "canary": (target.canary.read_text(), canary.st_mode, canary.st_uid, canary.st_mtime_ns),
        "files": sorted(os.listdir(target.folder)),
        "mounts": own_mounts(target.folder),
        "loopback": Path("/sys/class/net/lo/flags").read_text(),
        "groups": groups_left_behind(),
    }


def own_mounts(folder: Path) -> list[str]:
    """All but those of other tests, which may come and go at this moment."""
    others = f" {tempfile.gettempdir()}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if others not in line or f" {folder}" in line]


@pytest.fixture(scope="module")
def results(target: Target, compiled: Path) -> dict[str, str]:
    """What the attempts said, by name."""
    context = target.folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(RECIPE)
    (context / "planted").write_text("planted")
    shutil.copy(compiled / "attempts", context)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(context / "socket"))
        (context / "socket").chmod(0o777)
        listening.listen()
        before, files = state(target), sorted(os.listdir(context))
        said = attempt(target, context)
    assert state(target) == before
    assert sorted(os.listdir(context)) == files
    wait_until(lambda: not mounts(target.layerbuild.root), seconds=2)
    return dict(re.findall(r"^ +\| (.*?): ([^:\n]+)$", said, re.MULTILINE))


def attempt(target: Target, context: Path) -> str:
    """Build ``context`` with an inherited descriptor of the machine's root, and a variable of the caller."""
    arguments = [word for pair in target.environment.items() for word in ("--build-arg", "=".join(pair))]
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    build = subprocess.run(
        target.layerbuild.command("build", "--progress", "plain", "-t", "attempts", *arguments, context),
        env={**target.layerbuild.environment(), "HOST_SECRET": TOKEN},
        pass_fds=(top,),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(top)
    assert build.returncode == 0, build.stderr
    return build.stderr


def test_there_are_many_attempts_and_each_is_made(results: dict[str, str]) -> None:
    assert len(EXPECTED) >= 30
    assert results.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_comes_of(name: str, results: dict[str, str]) -> None:
    wanted = EXPECTED[name]
    if name == "an abstract socket of the machine" and landlock() < 6:
        wanted = "SUCCEEDED"  # before Linux 6.12 only --network=none keeps from these: docs/differences.md
    assert results[name] in wanted.split(" or ")


def test_without_the_sandbox_the_attempts_succeed(target: Target, compiled: Path, results: dict[str, str]) -> None:
    """Else they would prove nothing: what stops them is the sandbox, and not a mistake in them."""
    context = target.folder / "insecure"
    context.mkdir()
    (context / "Dockerfile").write_text(
        f"FROM attempts\nENV HOST_DISK={target.environment['HOST_DISK']}\n"
        "RUN --security=insecure attempts devices namespaces; mount -t tmpfs none /tmp && echo mounted: yes\n"
    )
    said = target.layerbuild.run("build", "--allow", "security.insecure", context).stderr
    got = dict(re.findall(r"^ +\| (.*?): ([^:\n]+)$", said, re.MULTILINE))
    assert (got["a user namespace by unshare"], got["mounted"]) == ("SUCCEEDED", "yes")
    if not target.layerbuild.rootless:
        # A machine may have its own way to guard its disks, but that answers in its own words.
        assert got["the machine's disk, made in the root"] != "EACCES"


def landlock() -> int:
    """The version of Landlock: landlock_create_ruleset(2)."""
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1))


def test_links_that_a_step_leaves_lead_nowhere_outside(target: Target, results: dict[str, str]) -> None:
    assert not (target.folder / "planted").exists()
    said = target.layerbuild("run", "attempts", "sh", "-c", f"cat {target.folder}/planted; cat /link || echo nothing")
    assert said == "plantednothing\n"


def test_what_lies_below_is_as_it_was(target: Target, results: dict[str, str]) -> None:
    assert "changed" not in target.layerbuild("run", "busybox", "cat", "/etc/passwd")
    assert_whole(target.layerbuild.root)


def test_a_setuid_program_of_a_layer_is_out_of_others_reach(target: Target, results: dict[str, str]) -> None:
    (made,) = (target.layerbuild.root / "overlay2").glob("*/diff/setuid")
    assert made.stat().st_mode & 0o4000
    if os.geteuid() == 0:
        become = {"user": USER + 1, "group": USER + 1, "extra_groups": ()}
        assert subprocess.run(["test", "-e", made], check=False, **become).returncode == 1


def test_the_builders_own_program_is_no_dynamic_loader(target: Target, compiled: Path) -> None:
    """The other ways to it are in tests/isolate/test_isolate_run.py."""
    context = target.folder / "own"
    context.mkdir()
    shutil.copy(compiled / "loaded", context)
    (context / "Dockerfile").write_text('FROM busybox\nCOPY loaded /\nRUN ["/loaded"]\n')
    failed = target.layerbuild.run("build", context, code=1)
    assert "Dockerfile:3:1" in failed.stderr
    assert "is no program of the image" in failed.stderr
