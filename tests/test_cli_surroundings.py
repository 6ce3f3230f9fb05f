"""Odd surroundings: streams that are closed, folders that are gone, names that need escaping."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import USER, Layerbuild

RECIPE = "FROM busybox\nCOPY . /context/\nRUN echo ran; ls /context > /listed\nRUN rm -r /home\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(layerbuild: Layerbuild, context: Path, closed: str) -> None:
    (context / "Dockerfile").write_text(RECIPE)
    command = shlex.join(layerbuild.command("build", "-t", "x", context))
    done = subprocess.run(
        ["sh", "-c", f"{command} {closed}"], env=layerbuild.environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert layerbuild("run", "x", "cat", "/listed") == "Dockerfile\n"
    assert (b"| ran" in done.stderr) == ("2>&-" not in closed)


def test_a_current_folder_that_is_gone(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text(RECIPE)
    for folder, code in ((str(context), 0), (".", 2)):
        command = shlex.join(rooted.command("build", "-q", folder))
        script = f"mkdir {context}/gone && cd {context}/gone && rmdir {context}/gone && {command}"
        done = subprocess.run(["sh", "-c", script], env=rooted.environment(), capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert (b"the folder that this runs in was removed" in done.stderr) == bool(code)


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/proc"])
def test_a_home_that_is_none(as_user: Callable[[Path], Layerbuild], context: Path, home: str | None) -> None:
    """Of a user without an account, too; and the files of root, whose number a namespace gives, are never looked at."""
    user = as_user(context / "store")
    environment = {name: value for name, value in user.environment().items() if name != "HOME"}
    environment |= {} if home is None else {"HOME": home}
    del environment["LAYERBUILD_REGISTRIES_CONF"]
    (context / "store").mkdir()
    os.chown(context / "store", USER if os.geteuid() == 0 else -1, -1)
    (context / "Dockerfile").write_text("FROM localhost:1/nothing\n")
    own = [word for word in user.command("images") if word not in ("--root", str(user.root))]
    for command, said in (
        (own, "choose a folder of your own with --root"),
        (user.command("build", context), "localhost:1 can't be reached"),
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert said in done.stderr


def test_few_descriptors(layerbuild: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text(RECIPE)
    for number in range(200):
        (context / f"file{number}").write_text(str(number))
    command = layerbuild.command("build", context)
    few = (48, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    done = subprocess.run(
        command,
        env=layerbuild.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


NAMES = {
    "blank": "a b",
    "colon": "a:b",
    "comma": "a,b",
    "backslash": "a\\b",
    "all": " \\:,\\",
    "unicode": "ü€",
    "no UTF-8": "\udcff",
    "line": "a\nb",
    "dash": "-x",
    "long": f"{200 * 'a'}/{180 * 'b'}",
}


@pytest.mark.parametrize("name", NAMES)
def test_where_a_store_may_lie(layerbuild: Layerbuild, context: Path, name: str) -> None:
    """Overlay's options have their own ways with colons, commas and backslashes (L3), and a page in all (L2)."""
    (context / "Dockerfile").write_text(RECIPE + "RUN ls /listed\n" * 3)
    (context / os.fsdecode(b"\xfe n\xc3\xbcmer")).write_text("x")
    moved = layerbuild.root.parent / NAMES[name]
    moved.parent.mkdir(parents=True, exist_ok=True)
    for folder in (moved, *moved.parents):
        if folder == layerbuild.root.parent:
            break
        if folder.exists():
            os.chown(folder, os.stat(layerbuild.root).st_uid, -1)
    layerbuild.root.rename(moved)
    elsewhere = Layerbuild(moved, layerbuild.prefix, layerbuild.python, layerbuild.env, layerbuild.rootless)
    built = elsewhere("build", "-q", "-t", "x", context)
    assert built == elsewhere("build", "-q", "--no-cache", context)
    assert elsewhere("run", "x", "cat", "/listed").splitlines()[0] == "Dockerfile"


def test_a_store_where_sqlite_opens_no_file(rooted: Layerbuild, context: Path) -> None:
    deep = context / "/".join(letter * 200 for letter in "abc")
    said = Layerbuild(deep).run("build", context, code=77).stderr
    assert "SQLite opens no path of more than 504 bytes" in said and "--root" in said
