"""What the command line says when something is wrong: where, what, the remedy, and the exit code."""

from __future__ import annotations

import os
import re
import resource
import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support import Layerbuild, missing
from traces import processes, wait_until


@dataclass(frozen=True)
class Wrong:
    """A recipe, and options, with which ``build`` ends with ``code`` and says each of ``said``, in this order."""

    recipe: bytes
    code: int
    said: tuple[str, ...]
    options: tuple[str, ...] = ()


WRONG = {
    "instruction": Wrong(
        b"FROM busybox\n\nRUM x\n", 3, ("Dockerfile:3:1: unknown instruction: RUM", "did you mean RUN?")
    ),
    "flag": Wrong(b"FROM busybox\nCOPY --chwon=1 a b\n", 3, (":2:6: unknown flag: --chwon", "did you mean --chown?")),
    "empty": Wrong(b"", 3, ("Dockerfile:1:1: the file is empty", "FROM")),
    "encoding": Wrong(
        b"FROM busybox\nRUN echo \xff\n", 3, (":2:10: this line is not UTF-8", "hint: save the recipe as UTF-8")
    ),
    "order": Wrong(b"RUN true\n", 3, ("Dockerfile:1:1: ", "FROM")),
    "heredoc": Wrong(b"FROM busybox\nRUN <<E\ntrue\n", 3, ("Dockerfile:2:", "E")),
    "base": Wrong(
        b"FROM busibox\n", 69, (":1:6: base image 'busibox' is not in the store", "did you mean busybox:latest?")
    ),
    "source": Wrong(b"FROM busybox\nCOPY gone.txt /\n", 1, (":2:", "'gone.txt' not found", "it is not in the context")),
    "ignored": Wrong(
        b"FROM busybox\nCOPY kept.txt left.txt /\n", 1, (":2:", "'left.txt'", ".dockerignore line 2 (`left*`)")
    ),
    "stage": Wrong(b"FROM busybox\nCOPY --from=nobody /x /\n", 69, (":2:", "nobody")),
    "misspelt stage": Wrong(
        b"FROM busybox AS Build\nFROM busybox\nCOPY --from=bulid /x /\n",
        69,
        (":3:", "'bulid'", "hint: did you mean the stage build?"),
    ),
    "misspelt base": Wrong(
        b"FROM busybox AS build\nFROM biuld\n", 69, (":2:6:", "'biuld'", "hint: did you mean the stage build?")
    ),
    "misspelt source": Wrong(
        b"FROM busybox\nCOPY Kept.TXT /\n", 1, (":2:6", "'Kept.TXT' not found", "hint: did you mean kept.txt?")
    ),
    "misspelt source of a stage": Wrong(
        b"FROM busybox AS one\nFROM busybox\nCOPY --from=one /etc/passwod /\n", 1, ("did you mean etc/passwd?",)
    ),
    "target": Wrong(b"FROM busybox AS two\n", 2, ("tow", "did you mean two?"), ("--target", "tow")),
    "argument": Wrong(b"FROM busybox\n", 2, ("--build-arg '=x' has no name", "NAME=VALUE"), ("--build-arg", "=x")),
    "output": Wrong(b"FROM busybox\n", 2, ("unknown format 'oic'", "did you mean oci?"), ("-o", "type=oic,dest=x")),
    "output key": Wrong(b"FROM busybox\n", 2, ("unknown key 'dst'", "did you mean dest?"), ("-o", "type=oci,dst=x")),
    "progress": Wrong(b"FROM busybox\n", 2, ("--progress can't be 'loud'", "plain"), ("--progress", "loud")),
    "name": Wrong(b"FROM busybox\n", 2, ("No:Good:Name",), ("-t", "No:Good:Name")),
    "time": Wrong(b"FROM busybox\n", 2, ("'noon' is not a time", "seconds since 1970"), ("--timestamp", "noon")),
    "option": Wrong(b"FROM busybox\n", 2, ("--taget", "--target"), ("--taget", "x")),
    "no recipe": Wrong(
        b"FROM busybox\n", 3, ("no recipe /nowhere/Dockerfile", "-f FILE"), ("-f", "/nowhere/Dockerfile")
    ),
    "user": Wrong(b"FROM busybox\nUSER nobodyatall\nRUN true\n", 1, (":3:1", "nobodyatall")),
    "program": Wrong(
        b'FROM busybox\nRUN ["nosuch"]\n',
        1,
        (":2:1: process 'nosuch'", '"nosuch" is not in the image', "127", "PATH is /"),
    ),
    "not executable": Wrong(
        b'FROM busybox\nRUN ["/etc/passwd"]\n', 1, ('"/etc/passwd" is not executable', "126", "chmod +x")
    ),
    "exit code": Wrong(
        b"FROM busybox\nRUN echo a; echo b >&2; exit 7\n", 1, (":2:1: ", "exit code: 7", "  | a\n  | b", "shell")
    ),
    "signal": Wrong(b"FROM busybox\nRUN (sleep 9 & kill -9 $!; wait $!)\n", 1, ("exit code: 137",)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_build(rooted: Layerbuild, context: Path, wrong: Wrong) -> None:
    (context / "Dockerfile").write_bytes(wrong.recipe)
    (context / ".dockerignore").write_text("# a remark\nleft*\n")
    for name in ("kept.txt", "left.txt"):
        (context / name).touch()
    stderr = rooted.run("build", *wrong.options, context, code=wrong.code).stderr
    at = 0
    for part in wrong.said:
        assert part in stderr[at:], stderr
        at = stderr.index(part, at)
    assert "Traceback" not in stderr


@pytest.mark.parametrize("command", ["build", "plan"])
def test_a_context_that_is_missing(rooted: Layerbuild, context: Path, command: str) -> None:
    said = rooted.run(command, context / "nowhere", code=2).stderr
    assert f"{context}/nowhere' is not a folder" in said and "hint: " in said
    assert "there is no recipe" in rooted.run(command, context, code=3).stderr


@pytest.mark.parametrize(
    ("there", "asked", "meant"),
    [
        ("Containerfile", None, "Containerfile"),
        ("Dockerfile.prod", None, "Dockerfile.prod"),
        ("web.dockerfile", None, "web.dockerfile"),
        ("Dockerfile.prod", "Dockerfile.prd", "Dockerfile.prod"),
        ("recipe", "recpie", "recipe"),
        ("Dockerfile.dockerignore", None, ""),
        ("Makefile", None, ""),
    ],
)
def test_a_recipe_of_another_name(rooted: Layerbuild, context: Path, there: str, asked: str | None, meant: str) -> None:
    (context / there).write_text("FROM busybox\n")
    words = ("-f", context / asked) if asked else ()
    said = rooted.run("build", *words, context, code=3).stderr
    assert f"there is no recipe {context / (asked or 'Dockerfile')}\n" in said
    assert f"hint: did you mean -f {context / meant}?" in said if meant else "hint: name one: -f FILE" in said


@pytest.mark.parametrize(
    "arguments", [("rmi", "x"), ("tag", "x", "y"), ("inspect", "x"), ("layers", "x"), ("run", "x")]
)
def test_an_image_that_is_missing(rooted: Layerbuild, arguments: tuple[str, ...]) -> None:
    said = rooted.run(*arguments, code=1).stderr
    assert "'x'" in said or "x:latest" in said
    assert "Traceback" not in said


def test_a_command_that_is_missing(rooted: Layerbuild) -> None:
    assert "Did you mean 'build'?" in rooted.run("biuld", code=2).stderr


def test_killed_from_outside(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN exec sleep 918273645\n")
    with rooted.start("build", context, stdout=-3, stderr=subprocess.PIPE) as build:
        wait_until(lambda: processes("918273645"))
        os.kill(processes("918273645")[0], signal.SIGKILL)
        assert b"killed by SIGKILL, exit code: 137" in build.communicate()[1]
    assert build.returncode == 1


# -- the kept workspace ------------------------------------------------------------------------------------------------

FAILING = """\
FROM busybox
ENV GREETING="hello there"
WORKDIR /srv/sub
ARG FLAVOUR=plain
RUN echo one > one
{user}RUN echo partial > /tmp/partial; exit 42
"""


def way_back(said: str) -> list[str]:
    """The arguments of the line that enters the kept workspace."""
    found = re.search(r"look around in it: layerbuild (.*)", said)
    assert found, said
    return shlex.split(found[1])


def test_a_failed_step_can_be_entered_again(layerbuild: Layerbuild, context: Path) -> None:
    user = "" if layerbuild.rootless else "USER daemon\n"
    said = layerbuild.build(context, FAILING.format(user=user), code=1)
    root, shell = way_back(said)[:2], way_back(said)[2:]
    assert root == ["--root", str(layerbuild.root)]
    script = "cat one /tmp/partial; id -un; pwd; echo $GREETING; echo $FLAVOUR; echo more > /tmp/more"
    seen = layerbuild(*shell, "sh", "-c", script).splitlines()
    name = "root" if layerbuild.rootless else "daemon"
    assert seen == ["one", "partial", name, "/srv/sub", "hello there", "plain"]
    assert layerbuild(*shell, "cat", "/tmp/more") == "more\n"  # what is done in it stays
    assert layerbuild(*shell, stdin=b"exit 3", code=3) == ""
    # The next build starts from the step before, not from what was done by hand.
    layerbuild.build(context, FAILING.format(user=user).replace("exit 42", "! test -e /tmp/more"))


def test_the_way_back_has_no_more_words_than_it_needs(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN false\n")
    command = [*rooted.python, "-m", "layerbuild", "build", str(context)]
    environment = {**rooted.environment(), "LAYERBUILD_ROOT": str(rooted.root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert way_back(done.stderr)[0] == "shell"


def workspaces(layerbuild: Layerbuild) -> int:
    return next(int(row["count"]) for row in layerbuild.json("df") if row["kind"] == "workspaces")


def test_failing_again_and_again_keeps_one_workspace(layerbuild: Layerbuild, context: Path) -> None:
    for number in range(3):
        said = layerbuild.build(context, f"FROM busybox\nENV N={number}\nRUN echo {{}} > /x; exit 1\n", code=1)
    assert workspaces(layerbuild) == 1
    layerbuild(*way_back(said)[2:], "true")
    layerbuild.build(context, "FROM busybox\nRUN echo another; exit 1\n", code=1)
    layerbuild("run", "--keep", "busybox", "true")
    assert workspaces(layerbuild) == 3
    layerbuild("prune", "-a")
    assert workspaces(layerbuild) == 0


def test_a_workspace_that_somebody_is_in_stays(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN exit 1\n"
    shell = way_back(layerbuild.build(context, recipe, code=1))[2:]
    with layerbuild.start(*shell, "sh", "-c", "echo in; cat", stdin=-1, stdout=-1, stderr=-3) as inside:
        assert inside.stdout is not None and inside.stdin is not None
        assert inside.stdout.readline() == b"in\n"
        assert "is entered by another process" in layerbuild.run(*shell, "true", code=1).stderr
        layerbuild.build(context, recipe, code=1)
        assert workspaces(layerbuild) == 2
        inside.stdin.write(b"still\n")
        inside.stdin.close()
        assert inside.stdout.read() == b"still\n"
    assert inside.returncode == 0


def test_a_workspace_that_is_unknown(rooted: Layerbuild) -> None:
    assert "no kept workspace 'abc'" in rooted.run("shell", "abc", code=1).stderr


# -- the machine -------------------------------------------------------------------------------------------------------


def test_a_store_that_may_not_be_written(layerbuild: Layerbuild, context: Path) -> None:
    place = "/usr/store" if layerbuild.rootless else "/proc/store"
    elsewhere = Layerbuild(Path(place), layerbuild.prefix, layerbuild.python, layerbuild.env)
    for arguments in (("images",), ("build", context), ("doctor",)):
        (context / "Dockerfile").write_text("FROM busybox\n")
        done = elsewhere.run(*arguments, code=77)
        assert place in done.stdout + done.stderr
        assert "--root" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def in_its_own_mounts(layerbuild: Layerbuild, script: str) -> Layerbuild:
    """The command line after ``script`` has mounted something that nobody else sees."""
    prefix = ("unshare", "--mount", "sh", "-c", f'set -e; {script}; exec "$@"', "sh")
    return Layerbuild(layerbuild.root, prefix, layerbuild.python, layerbuild.env)


def test_a_store_inside_an_overlay(rooted: Layerbuild, context: Path) -> None:
    lower, upper, work = (context / name for name in ("lower", "upper", "work"))
    for folder in (lower, upper, work):
        folder.mkdir()
    store = rooted.root
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = f"mount -t overlay overlay -o {options} {store.parent}"
    # The store that the fixture made is covered by the mount, so this one is new.
    covered = in_its_own_mounts(rooted, mount)
    (context / "rootfs").mkdir()
    covered("import", "-t", "tiny", context / "rootfs")
    driver = ("--driver", "overlay")
    said = covered.run(*driver, "build", context_with(context, "FROM tiny\nRUN true\n"), code=77).stderr
    assert f"{store} is on overlay, which can't hold overlay's upper folder" in said
    assert "hint: choose a place on ext4" in said and "--root" in said
    assert "overlay" in covered.run("doctor").stdout


def context_with(folder: Path, recipe: str) -> Path:
    (folder / "Dockerfile").write_text(recipe)
    return folder


# -- no space left -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(rooted: Layerbuild, tmp_path: Path, program: Callable[[str], str]) -> Layerbuild:
    """A store with ``busybox`` on a disk with room for little more."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(40 << 20)
    subprocess.run([program("mkfs.ext4"), "-q", "-m", "0", image], check=True)
    mount = f"mkdir -p {tmp_path}/disk.d; mount -o loop {image} {tmp_path}/disk.d"
    layerbuild = Layerbuild(tmp_path / "disk.d/store", in_its_own_mounts(rooted, mount).prefix, rooted.python)
    if subprocess.run([*layerbuild.prefix, "true"], capture_output=True, check=False).returncode:
        missing("no loop device can be mounted")
    archive = tmp_path / "busybox.tar"
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM busybox\n")
    rooted("build", "-q", "-t", "busybox", "-o", f"type=docker,dest={archive}", tmp_path / "context")
    layerbuild("import", archive)
    return layerbuild


def whole(layerbuild: Layerbuild, tmp_path: Path) -> None:
    """``assert_whole`` where its disk is mounted."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import traces, pathlib; "
    code += f"traces.assert_whole(pathlib.Path({str(layerbuild.root)!r}))"
    subprocess.run([*layerbuild.prefix, *layerbuild.python, "-c", code], check=True)


def test_a_copy_that_finds_no_room(small: Layerbuild, context: Path, tmp_path: Path) -> None:
    with (context / "big").open("wb") as file:
        file.write(os.urandom(60 << 20))
    said = small.build(context, "FROM busybox\nCOPY big /\n", code=102)
    assert "Dockerfile:2:1: " in said and "no space left" in said and "layerbuild prune" in said
    whole(small, tmp_path)
    (context / "big").write_text("small now")
    small.build(context, None)
    whole(small, tmp_path)


def test_a_run_that_finds_no_room_has_failed_itself(small: Layerbuild, context: Path, tmp_path: Path) -> None:
    said = small.build(context, "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=60\n", code=1)
    assert "| dd: " in said and "No space left on device" in said
    small("prune", "-a")  # it may have kept its workspace
    whole(small, tmp_path)
    small.build(context, "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=1\n")


def test_a_capture_that_finds_no_room(small: Layerbuild, context: Path, tmp_path: Path) -> None:
    recipe = "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count={} 2>/dev/null; echo written\n"
    said = small.build(context, recipe.format(22), code=102)
    assert "| written" in said and "Dockerfile:2:1: " in said and "no space left" in said
    whole(small, tmp_path)
    small.build(context, recipe.format(2))
    whole(small, tmp_path)


def test_a_disk_that_others_have_filled(small: Layerbuild, context: Path, tmp_path: Path) -> None:
    fill = small.root.parent / "fill"
    script = f'cat /dev/zero > {fill} 2>&-; "$@"; code=$?; rm {fill}; exit $code'
    full = Layerbuild(small.root, (*small.prefix, "sh", "-c", script, "sh"), small.python)
    said = full.build(context, "FROM busybox\nRUN echo x > /x\n", code=102)
    assert "Traceback" not in said and "hint: " in said
    small("prune")  # a blob may have found room where its row did not: then it is unclaimed, and never false
    whole(small, tmp_path)
    small.build(context, None)


@pytest.mark.parametrize("most", [12, 14, 16, 18, 20])
def test_too_few_open_files(rooted: Layerbuild, context: Path, most: int) -> None:
    """Wherever it hits: nothing is unreadable then, whatever .dockerignore says."""
    for number in range(60):
        (context / str(number)).mkdir()
        (context / str(number) / "f").write_text("f")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most, most))
    with rooted.start("build", context, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=limit) as build:
        said = build.communicate()[1].decode()
    assert "Too many open files" in said and said.endswith("hint: let the process open more files: ulimit -n\n")
