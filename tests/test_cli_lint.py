"""``lint``, ``build --check``, and what a build says of its warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import Layerbuild

from layerbuild.errors import RecipeError, RecipeWarning, Span
from layerbuild.views.lint import as_sarif, as_text

pytestmark = [pytest.mark.memory, pytest.mark.forked]

RECIPE = """\
FROM busybox AS tools
COPY notes.txt /

FROM busybox as app
ENV NAME=value GREETING=$NAM
CMD echo \\
    hello
"""
WARNINGS = [("CopyIgnoredFile", 2), ("FromAsCasing", 4), ("UndefinedVar", 5), ("JSONArgsRecommended", 6)]


@pytest.fixture
def recipe(context: Path) -> Path:
    (context / "Dockerfile").write_text(RECIPE)
    (context / ".dockerignore").write_text("*.txt\n")
    return context


def rules(data: Any) -> list[tuple[str, int]]:
    return [(warning["ruleName"], warning["location"]["ranges"][0]["start"]["line"]) for warning in data["warnings"]]


def test_text_tells_rule_place_and_page(rooted: Layerbuild, recipe: Path) -> None:
    text = rooted("lint", recipe)
    assert "UndefinedVar: Usage of undefined variable '$NAM' (line 5)\n    5 | ENV NAME=value GREETING=$NAM\n" in text
    assert "    6 | CMD echo \\\n    7 |     hello\n  https://docs.docker.com/go/dockerfile/rule/json-args-reco" in text
    assert text.endswith("\n4 warnings\n")
    assert rooted("lint", "--target", "tools", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all", recipe) == (
        "no warnings\n"
    )


@pytest.mark.parametrize("command", [("lint",), ("build", "--check")])
def test_without_a_target_all_stages_are_checked_and_nothing_is_built(
    rooted: Layerbuild, recipe: Path, command: tuple[str, ...]
) -> None:
    before = rooted.json("images")
    text = rooted(*command, recipe)
    assert [line.partition(":")[0] for line in text.splitlines() if "(line " in line] == [rule for rule, _ in WARNINGS]
    text = rooted(*command, "--target", "app", recipe)
    assert "CopyIgnoredFile" not in text
    assert rooted.json("images") == before


def test_json_has_the_keys_of_buildkit(rooted: Layerbuild, recipe: Path) -> None:
    data = rooted.json("lint", recipe)
    assert rules(data) == WARNINGS
    assert data["sources"] == [{"filename": str(recipe / "Dockerfile")}]
    assert data["warnings"][3] == {
        "ruleName": "JSONArgsRecommended",
        "description": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS "
        "signals",
        "url": "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "detail": "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        "location": {"ranges": [{"start": {"line": 6}, "end": {"line": 7}}]},
    }
    assert "buildError" not in data


def test_a_recipe_that_is_wrong(rooted: Layerbuild, recipe: Path) -> None:
    (recipe / "Dockerfile").write_text("FROM busybox as app\nCOPY --from=later a b\nFROM busybox AS later\n")
    result = rooted.run("lint", "--format", "json", recipe, code=3)
    data = json.loads(result.stdout)
    assert rules(data) == [("FromAsCasing", 1)]
    assert data["buildError"]["message"].startswith('cannot copy from stage "later"')
    assert data["buildError"]["location"]["ranges"][0]["start"]["line"] == 2
    assert "hint: move that stage up" in result.stderr
    result = rooted.run("lint", "--format", "json", "-f", "-", recipe, stdin=b"FROM busybox\nRUM x\n", code=3)
    data = json.loads(result.stdout)
    assert (data["warnings"], data["buildError"]["message"]) == ([], "unknown instruction: RUM")


def test_warnings_are_errors_where_the_recipe_says_so(rooted: Layerbuild, recipe: Path) -> None:
    (recipe / "Dockerfile").write_text(f"# check=error=true;skip=JSONArgsRecommended\n{RECIPE}")
    message = "lint violation found for rules: FromAsCasing, UndefinedVar\n"
    result = rooted.run("build", "-t", "refused", recipe, code=1)
    assert message in result.stderr
    assert "Dockerfile:5:1" in result.stderr
    assert "busybox as app" not in result.stderr.partition(message)[0]  # nothing was built before
    assert message in rooted.run("lint", "--target", "app", recipe, code=1).stderr
    assert message in rooted.run("build", "--check", "--target", "app", recipe, code=1).stderr


def test_a_build_notes_the_warnings_of_what_it_builds(rooted: Layerbuild, recipe: Path) -> None:
    said = rooted.build(recipe)
    rules = "FromAsCasing, UndefinedVar, JSONArgsRecommended"
    assert f"note: 3 warnings ({rules}): `layerbuild lint` tells where and why\n" in said
    assert "note:" not in rooted.build(recipe, "FROM busybox\n")


def test_linting_needs_no_store_and_makes_none(rooted: Layerbuild, recipe: Path) -> None:
    elsewhere = recipe / "no-store"
    data = Layerbuild(elsewhere, rooted.prefix, rooted.python, rooted.env).json("lint", recipe)
    # Of a base that is not at hand nothing is known, so nothing is said about its variables.
    assert rules(data) == [row for row in WARNINGS if row[0] != "UndefinedVar"]
    assert not elsewhere.exists()


# -- SARIF -------------------------------------------------------------------------------------------------------------


def keys(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = {**required, **optional}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


# What the specification (OASIS, SARIF 2.1.0) demands of the parts that are written, section by section.
MESSAGE = keys({"text": {"type": "string", "minLength": 1}})  # 3.11
LINE = {"type": "integer", "minimum": 1}
REGION = keys({"startLine": LINE, "endLine": LINE})  # 3.30
LOCATION = keys(  # 3.28, 3.29, 3.4
    {
        "physicalLocation": keys(
            {"artifactLocation": keys({"uri": {"type": "string", "pattern": "^[^ ]+$"}}), "region": REGION}
        )
    }
)
LOCATIONS = {"type": "array", "items": LOCATION}
LEVEL = {"enum": ["none", "note", "warning", "error"]}  # 3.27.10
RULE = keys({"id": {"type": "string"}}, shortDescription=MESSAGE, helpUri={"type": "string"})  # 3.49
DRIVER = keys(
    {"name": {"type": "string"}},
    version={"type": "string"},
    rules={"type": "array", "items": RULE, "uniqueItems": True},
)
NOTIFICATION = keys({"message": MESSAGE}, level=LEVEL, locations=LOCATIONS)  # 3.58
INVOCATION = keys(  # 3.20
    {"executionSuccessful": {"type": "boolean"}}, toolExecutionNotifications={"type": "array", "items": NOTIFICATION}
)
RESULT = keys(  # 3.27
    {"message": MESSAGE},
    ruleId={"type": "string"},
    ruleIndex={"type": "integer", "minimum": -1},
    level=LEVEL,
    locations=LOCATIONS,
)
RUN = keys(  # 3.14
    {"tool": keys({"driver": DRIVER}), "results": {"type": "array", "items": RESULT}},
    invocations={"type": "array", "items": INVOCATION},
)
LOG = {  # 3.13
    **keys({"version": {"const": "2.1.0"}, "runs": {"type": "array", "items": RUN}}, **{"$schema": {"type": "string"}})
}


def test_sarif_is_a_log_as_specified(rooted: Layerbuild, recipe: Path) -> None:
    log = json.loads(rooted("lint", "--format", "sarif", recipe))
    jsonschema.validate(log, LOG)
    (run,) = log["runs"]
    names = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert [(result["ruleId"], names[result["ruleIndex"]]) for result in run["results"]] == [
        (rule, rule) for rule, _ in WARNINGS
    ]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": (recipe / "Dockerfile").as_uri()},
        "region": {"startLine": 2, "endLine": 2},
    }


def test_sarif_of_a_recipe_that_is_wrong_and_strict() -> None:
    span = Span("a b/Dockerfile", 3, 1, 4)
    warning = RecipeWarning("Rule", "what it says", "", "what is wrong", span)
    failure = RecipeError("no good", span=span)
    log = as_sarif([warning, warning], file="a b/Dockerfile", failure=failure, strict=True)
    jsonschema.validate(log, LOG)
    (run,) = log["runs"]
    assert [result["level"] for result in run["results"]] == ["error", "error"]
    assert len(run["tool"]["driver"]["rules"]) == 1
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    place = invocation["toolExecutionNotifications"][0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "a%20b/Dockerfile"}, "region": {"startLine": 3, "endLine": 4}}


def test_text_of_a_rule_without_a_page() -> None:
    warning = RecipeWarning("Rule", "what it says", "", "what is wrong", Span("Dockerfile", 3))
    assert as_text([warning], quote_lines=lambda span: [f"{span.line} | x"]) == (
        "Rule: what is wrong (line 3)\n3 | x\n\n1 warning"
    )
