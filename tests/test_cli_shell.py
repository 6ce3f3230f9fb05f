"""``shell``: into the step that failed last, the state after a step, or an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Layerbuild

pytestmark = [pytest.mark.memory, pytest.mark.forked]

RECIPE = """\
FROM busybox
ENV HELLO=there
WORKDIR /work
RUN echo 1 > one
RUN --mount=type=cache,target=/cache --mount=type=secret,id=s --mount=type=bind,source=files,target=/files \\
    echo kept > /cache/x && echo begun > begun && cat /run/secrets/s && exit 3
"""


def failed(layerbuild: Layerbuild, context: Path) -> None:
    (context / "files").mkdir()
    (context / "files/one").write_text("from the context\n")
    (context / "secret").write_text("sesame\n")
    (context / "secret").chmod(0o644)
    layerbuild.build(context, RECIPE, "--secret", f"id=s,src={context / 'secret'}", code=1)


def test_what_failed_is_entered_with_its_mounts(layerbuild: Layerbuild, context: Path) -> None:
    failed(layerbuild, context)
    look = "pwd; cat begun one /cache/x /files/one; echo $HELLO; cat /run/secrets/s"
    lent = ("--secret", f"id=s,src={context / 'secret'}")
    done = layerbuild.run("shell", *lent, "--failed", "sh", "-c", look)
    assert done.stdout == "/work\nbegun\n1\nkept\nfrom the context\nthere\nsesame\n"
    assert done.stderr.startswith("RUN --mount=type=cache")
    # A secret is lent anew or not at all; what is written in the workspace stays there.
    assert layerbuild.run("shell", "--failed", "cat", "/run/secrets/s", code=1).stdout == ""
    layerbuild("shell", "--failed", "sh", "-c", "echo more > more")
    assert layerbuild("shell", "--failed", "cat", "more") == "more\n"
    (context / "Dockerfile").write_text("FROM busybox\n")
    assert "the recipe has no step" in layerbuild.run("shell", "--failed", "true", code=2).stderr


def test_a_heredoc_s_script_is_there_again(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN <<EOF\n#!/bin/sh\necho said; exit 4\nEOF\n", code=1)
    assert "echo said" in rooted("shell", "--failed", "sh", "-c", "cat /dev/pipes/*")


def test_the_state_after_a_step(layerbuild: Layerbuild, context: Path) -> None:
    failed(layerbuild, context)
    assert (
        layerbuild("shell", "--step", "3", "sh", "-c", "pwd; cat one; echo $HELLO; echo 2 > two") == "/work\n1\nthere\n"
    )
    assert layerbuild("shell", "--step", "3", "ls") == "one\n"
    assert layerbuild("shell", "--step", "2", "ls") == ""
    assert layerbuild("shell", "--step", "1", "sh", "-c", "pwd; ls /work 2>&1 || true").startswith("/")
    assert "did not get past" in layerbuild.run("shell", "--step", "4", "true", code=1).stderr


def test_an_image(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, 'FROM busybox\nENV A=b\nWORKDIR /w\nENTRYPOINT ["false"]\n', "-t", "image")
    assert layerbuild("shell", "image", "sh", "-c", "pwd; echo $A") == "/w\nb\n"
    assert layerbuild.run("shell", "image", stdin=b"echo $A\n").stdout == "b\n"
    assert "workspace" in layerbuild.run("shell", "nothing", code=1).stderr


def test_wrong_use(rooted: Layerbuild) -> None:
    for arguments in ((), ("--failed", "--step", "1")):
        assert rooted.run("shell", *arguments, code=2).stderr
    assert "no step has failed" in rooted.run("shell", "--failed", code=1).stderr
    assert "no record" in rooted.run("shell", "--step", "1", code=1).stderr
