"""Where control groups can be made, and what a limit is there, in both versions; plain folders stand for a kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import missing

from layerbuild.errors import MachineError
from layerbuild.isolate import cgroups
from layerbuild.isolate.cgroups import Group, Place, places, remedy, settings
from layerbuild.isolate.limits import Limits
from layerbuild.isolate.rlimits import Rlimit, reached

UNIFIED = "30 23 0:26 / {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
HYBRID = """\
31 30 0:27 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /docker/abc /sys/fs/cgroup/pids rw shared:12 - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw shared:13 - cgroup2 cgroup2 rw
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of version 2 as a user of systemd has it, in a scope that is lent to the user."""
    scope = tmp_path / "user.slice/run-1.scope"
    scope.mkdir(parents=True)
    for folder in (tmp_path, scope):
        (folder / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (folder / "cgroup.subtree_control").write_text("cpu memory pids\n")
        (folder / "cgroup.procs").write_text("")
    return tmp_path


def test_places_of_version_2(tree: Path) -> None:
    found = places(UNIFIED.format(point=tree), "0::/user.slice/run-1.scope\n")
    assert set(found) == {"cpuset", "cpu", "io", "memory", "pids"}
    assert found["memory"] == (Place(tree / "user.slice/run-1.scope", 2), Place(tree, 2))


def test_places_of_both_versions() -> None:
    found = places(HYBRID, "4:memory:/a/b\n3:cpu,cpuacct:/\n2:pids:/docker/abc/x\n1:name=systemd:/\n0::/\n")
    top = Path("/sys/fs/cgroup")
    assert found["memory"] == (Place(top / "memory/a/b", 1), Place(top / "memory", 1))
    assert found["cpu"] == (Place(top / "cpu,cpuacct", 1),)
    assert found["pids"] == (Place(top / "pids/x", 1), Place(top / "pids", 1))


def test_a_group_outside_of_what_is_mounted() -> None:
    """In a container's mount of its own group, a path of another namespace leads nowhere."""
    assert places(HYBRID, "2:pids:/elsewhere\n")["pids"] == (Place(Path("/sys/fs/cgroup/pids"), 1),)


def test_limits_in_files() -> None:
    found = settings(Limits(memory=100 << 20, cpus=1.5, pids=7))
    assert dict(found["memory", 1]) == {
        "memory.limit_in_bytes": "104857600",
        "memory.memsw.limit_in_bytes": "209715200",
    }
    assert dict(found["memory", 2]) == {"memory.max": "104857600", "memory.swap.max": "104857600"}
    assert dict(found["cpu", 1]) == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
    assert dict(found["cpu", 2]) == {"cpu.max": "150000 100000"}
    assert found["pids", 1] == found["pids", 2] == (("pids.max", "7"),)
    assert dict(settings(Limits(memory=1 << 20, memory_swap=1 << 20))["memory", 2])["memory.swap.max"] == "0"
    assert dict(settings(Limits(memory=1 << 20, memory_swap=-1))["memory", 2])["memory.swap.max"] == "max"
    assert settings(Limits(timeout=3)) == {}


def test_what_a_group_ran_into(tmp_path: Path) -> None:
    group = Group({"memory": tmp_path, "pids": tmp_path})
    assert group.hit(killed=True) == ()
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n")
    (tmp_path / "pids.events").write_text("max 3\n")
    assert group.hit(killed=False) == ("memory", "pids")
    (tmp_path / "memory.events").write_text("oom 0\noom_kill 0\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    (tmp_path / "memory.failcnt").write_text("33\n")
    assert (group.hit(killed=True), group.hit(killed=False)) == (("memory",), ())


def test_controllers_are_passed_on(tree: Path) -> None:
    usable = cgroups._usable("memory", (Place(tree, 2),), ("memory", "pids"))
    assert usable == Place(tree, 2)
    (tree / "cgroup.subtree_control").write_text("pids\n")
    cgroups._usable("memory", (Place(tree, 2),), ("memory", "pids"))
    assert (tree / "cgroup.subtree_control").read_text() == "+memory"  # the kernel would add it to the rest


def test_a_place_that_is_closed_is_told_with_the_next(tree: Path) -> None:
    with pytest.raises(MachineError) as caught:
        cgroups._usable("memory", (Place(tree / "absent", 2), Place(tree / "gone", 1)), ("memory",))
    assert f"{tree}/absent: No such file" in caught.value.message
    assert f"{tree}/gone: No such file" in caught.value.message
    assert caught.value.hint == remedy()
    with pytest.raises(MachineError, match="none is mounted"):
        cgroups._usable("memory", (), ("memory",))


def test_systemd_is_named_where_it_is_the_first_process(tmp_path: Path) -> None:
    assert "systemd-run --user --scope -p Delegate=yes" in remedy(tmp_path)
    assert remedy(tmp_path / "none") == "run layerbuild as root"


def test_version_2_where_it_is_mounted_already(tmp_path: Path) -> None:
    """As below the machine's /sys, which an ordinary user's container has bound."""
    if os.geteuid() != 0:
        missing("not run as root")
    for name in ("groups", "staging"):
        (tmp_path / name).mkdir()
    twice = f"""
from layerbuild.isolate.mounts import Filesystem
for _ in range(2):
    Filesystem("cgroup2", "/sys/fs/cgroup").attach("{tmp_path}/groups", staging="{tmp_path}/staging")
print(open("/proc/self/mountinfo").read().count(" {tmp_path}/groups "))
"""
    command = ("unshare", "--mount", sys.executable, "-c", twice)
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "2\n"


def test_a_kill_by_the_limit_of_processor_time() -> None:
    """The kernel counts ticks for it: on a busy machine the command had less run time than that."""
    assert reached([Rlimit("cpu", 1, 1)], code=137, cpu=0.86) == ("cpu",)
    assert reached([Rlimit("cpu", 5, 5)], code=137, cpu=0.1) == ()
