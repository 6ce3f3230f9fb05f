"""A command that is forked (forkserver.py) is what it is when its interpreter is started for it."""

from __future__ import annotations

from pathlib import Path

import forkserver
import pytest
from support import Layerbuild

RECIPE = "FROM busybox\nARG WHEN=now\nRUN id -u && readlink /proc/self/fd/0 && echo $WHEN > /when\n"
WORDS = {
    "output": (("plan", "."), {}),
    "progress": (("build", "-q", "--no-cache", "."), {}),
    "a wrong option": (("images", "--nosuch"), {}),
    "an error": (("explain", "7"), {}),
    "standard input": (("build", "-q", "-"), {"stdin": b"FROM busybox\nLABEL a=b\n"}),
    "more than a pipe holds": (("import", "-"), {"stdin": b"no archive\n" * 100_000}),
    "environment": (("build", "-q", "--build-arg", "WHEN", "."), {"env": {"WHEN": "later", "TZ": "Asia/Tokyo"}}),
}


@pytest.mark.memory
@pytest.mark.parametrize("name", WORDS)
def test_forked_and_started_alike(rooted: Layerbuild, context: Path, name: str) -> None:
    (context / "Dockerfile").write_text(RECIPE)
    words, options = WORDS[name]
    started = rooted.attempt(*words, cwd=context, **options)
    with forkserver.used():
        forked = rooted.attempt(*words, cwd=context, **options)
        assert len(forkserver.servers) == 1
    assert not forkserver.servers
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)
