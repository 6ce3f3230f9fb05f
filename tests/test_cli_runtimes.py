"""``build --isolation``: an OCI runtime makes the same containers, and so the same layers."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import Templates
from support import Layerbuild, compile_setter
from traces import assert_whole, mounts, processes, wait_until

from layerbuild.isolate import cgroups
from layerbuild.isolate.capabilities import held

pytestmark = pytest.mark.machine

RECIPE = """\
FROM busybox
ENV GREETING=hello
WORKDIR /app
RUN echo "$GREETING from $(id -u) in $PWD" > said; mkdir -m 750 /made; rm -r /home; ln said again
RUN --mount=type=bind,target=/context --mount=type=cache,target=/cache --mount=type=tmpfs,target=/scratch \\
    --mount=type=secret,id=token --mount=type=bind,from=busybox,rw,target=/other \\
    cp /context/file here; echo x > /cache/x; echo y > /scratch/y; rm /other/etc/passwd; \\
    cat /run/secrets/token | wc -c > length
RUN <<EOF
grep -e NoNewPrivs -e Seccomp: -e CapInh -e CapAmb /proc/self/status > rights
ls /dev /proc/acpi /sys/firmware > seen 2>/dev/null
hostname; cat /etc/hosts; ulimit -c
EOF
RUN --security=insecure mount -t tmpfs none /tmp
RUN --network=none ls /sys/class/net; ! echo x 2>/dev/null > /proc/sys/kernel/panic
"""


def installed(name: str, program: Callable[[str], str]) -> str:
    program(name)
    return name


def test_runc_makes_the_same_layers(layerbuild: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    installed("runc", program)
    (context / "file").write_text("from the context\n")
    options = ("--allow", "security.insecure", "--no-cache", "--secret", "id=token,env=TOKEN")
    env = {"TOKEN": "a-secret"}
    images = {}
    for way in ("namespaces", "runc"):
        said = layerbuild.build(context, RECIPE, "-t", way, "--isolation", way, *options, env=env)
        assert "| layerbuild\n" in said
        images[way] = [layer["diff_id"] for layer in layerbuild.layers(way)]
    assert images["runc"] == images["namespaces"]
    assert layerbuild("run", "runc", "cat", "/app/said", "/app/length") == "hello from 0 in /app\n8\n"
    assert_whole(layerbuild.root)


def test_how_a_command_of_a_runtime_ends(layerbuild: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    runc = ("--isolation", installed("runc", program))
    cases = {
        "RUN exit 7": "exit code: 7",
        'RUN ["nope"]': "exit code: 127",
        "RUN kill -9 $$; sleep 10 & kill -9 $!; wait $!": "exit code: 137",
    }
    for line, words in cases.items():
        (context / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
        failed = layerbuild.run("build", *runc, context, code=1)
        assert words in failed.stderr
    assert not mounts(layerbuild.root)


def test_a_build_with_a_runtime_that_is_killed(
    layerbuild: Layerbuild, context: Path, program: Callable[[str], str]
) -> None:
    installed("runc", program)
    mark = f"{os.getpid()}{time.monotonic_ns() % 10**6}"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN sleep {mark} & setsid sleep {mark} & sleep {mark}\n")
    with layerbuild.start("build", "--isolation", "runc", context) as build:
        wait_until(lambda: len(processes(mark)) >= 3)
        build.kill()
    wait_until(lambda: not processes(mark) and not mounts(layerbuild.root), seconds=2)
    layerbuild.build(context, "FROM busybox\nRUN echo fine > /fine\n", "--isolation", "runc")  # tidies up
    assert [str(path) for path in Path("/sys/fs/cgroup").glob("*/layerbuild-*")] == []


def test_limits_hold_in_a_runtime_too(rooted: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN tail -c 100000000 /dev/zero\n")
    options = ("--isolation", installed("runc", program), "--memory", "48m")
    if "memory" in cgroups.settable():
        assert "more memory than --memory allows" in rooted.run("build", *options, context, code=1).stderr
    else:  # a tree of version 2 beside trees of version 1 that have the controllers, and are mounted elsewhere
        assert "no control group for memory" in rooted.run("build", *options, context, code=77).stderr
    ulimit = ("--isolation", "runc", "--ulimit", "nofile=99:100", "--shm-size", "1m")
    said = rooted.build(context, "FROM busybox\nRUN ulimit -n; df -k /dev/shm | tail -n 1\n", *ulimit)
    assert "| 99\n" in said
    assert re.search(r"\| (shm|tmpfs) +1024 ", said)


def test_a_runtime_knows_one_id_only(layerbuild: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    """What our own containers pretend to a user without ranges, a runtime's do not: the build says so, and fails."""
    runc = ("--isolation", installed("runc", program))
    (context / "Dockerfile").write_text("FROM busybox\nRUN touch /f && chown 7:8 /f\n")
    done = layerbuild.run("build", *runc, context, code=int(layerbuild.rootless))
    assert ("in containers of runc there is one id" in done.stderr) == layerbuild.rootless


def test_what_a_command_of_a_runtime_notes_itself(
    templates: Templates, context: Path, program: Callable[[str], str]
) -> None:
    """There is no pretender to keep it from that, so only what the file below says counts."""
    runc = installed("runc", program)
    compile_setter(program("gcc"), context / "mark")
    recipe = "FROM base\nRUN chmod 600 /node\nUSER 7\nRUN touch /tmp/x && mark /tmp/x user.layerbuild.device 'b 8:0'\n"
    for who in ("root", "ranged"):
        layerbuild = templates.copy(who, context.with_name(f"{context.name}-{who}"))
        try:
            layerbuild.build(context, "FROM busybox\nCOPY mark /bin/\nRUN mknod /node c 1 3\n", "-t", "base")
            layerbuild.build(context, recipe, "-t", "it", "--isolation", runc)
            found = []
            for layer in layerbuild.layers("it")[-2:]:
                with tarfile.open(layerbuild.root / "blobs/sha256" / layer["digest"].partition(":")[2]) as tar:
                    found += [(member.name, member.type, member.mode) for member in tar if not member.isdir()]
            assert found == [("node", tarfile.CHRTYPE, 0o600), ("tmp/x", tarfile.REGTYPE, 0o644)]
        finally:
            shutil.rmtree(layerbuild.root.parent, ignore_errors=True)


def test_crun_works_or_says_why_not(layerbuild: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    """Debian's crun refuses machines that have both versions of control groups; and it fences root's devices with a
    program for which it wants more locked memory, as root may ask for that has CAP_SYS_RESOURCE."""
    crun = ("--isolation", installed("crun", program))
    (context / "Dockerfile").write_text("FROM busybox\nRUN id -u > /id\n")
    hybrid = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
    kept_short = not layerbuild.rootless and "SYS_RESOURCE" not in held()
    done = layerbuild.run("build", *crun, context, code=77 if hybrid or kept_short else 0)
    if done.returncode:
        assert "crun can't run the command: " in done.stderr
        assert ("cgroup" if hybrid else "RLIM_MEMLOCK") in done.stderr
        assert "the isolation `namespaces` needs no runtime" in done.stderr


def test_a_way_that_is_not_there(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    said = rooted.run("build", "--isolation", "vm", context, code=2).stderr
    assert "leave it out, or one of namespaces, runc, crun" in said
    python = Path(shutil.which("python3") or "").parent
    missing = rooted.run("build", "--isolation", "runc", context, code=77, env={"PATH": str(python / "nowhere")})
    assert "runc is not installed" in missing.stderr
