"""--platform: images for other machines, and for several at once."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import Templates
from support import Layerbuild, missing
from traces import assert_whole

from layerbuild.isolate import emulation

OWN = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = "riscv64"  # which no machine of the tests executes
BINFMT = Path("/proc/sys/fs/binfmt_misc")
BOTH = ("--platform", f"linux/{OWN},linux/{OTHER}")

MULTI = """\
FROM --platform=$BUILDPLATFORM busybox AS tools
ARG BUILDARCH
RUN echo "made on $BUILDARCH" > /made; date +%N > /when
FROM scratch
ARG TARGETPLATFORM
LABEL for=$TARGETPLATFORM
COPY --from=tools /made /when /
COPY for-$TARGETARCH /which
"""
MULTI = MULTI.replace("ARG TARGETPLATFORM\n", "ARG TARGETPLATFORM TARGETARCH\n")


def inspected(layerbuild: Layerbuild, name: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(layerbuild("inspect", *options, name))[0]
    return found


@pytest.fixture
def multi(context: Path) -> Path:
    for architecture in (OWN, OTHER):
        (context / f"for-{architecture}").write_text(architecture)
    (context / "Dockerfile").write_text(MULTI)
    return context


# -- one platform ------------------------------------------------------------------------------------------------------


def test_what_runs_nothing_can_be_built_for_any_platform(layerbuild: Layerbuild, multi: Path) -> None:
    layerbuild.build(multi, None, "--platform", "linux/arm/7", "-t", "x", "--build-arg", f"TARGETARCH={OTHER}")
    image = inspected(layerbuild, "x", "--platform", "linux/arm")
    assert (image["Os"], image["Architecture"], image["Variant"]) == ("linux", "arm", "v7")
    assert image["Config"]["Labels"] == {"for": "linux/arm/v7"}
    assert "mediaType" in image["Descriptor"] and "manifest" in image["Descriptor"]["mediaType"]
    assert [row["platform"] for row in layerbuild.json("images") if row["repository"] == "x"] == ["linux/arm/v7"]


def test_an_image_says_the_platform_that_was_asked_for(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nLABEL a=b\n", "--platform", f"linux/{OWN}/v2", "-t", "x")
    assert inspected(rooted, "x")["Variant"] == "v2"
    rooted.build(context, "FROM busybox\nLABEL a=c\n", "-t", "x")
    assert "Variant" not in inspected(rooted, "x")


def test_dockers_variable_names_the_platform(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    variable = {"DOCKER_DEFAULT_PLATFORM": f"linux/{OTHER}"}
    for words, wanted in (((), OTHER), (("--platform", f"linux/{OWN}"), OWN)):
        rooted.run("build", "-t", "x", *words, context, env=variable)
        assert inspected(rooted, "x")["Architecture"] == wanted
    rooted("run", "busybox", "true")
    assert OTHER in rooted.run("run", "busybox", "true", code=1, env=variable).stderr


def test_a_base_of_another_platform_is_an_error_with_its_place(rooted: Layerbuild, context: Path) -> None:
    for recipe, options in (
        ("FROM busybox\n", ("--platform", f"linux/{OTHER}")),
        (f"FROM --platform=linux/{OTHER} busybox\n", ()),
    ):
        (context / "Dockerfile").write_text(recipe)
        said = rooted.run("build", "--pull=never", *options, context, code=1).stderr
        assert "Dockerfile:1:" in said and f"base image 'busybox' is not in the store for linux/{OTHER}" in said
        assert f"it is there for linux/{OWN}" in said


def test_a_run_for_another_platform_fails_before_anything_runs(rooted: Layerbuild, context: Path) -> None:
    (context / "program").write_bytes(emulation.program(OTHER) or b"")
    recipe = 'FROM busybox\nRUN echo ran > /dev/tty\nFROM scratch\nCOPY --chmod=755 program /\nRUN ["/program"]\n'
    (context / "Dockerfile").write_text(recipe)
    said = rooted.run("build", "--platform", f"linux/{OTHER}", context, code=77).stderr
    assert "Dockerfile:5:1: programs for riscv64 can't be executed on this machine" in said
    assert "hint: register an emulator with binfmt_misc" in said
    assert "COPY" not in said.replace("RUN", "", 1).partition("5 |")[0]  # not even the copy was made
    assert "only COPY, ADD and metadata" in rooted.run("build", "--platform", "windows", context, code=77).stderr


def test_a_plan_and_a_lint_are_for_a_platform(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nLABEL a=$TARGETARCH\nCOPY x-$TARGETARCH /\n"
    (context / "Dockerfile").write_text(recipe)
    (context / f"x-{OTHER}").write_text("x")
    assert "COPY" in rooted("plan", "--platform", OTHER, context)
    assert "RedundantTargetPlatform" not in rooted("lint", "--platform", OTHER, context)
    assert "not found" in rooted.run("plan", context, code=1).stderr
    assert "only `build` takes several" in rooted.run("plan", *BOTH, context, code=2).stderr


@pytest.mark.parametrize("text", ["linux/", "a/b/c/d", f"linux/{OWN},,"])
def test_what_is_no_platform_is_refused(rooted: Layerbuild, multi: Path, text: str) -> None:
    assert "is no platform" in rooted.run("build", "--platform", text, multi, code=2).stderr


@pytest.fixture
def emulator(program: Callable[[str], str]) -> Iterator[None]:
    """riscv64 programs can be executed, by way of binfmt_misc, as long as the test lasts."""
    qemu = program("qemu-riscv64-static")
    if os.geteuid() != 0:
        missing("only root can register an emulator")
    mounted = BINFMT.joinpath("register").exists()
    if not mounted:
        done = subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], capture_output=True, check=False)
        if done.returncode:
            missing(f"this kernel has no binfmt_misc: {done.stderr.decode()}")
    magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xf3\x00"
    mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    entry = BINFMT / "layerbuild-test"
    (BINFMT / "register").write_text(f":layerbuild-test:M::{magic}:{mask}:{qemu}:F")
    yield
    entry.write_text("-1")
    if not mounted:
        subprocess.run(["umount", BINFMT], check=True)


def test_with_an_emulator_it_runs(emulator: None, layerbuild: Layerbuild, context: Path) -> None:
    for code in (0, 42):
        (context / f"exit-{code}").write_bytes(emulation.program(OTHER, exit_code=code) or b"")
    recipe = 'FROM scratch\nCOPY --chmod=755 exit-* /\nRUN ["/exit-0"]\n'
    layerbuild.build(context, recipe, "--platform", f"linux/{OTHER}", "-t", "x")
    assert layerbuild.run("run", "--platform", f"linux/{OTHER}", "x", "/exit-42", code=42).stdout == ""
    (context / "Dockerfile").write_text(recipe + 'RUN ["/exit-42"]\n')
    said = layerbuild.run("build", "--platform", f"linux/{OTHER}", context, code=1).stderr
    assert "exit code: 42" in said


def test_a_command_runs_again_for_another_platform(rooted: Layerbuild, context: Path) -> None:  # K2
    """On the very same layers: neither key may find what was made for the other one."""
    shutil.copy("/bin/busybox", context / "busybox")
    recipe = 'FROM scratch\nCOPY busybox /\nRUN ["/busybox", "touch", "/made"]\n'
    options = ("--platform", f"linux/{OWN}/v2")
    assert "cached" not in rooted.build(context, recipe)
    said = rooted.build(context, None, *options)
    assert said.count("cached") == 1 and f"platform linux/{OWN} → linux/{OWN}/v2" in rooted("explain")
    assert rooted.build(context, None, *options).count("cached") == rooted.build(context, None).count("cached") == 2


def test_a_stage_that_a_cache_tells_of_needs_no_emulator(
    emulator: None, rooted: Layerbuild, templates: Templates, context: Path, tmp_path: Path
) -> None:
    (context / "exit-0").write_bytes(emulation.program(OTHER, exit_code=0) or b"")
    recipe = 'FROM scratch AS a\nCOPY --chmod=755 exit-0 /\nRUN ["/exit-0"]\nFROM scratch\nCOPY --from=a / /\n'
    cache, options = f"{tmp_path}/cache", ("--platform", f"linux/{OTHER}")
    rooted.build(context, recipe, *options, "--cache-to", f"type=local,dest={cache}")
    (BINFMT / "layerbuild-test").write_text("0")  # as on a machine without it
    second = templates.copy("root", templates.folder / "no-emulator")
    try:
        assert "can't be executed" in second.run("build", *options, context, code=77).stderr
        said = second.build(context, None, *options, "--cache-from", f"type=local,src={cache}")
        assert "stage a: skipped" in said
    finally:
        shutil.rmtree(templates.folder / "no-emulator")


# -- several platforms -------------------------------------------------------------------------------------------------


def test_an_index_of_both(layerbuild: Layerbuild, multi: Path) -> None:
    said = layerbuild.build(multi, None, *BOTH, "--no-cache", "-t", "multi", "-t", "other:v1")
    assert said.count("RUN echo") == 1, said  # built once for both
    rows = {row["platform"]: row for row in layerbuild.json("images") if row["repository"] == "multi"}
    assert set(rows) == {f"linux/{OWN}", f"linux/{OTHER}"}
    assert len({row["index_digest"] for row in rows.values()}) == 1
    own, other = inspected(layerbuild, "multi"), inspected(layerbuild, "multi", "--platform", OTHER)
    assert (own["Architecture"], other["Architecture"]) == (OWN, OTHER)
    assert own["RepoTags"] == other["RepoTags"] == ["multi:latest", "other:v1"]
    assert own["RootFS"]["Layers"][0] == other["RootFS"]["Layers"][0]
    assert layerbuild.json("layers", "multi")["image_id"] == own["Id"]
    assert layerbuild.json("history", "--platform", OTHER, "multi")
    layerbuild("tag", "multi", "third")
    assert inspected(layerbuild, "third", "--platform", OTHER)["Id"] == other["Id"]
    for name in ("multi", "other:v1", "third"):
        layerbuild("rmi", name)
    assert [row["repository"] for row in layerbuild.json("images")].count("<none>") == 0
    layerbuild("prune", "-a")
    assert_whole(layerbuild.root)


def test_an_index_serves_as_a_base_for_each_of_its_platforms(rooted: Layerbuild, multi: Path, context: Path) -> None:
    rooted.build(multi, None, *BOTH, "-t", "multi")
    rooted.build(context, "FROM multi\nLABEL more=1\n", *BOTH, "-t", "more")
    for architecture in (OWN, OTHER):
        below = inspected(rooted, "multi", "--platform", architecture)
        image = inspected(rooted, "more", "--platform", architecture)
        assert image["RootFS"] == below["RootFS"]
        assert image["Config"]["Labels"] == {"for": f"linux/{architecture}", "more": "1"}


def test_exports_of_several_platforms(rooted: Layerbuild, multi: Path, tmp_path: Path) -> None:
    outputs = [f"type={kind},dest={tmp_path}/{kind}" for kind in ("local", "tar", "layers", "oci")]
    rooted.build(multi, None, *BOTH, "-t", "multi", *(word for output in outputs for word in ("-o", output)))
    with tarfile.open(tmp_path / "tar") as tar:
        for architecture in (OWN, OTHER):
            folder = f"linux_{architecture}"
            assert (tmp_path / "local" / folder / "which").read_text() == architecture
            member = tar.extractfile(f"{folder}/which")
            assert member is not None and member.read().decode() == architecture
            listed = json.loads((tmp_path / "layers" / folder / "layers.json").read_text())
            assert listed["platform"] == f"linux/{architecture}"
    with tarfile.open(tmp_path / "oci") as tar:
        (described,) = json.load(tar.extractfile("index.json") or io.BytesIO())["manifests"]
        index = json.load(tar.extractfile(f"blobs/sha256/{described['digest'][7:]}") or io.BytesIO())
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == [OWN, OTHER]


def test_docker_takes_one_platform_and_says_so_before_the_build(
    rooted: Layerbuild, multi: Path, tmp_path: Path
) -> None:
    output = f"type=docker,dest={tmp_path}/out"
    said = rooted.run("build", *BOTH, "-o", output, multi, code=2).stderr
    assert "takes one platform only" in said and "stage" not in said
    rooted.build(multi, None, "--platform", OTHER, "-o", output)


def test_an_index_travels_through_an_archive(rooted: Layerbuild, multi: Path, context: Path) -> None:
    rooted.build(multi, None, *BOTH, "-t", "multi")
    archive = rooted("inspect", "multi") and context / "multi.tar"
    rooted("save", "--format", "oci", "-o", archive, "multi")
    other = Layerbuild(context / "store")
    assert other("load", "-i", archive) == "Loaded image: multi:latest\n"
    for architecture in (OWN, OTHER):
        ours, theirs = (inspected(where, "multi", "--platform", architecture) for where in (rooted, other))
        assert (ours["Id"], ours["RepoDigests"]) == (theirs["Id"], theirs["RepoDigests"])
    one = Layerbuild(context / "one")
    one("load", "--platform", OTHER, "-i", archive)
    assert [row["platform"] for row in one.json("images")] == [f"linux/{OTHER}"]
    rooted("save", "-o", context / "docker.tar", "multi")  # Docker's form: this machine's image
    third = Layerbuild(context / "third")
    third("load", "-i", context / "docker.tar")
    assert [row["platform"] for row in third.json("images")] == [f"linux/{OWN}"]


# -- what is told to scripts -------------------------------------------------------------------------------------------


def test_files_for_scripts(rooted: Layerbuild, multi: Path, tmp_path: Path) -> None:
    files = (
        "--iidfile",
        tmp_path / "id",
        "--metadata-file",
        tmp_path / "metadata",
        "--digest-file",
        tmp_path / "digest",
    )
    rooted.build(multi, None, "-t", "one", "--annotation", "who=me", *files)
    metadata = json.loads((tmp_path / "metadata").read_text())
    image = inspected(rooted, "one")
    assert metadata["containerimage.config.digest"] == (tmp_path / "id").read_text() == image["Id"]
    assert metadata["containerimage.digest"] == (tmp_path / "digest").read_text() == image["Descriptor"]["digest"]
    assert metadata["containerimage.descriptor"]["platform"] == {"architecture": OWN, "os": "linux"}
    assert metadata["image.name"] == "docker.io/library/one:latest"

    rooted.build(multi, None, *BOTH, "-t", "both", *files)
    metadata = json.loads((tmp_path / "metadata").read_text())
    (digest,) = {row["index_digest"] for row in rooted.json("images") if row["repository"] == "both"}
    assert metadata["containerimage.digest"] == (tmp_path / "id").read_text() == (tmp_path / "digest").read_text()
    assert metadata["containerimage.digest"] == digest
    assert metadata["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert "containerimage.config.digest" not in metadata

    (multi / "Dockerfile").write_text("FROM busybox\nRUN exit 3\n")
    rooted.run("build", *files, multi, code=1)
    assert not list(tmp_path.iterdir())  # nothing stale stays behind a failure


def test_annotations_go_where_they_are_said(rooted: Layerbuild, multi: Path, tmp_path: Path) -> None:
    said = {
        "plain": "a",
        f"manifest[linux/{OTHER}]:one": "b",
        "index:whole": "c",
        f"manifest-descriptor[linux/{OWN}]:entry": "d",
        "index-descriptor:layout": "e",
    }
    options = [word for key, value in said.items() for word in ("--annotation", f"{key}={value}")]
    rooted.build(multi, None, *BOTH, "-t", "x", *options, "-o", f"type=oci,dest={tmp_path}/out/,annotation.extra=f")

    def document(digest: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "out/blobs/sha256" / digest[7:]).read_text())
        return found

    (described,) = json.loads((tmp_path / "out/index.json").read_text())["manifests"]
    assert described["annotations"]["layout"] == "e"
    index = document(described["digest"])
    assert index["annotations"] == {"whole": "c"}
    own, other = index["manifests"]
    assert (own["annotations"], other.get("annotations")) == ({"entry": "d"}, None)
    assert document(own["digest"])["annotations"] == {"plain": "a", "extra": "f"}
    assert document(other["digest"])["annotations"] == {"plain": "a", "one": "b", "extra": "f"}
    said_again = rooted.run("build", "--annotation", "index:a=b", multi, code=2).stderr
    assert "has no index" in said_again
