"""load, save and import: images as files, ours and those of other programs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from support import Layerbuild, add_member, missing
from traces import assert_whole

pytestmark = pytest.mark.forked

if TYPE_CHECKING:
    from stores import Templates

RECIPE = """\
FROM busybox
COPY file /file
RUN echo made > /made; ln /made /again; ln -s made /link
CMD ["cat", "/made"]
"""


@pytest.fixture(scope="module")
def built(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layerbuild]:
    """A store for all tests of this module, which only add to it."""
    if os.geteuid() != 0:
        missing("not run as root")
    folder, context = templates.folder / "archives", tmp_path_factory.mktemp("context")
    layerbuild = templates.copy("root", folder)
    fill(context)
    layerbuild.build(context, RECIPE, "-t", "built", "-t", "other/name:v2")
    yield layerbuild
    shutil.rmtree(folder)


def fill(context: Path) -> None:
    (context / "file").write_text("copied")


def image_id(layerbuild: Layerbuild, name: str) -> str:
    found: str = json.loads(layerbuild("inspect", name))[0]["Id"]
    return found


def documents(archive: Path, *names: str) -> list[Any]:
    with tarfile.open(archive) as tar:
        return [json.load(tar.extractfile(name) or io.BytesIO()) for name in names]


# -- save and load -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_several_images_and_names_in_one_file(built: Layerbuild, context: Path, form: str) -> None:
    archive = context / "saved.tar"
    built("save", "--format", form, "-o", archive, "built", "busybox", "other/name:v2")
    (index,) = documents(archive, "index.json")
    assert len(index["manifests"]) == 3
    if form == "docker":
        (listed,) = documents(archive, "manifest.json")
        assert [entry["RepoTags"] for entry in listed] == [["built:latest", "other/name:v2"], ["busybox:latest"]]
    other = Layerbuild(context / "store")
    said = other("load", "-i", archive)
    assert sorted(said.splitlines()) == [
        f"Loaded image: {name}" for name in ("built:latest", "busybox:latest", "other/name:v2")
    ]
    for name in ("built", "busybox"):
        assert image_id(other, name) == image_id(built, name)
    assert other("run", "built") == "made\n"
    assert_whole(other.root)


def test_only_the_names_that_are_given_are_saved(built: Layerbuild, context: Path) -> None:
    built("save", "-o", context / "named.tar", "built")
    assert documents(context / "named.tar", "manifest.json")[0][0]["RepoTags"] == ["built:latest"]
    built("save", "-o", context / "unnamed.tar", image_id(built, "built"))
    assert documents(context / "unnamed.tar", "manifest.json")[0][0]["RepoTags"] is None
    other = Layerbuild(context / "store")
    assert other("load", "-i", context / "unnamed.tar") == f"Loaded image ID: {image_id(built, 'built')}\n"


def test_through_a_pipe(built: Layerbuild, context: Path) -> None:
    saved = subprocess.run(built.command("save", "built"), capture_output=True, check=True).stdout
    built("save", "-o", context / "file.tar", "built")
    assert saved == (context / "file.tar").read_bytes()
    other = Layerbuild(context / "store")
    assert "built:latest" in other("load", stdin=saved)
    assert other("load", "-q", stdin=saved) == ""


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, lambda data: zstandard.ZstdCompressor().compress(data)],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_a_compressed_archive(built: Layerbuild, context: Path, compress: Callable[[bytes], bytes]) -> None:
    built("save", "-o", context / "plain.tar", "built")
    (context / "packed").write_bytes(compress((context / "plain.tar").read_bytes()))
    assert "built:latest" in Layerbuild(context / "store")("load", "-i", context / "packed")


def test_a_truncated_archive_is_an_error_and_leaves_nothing(built: Layerbuild, context: Path) -> None:
    built("save", "-o", context / "whole.tar", "built")
    whole = (context / "whole.tar").read_bytes()
    other = Layerbuild(context / "store")
    for size in (0, 100, 512, 5_000, len(whole) // 2, len(whole) - 20_000):
        for data in (whole[:size], gzip.compress(whole)[: size // 3]):
            said = other.run("load", stdin=data, code=1).stderr
            assert said.startswith("layerbuild: ") and "Traceback" not in said
    assert other.json("images") == []
    other("prune")
    assert_whole(other.root)


def test_an_output_that_is_no_file_is_named(built: Layerbuild, context: Path) -> None:
    assert f"{context} is a folder" in built.run("save", "-o", context, "built", code=2).stderr
    assert "no image 'nosuch'" in built.run("save", "-o", context / "x", "built", "nosuch", code=1).stderr
    assert not (context / "x").exists()


# -- other programs ----------------------------------------------------------------------------------------------------


def ran(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_skopeo_reads_what_is_saved(built: Layerbuild, context: Path, program: Callable[[str], str], form: str) -> None:
    built("save", "--format", form, "-o", context / "saved.tar", "built")
    source = f"{form}-archive:{context}/saved.tar"
    told = json.loads(ran(program("skopeo"), "inspect", "--config", source))
    assert told["config"]["Cmd"] == ["cat", "/made"]
    target = f"oci:{context}/copied:x"
    ran(program("skopeo"), "copy", "--insecure-policy", source, target)
    copied = Layerbuild(context / "store")
    copied("import", "-t", "copied", context / "copied")
    theirs, ours = (json.loads(where("inspect", name))[0] for where, name in ((copied, "copied"), (built, "built")))
    assert theirs["RootFS"] == ours["RootFS"]  # of Docker's form skopeo writes the configuration anew
    assert copied("run", "copied") == "made\n"


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_podman_loads_and_we_load_what_it_saves(
    built: Layerbuild, context: Path, program: Callable[[str], str], form: str
) -> None:
    built("save", "--format", form, "-o", context / "saved.tar", "built")
    podman = [
        *(program("podman"), "--root", context / "podman", "--runroot", context / "run"),
        *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
    ]
    ran(*podman, "load", "-i", context / "saved.tar")
    name = ran(*podman, "images", "--noheading", "--format", "{{.Id}}").strip()
    assert image_id(built, "built").removeprefix("sha256:").startswith(name)
    for kind in ("docker-archive", "oci-archive"):
        ran(*podman, "save", "--format", kind, "-o", context / kind, name)
        other = Layerbuild(context / f"store-{kind}")
        other("import", "-t", "back", context / kind)
        assert other("run", "back") == "made\n"


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_buildah_takes_what_is_saved(
    built: Layerbuild, context: Path, program: Callable[[str], str], form: str
) -> None:
    built("save", "--format", form, "-o", context / "saved.tar", "built")
    buildah = [
        program("buildah"),
        "--root",
        context / "buildah",
        "--runroot",
        context / "run",
        "--storage-driver",
        "vfs",
    ]
    pulled = ran(*buildah, "pull", "--policy", "always", f"{form}-archive:{context}/saved.tar").split()[-1]
    told = json.loads(ran(*buildah, "inspect", "--type", "image", pulled))
    assert told["OCIv1"]["rootfs"]["diff_ids"] == json.loads(built("inspect", "built"))[0]["RootFS"]["Layers"]


def test_umoci_unpacks_a_layout_to_the_same_tree(
    built: Layerbuild, context: Path, program: Callable[[str], str]
) -> None:
    fill(context)
    built.build(
        context,
        RECIPE,
        "-t",
        "built",
        "-o",
        f"type=oci,dest={context}/layout/",
        "-o",
        f"type=local,dest={context}/tree",
    )
    ran(program("umoci"), "unpack", "--image", f"{context}/layout:latest", context / "bundle")
    theirs, ours = context / "bundle/rootfs", context / "tree"
    assert ran("diff", "-r", "--no-dereference", theirs, ours) == ""
    assert (theirs / "made").stat().st_ino == (theirs / "again").stat().st_ino


# -- import ------------------------------------------------------------------------------------------------------------


def test_changes_and_a_message(built: Layerbuild, context: Path, busybox_tar: Path) -> None:
    changes = (
        "CMD echo $WORD",
        "ENV WORD=hello",
        "env MORE=2",
        "WORKDIR /home",
        "LABEL a=b",
        "EXPOSE 80",
        "USER daemon",
    )
    options = [word for change in changes for word in ("--change", change)]
    assert built("import", *options, "-m", "from a tar", busybox_tar, "mine:1").startswith("mine:1: sha256:")
    image = json.loads(built("inspect", "mine:1"))[0]
    config = image["Config"]
    assert (config["Cmd"], config["WorkingDir"], config["User"]) == (["/bin/sh", "-c", "echo $WORD"], "/home", "daemon")
    assert {"WORD=hello", "MORE=2"} <= set(config["Env"])
    assert (config["Labels"], config["ExposedPorts"]) == ({"a": "b"}, {"80/tcp": {}})
    assert built.json("history", "mine:1")[0]["comment"] == "from a tar"
    assert built("run", "--user", "root", "mine:1") == "hello\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("RUN true", "no change to a configuration"),
        ("LABLE a=b", "did you mean LABEL?"),
        ("", "no change to a configuration"),
        ("EXPOSE x y z", "--change"),
    ],
)
def test_wrong_changes(rooted: Layerbuild, busybox_tar: Path, change: str, said: str) -> None:
    done = subprocess.run(rooted.command("import", "-c", change, busybox_tar), capture_output=True, check=False)
    assert done.returncode in (2, 3) and said in done.stderr.decode()


def test_changes_are_for_root_file_systems(built: Layerbuild, context: Path) -> None:
    built("save", "-o", context / "saved.tar", "built")
    assert "for root file systems" in built.run("import", "-c", "CMD x", context / "saved.tar", code=2).stderr


def test_a_root_file_system_of_another_platform(rooted: Layerbuild, context: Path) -> None:
    with tarfile.open(context / "rootfs.tar", "w") as tar:
        add_member(tar, "file", content=b"x")
    rooted("import", "--platform", "linux/arm64", context / "rootfs.tar", "arm")
    rooted.build(context, "FROM arm\nCOPY rootfs.tar /\n", "--platform", "linux/arm64", "-t", "more")
    assert json.loads(rooted("inspect", "more"))[0]["Architecture"] == "arm64"


# -- depth -------------------------------------------------------------------------------------------------------------


DEEP = "FROM scratch\n" + "".join(f"COPY <<E /file{number}\n{number}\nE\n" for number in range(129))


@pytest.fixture(scope="module")
def deep(built: Layerbuild, tmp_path_factory: pytest.TempPathFactory) -> Layerbuild:
    """A store with an image ``deep`` of 129 layers."""
    context = tmp_path_factory.mktemp("deep")
    said = built.build(context, DEEP, "-t", "deep")
    assert "note: the image may get 129 layers: Docker runs none with more than 127" in said
    return built


@pytest.mark.parametrize(
    "command",
    [
        ("save", "-o", "out", "deep"),
        ("save", "--format", "oci", "-o", "out", "deep"),
        ("build", "-o", "type=oci,dest=out", "."),
        ("build", "-o", "type=docker,dest=out", "."),
        ("build", "-o", "type=layers,dest=out", "."),
        ("build", "--max-layers", "128", "-o", "type=oci,tar=false,dest=out", "."),
    ],
    ids=["save", "save-oci", "oci", "docker", "layers", "fewer-than-it-has"],
)
def test_more_layers_than_others_run_leave_only_if_asked(
    deep: Layerbuild, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "Dockerfile").write_text(DEEP)
    refused = deep.run(*command, code=2, cwd=tmp_path).stderr
    assert "the image has 129 layers" in refused and "--max-layers 129" in refused
    assert not (tmp_path / "out").exists()
    deep(*command[:-1], "--max-layers", "129", command[-1], cwd=tmp_path)
    assert (tmp_path / "out").exists()


def test_files_of_many_layers_leave_as_any_others(deep: Layerbuild, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DEEP)
    deep("build", "-q", "-o", f"type=tar,dest={tmp_path}/out.tar", tmp_path)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert len(tar.getnames()) >= 129


def test_more_layers_than_others_run_are_not_pushed(deep: Layerbuild) -> None:
    deep("tag", "deep", "localhost:1/deep")
    assert "the image has 129 layers" in deep.run("push", "localhost:1/deep", code=2).stderr
