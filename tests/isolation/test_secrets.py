"""What is lent to a step stays in memory: no file of the store and no word that a build says has it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from support import USER, Layerbuild, missing
from traces import processes, wait_until

SECRET = "Wombat-7391-quartz"
RECIPE = """\
FROM busybox
RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=f,target=/etc/deep/s <<'EOF'
cat /etc/deep/s; echo "env: $S"; echo "again $S" >&2
printf '%s' "${S%-quartz}"; sleep 0.2; echo "-quartz in two pieces"
printf '%s' "$S" | head -c 5; sleep 0.1; echo "${S#Womba} in other pieces"
wc -c < /etc/deep/s > /length
EOF
RUN --mount=type=secret,id=s,env=S --mount=type=bind,rw,target=/context --mount=type=tmpfs,target=/scratch \\
    echo "$S" > /context/kept; echo "$S" > /scratch/kept; ulimit -c; cd /scratch; sh -c 'kill -ABRT $$'; ls
RUN --mount=type=secret,id=s,env=S echo "$S"; echo "failing with $S" >&2; exit 3
"""


def holding(folder: Path, text: str) -> list[str]:
    """The files below ``folder`` that have ``text`` in their content or name."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if text.encode() in path.read_bytes() or text in path.name]


@pytest.mark.parametrize("progress", ["plain", "rawjson"])
def test_a_secret_is_in_no_file_and_in_no_line(layerbuild: Layerbuild, context: Path, progress: str) -> None:
    folder = context.with_name(f"{context.name}-secret")
    folder.mkdir()
    secret = folder / "s"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    try:
        (context / "Dockerfile").write_text(RECIPE)
        lent = ("--secret", f"id=f,src={secret}", "--secret", "id=s,env=GIVEN")
        arguments = ("build", *lent, "--progress", progress, context)
        failed = layerbuild.run(*arguments, code=1, env={"GIVEN": SECRET})
        again = layerbuild.run(*arguments, code=1, env={"GIVEN": SECRET})
    finally:
        secret.unlink()
        folder.rmdir()
    said = failed.stdout + failed.stderr
    assert SECRET not in said
    assert said.count("***") >= 8
    output = said
    if progress == "rawjson":
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        output = "".join(line["data"] for line in lines if line["event"] == "StepOutput")
    assert "*** in two pieces" in output
    assert "*** in other pieces" in output
    assert "failing with ***" in output
    assert holding(layerbuild.root, SECRET) == []
    assert holding(context, SECRET) == []
    assert SECRET not in again.stdout + again.stderr  # the first steps from the cache


def test_no_core_dump_holds_a_secret(layerbuild: Layerbuild, context: Path) -> None:
    """Neither a command's, whatever limit was asked for, nor the builder's own."""
    mark = f"{random.randrange(10**8, 10**9)}"
    recipe = f"""\
        FROM busybox
        WORKDIR /work
        RUN sh -c 'kill -ABRT $$'; echo "without: $(ulimit -c) $(ls | wc -l)"
        RUN --mount=type=secret,id=s,env=S sh -c 'kill -ABRT $$'; echo "with: $(ulimit -c) $(ls | wc -l)"
        RUN --mount=type=secret,id=s,env=S echo "$S" | sleep {mark}
        """
    (context / "Dockerfile").write_text(recipe)
    command = layerbuild.command("build", "--secret", "id=s,env=GIVEN", "--ulimit", "core=0", context)
    shell = ("sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh")
    env = {**layerbuild.environment(), "GIVEN": SECRET}
    with subprocess.Popen([*shell, *command], env=env, cwd=context, stderr=subprocess.PIPE, text=True) as build:
        wait_until(lambda: processes(mark), seconds=20)
        limits = Path(f"/proc/{build.pid}/limits").read_text()
        seen = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        others_see = seen_by_another_user(build.pid, *processes(mark))
        build.send_signal(signal.SIGABRT)
        assert build.stderr is not None
        said = build.stderr.read()
    assert seen[0][4:6] == ["1", "1"]
    assert os.listdir(context) == ["Dockerfile"]
    assert "| with: 0 0\n" in said
    assert others_see == ""


def seen_by_another_user(*pids: int) -> str:
    """What another user of the machine finds of the secret in these processes; all that they may read of them."""
    if os.geteuid() != 0:
        missing("not run as root, who could ask as another user")
    files = [f"/proc/{pid}/{name}" for pid in pids for name in ("environ", "cmdline", "maps", "status", "mountinfo")]
    become = {"user": USER + 1, "group": USER + 1, "extra_groups": ()}
    return (
        subprocess.run(["cat", *files], capture_output=True, check=False, **become).stdout.decode().count(SECRET) * "!"
    )
