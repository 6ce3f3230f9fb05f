"""Images in the store: how they come in, what is told about them, how they go."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import Layerbuild
from traces import assert_whole

pytestmark = [pytest.mark.memory, pytest.mark.forked]

RECIPE = """\
FROM busybox
COPY file /file
ENV A=1
RUN rm /bin/wget; echo made > /made; mkdir -p /some/where
LABEL who=me
CMD ["cat", "/made"]
"""


@pytest.fixture
def built(rooted: Layerbuild, context: Path) -> Layerbuild:
    (context / "file").write_text("copied")
    rooted.build(context, RECIPE, "-t", "built", "-t", "other/name:v2")
    return rooted


def inspected(layerbuild: Layerbuild, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(layerbuild("inspect", name))[0]
    return found


def empty_store(layerbuild: Layerbuild, context: Path) -> Layerbuild:
    return Layerbuild(context / "store", layerbuild.prefix, layerbuild.python, layerbuild.env)


# -- in and out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["type=oci", "type=oci,tar=false", "type=docker", "type=oci,compression=zstd"])
def test_what_is_exported_can_be_imported(built: Layerbuild, context: Path, output: str) -> None:
    dest = context / "exported"
    built.build(context, RECIPE, "-t", "built", "-o", f"{output},dest={dest}")
    other = empty_store(built, context)
    assert "built:latest" in other("import", dest)
    theirs, ours = inspected(other, "built"), inspected(built, "built")
    assert theirs["Id"] == ours["Id"]
    assert theirs["RootFS"] == ours["RootFS"]
    assert other("run", "built") == "made\n"
    # What came in serves as a base: its own layers are not made anew.
    other.build(context, "FROM built\nRUN test ! -e /bin/wget && echo more > /more\n", "-t", "more")
    assert other.layers("more")[0]["digest"] == other.layers("built")[0]["digest"]
    assert_whole(other.root)


def test_layers_are_made_at_the_level_that_is_asked_for(layerbuild: Layerbuild, context: Path) -> None:
    context.chmod(0o777)
    (context / "text").write_text("".join(f"line {number * number} of a text\n" for number in range(20000)))
    recipe, out = "FROM scratch\nCOPY text /\n", f"type=oci,dest={context}/out.tar,compression=gzip"

    def made(store: str, *outputs: str) -> tuple[object, int]:
        one = Layerbuild(context / store, layerbuild.prefix, layerbuild.python, layerbuild.env)
        one.build(context, recipe, "-t", "made", *(word for output in outputs for word in ("-o", output)))
        [layer] = one.layers("made")
        return layer["digest"], (context / "out.tar").stat().st_size

    usual, size = made("usual", out)
    best, smaller = made("best", f"{out},compression-level=12")
    assert best != usual
    assert smaller < size
    assert made("usual", f"{out},compression-level=12") == (usual, size), "what is there stays as it is"
    two = (f"{out},compression-level=12", f"type=oci,dest={context}/two.tar")
    assert made("two", *two)[0] == usual, "the outputs do not agree"


def test_what_skopeo_writes_can_be_imported(built: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    layout = context / "layout"
    built.build(context, RECIPE, "-o", f"type=oci,tar=false,dest={layout}/")
    for target in (f"docker-archive:{context}/archive:copied:v1", f"oci:{context}/copy:v1"):
        copy = [program("skopeo"), "copy", "--insecure-policy", f"oci:{layout}", target]
        done = subprocess.run(copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for name in ("archive", "copy"):
        other = Layerbuild(context / f"store-{name}", built.prefix, built.python, built.env)
        other("import", "-t", "in", context / name)
        assert inspected(other, "in")["RootFS"] == inspected(built, "built")["RootFS"]
        assert other("run", "in") == "made\n"


def test_a_root_file_system_can_be_imported(built: Layerbuild, context: Path) -> None:
    built.build(context, RECIPE, "-o", f"type=tar,dest={context}/rootfs.tar", "-o", f"type=local,dest={context}/rootfs")
    for source in ("rootfs.tar", "rootfs"):
        built("import", "-t", source.replace(".", "-"), context / source)
        assert built("run", source.replace(".", "-"), "cat", "/made") == "made\n"


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b broken"])
def test_what_is_no_image_is_refused(rooted: Layerbuild, context: Path, content: bytes) -> None:
    (context / "thing").write_bytes(content)
    before = rooted("images")
    for source, stdin in ((context / "thing", b""), ("-", content), (context / "absent", b"")):
        said = rooted.run("import", source, stdin=stdin, code=1).stderr
        assert "layerbuild: " in said and "Traceback" not in said
    assert rooted("images") == before
    rooted("prune")  # bytes that came in before they were found to be none
    assert_whole(rooted.root)


# -- what is told ------------------------------------------------------------------------------------------------------


def test_names(built: Layerbuild) -> None:
    built("tag", "built", "third:x")
    rows = {f"{row['repository']}:{row['tag']}": row for row in built.json("images")}
    assert {"built:latest", "other/name:v2", "third:x", "busybox:latest"} == set(rows)
    assert rows["third:x"]["image_id"] == rows["built:latest"]["image_id"]
    assert "Untagged: built:latest" in built("rmi", "built")
    assert "Deleted" not in built("rmi", "third:x")
    assert "Deleted: sha256:" in built("rmi", "other/name:v2")
    built.run("inspect", "built", code=1)
    built("prune", "-a")
    assert built("run", "busybox", "echo", "left") == "left\n"
    assert_whole(built.root)


def test_an_image_by_its_id(built: Layerbuild) -> None:
    image_id = inspected(built, "built")["Id"]
    for text in (image_id, image_id.partition(":")[2], image_id.partition(":")[2][:12]):
        assert inspected(built, text)["Id"] == image_id
    assert "names" in built.run("rmi", image_id, code=2).stderr.lower()
    assert built("rmi", "-f", image_id).count("Untagged") == 2


def test_inspect_has_dockers_shape(built: Layerbuild) -> None:
    image = inspected(built, "built")
    assert image["RepoTags"] == ["built:latest", "other/name:v2"]
    assert image["Config"]["Cmd"] == ["cat", "/made"]
    assert image["Config"]["Labels"] == {"who": "me"}
    assert "A=1" in image["Config"]["Env"]
    assert (image["Os"], image["RootFS"]["Type"], len(image["RootFS"]["Layers"])) == ("linux", "layers", 3)
    assert image["RootFS"]["Layers"] == [layer["diff_id"] for layer in built.layers("built")]


def test_inspect_names_each_layer_in_four_ways(built: Layerbuild) -> None:
    told = inspected(built, "built")["Layers"]
    listed = built.layers("built")
    assert [(layer["DiffID"], layer["Digest"], layer["ChainID"], f"{layer['Folder']}/diff") for layer in told] == [
        (row["diff_id"], row["digest"], row["chain_id"], row["folder"]) for row in listed
    ]
    assert all(Path(layer["Folder"], "diff").is_dir() for layer in told)
    where = built.json("where", "built")["layers"]
    assert [layer["Folder"] for layer in told] == [place["folder"] for place in where]


def test_inspect_names_folders_that_are_there(built: Layerbuild) -> None:
    driver = inspected(built, "built")["GraphDriver"]
    assert driver["Name"] == "overlay2"
    data = driver["Data"]
    upper = Path(data["UpperDir"])
    lowers = [Path(path) for path in data["LowerDir"].split(":")]
    assert (upper / "made").read_text() == "made\n"
    assert Path(data["WorkDir"]).is_dir() and Path(data["MergedDir"]).is_dir()
    # The same as the files beside the folder say, from the top down.
    overlay = built.root / "overlay2"
    short = (upper.parent / "lower").read_text().split(":")
    assert [(overlay / name).resolve() for name in short] == lowers
    assert (overlay / "l" / (upper.parent / "link").read_text()).resolve() == upper
    assert (lowers[0] / "file").read_text() == "copied"
    assert (lowers[1] / "bin/busybox").exists()
    assert not (lowers[1].parent / "lower").exists()
    assert os.stat(upper / "bin/wget").st_rdev == 0


def test_a_mount_by_hand_shows_what_a_container_sees(built: Layerbuild, context: Path) -> None:
    data = inspected(built, "built")["GraphDriver"]["Data"]
    script = f"mount -t overlay overlay -o lowerdir={data['UpperDir']}:{data['LowerDir']} {data['MergedDir']}"
    shown = f"cd {data['MergedDir']} && find . | sort"
    by_hand = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{script} && {shown}"], capture_output=True, text=True, check=True
    )
    assert "./made\n" in by_hand.stdout and "./bin/wget" not in by_hand.stdout
    (context / "rootfs").mkdir()
    built.build(context, RECIPE, "-o", f"type=local,dest={context}/rootfs")
    exported = subprocess.run(
        ["sh", "-c", f"cd {context}/rootfs && find . | sort"], capture_output=True, text=True, check=True
    )
    assert exported.stdout == by_hand.stdout


def test_layers_as_json_and_yaml(built: Layerbuild) -> None:
    as_json = built.json("layers", "built")
    assert yaml.safe_load(built("layers", "built", "--format", "yaml")) == as_json
    instructions = [row["instruction"].split()[0] for row in as_json["history"][-5:]]
    assert instructions == ["COPY", "ENV", "RUN", "LABEL", "CMD"]
    table = built("layers", "built")
    assert "COPY file /file" in table and "3 layers" in table


def test_history_is_newest_first(built: Layerbuild) -> None:
    rows = built.json("history", "built")
    assert [row["created_by"].split()[0] for row in rows[:5]] == ["CMD", "LABEL", "RUN", "ENV", "COPY"]
    assert [row["empty_layer"] for row in rows[:5]] == [True, True, False, True, False]
    assert "COPY" in built("history", "built")


# -- room --------------------------------------------------------------------------------------------------------------


def used(layerbuild: Layerbuild) -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in layerbuild.json("df")}


def test_prune_never_removes_what_a_named_image_needs(layerbuild: Layerbuild, context: Path) -> None:
    (context / "file").write_text("copied")
    layerbuild.build(context, RECIPE, "-t", "built")
    layerbuild.build(context, RECIPE.replace("echo made", "echo unnamed"))
    before = layerbuild.json("layers", "built")
    would = layerbuild.json("prune", "-a", "-n")
    assert would["dry_run"] and would["bytes"] > 0
    done = layerbuild.json("prune", "-a")
    assert done["counts"] == would["counts"] and done["bytes"] == would["bytes"]
    assert all(row["reclaimable"] == 0 for row in used(layerbuild).values())
    assert layerbuild.json("layers", "built") == before
    assert layerbuild("run", "built") == "made\n"
    layerbuild.build(context, "FROM built\nRUN cat /made /file\n")
    assert layerbuild.json("prune")["counts"]["images"] == 1
    assert_whole(layerbuild.root)


def test_prune_keeps_the_cache_unless_all_is_asked(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN echo ran > /x; echo ran\n"
    rooted.build(context, recipe)
    rooted("prune")
    assert "| ran" not in rooted.build(context, recipe)
    rooted("prune", "-a")
    assert "| ran" in rooted.build(context, recipe)


def test_prune_waits_for_nobody(rooted: Layerbuild) -> None:
    with rooted.start("run", "busybox", "sh", "-c", "echo in; read x", stdin=-1, stdout=-1) as container:
        assert container.stdout is not None and container.stdout.readline() == b"in\n"
        assert "in use by process" in rooted.run("prune", "-a", code=1).stderr
        container.communicate(b"\n")
    rooted("prune", "-a")


@pytest.mark.host
def test_df_counts(built: Layerbuild, context: Path) -> None:
    rows = used(built)
    assert rows["images"]["count"] == 3
    assert rows["snapshots"]["count"] == 4
    assert rows["step cache"]["count"] == 2
    assert rows["workspaces"]["count"] == rows["leftovers"]["count"] == 0
    assert rows["images"]["bytes"] > 100_000
    built("run", "--keep", "busybox", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=3")
    assert used(built)["workspaces"]["count"] == 1
    assert used(built)["workspaces"]["reclaimable"] > 3_000_000


def test_doctor(layerbuild: Layerbuild) -> None:
    before = sorted(os.listdir(layerbuild.root))
    findings = {finding["name"]: finding for finding in layerbuild.json("doctor")}
    assert all(findings[name]["ok"] for name in ("kernel", "namespaces", "overlay"))
    assert not any(findings[name]["needed"] for name in ("ids", "lowerdir+", "limits", "overlay", "copy"))
    assert findings["driver"]["needed"] and findings["driver"]["detail"].startswith("overlay: ")
    assert "driver     copy: " in layerbuild("--driver", "copy", "doctor").replace("driver          ", "driver     ")
    assert all(finding["ok"] or finding["remedy"] for finding in findings.values())
    assert sorted(os.listdir(layerbuild.root)) == before
    assert layerbuild("doctor").splitlines()[1].startswith("ok")
