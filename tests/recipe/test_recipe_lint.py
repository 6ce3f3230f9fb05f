"""The linter: what each rule says, and where it keeps silent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recipe_fuzz import RECIPES

from layerbuild.digest import DiffID
from layerbuild.errors import NotFoundError, RecipeError, UsageError
from layerbuild.image.config import ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.recipe.lint.facts import Setting
from layerbuild.recipe.lint.linter import Report, lint
from layerbuild.recipe.lint.table import RULES
from layerbuild.recipe.nearest import nearest
from layerbuild.recipe.syntax import parse

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
IMAGES = {
    "base": ImageConfig(AMD64, RuntimeConfig(env=(("PATH", "/bin"), ("HOME", "/")), on_build=())),
    "shell": ImageConfig(AMD64, RuntimeConfig(shell=("/bin/bash", "-c"))),
    "triggers": ImageConfig(AMD64, RuntimeConfig(on_build=("CMD run me", "WORKDIR sub"))),
    "arm": ImageConfig(ARM64, RuntimeConfig(), diff_ids=(DiffID("sha256:" + "0" * 64),)),
    "empty": ImageConfig(ARM64, RuntimeConfig()),
}


def image(name: str, platform: Platform) -> ImageConfig:
    if name not in IMAGES:
        raise NotFoundError(f"no image {name}")
    return IMAGES[name]


def report(text: str, **setting: Any) -> Report:
    return lint(parse(text), Setting(**{"bases": image, "platform": AMD64, "every": True, **setting}))


def found(text: str, **setting: Any) -> list[str]:
    """Each warning as ``Rule:line``; the recipe has to be right."""
    result = report(text, **setting)
    assert result.failure is None, result.failure
    return [f"{warning.rule}:{warning.span.line}" for warning in result.warnings]


def details(text: str, **setting: Any) -> list[str]:
    return [warning.detail for warning in report(text, **setting).warnings]


def test_each_rule_has_its_own_name_and_page() -> None:
    assert len(RULES) == len({rule.name for rule in RULES}) == len({rule.page for rule in RULES}) == 22


# -- control: N1, N2, N3, N7 -------------------------------------------------------------------------------------------

BAD = "FROM scratch as A\nENV a b\n"


@pytest.mark.parametrize(
    ("control", "left"),
    [
        ("skip=StageNameCasing", ["FromAsCasing", "LegacyKeyValueFormat"]),
        ("skip = StageNameCasing , FromAsCasing ;error=true", ["LegacyKeyValueFormat"]),
        ("error=true;skip=all", []),
        ("skip=all // for now", []),
        ("skip=FromAsCasing // not StageNameCasing", ["StageNameCasing", "LegacyKeyValueFormat"]),
        ("experimental=all;skip=FromAsCasing", ["StageNameCasing", "LegacyKeyValueFormat"]),
        ("skip=stagenamecasing", ["StageNameCasing", "FromAsCasing", "LegacyKeyValueFormat"]),
        ("", ["StageNameCasing", "FromAsCasing", "LegacyKeyValueFormat"]),
    ],
)
def test_the_directive_and_the_build_argument_control_rules(control: str, left: list[str]) -> None:
    directed = report(f"# check={control}\n{BAD}")
    given = report(f"# check=skip=all\n{BAD}", build_args={"BUILDKIT_DOCKERFILE_CHECK": control or "error=false"})
    for result in (directed, given):
        assert [warning.rule for warning in result.warnings] == left


def test_the_directive_may_follow_others_and_a_line_for_the_shell() -> None:
    """P7."""
    assert found(f"#!/usr/bin/env x\n# syntax=a/b\n# check=skip=all\n{BAD}") == []
    assert found(f"# text\n# check=skip=all\n{BAD}") == ["LegacyKeyValueFormat:4"]  # a comment above FROM by then


@pytest.mark.parametrize("control", ["skip", "foo=all", "error=maybe", "skip=all;nope=1"])
def test_a_control_that_says_nothing_known(control: str) -> None:
    with pytest.raises(RecipeError, match="invalid check option") as raised:
        report(f"# check={control}\n{BAD}")
    assert raised.value.span is not None
    assert raised.value.span.line == 1
    with pytest.raises(UsageError, match="BUILDKIT_DOCKERFILE_CHECK: invalid check option"):
        report(BAD, build_args={"BUILDKIT_DOCKERFILE_CHECK": control})


def test_a_comment_above_an_instruction_acts_on_it_alone() -> None:
    text = "FROM base\n# check=skip=LegacyKeyValueFormat\n# and a reason\nENV a b\nENV c d\n# check=skip=all\nENV e f\n"
    assert found(text) == ["LegacyKeyValueFormat:5"]


def test_an_empty_comment_takes_a_control_away_and_prose_is_none() -> None:
    assert found("FROM base\n# check=skip=all\n#\nENV a b\n") == ["LegacyKeyValueFormat:4"]
    assert found("FROM base\n# check=this twice\nENV a b\n") == ["LegacyKeyValueFormat:3"]


def test_either_of_two_instructions_may_carry_the_comment() -> None:
    silent = "# check=skip=MultipleInstructionsDisallowed\n"
    assert found('FROM base\nCMD ["a"]\nCMD ["b"]\n') == ["MultipleInstructionsDisallowed:2"]
    assert found(f'FROM base\n{silent}CMD ["a"]\nCMD ["b"]\n') == []
    assert found(f'FROM base\nCMD ["a"]\n{silent}CMD ["b"]\n') == []


def test_warnings_count_as_errors_only_where_the_recipe_says_so() -> None:
    assert report(BAD).violation is None
    violation = report(f"# check=error=true\n{BAD}").violation
    assert violation is not None
    rules = "StageNameCasing, FromAsCasing, LegacyKeyValueFormat"
    assert violation.message == f"lint violation found for rules: {rules}"
    assert violation.span is not None
    assert violation.span.line == 2
    assert report("# check=error=true\nFROM base\n").violation is None


def test_a_warning_reads_as_buildkit_prints_it() -> None:
    (warning,) = report("FROM base\nMAINTAINER me\n").warnings
    assert str(warning) == "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"


def test_only_needed_stages_are_examined_for_a_target() -> None:
    text = "FROM base AS a\nENV a b\nFROM base AS b\nENV a b\nFROM a\nENV a b\n"
    assert found(text) == ["LegacyKeyValueFormat:2", "LegacyKeyValueFormat:4", "LegacyKeyValueFormat:6"]
    assert found(text, every=False) == ["LegacyKeyValueFormat:2", "LegacyKeyValueFormat:6"]
    assert found(text, every=False, target="b") == ["LegacyKeyValueFormat:4"]
    with pytest.raises(UsageError, match="target stage"):
        found(text, target="c")


def test_what_comes_before_a_mistake_is_still_told() -> None:
    result = report("FROM scratch as A\nFROM ${NOPE}\nENV a b\n")
    assert [warning.rule for warning in result.warnings] == [
        "StageNameCasing",
        "FromAsCasing",
        "UndefinedArgInFrom",
        "InvalidDefaultArgInFrom",
    ]
    assert result.failure is not None
    assert "should not be blank" in result.failure.message
    result = report("ARG SOURCE_DATE_EPOCH=soon\nFROM scratch as A\nMAINTAINER me\n")
    assert [warning.span.line for warning in result.warnings] == [2, 2, 3]
    assert result.failure is not None
    result = report("FROM scratch as A\nMAINTAINER me\nNOPE\nMAINTAINER you\n")
    assert [warning.span.line for warning in result.warnings] == [1, 1, 2]
    assert result.failure is not None


# -- how statements are written ----------------------------------------------------------------------------------------


def test_casing_follows_the_majority_and_upper_case_wins_a_draw() -> None:
    """N6."""
    assert details("arg x\nFROM base\nenv a=b\n") == [
        "Command 'env' should match the case of the command majority (uppercase)"
    ]
    assert found("from base\nenv a=b\nRUN x\n") == ["ConsistentInstructionCasing:3"]
    assert found("FROM base\nRun x\n") == ["ConsistentInstructionCasing:2"]


def test_an_empty_continuation_is_told_at_the_end_of_its_statement() -> None:
    """P12."""
    assert found("FROM base\nRUN a \\\n\n\n  b \\\n# no blank line\n c\nRUN x\n") == ["NoEmptyContinuation:7"]
    assert found("FROM base\nCOPY <<E /a \\\n\n/b\n\n\nE\n") == ["NoEmptyContinuation:4"]
    assert found("FROM base\nRUN <<E\n\nE\n") == []


def test_messages_spell_keywords_as_written() -> None:
    assert details("from base\nenv a b\ncmd x\n") == [
        '"env key=value" should be used instead of legacy "env key value" format',
        "JSON arguments recommended for cmd to prevent unintended behavior related to OS signals",
    ]


# -- stages ------------------------------------------------------------------------------------------------------------


def test_stage_names() -> None:
    assert found("FROM base AS a\nFROM base AS A\nFROM base AS context\n") == [
        "StageNameCasing:2",
        "DuplicateStageName:2",
        "ReservedStageName:3",
    ]
    assert found("FroM base As a\n") == ["ConsistentInstructionCasing:1"]  # which As matches is not the question then


def test_descriptions_name_what_they_describe() -> None:
    head = "# check=experimental=all\n"
    assert found(f"{head}# other text\nFROM base AS a\n# a is it\nARG a\n# b is it\nARG a b\n# it\nARG a b\n") == [
        "InvalidDefinitionDescription:3",
        "InvalidDefinitionDescription:9",
    ]
    assert found(f"{head}# a file\n\nFROM base AS a\n# x\nFROM base\n# x\nRUN x\n") == []
    assert found(f"{head}# a\n# check=skip=all\nFROM base AS a\n") == []
    assert found("# a file\nFROM base AS b\n") == []


# -- bases -------------------------------------------------------------------------------------------------------------


def test_arguments_of_from_have_to_be_declared() -> None:
    text = "ARG VERSION=1\nFROM base$VERSOIN AS a\nFROM --platform=$TARGETPLATFROM$BUILDPLATFORM base\n"
    assert details(text) == [
        "FROM argument 'VERSOIN' is not declared (did you mean VERSION?)",
        "FROM argument 'TARGETPLATFROM' is not declared (did you mean TARGETPLATFORM?)",
    ]


def test_defaults_have_to_do_without_build_arguments() -> None:
    given = {"TAG": "1", "X": "base"}
    assert found(
        "ARG TAG\nARG X\nFROM nix:$TAG\nFROM ${X}\nFROM nix${TAG}\nFROM nix:${TAG:-2}\n", build_args=given
    ) == [
        "InvalidDefaultArgInFrom:3",
        "InvalidDefaultArgInFrom:4",
    ]


def test_platforms_of_from() -> None:
    assert found("FROM --platform=linux/amd64 base AS build\n") == ["FromPlatformFlagConstDisallowed:1"]
    assert found("FROM --platform=linux/amd64 base AS amd64-build\n") == []
    assert found("FROM --platform=linux/$TARGETARCH base\n") == []
    assert found("FROM --platform=$TARGETPLATFORM base\n") == ["RedundantTargetPlatform:1"]
    assert found("FROM --platform=${TARGETPLATFORM} base\n") == ["RedundantTargetPlatform:1"]
    assert found("FROM --platform=$TARGETPLATFORM/v2 base\n") == []


def test_a_base_of_another_platform() -> None:
    assert details("FROM arm\n") == [
        'Base image arm was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    ]
    assert found("FROM base AS a\n", named_contexts={"a": "arm"}) == ["InvalidBaseImagePlatform:1"]
    assert found("FROM arm\n", platform=ARM64) == found("FROM empty\n") == found("FROM nowhere\n") == []


# -- instructions ------------------------------------------------------------------------------------------------------


def test_variables_have_to_be_defined() -> None:
    text = (
        "FROM base\nARG A\nENV B=$A$HOME$PATH C=$C\nCOPY $B ${D:-d} $PAHT/\nLABEL x=$HMOE$xyz\nRUN $nope\nARG E=$LONG\n"
    )
    assert details(text) == [
        "Usage of undefined variable '$C'",
        "Usage of undefined variable '$D' (did you mean $B?)",
        "Usage of undefined variable '$PAHT' (did you mean $PATH?)",
        "Usage of undefined variable '$HMOE' (did you mean $HOME?)",
        "Usage of undefined variable '$xyz'",
        "Usage of undefined variable '$LONG'",
    ]


def test_names_in_one_arg_see_those_before_them() -> None:
    assert found("FROM base\nARG A B=$A C=$D\n") == ["UndefinedVar:2"]
    assert found("FROM base\nARG A=$nope\n", build_args={"A": "1"}) == []  # the default is not used


def test_heredocs_are_expanded_too() -> None:
    assert found("FROM base\nCOPY <<E /a\n$nope $HOME\nE\nCOPY <<'E' /b\n$nope\nE\n") == ["UndefinedVar:2"]


def test_arguments_reach_the_stages_that_are_from_theirs() -> None:
    assert found("FROM base AS a\nARG A\nFROM a\nCOPY $A /\nFROM base\nCOPY $A /\n") == ["UndefinedVar:6"]


def test_of_a_base_that_is_not_at_hand_nothing_is_claimed() -> None:
    assert found("FROM nowhere AS a\nCOPY $x /\nFROM a\nCOPY $x /\nCMD x\n") == ["JSONArgsRecommended:5"]


def test_shell_form_is_meant_where_a_shell_is_named() -> None:
    assert found('FROM shell\nCMD x\nFROM base AS b\nCMD x\nFROM b\nSHELL ["sh"]\nENTRYPOINT x\n') == [
        "JSONArgsRecommended:4"
    ]


def test_the_first_workdir_of_a_line_of_stages() -> None:
    assert found(
        "FROM base AS a\nWORKDIR x\nWORKDIR y\nFROM a AS b\nFROM b\nWORKDIR z\nFROM base\nWORKDIR $HOME/x\n"
    ) == ["WorkdirRelativePath:2"]
    assert details('FROM base\nWORKDIR a"b"\n') == [
        'Relative workdir "ab" can have unexpected results if the base image changes'
    ]


def test_triggers_are_told_of_where_they_fire() -> None:
    assert found('FROM base\nFROM triggers\nCMD ["x"]\n') == [
        "JSONArgsRecommended:2",
        "WorkdirRelativePath:2",
        "MultipleInstructionsDisallowed:2",
    ]


def test_names_of_secrets() -> None:
    """N4."""
    names = ["API_KEY", "apikey", "TOKEN", "DB_PASSWORD_1", "auth", "GIT_credentials", "K"]
    text = (
        "FROM base\nARG "
        + " ".join(names)
        + "\nENV PUBLIC_KEY=1 KEY_FILE=2 TOKEN_VERSION=3 MONKEY=4 SECRETS=5 $HOME=6\n"
    )
    assert [detail.rpartition("(")[2] for detail in details(text)] == [f'ARG "{name}")' for name in names[:-1]]


@pytest.mark.parametrize(
    ("ignored", "sources", "count"),
    [
        ("*.txt", "a.txt ./b/../c.txt d", 2),
        ("a", "a/b /a/c ba", 2),
        ("*\n!a", "b", 0),
        ("**", ". / b", 3),
        (".*", ". /", 0),
        ("*", "https://a/b git@h:x <<E", 0),
    ],
)
def test_sources_that_the_ignore_file_leaves_out(ignored: str, sources: str, count: int) -> None:
    """N5."""
    body = "\nE\n" if "<<E" in sources else "\n"
    text = f"FROM base AS x\nADD {sources} /d/{body}FROM x\nCOPY --from=x a.txt b /d/\n"
    assert found(text, ignore=IgnoreRules.parse(ignored)) == ["CopyIgnoredFile:2"] * count


def test_ports() -> None:
    text = "FROM base\nENV P='1/UDP 2:3'\nEXPOSE $P 80 [::1]:4:5/tcp 6-7/Tcp ::8\n"
    assert sorted(details(text)) == [
        "Defined protocol '1/UDP' in EXPOSE instruction should be lowercase",
        "Defined protocol '6-7/Tcp' in EXPOSE instruction should be lowercase",
        "EXPOSE instruction should not define an IP address or host-port mapping, found '2:3'",
        "EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:4:5/tcp'",
    ]


# -- the whole ---------------------------------------------------------------------------------------------------------


@given(RECIPES, st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_recipe_gets_a_report(text: str, every: bool) -> None:
    try:
        recipe = parse(text)
    except RecipeError:
        return
    result = lint(recipe, Setting(bases=image, platform=AMD64, every=every, ignore=IgnoreRules.parse("*")))
    for warning in result.warnings:
        assert 1 <= warning.span.line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("PAHT", ("HOME", "PATH"), "PATH"),
        ("a", ("b", "c"), "b"),
        ("abc", ("abcdef", "xyz"), ""),
        ("abcd", ("abxx", "abc"), "abc"),
        ("x", (), ""),
    ],
)
def test_the_nearest_name_is_at_most_two_edits_away(name: str, known: tuple[str, ...], expected: str) -> None:
    assert nearest(name, known) == expected
