"""``blame``, ``diff``, ``advise`` and ``verify`` from the command line: over the recipes, and over what others made."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from registries import Registry
from support import PROJECT, Layerbuild
from test_recipes import RECIPES

pytestmark = pytest.mark.memory

# -- golden: what each recipe's expected.yaml says of its views --------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_the_views_of_each_recipe(rooted: Layerbuild, context: Path, recipe: Path) -> None:
    expected = yaml.safe_load((recipe / "expected.yaml").read_text())["views"]
    here = shutil.copytree(recipe, context / recipe.name)
    rooted.build(here, None, "-t", recipe.name)
    blame = rooted.json("blame", recipe.name)
    counted = [[layer[key] for key in ("created", "changed", "deleted")] for layer in blame["layers"][1:]]
    assert counted == expected["created changed deleted"]
    assert sorted(found["path"] for found in blame["invisible"]) == expected["invisible"]
    advice = rooted.json("advise", here)["advice"]
    assert sorted(f"{each['kind']}, line {each['line']}" for each in advice if each["layer"] != 1) == expected["advice"]
    told = json.loads(rooted.run("diff", "base:host", recipe.name, "--format", "json", code=1).stdout)
    marks = {"added": "+", "changed": "~", "deleted": "-"}
    assert [f"{marks[found['change']]} {found['path']}" for found in told["paths"]] == expected["diff to the base"]
    assert shadows(rooted("report", recipe.name, "-o", "-")) == expected["shadows"]
    assert [place["diff_id"] for place in rooted.json("where", recipe.name)["layers"]] == [
        layer["diff_id"] for layer in rooted.layers(recipe.name)
    ]
    assert rooted.json("verify", recipe.name) == {"image": recipe.name, "whole": True, "mismatches": []}
    assert explained(rooted, here) == []
    edit = expected["edit"]
    text = (here / edit["file"]).read_text()
    assert edit["old"] in text
    (here / edit["file"]).write_text(text.replace(edit["old"], edit["new"], 1))
    assert explained(rooted, here) == edit["misses"]


def shadows(page: str) -> list[str]:
    """Which layer hides what of which, as the data of the page have it; the base's own are left out."""
    data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0])
    found = [(each["by"], each["layer"], " ".join(each["paths"])) for each in data["shadows"] if each["by"] > 1]
    return [f"{by} hides of {layer}: {paths}" for by, layer, paths in sorted(found)]


def explained(layerbuild: Layerbuild, context: Path) -> list[str]:
    """The steps that would miss, and why."""
    steps = layerbuild.json("explain", "--plan", context)["steps"]
    return [
        f"{step['stage']}:{step['number']} {step['because'] or step['reason']}"
        for step in steps
        if step["verdict"] == "miss"
    ]


# -- blame -------------------------------------------------------------------------------------------------------------


def test_every_version_of_a_path(layerbuild: Layerbuild, context: Path) -> None:
    recipe = (
        "FROM busybox\nRUN echo 1 > /f && chmod 600 /f\nRUN echo 22 > /f\nRUN chmod 644 /f\nRUN rm /f\nRUN mkdir /f\n"
    )
    layerbuild.build(context, recipe, "-t", "versions")
    found = layerbuild.json("blame", "versions", "/f")
    assert [(row["layer"], row["action"], row["changed"], row["bytes"]) for row in found] == [
        (2, "created", [], 2),
        (3, "changed", ["content"], 3),
        (4, "changed", ["mode"], 3),
        (5, "deleted", [], 0),
        (6, "created", [], 0),
    ]
    assert [(row["hidden_by"], row["deleted"]) for row in found[:3]] == [(3, False), (4, False), (5, True)]
    assert [row["instruction"].split()[3] for row in found] == ["echo", "echo", "chmod", "rm", "mkdir"]
    text = layerbuild("blame", "versions", "f")
    assert "layer 3  changed (content)  3B, replaced by layer 4  RUN" in text
    assert layerbuild.run("blame", "versions", "/nothing", code=1).stderr


# -- diff --------------------------------------------------------------------------------------------------------------


FIRST = r"""FROM busybox
RUN mkdir /d && printf 'one\ntwo\n' > /d/text && head -c 100 /dev/zero > /d/zeros && ln -s a /d/link && echo > /d/gone
"""
SECOND = r"""FROM busybox
RUN mkdir -m 700 /d && printf 'one\n2\n' > /d/text && head -c 90 /dev/zero > /d/zeros && ln -s b /d/link
RUN echo > /d/new
ENV A=1
"""


