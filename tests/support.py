"""What tests import: the command line on one store, as one user, and how to skip honestly."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import forkserver
import pytest
import yaml
from places import fresh

PROJECT = Path(__file__).resolve().parent.parent
USER = 12345  # an id that needs no account


@functools.cache
def _no_registry() -> Path:
    """A configuration: no test asks a registry but those that it starts itself."""
    path = fresh("configuration") / "registries.conf"
    path.write_text('[[registry]]\nprefix = "docker.io"\nblocked = true\n')
    path.chmod(0o644)
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test for want of something. Under LAYERBUILD_REQUIRE=all a skip is a failure (see conftest.py)."""
    pytest.skip(reason)


def add_member(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    content: bytes = b"",
    mode: int = 0o644,
    link: str = "",
) -> None:
    """Write a member with a fixed time."""
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname, member.mtime = kind, mode, len(content), link, 315532800
    tar.addfile(member, io.BytesIO(content))


SETTER = r"""
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
int main(int count, char **words) {
  if (setxattr(words[1], words[2], words[3], strlen(words[3]), 0)) perror(words[2]);
}
"""


def compile_setter(gcc: str, target: Path) -> None:
    """Make ``target`` a program that gives a file (its first word) an attribute, as setfattr(1)."""
    subprocess.run([gcc, "-static", "-x", "c", "-o", str(target), "-"], input=SETTER.encode(), check=True)


@dataclass(frozen=True)
class Layerbuild:
    """The command line on one store, as one user."""

    root: Path
    prefix: tuple[str, ...] = ()
    python: tuple[str, ...] = (sys.executable,)
    env: Mapping[str, str] = field(default_factory=dict)
    rootless: bool = False

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(*arguments), env=self.environment(), **options)

    def command(self, *arguments: str | Path) -> list[str]:
        words = [str(argument) for argument in arguments]
        return [*self.prefix, *self.python, "-m", "layerbuild", "--root", str(self.root), *words]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
        return {
            **kept,
            "HOME": "/nonexistent",
            "COLUMNS": "200",
            "LAYERBUILD_REGISTRIES_CONF": str(_no_registry()),
            **self.env,
        }

    def attempt(
        self,
        *arguments: str | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end, however that comes."""
        command, usual = self.command(*arguments), self.environment()
        environment = {**usual, **(env or {})}
        if forkserver.active:
            interpreter, words = command[: command.index("-m")], command[command.index("-m") + 2 :]
            return forkserver.run(interpreter, words, environment, str(cwd), stdin, usual=usual)
        return subprocess.run(command, input=stdin, capture_output=True, env=environment, cwd=cwd, check=False)

    def run(
        self,
        *arguments: str | Path,
        code: int = 0,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; ``code`` is the exit code that it must have."""
        done = self.attempt(*arguments, stdin=stdin, env=env, cwd=cwd)
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        assert done.returncode == code, f"{arguments}: exit code {done.returncode} instead of {code}\n{out}\n{err}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def __call__(self, *arguments: str | Path, **options: Any) -> str:
        """Its standard output."""
        return self.run(*arguments, **options).stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self(*arguments, "--format", "json"))

    def build(self, context: Path, recipe: str | None = None, *arguments: str | Path, **options: Any) -> str:
        """Build ``context`` (with ``recipe`` as its Dockerfile, if given); what it said on standard error."""
        if recipe is not None:
            context.mkdir(exist_ok=True)
            (context / "Dockerfile").write_text(recipe)
        return self.run("build", *arguments, context, **options).stderr

    def layers(self, image: str) -> list[dict[str, Any]]:
        """The history entries that made a layer."""
        return [row for row in self.json("layers", image)["history"] if not row["empty_layer"]]

    def entries(self, digest: str) -> list[str]:
        """The entries of a layer's tar: names as they stand there, and where links lead."""
        with tarfile.open(self.root / "blobs" / "sha256" / digest.partition(":")[2]) as tar:
            return [_shown(member) for member in tar]

    def names(self, image: str, layer: int = -1) -> list[str]:
        """The names in a layer of ``image``: the topmost, or another by its position."""
        return [entry.partition(" -> ")[0] for entry in self.entries(self.layers(image)[layer]["digest"])]

    def check_recipe(self, recipe: Path) -> None:
        """Plan, build and run ``recipe``, and compare with the ``expected.yaml`` beside it."""
        expected = yaml.safe_load((recipe / "expected.yaml").read_text())
        plan = self.json("plan", recipe)
        assert [{key: step[key] for key in ("instruction", "makes")} for step in plan["steps"]] == expected["plan"]
        assert [stage["stage"] for stage in plan["skipped"]] == expected.get("skipped", [])
        self.build(recipe, None, "-t", recipe.name)
        made = self.layers(recipe.name)[1:]
        assert [layer["instruction"] for layer in made] == [layer["instruction"] for layer in expected["layers"]]
        for layer, wanted in zip(made, expected["layers"], strict=True):
            assert self.entries(layer["digest"]) == wanted["entries"]
        assert self.run("run", "--rm", recipe.name).stdout == expected["run"]


def _shown(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return f"{member.name}/"
    return f"{member.name} -> {member.linkname}" if member.linkname else member.name
