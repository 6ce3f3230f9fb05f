"""Whatever the text: a plan, or a RecipeError that knows its place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import RecipeError
from layerbuild.image.config import ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.recipe.instructions import table
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import parse
from layerbuild.steps import CopyStep, RunStep, fingerprint

PLATFORM = Platform("linux", "amd64")

KEYWORDS = st.sampled_from([*sorted(table.KEYWORDS), "NOPE", "run", "copy", "oNbuild"])
FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            *("$", "${", "${A", "${A}", "${A:-", "}", "$A", "${A//", "/", "#", "%", "*", "?", "\\", "`", "'", '"'),
            *("[", "]", '["', '"]', '["a", "b"]', ",", "=", "a=b", ":", "-", "--", "--from=", "--mount=", "0", "80"),
            *("--mount=type=cache,target=/c", "--mount=type=secret,id=", "--chown=", "--chmod=", "--interval=1s"),
            *("<<E", "<<-E", '<<"E"', "3<<E", "E", "\tE", "AS", "as", "s0", "CMD", "NONE", "sha256:", "https://a/b"),
            *("\\\n", "\\ \n", "`\n", "\n", "\n\n", "\r\n", "\n#", "\n# escape=`\n", " ", "\t", "\xa0", "\u2003"),
            *("\x1c", "\x0b", "\0", "é", "☃", "\ud800", "\udc80", "\ufeff", "/", ".", "..", "a.git", "git@h:x", "SIG"),
        ]
    ),
    st.text(max_size=4),
)
LINES = st.builds(lambda keyword, rest: f"{keyword} {''.join(rest)}\n", KEYWORDS, st.lists(FRAGMENTS, max_size=6))
RECIPES = st.builds(
    lambda head, lines: head + "".join(lines),
    st.sampled_from(
        ["", "FROM a\n", "FROM a AS s0\n", "ARG A=1\nFROM a\n", "# escape=`\nFROM a\n", "#syntax=x\nFROM a\n"]
    ),
    st.lists(LINES, max_size=6),
)


def bases(_name: str, platform: Platform) -> ImageConfig:
    return ImageConfig(platform, RuntimeConfig(env=(("A", "1"),), on_build=("RUN true",)))


@given(RECIPES)
@settings(max_examples=1500, deadline=None)
def test_any_text_is_a_plan_or_a_recipe_error_with_a_place(text: str) -> None:
    try:
        stages = plan(parse(text), bases=bases, platform=PLATFORM, epoch=1, build_args={"http_proxy": "p"}).stages
    except RecipeError as error:
        assert error.span is not None
        assert 1 <= error.span.line <= text.count("\n") + 1
        assert error.span.column >= 1
        return
    for step in (step for stage in stages for step in stage.steps):
        if isinstance(step, RunStep | CopyStep):
            assert len(fingerprint(step)) == 64  # the values can be written


@given(st.text())
@settings(deadline=None)
def test_any_ignore_file_is_rules_or_a_recipe_error(text: str) -> None:
    try:
        rules = IgnoreRules.parse(text)
    except RecipeError as error:
        assert error.span is not None
        return
    for path in (b"a", b"a/b", b"\xff/c"):
        verdict = rules.verdict(path)
        assert (verdict.rule is None) <= (not verdict.ignored)
        assert not rules.prunes(path) or verdict.ignored
