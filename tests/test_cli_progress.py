"""--progress rawjson: a line for each event, as docs/progress.md tells, and for the error at the end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from support import PROJECT, Layerbuild

from layerbuild import events

RECIPE = """\
FROM busybox AS unused
FROM busybox
RUN echo said; echo x > /x
LABEL a=b
COPY file /
"""


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def documented() -> dict[str, set[str]]:
    """Events and their members, as the page's table has them."""
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", (PROJECT / "docs/progress.md").read_text(), re.MULTILINE)
    return {event: {re.match(r"`(\w+)`", member)[1] for member in members.split(" · ")} for event, members in rows}  # type: ignore[index]


def test_every_event_is_documented() -> None:
    real = {kind.__name__: {field.name for field in fields(kind)} for kind in get_args(events.Event)}
    assert documented() == real


def test_a_build(layerbuild: Layerbuild, context: Path) -> None:
    (context / "file").write_text("x")
    (context / "Dockerfile").write_text(RECIPE)
    done = layerbuild.run("build", "--progress", "rawjson", "-t", "x", context)
    told = lines(done.stderr)
    for line in told:
        assert line.keys() == {"event", "time"} | documented()[line["event"]]
    names = [line["event"] for line in told if line["event"] != "Note"]
    assert names[0] == "BuildStarted" and names[-1] == "ImageWritten"
    assert (names.count("StageSkipped"), names.count("LayerSealed"), names.count("StepFinished")) == (1, 2, 3)
    assert "".join(line["data"] for line in told if line["event"] == "StepOutput") == "said\n"
    assert told[-1]["image_id"] == done.stdout.strip()
    assert told[-1]["names"] == ["x:latest"]
    again = lines(layerbuild.run("build", "--progress", "rawjson", context).stderr)
    assert [line["step"] for line in again if line["event"] == "CacheHit"] == [
        "RUN echo said; echo x > /x",
        "COPY file /",
    ]


def test_several_platforms(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    done = rooted.run("build", "--progress", "rawjson", "--platform", "linux/arm64,linux/s390x", context)
    told = lines(done.stderr)
    assert [line["platform"] for line in told if line["event"] == "BuildStarted"] == ["linux/arm64", "linux/s390x"]
    assert told[-1]["event"] == "IndexWritten" and told[-1]["platforms"] == ["linux/arm64", "linux/s390x"]
    assert told[-1]["digest"] == done.stdout.strip()


def test_errors_are_the_last_line(rooted: Layerbuild, context: Path) -> None:
    cases = (
        ("FROM busybox\nRUN echo oh no; exit 7\n", 1, "exit code: 7"),
        ("FROM busybox\nCOPY absent /\n", 1, "'absent' not found"),
        ("FROM busybox\nCOPPY a b\n", 3, "unknown instruction"),
    )
    for recipe, code, message in cases:
        (context / "Dockerfile").write_text(recipe)
        done = rooted.run("build", "--progress", "rawjson", context, code=code)
        failed = lines(done.stderr)[-1]
        assert failed["event"] == "Failed" and failed.keys() == {"event", "time"} | documented()["Failed"]
        assert message in failed["message"] and failed["exit_code"] == code
        assert failed["place"].startswith(f"{context}/Dockerfile:2:")
        if code == 1 and "RUN" in recipe:
            assert failed["output"] == "oh no\n" and failed["workspace"]
            assert failed["workspace"][:12] in failed["hint"]


def test_a_wrong_option_of_the_build_too(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    done = rooted.run("build", "--progress", "rawjson", "-o", "type=ocy,dest=x", context, code=2)
    (failed,) = lines(done.stderr)
    assert (failed["exit_code"], failed["hint"]) == (2, "did you mean oci?")


def test_a_large_layer_tells_how_far_it_is(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN truncate -s 600M /hole\n")
    told = lines(rooted.run("build", "--progress", "rawjson", context).stderr)
    names = [line["event"] for line in told]
    done = [line["done"] for line in told if line["event"] == "LayerProgress"]
    (sealed,) = (line for line in told if line["event"] == "LayerSealed")
    assert done and done == sorted(done) and done[-1] <= sealed["tar_size"]
    assert names.index("StepFinished") < names.index("LayerProgress") < names.index("LayerSealed")
    (mounting,) = (line for line in told if line["event"] == "RootMounting")
    assert mounting["upper"].startswith(str(rooted.root)) and "UpperWritten" not in names


def test_a_build_that_is_stopped(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo begun; sleep 600\n")
    process = rooted.start("build", "--progress", "rawjson", context, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    told = [json.loads(line) for line in iter(process.stderr.readline, b"") if _begun(line, process)]
    assert (told[-1]["event"], told[-1]["exit_code"], process.wait(60)) == ("Failed", 143, 143)


def _begun(line: bytes, process: subprocess.Popen[bytes]) -> bool:
    if b"begun" in line and b"StepOutput" in line:
        process.send_signal(signal.SIGTERM)
    return True
