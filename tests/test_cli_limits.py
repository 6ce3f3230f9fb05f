"""``--memory`` and its like: what a command may use, and what is said when it wanted more."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from support import Layerbuild
from traces import processes, wait_until

from layerbuild.isolate.cgroups import remedy

pytestmark = pytest.mark.machine


def failing(layerbuild: Layerbuild, context: Path, line: str, *options: str) -> str:
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {line}\n")
    return layerbuild.run("build", *options, context, code=1).stderr


def groups() -> list[str]:
    """The control groups of builds that are over. One that another test has killed leaves some, for a moment: the next
    build removes them."""
    found = Path("/sys/fs/cgroup").rglob("layerbuild-*-*")
    return [str(path) for path in found if not Path("/proc", path.name.split("-")[1]).exists()]


def test_memory(rooted: Layerbuild, context: Path) -> None:
    said = failing(rooted, context, "tail -c 100000000 /dev/zero", "-m", "24m")
    assert "it wanted more memory than --memory allows; exit code: 137" in said or "killed by SIGKILL" in said
    assert "more memory than --memory" in said
    assert "hint: give it more: --memory; look around in it" in said
    child = failing(rooted, context, "tail -c 100000000 /dev/zero || exit 5", "--memory", "24m", "--memory-swap", "24m")
    assert "it wanted more memory than --memory allows; exit code: 5" in child
    assert rooted.build(context, "FROM busybox\nRUN head -c 1000000 /dev/zero | wc -c\n", "--memory", "1g")
    wait_until(lambda: groups() == [])


def test_processes(rooted: Layerbuild, context: Path) -> None:
    line = "for i in 1 2 3 4 5 6 7 8 9; do sleep 3 & done; wait"
    said = failing(rooted, context, line, "--pids-limit", "6")
    assert "it wanted more processes than --pids-limit allows; exit code: 2" in said
    wait_until(lambda: groups() == [])


def test_processors(rooted: Layerbuild, context: Path) -> None:
    mark = f"{random.randrange(10**8, 10**9)}"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN sleep {mark}\n")
    with rooted.start("build", "--cpus", "0.1", context) as build:
        wait_until(lambda: processes(mark) or build.poll() is not None, seconds=60)  # it gets a tenth of them
        told = Path(f"/proc/{processes(mark)[0]}/cgroup").read_text()
        paths = {name: path for line in told.splitlines() for _, names, path in [line.split(":", 2)]
                 for name in names.split(",")}  # fmt: skip
        if "cpu" in paths:
            assert Path(f"/sys/fs/cgroup/cpu{paths['cpu']}/cpu.cfs_quota_us").read_text() == "10000\n"
        else:
            assert Path(f"/sys/fs/cgroup{paths['']}/cpu.max").read_text() == "10000 100000\n"
        build.terminate()
    wait_until(lambda: groups() == [])


def test_time(layerbuild: Layerbuild, context: Path) -> None:
    began = time.monotonic()
    said = failing(layerbuild, context, "echo begun; trap '' TERM; sleep 1000 & sleep 1000", "--timeout", "1.5s")
    assert time.monotonic() - began < 30
    assert "| begun\n" in said
    assert "it took longer than --timeout allows; killed by SIGKILL, exit code: 124" in said
    assert "give it more: --timeout" in said


def test_limits_of_one_process_that_end_it(layerbuild: Layerbuild, context: Path) -> None:
    """Pid 1, and a child of it; and who is killed otherwise ran into none."""
    for line in ("while :; do :; done", "(while :; do :; done); exit $?"):
        said = failing(layerbuild, context, line, "--ulimit", "cpu=1")
        assert "it kept a processor busy for longer than --ulimit cpu allows; " in said
        assert "hint: give it more: --ulimit cpu; look around in it" in said
    said = failing(layerbuild, context, "head -c 20000 /dev/zero > /x; exit $?", "--ulimit", "fsize=10000")
    assert "it wanted a larger file than --ulimit fsize allows; " in said
    said = failing(layerbuild, context, "sh -c 'kill -9 $$'; exit $?", "--ulimit", "cpu=5", "--ulimit", "fsize=10000")
    assert "--ulimit" not in said


def test_what_a_process_may_and_shared_memory(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN ulimit -n; ulimit -Hn; df -k /dev/shm | tail -n 1 | tr -s ' '\n"
    said = layerbuild.build(context, recipe, "--ulimit", "nofile=64:128", "--shm-size", "2m")
    assert "| 64\n" in said
    assert "| 128\n" in said
    assert " 2048 0 2048 " in said
    too_large = "dd if=/dev/zero of=/dev/shm/x bs=1024 count=3000"
    assert "No space left" in failing(layerbuild, context, too_large, "--shm-size", "2m")
    large = failing(layerbuild, context, "dd if=/dev/zero of=/file bs=1024 count=100", "--ulimit", "fsize=1000")
    assert "exit code" in large


def test_limits_of_a_container(layerbuild: Layerbuild) -> None:
    assert layerbuild("run", "--ulimit", "nofile=77", "busybox", "sh", "-c", "ulimit -n") == "77\n"
    assert layerbuild.run("run", "--timeout", "1", "busybox", "sleep", "60", code=137)


def test_a_limit_that_this_user_can_not_set(layerbuild: Layerbuild, context: Path) -> None:
    if not layerbuild.rootless:
        return  # root can
    (context / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    for option in (("--memory", "64m"), ("--cpus", "1"), ("--pids-limit", "10")):
        refused = layerbuild.run("build", *option, context, code=77)
        assert "no control group for" in refused.stderr
        assert f"hint: {remedy()}" in refused.stderr
    hard = layerbuild.run("build", "--ulimit", "nofile=100000000", context, code=77)
    assert "this user may have" in hard.stderr


WRONG = [
    (("--memory", "5m"), "--memory 5m is too little"),
    (("--memory", "many"), "--memory can't be 'many'"),
    (("--memory-swap", "1g"), "--memory-swap says nothing without --memory"),
    (("--memory", "1g", "--memory-swap", "512m"), "--memory-swap is less than --memory"),
    (("--cpus", "0"), "--cpus can't be '0'"),
    (("--cpus", "nan"), "--cpus can't be 'nan'"),
    (("--pids-limit", "x"), "--pids-limit can't be 'x'"),
    (("--ulimit", "files=3"), "there is no limit 'files'"),
    (("--ulimit", "nofile"), "--ulimit can't be 'nofile'"),
    (("--ulimit", "nofile=3:2"), "the soft limit is above the hard one"),
    (("--ulimit", "nofile=-1:2"), "the soft limit is above the hard one"),
    (("--shm-size", "0"), "--shm-size can't be '0'"),
    (("--timeout", "soon"), "--timeout can't be 'soon'"),
    (("--timeout", "0"), "--timeout can't be '0'"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_wrong_limits(rooted: Layerbuild, context: Path, options: tuple[str, ...], says: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    assert says in rooted.run("build", *options, context, code=2).stderr
