"""A command imports what it needs, and no more: most of what a cached build takes is the time to start."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support import Layerbuild

# Slow to import, and each of use for one thing that most commands do not do.
LIBRARIES = ("asyncio", "concurrent", "deflate", "email", "http", "isal", "jinja2", "ssl", "subprocess", "tempfile")
LIBRARIES += ("urllib3", "yaml", "zstandard")
RUNS = ("build.copying", "build.drivers", "build.layers", "build.mounting", "build.running", "isolate.container")
RUNS += ("isolate.helper", "isolate.job", "isolate.mounts", "isolate.sandbox", "isolate.seccomp", "isolate.spares")
RUNS += ("layer.capture",)
ELSEWHERE = ("crew", "export", "intake", "lessons", "network", "registry", "build.fetching", "build.repositories")
READS = ("layer.apply", "layer.codecs", "layer.folder", "layer.index", "layer.union", "store.unpack")

# A command, and rooms of ours that it may not enter.
NEEDLESS = {
    "--version": ("build", "digest", "events", "image", "isolate", "layer", "recipe", "steps", "store", "views"),
    "images": ("build", "isolate", "recipe", *ELSEWHERE, *READS),
    "layers busybox": ("build", "isolate", "recipe", *ELSEWHERE, *READS),
    "plan .": ("isolate.namespaces", "recipe.lint", *RUNS, *ELSEWHERE, *READS),
    "build -q -o type=oci,dest=/dev/null .": ("lessons", "network", "registry", *RUNS, *READS),
    "build -q .": ("build.explaining", "build.preview", "views.teach", *RUNS, *ELSEWHERE, *READS),
}


def imported(layerbuild: Layerbuild, *arguments: str | Path) -> list[str]:
    told = replace(layerbuild, python=(*layerbuild.python, "-X", "importtime")).run(*arguments).stderr
    found = re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", told, re.MULTILINE)
    assert "layerbuild.cli.main" in found
    return found


def within(modules: Sequence[str], rooms: Sequence[str]) -> list[str]:
    return [module for module in modules if any(f"{module}.".startswith(f"{room}.") for room in rooms)]


@pytest.mark.parametrize("command", NEEDLESS)
def test_a_command_imports_what_it_needs(rooted: Layerbuild, context: Path, command: str) -> None:
    (context / "file").write_text("content")
    (context / "Dockerfile").write_text("FROM busybox\nWORKDIR /work\nCOPY file .\nRUN touch made\nENV A=b\n")
    time.sleep(2.1)  # what changed just now is read again, and its listing packed: build/selecting.py
    rooted.build(context)
    modules = imported(rooted, *(context if word == "." else word for word in command.split()))
    assert within(modules, LIBRARIES) == []
    assert within(modules, [f"layerbuild.{room}" for room in NEEDLESS[command]]) == []


def test_a_build_that_runs_something_imports_more(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN touch made\n")
    modules = imported(rooted, "build", "-q", context)
    assert within(modules, ["layerbuild.build.running"]) and within(modules, ["layerbuild.isolate.sandbox"])


def test_what_runs_commands_is_got_ready_beside_the_copy_before_them(rooted: Layerbuild, context: Path) -> None:
    (context / "file").write_text("content")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY file /\n")
    assert within(imported(rooted, "build", "-q", context), ["layerbuild.isolate.sandbox"]) == []
    (context / "Dockerfile").write_text("FROM busybox\nCOPY file /copied\nRUN touch made\n")
    modules = imported(rooted, "build", "-q", context)
    assert modules.index("layerbuild.isolate.sandbox") < modules.index("deflate"), "which compresses what was copied"