def test_what_two_images_differ_in(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, FIRST, "-t", "first")
    layerbuild.build(context, SECOND, "-t", "second")
    told = json.loads(layerbuild.run("diff", "first", "second", "--format", "json", code=1).stdout)
    paths = {found["path"]: found for found in told["paths"]}
    shown = {
        path: (found["change"], [(fact["change"], fact["before"], fact["after"]) for fact in found["facts"]])
        for path, found in paths.items()
        if path not in ("/d/text", "/d/zeros")
    }
    assert shown == {
        "/d": ("changed", [("mode", "0755", "0700")]),
        "/d/link": ("changed", [("target", "a", "b")]),
        "/d/gone": ("deleted", []),
        "/d/new": ("added", []),
    }
    assert paths["/d/text"]["text"] == ["--- a/d/text", "+++ b/d/text", "@@ -1,2 +1,2 @@", " one", "-two", "+2"]
    assert (paths["/d/zeros"]["before"], paths["/d/zeros"]["after"], paths["/d/zeros"]["text"]) == (100, 90, [])
    assert [(found["subject"], found["change"]) for found in told["config"]] == [("Env A", "added")]
    assert layerbuild.run("diff", "first", "second", "--no-text", code=1).stdout.count("@@") == 0
    assert layerbuild.json("diff", "first", "first")["same"] is True


