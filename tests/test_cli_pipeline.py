"""Layers made behind the steps and stages beside each other, seen from the command line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support import Layerbuild
from traces import assert_whole


def told(layerbuild: Layerbuild, context: Path, recipe: str, *options: str) -> list[dict[str, Any]]:
    """The events of a build."""
    (context / "Dockerfile").write_text(recipe)
    said = layerbuild.run("build", "--progress", "rawjson", *options, context).stderr
    return [json.loads(line) for line in said.splitlines()]


def images(layerbuild: Layerbuild, context: Path, *options: str) -> str:
    return layerbuild("build", "-q", *options, context)


CHAIN = """\
FROM busybox
RUN mkdir -p /a/b /etc && echo 1 > /a/b/one && echo 'me:x:77:77::/:' >> /etc/passwd
RUN cat /a/b/one > /two; rm /a/b/one; ln /two /three
USER me
WORKDIR /home/me/w
COPY --chown=me f /a/b/
USER 0
RUN cat /two /three /a/b/f; stat -c '%u' /a/b/f; ls /a/b; mkdir /a/c
COPY d /a/c
RUN rm -r /a/b && mkdir /a/b && cat /a/c/g
"""


def fill(context: Path) -> None:
    (context / "f").write_text("file\n")
    (context / "d").mkdir(exist_ok=True)
    (context / "d/g").write_text("in d\n")


def test_steps_see_layers_that_have_no_names_yet(rooted: Layerbuild, context: Path) -> None:
    """Users, owners, links and whiteouts of the layers below, before these have an index."""
    fill(context)
    said = rooted.build(context, CHAIN, "--no-cache")
    assert "| 1\n       | 1\n       | file\n       | 77\n       | f\n" in said
    assert images(rooted, context) == images(rooted, context, "--no-cache") == images(rooted, context, "--jobs", "1")
    assert_whole(rooted.root)


def test_an_ordinary_user_gets_the_same_from_unnamed_layers(layerbuild: Layerbuild, context: Path) -> None:
    fill(context)
    recipe = "FROM busybox\nRUN mkdir /a && echo 1 > /a/1\nRUN echo 2 >> /a/1\nCOPY d /a\nRUN cat /a/1 /a/g > /b\n"
    (context / "Dockerfile").write_text(recipe)
    assert images(layerbuild, context) == images(layerbuild, context) == images(layerbuild, context, "--no-cache")
    assert_whole(layerbuild.root)


def test_a_parent_that_ran_again_and_gave_the_same_is_noticed_through_its_name(
    rooted: Layerbuild, context: Path
) -> None:
    rooted.build(context, "FROM busybox\nRUN echo 1 > /one # a\nRUN echo 2 > /two\n")
    events = told(rooted, context, "FROM busybox\nRUN echo 1 > /one # b\nRUN echo 2 > /two\nRUN echo 3 > /three\n")
    kinds = [event["event"] for event in events if event["event"] in ("CacheHit", "StepStarted")]
    assert kinds == ["StepStarted", "CacheHit", "StepStarted"]
    assert next(event for event in events if event["event"] == "CacheHit")["by"] == "content"


def test_each_layer_is_told_of_after_its_step_and_in_its_parents_order(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\n" + "".join(f"RUN head -c 200000 /dev/urandom > /f{n}\n" for n in range(12))
    events = told(rooted, context, recipe, "--jobs", "3")
    finished = [event["number"] for event in events if event["event"] == "StepFinished"]
    sealed = [event["number"] for event in events if event["event"] == "LayerSealed"]
    assert finished == sealed == list(range(1, 13))
    places = {(event["event"], event.get("number")): place for place, event in enumerate(events)}
    assert all(places["StepFinished", n] < places["LayerSealed", n] for n in finished)
    assert events[-1]["event"] == "ImageWritten"


STAGES = """\
FROM busybox AS one
RUN --mount=type=cache,target=/meet touch /meet/one; until [ -e /meet/two ]; do sleep 0.02; done; echo one > /one
FROM busybox AS two
RUN --mount=type=cache,target=/meet touch /meet/two; until [ -e /meet/one ]; do sleep 0.02; done; echo two > /two
FROM busybox
COPY --from=one /one /
COPY --from=two /two /
RUN cat /one /two > /both
"""


def test_independent_stages_run_at_the_same_time(rooted: Layerbuild, context: Path) -> None:
    """Each of two waits for the other; and each line says whose it is."""
    said = rooted.build(context, STAGES, "--jobs", "2", "--no-cache")
    assert re.search(r"^  1/1  one  RUN", said, re.M) and re.search(r"^  1/1  two  RUN", said, re.M)
    assert images(rooted, context, "--jobs", "1") == images(rooted, context, "--jobs", "4")


def test_a_failure_stops_the_other_stages_and_keeps_what_was_proved(rooted: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox AS slow
        RUN sleep 7777
        FROM busybox
        RUN head -c 3000000 /dev/urandom > /proved
        RUN sleep 0.2; echo wrong; exit 3
        COPY --from=slow /x /
        """
    began = time.monotonic()
    said = rooted.build(context, recipe, "--jobs", "2", code=1)
    assert time.monotonic() - began < 60
    assert "Dockerfile:5:" in said and "exit code: 3" in said and "shell" in said
    rest = "FROM busybox\nRUN head -c 3000000 /dev/urandom > /proved\n"
    assert rooted.build(context, rest).count("cached") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_while_stages_and_captures_go_on(rooted: Layerbuild, context: Path, number: int) -> None:
    recipe = """\
        FROM busybox AS one
        RUN head -c 150000000 /dev/urandom > /large; echo written
        RUN sleep 8888
        FROM busybox
        RUN sleep 8888
        COPY --from=one /x /
        """
    (context / "Dockerfile").write_text("\n".join(line.strip() for line in recipe.splitlines()))
    with rooted.start("build", context, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as build:
        assert build.stderr is not None
        while b"| written" not in build.stderr.readline():
            pass
        build.send_signal(number)
        assert build.wait(timeout=20) == 128 + number
        assert b"Traceback" not in build.stderr.read()
    assert_whole(rooted.root)
