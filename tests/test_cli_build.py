"""``build``: stages, arguments, and what it hands over to scripts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support import Layerbuild

pytestmark = [pytest.mark.memory, pytest.mark.forked]

STAGES = """\
ARG FLAVOUR=plain
FROM busybox AS compile
ARG FLAVOUR
RUN echo "compiled $FLAVOUR" > /result; echo compile-ran
FROM busybox AS unused
RUN exit 1
FROM scratch AS assets
COPY --from=compile /result /assets/result
FROM busybox AS final
COPY --from=0 /result /by-index
COPY --from=assets /assets /assets
COPY --from=busybox /etc/passwd /from-image
RUN test -z "$FLAVOUR" && cat /by-index /assets/result
"""


def runtime(layerbuild: Layerbuild, image: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(layerbuild("inspect", image))[0]["Config"]
    return config


# -- stages and arguments ----------------------------------------------------------------------------------------------


def test_stages(layerbuild: Layerbuild, context: Path) -> None:
    said = layerbuild.build(context, STAGES, "-t", "staged", "--build-arg", "FLAVOUR=fancy")
    assert "stage unused: skipped, " in said
    assert said.count("| compiled fancy") == 2
    assert layerbuild("run", "staged", "cat", "/by-index", "/assets/result") == "compiled fancy\n" * 2
    assert layerbuild("run", "staged", "head", "-n1", "/from-image").startswith("root:")
    assert len(layerbuild.layers("staged")) == 1 + 3  # the base's, and the COPYs; the last RUN changes nothing


def test_target(layerbuild: Layerbuild, context: Path) -> None:
    said = layerbuild.build(context, STAGES, "--target", "assets", "-t", "assets")
    assert "stage unused: skipped" in said and "stage final: skipped" in said
    assert layerbuild.names("assets") == ["assets/", "assets/result"]
    assert layerbuild("build", "-q", "--target", "2", context) == layerbuild(
        "build", "-q", "--target", "assets", context
    )
    assert "exit code: 1" in layerbuild.build(context, STAGES, "--target", "unused", code=1)


def test_an_argument_is_part_of_the_cache_where_it_is_in_force(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, STAGES)
    assert "| compile-ran" not in layerbuild.build(context, STAGES, "--build-arg", "FLAVOUR=plain")
    assert "| compile-ran" in layerbuild.build(context, STAGES, "--build-arg", "FLAVOUR=other")
    recipe = "FROM busybox\nRUN echo early-ran\nARG A=1\nRUN echo late-ran-$A\n"
    layerbuild.build(context, recipe)
    said = layerbuild.build(context, recipe, "--build-arg", "A=2")
    assert "| early-ran" not in said and "| late-ran-2" in said


def test_an_argument_from_the_environment(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nARG HANDED=default\nRUN echo got-$HANDED\n"
    assert "| got-over" in layerbuild.build(context, recipe, "--build-arg", "HANDED", env={"HANDED": "over"})
    assert "| got-default" in layerbuild.build(context, recipe, "--build-arg", "HANDED")


def test_a_working_directory_with_dots_in_it(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, "FROM busybox\nWORKDIR /a/./b/../c//d/\nRUN pwd > out\n", "-t", "image")
    assert layerbuild("run", "image", "sh", "-c", "cat out; ls /a") == "/a/c/d\nc\n"


def test_triggers_of_a_base(layerbuild: Layerbuild, context: Path) -> None:
    (context / "file").write_text("triggered")
    base = "FROM busybox\nONBUILD COPY file /file\nONBUILD RUN cat /file > /seen\nONBUILD ENV FROM_BASE=yes\n"
    layerbuild.build(context, base, "-t", "trigger")
    assert len(runtime(layerbuild, "trigger")["OnBuild"]) == 3
    layerbuild.build(context, "FROM trigger\nRUN cat /seen\n", "-t", "child")
    assert layerbuild("run", "child", "sh", "-c", "cat /seen; echo $FROM_BASE") == "triggeredyes\n"
    assert not runtime(layerbuild, "child").get("OnBuild")
    instructions = [step["instruction"] for step in layerbuild.json("plan", context)["steps"]]
    assert instructions == [
        "ONBUILD COPY file /file",
        "ONBUILD RUN cat /file > /seen",
        "ONBUILD ENV FROM_BASE=yes",
        "RUN cat /seen",
    ]


# -- where the recipe comes from ---------------------------------------------------------------------------------------


def test_a_recipe_outside_the_context(layerbuild: Layerbuild, context: Path) -> None:
    (context / "ctx").mkdir()
    (context / "ctx/left").touch()
    (context / "ctx/kept").touch()
    (context / "my.recipe").write_text("FROM scratch\nCOPY . /all/\n")
    (context / "my.recipe.dockerignore").write_text("left\n")
    layerbuild("build", "-f", context / "my.recipe", "-t", "outside", context / "ctx")
    assert layerbuild.names("outside") == ["all/", "all/kept"]


def test_a_recipe_from_standard_input(layerbuild: Layerbuild, context: Path) -> None:
    (context / "file").write_text("x")
    layerbuild("build", "-f", "-", "-t", "piped", context, stdin=b"FROM busybox\nCOPY file /\nRUN cat; cat /file\n")
    assert layerbuild.names("piped") == ["file"]
    said = layerbuild.run("build", "-f", "-", context, stdin=b"FROM busybox\nRUN exit 3\n", code=1).stderr
    assert "stdin:2:1: " in said
    assert "stdin:2:1: " in layerbuild.run("plan", "-f", "-", context, stdin=b"FROM busybox\nRUM\n", code=3).stderr


# -- what scripts get --------------------------------------------------------------------------------------------------

SMALL = "FROM busybox\nRUN echo output; echo x > /x\nLABEL a=1\n"


def test_files_for_scripts(layerbuild: Layerbuild, context: Path) -> None:
    (context / "out").mkdir()
    (context / "out").chmod(0o777)
    iidfile, metadata = context / "out/iid", context / "out/metadata"
    (context / "Dockerfile").write_text(SMALL)
    done = layerbuild.run("build", "-q", "-t", "scripted", "--iidfile", iidfile, "--metadata-file", metadata, context)
    assert done.stderr == ""
    image_id = done.stdout.removesuffix("\n")
    assert iidfile.read_text() == image_id
    told = json.loads(metadata.read_text())
    assert told["containerimage.config.digest"] == image_id
    assert told["image.name"] == "docker.io/library/scripted:latest"
    manifest = (layerbuild.root / "blobs/sha256" / told["containerimage.digest"].partition(":")[2]).read_bytes()
    assert told["containerimage.digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert json.loads(manifest)["config"]["digest"] == image_id
    assert told["containerimage.descriptor"]["size"] == len(manifest)
    assert sorted(os.listdir(context / "out")) == ["iid", "metadata"]
    layerbuild("build", "-q", "--metadata-file", metadata, context)
    assert "image.name" not in json.loads(metadata.read_text())


def test_a_failed_build_writes_no_file_for_scripts(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN false\n", "--iidfile", context / "iid", code=1)
    assert not (context / "iid").exists()


def test_labels(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, SMALL, "-t", "plain")
    layerbuild.build(context, SMALL, "-t", "labelled", "--label", "a=2", "--label", "b=x=y", "--label", "c")
    assert runtime(layerbuild, "labelled")["Labels"] == {"a": "2", "b": "x=y", "c": ""}
    assert layerbuild.layers("labelled") == layerbuild.layers("plain")
    assert len(layerbuild.json("history", "labelled")) == len(layerbuild.json("history", "plain"))


def test_progress_as_json(layerbuild: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text(STAGES)
    for _ in range(2):
        lines = layerbuild.run("build", "--progress", "rawjson", context).stderr.splitlines()
        events = [json.loads(line) for line in lines]
        told = [event["event"] for event in events if event["event"] != "Note"]  # that there is one id only, say
        assert [told[0], told[-1]] == ["BuildStarted", "ImageWritten"]
    assert {event["event"] for event in events} >= {"StageSkipped", "StageStarted", "CacheHit"}
    assert sum(event["event"] == "CacheHit" for event in events) == 6


def test_a_tar_on_standard_output(layerbuild: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text(SMALL)
    done = subprocess.run(
        layerbuild.command("build", "-q", "-o", "-", context),
        env=layerbuild.environment(),
        capture_output=True,
        check=True,
    )
    (context / "rootfs.tar").write_bytes(done.stdout)
    with tarfile.open(context / "rootfs.tar") as tar:
        assert "x" in tar.getnames() and "bin/busybox" in tar.getnames()


# -- times -------------------------------------------------------------------------------------------------------------


def member_times(layerbuild: Layerbuild, image: str) -> set[int]:
    digest = layerbuild.layers(image)[-1]["digest"].partition(":")[2]
    with tarfile.open(layerbuild.root / "blobs/sha256" / digest) as tar:
        return {int(member.mtime) for member in tar}


def created(layerbuild: Layerbuild, image: str) -> str:
    text: str = json.loads(layerbuild("inspect", image))[0]["Created"]
    return text


RUN_EPOCH = "FROM busybox\nRUN echo $SOURCE_DATE_EPOCH > /x\n"


@pytest.mark.parametrize(
    ("arguments", "env", "epoch"),
    [
        ((), {}, 315532800),
        ((), {"SOURCE_DATE_EPOCH": "1000000000"}, 1000000000),
        (("--timestamp", "1100000000"), {"SOURCE_DATE_EPOCH": "1000000000"}, 1100000000),
        (("--build-arg", "SOURCE_DATE_EPOCH=1200000000"), {}, 1200000000),
        (("--timestamp", "0"), {}, 0),
    ],
)
def test_the_epoch(
    rooted: Layerbuild, context: Path, arguments: tuple[str, ...], env: dict[str, str], epoch: int
) -> None:
    rooted.build(context, RUN_EPOCH, "-t", "timed", *arguments, env=env)
    assert member_times(rooted, "timed") == {epoch}
    assert rooted("run", "timed", "cat", "/x") == f"{epoch}\n"
    wanted = subprocess.run(["date", "-u", "-d", f"@{epoch}", "+%FT%TZ"], capture_output=True, text=True, check=True)
    assert created(rooted, "timed") == wanted.stdout.strip()


def test_times_that_are_kept(layerbuild: Layerbuild, context: Path) -> None:
    (context / "file").write_text("x")
    os.utime(context / "file", (1234567890, 1234567890))
    recipe = "FROM scratch\nCOPY file /\n"
    layerbuild.build(context, recipe, "-t", "kept", "--timestamp", "keep")
    assert member_times(layerbuild, "kept") == {1234567890}
    layerbuild.build(context, recipe, "-t", "clamped")
    assert member_times(layerbuild, "clamped") == {315532800}
    assert created(layerbuild, "kept") > "2024"


def test_same_bytes_from_another_place_on_another_day(layerbuild: Layerbuild, context: Path) -> None:
    (context / "one").mkdir()
    (context / "one/file").write_text("x")
    (context / "one/Dockerfile").write_text(SMALL.replace("LABEL", "COPY . /all\nLABEL"))
    shutil.copytree(context / "one", context / "two")
    for path in (context / "two").iterdir():
        os.utime(path, (10**9, 10**9))
    first = layerbuild("build", "-q", context / "one")
    assert layerbuild("build", "-q", "--no-cache", context / "two") == first


def test_the_history_comment_says_who_built(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN touch /x\nLABEL a=1\n", "-t", "made")
    history = rooted.json("history", "made")
    assert [entry["comment"] for entry in history][:2] == ["layerbuild", "layerbuild"]


def test_an_epoch_is_what_is_said_nearest(rooted: Layerbuild, context: Path) -> None:
    def created(*arguments: str, epoch: str = "", code: int = 0) -> str:
        rooted.build(context, RECIPE_WITH_EPOCH, "-t", "dated", *arguments, env={"SOURCE_DATE_EPOCH": epoch}, code=code)
        return str(rooted.json("layers", "dated")["history"][-1]["created"])

    assert created(epoch="7") == "1970-01-01T00:00:05Z"  # the recipe's own default before the environment
    assert created("--build-arg", "SOURCE_DATE_EPOCH=6") == "1970-01-01T00:00:06Z"
    assert created("--build-arg", "SOURCE_DATE_EPOCH=6", "--timestamp", "8") == "1970-01-01T00:00:08Z"
    assert created("--build-arg", "SOURCE_DATE_EPOCH=context", epoch="9") == "1970-01-01T00:00:09Z"


RECIPE_WITH_EPOCH = "ARG SOURCE_DATE_EPOCH=5\nFROM busybox\nLABEL a=1\n"