def test_steps_and_layers_and_what_can_t_be_compared(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN echo 1 > /a\nENV X=1\nRUN echo 2 > /a\n", "-t", "steps")
    assert "~ /a  content" in rooted.run("diff", "step:1", "step:3", code=1).stdout
    assert rooted("diff", "step:1", "step:2") == "no difference\n"
    one, two = (layer["diff_id"] for layer in rooted.layers("steps")[1:])
    assert "-1\n    +2" in rooted.run("diff", one, two.removeprefix("sha256:")[:12], code=1).stdout
    for operands in (("steps", one), ("steps", "nothing"), ("step:9", "steps")):
        assert rooted.run("diff", *operands, code=2).stderr.startswith("layerbuild: ")


def test_times_count_unless_they_are_not_to(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN echo 1 > /a\n", "-t", "one")
    rooted.build(context, None, "-t", "two", "--timestamp", "5")
    assert "time 1980-01-01T00:00:00Z → 1970-01-01T00:00:05Z" in rooted.run("diff", "one", "two", code=1).stdout
    rooted("diff", "--no-times", "one", "two")


# -- images that others made -------------------------------------------------------------------------------------------


def test_a_layout_and_an_archive_of_another_tool(
    layerbuild: Layerbuild, context: Path, program: Callable[[str], str]
) -> None:
    layerbuild.build(context, FIRST, "-t", "first")
    out = context / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    layerbuild("build", "-q", "-o", f"type=oci,dest={out}/oci/", context)
    skopeo = [program("skopeo"), "--insecure-policy", "copy", "-q", f"oci:{out}/oci"]
    subprocess.run([*skopeo, f"docker-archive:{out}/archive.tar:first:1"], check=True)
    subprocess.run([*skopeo, f"oci-archive:{out}/layout.tar:first"], check=True)
    images = layerbuild("images")
    wanted = layerbuild.json("blame", "first", "/d")
    for place in (out / "archive.tar", out / "layout.tar", out / "oci"):
        assert layerbuild.json("verify", place)["whole"] is True
        assert _without(layerbuild.json("blame", place, "/d")) == _without(wanted)
        assert layerbuild.json("diff", place, "first")["same"] is True
        assert layerbuild.json("advise", place)["efficiency"] == layerbuild.json("advise", "first")["efficiency"]
    plain = f"type=oci,dest={out}/plain/,compression=uncompressed"
    layerbuild("build", "-q", "-o", f"{plain},force-compression=true", context)
    for place, how in ((out / "oci", "compressed"), (out / "plain", "not compressed")):
        assert re.search(rf"B {how} · image ID", layerbuild("layers", place))
    assert layerbuild("images") == images  # a look leaves no trace
    assert list((layerbuild.root / "tmp").iterdir()) == []


def _without(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "instruction"} for row in rows]


def test_a_damaged_image_is_told_in_full(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, FIRST, "-t", "first")
    for layer in rooted.layers("first"):
        blob = rooted.root / "blobs" / "sha256" / layer["digest"][7:]
        blob.write_bytes(blob.read_bytes()[:-9] + b"x")
    told = json.loads(rooted.run("verify", "first", "--format", "json", code=1).stdout)
    assert not told["whole"]
    assert len({found["subject"] for found in told["mismatches"]}) == 2
    assert "claims do not hold" in rooted.run("verify", "first", code=1).stdout
    assert rooted.run("verify", "nothing", code=2).stderr


def test_what_is_not_there_and_what_may_have_been_meant(rooted: Layerbuild, context: Path) -> None:
    (context / "app.sh").write_text("true\n")
    rooted.build(context, "FROM busybox\nCOPY app.sh /app/app.sh\n", "-t", "named")
    (context / "image.tar").touch()
    for words, hint in (
        (("blame", "name"), "did you mean named:latest?"),
        (("blame", "named", "/app/ap.sh"), "did you mean /app/app.sh?"),
        (("blame", "named", "app.sh"), "did you mean /app/app.sh?"),
        (("layers", context / "imag.tar"), f"did you mean {context}/image.tar?"),
        (("shell", "name"), "did you mean named:latest?"),
    ):
        assert f"hint: {hint}\n" in rooted.run(*words, code=1).stderr
    for words, hint in (
        (("verify", context / "imag.tar"), f"did you mean {context}/image.tar?"),
        (("diff", "name", "named"), "did you mean named:latest?"),
        (("plan", "--change", "ap.sh", context), "did you mean app.sh?"),
        (("learn", "whiteot"), "did you mean whiteout?"),
    ):
        assert f"hint: {hint}\n" in rooted.run(*words, code=2).stderr


# -- advise ------------------------------------------------------------------------------------------------------------


WASTE = """\
FROM busybox
COPY big /srv/big
RUN chmod 600 /srv/big
RUN chown 7:8 /srv/big
RUN mkdir -p /var/cache/apk && seq 20000 > /var/cache/apk/x && seq 30000 > /tmp/y
RUN rm /tmp/y
RUN cp /srv/big /copy
RUN seq 10000 > /z
RUN seq 10001 > /z
"""


def test_waste_and_its_remedy(layerbuild: Layerbuild, context: Path) -> None:
    (context / "big").write_text("0123456789" * 10000)
    (context / "big").chmod(0o644)
    one_id = layerbuild.rootless
    recipe = WASTE.replace("RUN chown 7:8 /srv/big\n", "RUN true\n") if one_id else WASTE
    layerbuild.build(context, recipe, "-t", "waste")
    told = {(found["kind"], found["line"]): found for found in layerbuild.json("advise", "waste")["advice"]}
    copied = told["copied up", 3]
    assert copied["remedy"] == "use --chmod=600 on line 2: saves 100kB" and copied["bytes"] == 100_000
    if not one_id:
        assert told["copied up", 4]["remedy"].startswith("do it in the RUN of line 3")
    assert told["package cache", 5]["paths"] == ["/var/cache/apk/x"]
    assert "apk add --no-cache" in told["package cache", 5]["remedy"]
    assert told["deleted later", 5]["remedy"] == "delete them in the RUN of line 5"
    assert told["duplicates", 7]["bytes"] == 100_000
    assert told["replaced later", 8]["paths"] == ["/z"]
    assert "→ use --chmod=600 on line 2: saves 100kB" in layerbuild("advise", context)


def test_no_ignore_file_concerns_what_comes_from_a_stage(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox AS one\nRUN seq 10000 > /a\nFROM busybox\nCOPY --from=one /a /a\nRUN rm /a\n"
    rooted.build(context, recipe, "-t", "waste")
    (found,) = rooted.json("advise", "waste")["advice"]
    assert found["remedy"] == "leave them out on line 4: --exclude, or RUN --mount=type=bind in place of the copy"


def test_the_order_that_misses_most(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nCOPY notes /notes\nRUN sleep 0.2 && echo 1 > /one\nRUN echo 2 > /two\n"
    for number in range(3):
        (context / "notes").write_text(str(number))
        rooted.build(context, recipe, "-t", "order")
    (found,) = (found for found in rooted.json("advise", "order")["advice"] if found["kind"] == "order")
    assert found["line"] == 2 and "changed in 2 of the last 3 builds" in found["text"]
    assert "line 3, line 4 run again" in found["text"] and found["seconds"] > 0.4
    assert found["remedy"].startswith("move it below line 4")


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        ("{lowestEfficiency: 0.2, highestWastedBytes: 1GB, highestUserWastedPercent: disabled}", []),
        (
            "{lowestEfficiency: disabled, highestWastedBytes: 20kB, highestUserWastedPercent: off}",
            ["highestWastedBytes"],
        ),
        ("{}", ["lowestEfficiency", "highestUserWastedPercent"]),  # dive's defaults
        ("{lowest-efficiency: 0.2, HIGHESTUSERWASTEDPERCENT: disabled}", []),
    ],
)
def test_rules_of_dive_as_a_gate(rooted: Layerbuild, context: Path, rules: str, broken: list[str]) -> None:
    rooted.build(
        context, "FROM busybox\nRUN seq 200000 > /x\nRUN rm /x\nRUN seq 200000 > /y\nRUN seq 200000 > /y\n", "-t", "x"
    )
    (context / ".dive-ci").write_text(f"rules: {rules}\n")
    done = rooted.run("advise", "x", "--rules", context / ".dive-ci", "--format", "json", code=1 if broken else 0)
    assert [rule.partition(":")[0] for rule in json.loads(done.stdout)["broken_rules"]] == broken
    (context / ".dive-ci").write_text("rules: {lowestEfficiency: 7}\n")
    assert "a number from 0 to 1" in rooted.run("advise", "x", "--rules", context / ".dive-ci", code=2).stderr
    (context / ".dive-ci").write_text("rules: {lowest-efficency: 0.5}\n")
    assert "has no rule 'lowest-efficency'" in rooted.run("advise", "x", "--rules", context / ".dive-ci", code=2).stderr


# -- a recipe built twice ----------------------------------------------------------------------------------------------


def test_a_recipe_that_gives_the_same_bytes(layerbuild: Layerbuild, context: Path) -> None:
    shutil.copytree(PROJECT / "recipes" / "textbook", context, dirs_exist_ok=True)
    before = layerbuild("images")
    told = layerbuild.json("verify", context)
    assert told["reproducible"] is True and told["steps"] == []
    assert {text.partition(":")[0] for text in told["varied"]} >= {"umask", "the build's clock"}
    assert layerbuild("images") == before
    assert layerbuild.run("explain", code=1).stderr  # it is no build that anybody asked for
    assert {step["cache"] for step in layerbuild.json("plan", context)["steps"]} == {"", "miss"}


def test_a_recipe_that_does_not(rooted: Layerbuild, context: Path) -> None:
    recipe = (
        "FROM busybox\nRUN echo same > /same\nRUN cat /proc/sys/kernel/random/uuid > /time\n"
        "RUN cat /proc/uptime > /up && echo 1 > /one\n"
    )
    (context / "Dockerfile").write_text(recipe)
    told = json.loads(rooted.run("verify", context, "--format", "json", code=1).stdout)
    assert [(step["number"], step["line"]) for step in told["steps"]] == [(2, 3), (3, 4)]
    assert [[path["path"] for path in step["paths"]] for step in told["steps"]] == [["/time"], ["/up"]]
    assert any(line.startswith("+") for line in told["steps"][0]["paths"][0]["text"])
    (context / "Dockerfile").write_text("FROM busybox\nRUN exit 7\n")
    assert "exit code: 7" in rooted.run("verify", context, code=2).stderr


def test_a_recipe_is_built_twice_with_the_options_of_build(rooted: Layerbuild, context: Path) -> None:
    recipe = (
        "FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s > /f\n"
        "RUN ! ip link | grep -v lo | grep UP && ulimit -n > /n\n"
    )
    (context / "Other").write_text(recipe)
    options = ["-f", context / "Other", "--secret", "id=s,env=S", "--network", "none", "--ulimit", "nofile=77:77"]
    options += ["--label", "a=b", "--no-cache-filter", "1", "--jobs", "1", "--pull=never"]
    told = json.loads(rooted.run("verify", *options, context, "--format", "json", env={"S": "sesame"}).stdout)
    assert told["reproducible"]
    assert "secret s" in rooted.run("verify", *options[:2], context, code=2).stderr
    rooted.run("build", *options[:8], "--label", "a=b", "-t", "once", context, env={"S": "sesame"})
    assert json.loads(rooted("inspect", "once"))[0]["Id"] == told["images"][0]
    assert "can be read once" in rooted.run("verify", "-f", "-", context, code=2).stderr


def test_an_image_of_a_registry_is_looked_at_and_leaves_no_trace(
    layerbuild: Layerbuild, context: Path, registry: Registry
) -> None:
    name = registry.name("views/looked")
    layerbuild.build(context, "FROM busybox\nRUN echo 1 > /f\nRUN rm /f\n", "-t", name, "--push")
    layerbuild("tag", name, "kept")
    layerbuild("rmi", name)
    before = layerbuild.json("df")
    found = layerbuild.json("blame", name, "/f")
    assert [(row["layer"], row["action"]) for row in found] == [(2, "created"), (3, "deleted")]
    assert layerbuild.json("diff", "kept", name) == layerbuild.json("diff", "kept", "kept")
    assert layerbuild.json("df") == before
    assert [row["repository"] for row in layerbuild.json("images")].count(name.partition(":")[0]) == 0
    assert "no image" in layerbuild.run("blame", "mistyped", code=1).stderr
