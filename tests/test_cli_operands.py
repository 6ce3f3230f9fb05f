"""Each view takes each kind of image: of the store, of a layout or an archive on the disk, of a registry; whoever made
it, and without a trace afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registries import Registry
from support import Layerbuild, missing

pytestmark = [pytest.mark.memory, pytest.mark.forked]

RECIPE = """\
FROM busybox
RUN mkdir /d && seq 3000 > /d/n && echo > /d/gone
LABEL a=b
RUN echo 1 > /d/n && rm /d/gone
"""
OUTSIDE = ("layout folder", "layout tar", "docker archive", "registry")


@pytest.fixture
def images(layerbuild: Layerbuild, context: Path, program: Callable[[str], str], registry: Registry) -> dict[str, str]:
    """One image from everywhere: as the store has it, as this program gives it away, and as others do."""
    skopeo = [program("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    out = context / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    layerbuild.build(
        context, RECIPE, "-t", "here", "-o", f"type=oci,dest={out}/layout/", "-o", f"type=oci,dest={out}/oci.tar"
    )
    layerbuild("save", "-o", f"{out}/docker.tar", "here")
    theirs = registry.name("views/theirs")
    subprocess.run([*skopeo, f"oci:{out}/layout", f"docker://{theirs}"], check=True)
    return {
        "store": "here",
        "layout folder": f"{out}/layout",
        "layout tar": f"{out}/oci.tar",
        "docker archive": f"{out}/docker.tar",
        "registry": theirs,
    }


def told(layerbuild: Layerbuild, image: str) -> dict[str, Any]:
    """What each view says of an image, without what depends on where it lies."""
    layers = layerbuild.json("layers", image)["history"]
    inspected = json.loads(layerbuild("inspect", image))[0]
    history = layerbuild.json("history", image)
    blame = layerbuild.json("blame", image)
    return {
        "layers": [(row["instruction"], row["diff_id"], row["chain_id"]) for row in layers],
        "inspect": (inspected["Id"], inspected["RootFS"], [layer["ChainID"] for layer in inspected["Layers"]]),
        "history": [row["created_by"] for row in history],
        "where": [(row["layer"], row["diff_id"], row["chain_id"]) for row in layerbuild.json("where", image)["layers"]],
        "blame": [(row["created"], row["changed"], row["deleted"]) for row in blame["layers"]],
        "invisible": blame["invisible"],
        "versions": [(row["layer"], row["action"]) for row in layerbuild.json("blame", image, "/d")],
        "advice": layerbuild.json("advise", image)["efficiency"],
        "verify": layerbuild.json("verify", image)["mismatches"],
    }


def test_every_view_says_the_same_of_an_image_wherever_it_is(layerbuild: Layerbuild, images: dict[str, str]) -> None:
    wanted = told(layerbuild, images["store"])
    before = layerbuild.json("df"), layerbuild("images")
    for where in OUTSIDE:
        assert told(layerbuild, images[where]) == wanted, where
        assert layerbuild.json("diff", images["store"], images[where])["same"], where
        assert "seq 3000 &gt; /d/n" in layerbuild("report", images[where], "-o", "-"), where
    assert (layerbuild.json("df"), layerbuild("images")) == before
    assert list((layerbuild.root / "tmp").iterdir()) == []


def test_where_tells_what_would_bring_it_in(layerbuild: Layerbuild, images: dict[str, str]) -> None:
    for where, line in (("layout tar", "load -i"), ("registry", "pull")):
        said = layerbuild("where", images[where])
        assert "is not in the store" in said and f"layerbuild --root {layerbuild.root} {line} {images[where]}" in said
        assert line in layerbuild.run("where", images[where], "--layer", "top", code=1).stderr
    layerbuild(*said.split("layerbuild --root")[1].split()[1:])
    assert Path(layerbuild("where", images["registry"], "--layer", "top").strip()).is_dir()


def test_a_layer_that_stayed_in_the_registry_is_fetched_to_be_verified(
    layerbuild: Layerbuild, images: dict[str, str]
) -> None:
    name = images["registry"]
    layerbuild("rmi", "-f", "here")
    layerbuild("prune", "--all", "--force")
    layerbuild("pull", name)
    assert layerbuild.json("verify", name) == {"image": name, "whole": True, "mismatches": []}


def test_what_a_registry_has_and_does_not_hold_is_told_in_full(
    rooted: Layerbuild, context: Path, registry: Registry
) -> None:
    name = registry.name("views/damaged")
    rooted.build(context, "FROM scratch\nCOPY --link Dockerfile /a\nCOPY --link Dockerfile /b\n", "-t", name, "--push")
    layers = rooted.layers(name)
    rooted("rmi", name)
    first, second = (layer["digest"].removeprefix("sha256:") for layer in layers)
    for digest in (first, second):
        data = registry.folder / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
        data.write_bytes(data.read_bytes()[:-1] + b"x")
    told = json.loads(rooted.run("verify", name, "--format", "json", code=1).stdout)
    assert {found["subject"] for found in told["mismatches"]} == {f"layer sha256:{each}" for each in (first, second)}
    assert list((rooted.root / "tmp").iterdir()) == []
    assert "404" in rooted.run("verify", registry.name("views/nothing"), code=69).stderr


def test_one_of_several_platforms(rooted: Layerbuild, context: Path) -> None:
    (context / "f").write_text("1\n")
    recipe = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /$TARGETARCH\n"
    platforms = ("--platform", "linux/amd64,linux/arm64")
    rooted.build(context, recipe, *platforms, "-o", f"type=oci,dest={context}/both.tar", "-t", "both")
    for image in ("both", f"{context}/both.tar"):
        for arch in ("amd64", "arm64"):
            chosen = ("--platform", f"linux/{arch}")
            found = rooted.json("blame", image, f"/{arch}", *chosen)
            assert [row["action"] for row in found] == ["created"]
            assert f"COPY f /{arch}" in rooted("report", image, "-o", "-", *chosen)
            assert rooted.json("diff", image, "both", *chosen)["same"]
            assert rooted.json("advise", image, *chosen)["advice"] == []
            assert f"COPY f /{arch}" in rooted("history", image, *chosen)
            assert rooted.json("verify", image, *chosen)["whole"]
    assert "has no image for linux/s390x" in rooted.run("blame", image, "--platform", "linux/s390x", code=1).stderr


# -- images that others made -------------------------------------------------------------------------------------------


@pytest.fixture
def made_by_buildah(context: Path, program: Callable[[str], str]) -> Iterator[Path]:
    """A layout of three layers, the last of which deletes."""
    state = context / "buildah"
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs", "HOME": str(context)}
    words = [program("buildah"), "--root", str(state / "root"), "--runroot", str(state / "run")]
    (context / "f").write_text("1\n")
    (context / "g").write_text("22\n")

    def call(*arguments: str) -> str:
        return subprocess.run(
            [*words, *arguments], env=environment, cwd=context, check=True, capture_output=True, text=True
        ).stdout.strip()

    container = call("from", "scratch")
    call("copy", container, "f", "/d/f")
    first = call("commit", "--quiet", container)
    container = call("from", first)
    call("copy", container, "g", "/d/f")
    call("config", "--label", "a=b", container)
    call("commit", "--quiet", container, f"oci:{context}/theirs:1")
    yield context / "theirs"
    shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def made_by_umoci(context: Path, program: Callable[[str], str]) -> Path:
    umoci, layout, bundle = program("umoci"), context / "theirs", context / "bundle"

    def call(*arguments: str | Path) -> None:
        subprocess.run([umoci, *map(str, arguments)], check=True, capture_output=True)

    call("init", "--layout", layout)
    call("new", "--image", f"{layout}:1")
    for step in range(3):
        call("unpack", "--image", f"{layout}:1", bundle)
        folder = bundle / "rootfs" / "d"
        folder.mkdir(exist_ok=True)
        (folder / "f").write_text("1\n" * step)
        if step == 2:
            (folder / "gone").unlink()
        else:
            (folder / "gone").write_text("x")
        call("repack", "--image", f"{layout}:1", bundle)
        shutil.rmtree(bundle)
    return layout


@pytest.mark.root
@pytest.mark.parametrize("maker", ["buildah", "umoci"])
def test_what_others_made(
    rooted: Layerbuild,
    context: Path,
    maker: str,
    request: pytest.FixtureRequest,
    program: Callable[[str], str],
    registry: Registry,
) -> None:
    if os.geteuid() != 0:
        missing("not run as root")
    layout = request.getfixturevalue(f"made_by_{maker}")
    skopeo = [program("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:1"]
    pushed = registry.name(f"views/{maker}")
    subprocess.run([*skopeo, f"docker-archive:{context}/theirs.tar:theirs:1"], check=True)
    subprocess.run([*skopeo, f"docker://{pushed}"], check=True)
    found = [told(rooted, image) for image in (f"{layout}:1", f"{context}/theirs.tar", pushed)]
    assert found[1] == found[0] and found[2] == found[0]
    assert found[0]["verify"] == []
    assert found[0]["invisible"] and {action for _, action in found[0]["versions"]} >= {"created", "changed"}
    assert rooted.json("diff", f"{layout}:1", pushed)["same"]
    assert "/d/f" in rooted("report", pushed, "-o", "-")


def test_names_in_a_layout_that_are_no_references_are_told(
    rooted: Layerbuild, context: Path, program: Callable[[str], str]
) -> None:
    """As skopeo and umoci write them: a bare word."""
    rooted.build(context, RECIPE, "-o", f"type=oci,dest={context}/one/")
    rooted.build(context, "FROM scratch\nLABEL a=b\n", "-o", f"type=oci,dest={context}/two/")
    for name in ("one", "two"):
        copy = [program("skopeo"), "--insecure-policy", "copy", "-q"]
        subprocess.run([*copy, f"oci:{context}/{name}", f"oci:{context}/both:{name}"], check=True)
    assert "both has several images: one, two" in rooted.run("layers", context / "both", code=2).stderr
    assert rooted.json("layers", f"{context}/both:one")


def test_where_an_image_lies_needs_no_prefix(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM scratch\nLABEL a=b\n", "-o", f"type=oci,dest={context}/out/")
    for command in ("layers", "verify", "blame"):
        said = rooted.run(command, f"oci:{context}/out", code=2 if command == "verify" else 1).stderr
        assert f"hint: leave oci: out: {context}/out" in said
    assert "hint: leave docker:// out: a.example/b" in rooted.run("layers", "docker://a.example/b", code=1).stderr
    assert "the store has no image 'oci:1'" in rooted.run("layers", "oci:1", code=1).stderr
