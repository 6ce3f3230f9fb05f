"""BuildKit's cases of build checks, and its table of rules."""

from __future__ import annotations

import re
from typing import Any

from corpus_rows import Row, corpus

from layerbuild.errors import LayerbuildError, NotFoundError, RecipeError, RecipeWarning
from layerbuild.image.config import DEFAULT_PATH, ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.recipe.lint.facts import Setting
from layerbuild.recipe.lint.linter import Report, lint
from layerbuild.recipe.lint.table import RULES
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import parse

NOWHERE = ("nosuchtag", "broken", "invalid")


def image(name: str, platform: Platform) -> ImageConfig:
    """The bases that the cases name: small images which are there for every platform."""
    if any(word in name for word in NOWHERE):
        raise NotFoundError(f"no image {name}")
    return ImageConfig(platform, RuntimeConfig(env=(("PATH", DEFAULT_PATH),), cmd=("sh",)))


def checked(row: Row, *, platform: str, every: bool) -> Report:
    """The report on a row, as of a build of its target, or of ``every`` stage."""
    target = row.get("frontend_attrs", {}).get("target")
    setting = Setting(
        bases=image,
        platform=Platform(*platform.split("/")),
        build_args=build_args(row),
        target=target,
        every=every and target is None,
        ignore=IgnoreRules.parse(row.get("dockerignore", "")),
    )
    return lint(parse(row["dockerfile"]), setting)


def build_args(row: Row) -> dict[str, str]:
    attributes = row.get("frontend_attrs", {})
    return {
        name.removeprefix("build-arg:"): value for name, value in attributes.items() if name.startswith("build-arg:")
    }


def as_row(warning: RecipeWarning) -> dict[str, Any]:
    return {
        "rule": warning.rule,
        "line": warning.span.line,
        "level": 1,
        "detail": warning.detail,
        "description": warning.description,
        "url": warning.url,
    }


def ordered(warnings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(warnings, key=lambda warning: (warning["line"], warning["detail"]))


def spelled(error: LayerbuildError) -> str:
    """As BuildKit spells it: the suggestion stands behind the message."""
    return f"{error.message} ({error.hint})" if error.hint.startswith("did you mean") else error.message


def essential(message: str) -> str:
    """What both must say: what is wrong, and the suggestion. A cause behind a colon is in the words of the libraries
    that BuildKit is built with, and its rules come in any order."""
    head, colon, rules = message.partition(" for rules: ")
    if colon:
        return head + colon + ", ".join(sorted(rules.split(", ")))
    parts = re.fullmatch(r"(.*?)(?:: .*?)?( \(did you mean .*\?\))?", message, re.DOTALL)
    assert parts is not None
    return parts[1] + (parts[2] or "")


def wanted_failure(row: Row) -> str:
    """What BuildKit says, empty: nothing is wrong before anything is built."""
    keys = ("build_err", "unmarshal_build_err", "stream_build_err")
    found = next((row[key] for key in keys if key in row), "")
    return essential(found.removeprefix("failed to solve: "))


@corpus("buildkit/lint/cases")
def test_warnings(row: Row) -> None:
    for platform in row["platforms"]:
        for every, key in ((False, "warnings"), (True, "lint_warnings")):
            report = checked(row, platform=platform, every=every)
            expected = row.get(key, row["warnings"])
            assert ordered([as_row(warning) for warning in report.warnings]) == ordered(expected), key
            failure = report.failure or report.violation
            assert (essential(spelled(failure)) if failure else "") == wanted_failure(row)
            if failure is not None:
                assert failure.span is not None
                assert failure.span.line == row.get("build_err_location", failure.span.line)


@corpus("buildkit/lint/cases")
def test_checking_agrees_with_planning(row: Row) -> None:
    """What the linter calls wrong, a build refuses for the same reason, and the other way round."""
    report = checked(row, platform="linux/amd64", every=False)
    failure: RecipeError | None = None
    try:
        plan(parse(row["dockerfile"]), bases=image, platform=Platform("linux", "amd64"), build_args=build_args(row))
    except RecipeError as error:
        failure = error
    assert str(report.failure) == str(failure)


@corpus("buildkit/lint/rules")
def test_rules(row: Row) -> None:
    (rule,) = [rule for rule in RULES if rule.name == row["id"]]
    assert rule.description == row["description"]
    assert rule.url == (row["url"] or "")
    assert rule.experimental == row["experimental"]
