"""The sandbox when it is killed, and stacks that are high or oddly named."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from isolate_world import World, fork_build, in_build, new_base, user_for

from layerbuild.errors import MachineError
from layerbuild.isolate.job import Exit, Job, Process, Rootfs, decode, encode
from layerbuild.isolate.mounts import MAX_LOWERS, Bind, File, Overlay, View, tmpfs
from layerbuild.isolate.namespaces import Identity
from layerbuild.layer.tree import remove_tree


def processes(mark: bytes) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def mounted(base: Path) -> list[str]:
    """All mounts in any process's namespace that name ``base``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            found += [line for line in path.read_text().splitlines() if str(base) in line]
        except OSError:
            continue
    return found


def wait_for(condition: object, seconds: float = 5.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.machine
@pytest.mark.parametrize("who", ["root", "user"])
def test_nothing_outlives_a_build_that_is_killed(who: str) -> None:
    user = user_for(who)
    base = new_base(user)
    mark = f"4{user + 100000}"

    def scenario(world: World) -> None:
        world.sh(f"sleep {mark} & sleep {mark}; true")

    pid, reader = fork_build(base, user, scenario)
    try:
        assert wait_for(lambda: len(processes(mark.encode())) >= 2)
        assert mounted(base)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert wait_for(lambda: not processes(mark.encode()) and not mounted(base), 1.0)
    finally:
        os.close(reader)
        remove_tree(base)


@in_build()
def test_the_host_sees_no_mount(world: World) -> None:
    seen: list[str] = []

    def look(data: bytes) -> None:
        # pid 1, or whatever started the tests, is in the host's own mount namespace.
        seen.extend(Path(f"/proc/{os.getppid()}/mountinfo").read_text().splitlines())

    world.sandbox.run(world.job("echo", "running"), look)
    assert seen
    assert not [line for line in seen if str(world.base) in line]


@in_build()
def test_a_hundred_and_fifty_lowers(world: World) -> None:
    layers = [
        world.base / f"a-folder-with-quite-a-long-name-so-that-a-page-would-not-hold-them-{n}" for n in range(150)
    ]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / str(number)).touch()
        (layer / "top").write_text(f"{number}\n")
    rootfs = world.rootfs(*layers, world.image)
    assert world.sh("ls / | wc -l; cat /top", rootfs=rootfs).split()[1] == "0"
    short = dataclasses.replace(world.rootfs(*layers, world.image), link_dir=str(world.base))
    assert world.sh("cat /149 /top", rootfs=short) == "0\n"


@in_build()
def test_short_links_are_lowers(world: World) -> None:
    (world.base / "l").mkdir()
    (world.base / "l/SHORT").symlink_to("../image")
    rootfs = dataclasses.replace(world.rootfs(world.base / "l/SHORT"), link_dir=str(world.base))
    assert "lowerdir" in world.sh("grep ' / ' /proc/mounts; grep -c l/SHORT /proc/mounts", rootfs=rootfs)


@in_build()
def test_paths_that_mean_something_to_mount(world: World) -> None:
    for name in ("a:b", "a,b", "a\\b", "a\\:b", "a b", "a=b", "ä\udc80"):
        folder = world.base / name
        shutil.copytree(world.image, folder / "image", symlinks=True)
        for sub in ("upper", "work", "merged"):
            (folder / sub).mkdir()
        lower, upper, work, merged = (str(folder / sub) for sub in ("image", "upper", "work", "merged"))
        for link_dir in (None, str(folder)):
            assert (
                world.sh("echo x >/x; cat /x", rootfs=Rootfs((lower,), upper, work, merged, link_dir=link_dir)) == "x\n"
            )
        assert (folder / "upper/x").read_text() == "x\n", name
        # What a kernel without lowerdir+ is given.
        overlay = Overlay((lower,), upper, work, merged, user_xattr=world.identity.user_xattr)
        overlay.attach_by_options()
        assert (folder / "merged/x").read_text() == "x\n", name


@in_build()
def test_the_printed_line_mounts_the_same(world: World) -> None:
    rootfs = world.rootfs()
    overlay = Overlay(
        rootfs.lowers,
        rootfs.upper,
        rootfs.work,
        rootfs.merged,
        user_xattr=world.identity.user_xattr,
        directory=str(world.base),
    )
    assert "lowerdir=image" in str(overlay)
    subprocess.run(["sh", "-c", str(overlay)], check=True)
    (Path(rootfs.merged) / "new").touch()
    assert os.listdir(rootfs.upper) == ["new"]


@in_build()
def test_an_upper_can_be_entered_again(world: World) -> None:
    rootfs = world.rootfs()
    world.sh("echo one >/x", rootfs=rootfs)
    assert world.sh("cat /x; echo two >>/x", rootfs=rootfs) == "one\n"
    assert (Path(rootfs.upper) / "x").read_text() == "one\ntwo\n"


@in_build()
def test_a_deleted_and_made_anew_folder_is_marked_as_the_identity_says(world: World) -> None:
    (world.image / "old").mkdir()
    (world.image / "old/file").touch()
    rootfs = world.rootfs()
    world.sh("rm -r /old; mkdir /old; rm /bin/tty", rootfs=rootfs)
    name = "user.overlay.opaque" if world.identity.user_xattr else "trusted.overlay.opaque"
    assert os.getxattr(f"{rootfs.upper}/old", name) == b"y"
    assert os.lstat(f"{rootfs.upper}/bin/tty").st_rdev == 0


def test_too_high_a_stack_is_refused_before_it_is_mounted() -> None:
    overlay = Overlay(("/lower",) * (MAX_LOWERS + 1), "/upper", "/work", "/merged")
    with pytest.raises(MachineError, match=f"at most {MAX_LOWERS}"):
        overlay.attach()


def test_options_longer_than_a_page_name_both_limits() -> None:
    lowers = tuple(f"/{'x' * 300}/{number}" for number in range(20))
    with pytest.raises(MachineError, match="4095") as caught:
        Overlay(lowers, "/upper", "/work", "/merged").attach()
    assert str(MAX_LOWERS) in caught.value.hint


def test_a_job_survives_its_journey() -> None:
    job = Job(
        Rootfs(("/a", "/b"), "/u", "/w", "/m", link_dir="/l"),
        Process(("sh", "-c", "\udcff"), (("A", "é"),), groups=(1, 2)),
        mounts=(
            Bind("/x", "/y", read_only=True),
            View(("/a", "/b"), "c", "/scratch", "/v", is_folder=True),
            File("/f", bytes(range(256))),
            tmpfs("/t", size=5),
        ),
        network="none",
    )
    identity = Identity(True, True, True, 5, 6)
    assert decode(encode((job, identity))) == (job, identity)
    assert decode(encode(Exit(1, 2, 0.5, 3))) == Exit(1, 2, 0.5, 3)
