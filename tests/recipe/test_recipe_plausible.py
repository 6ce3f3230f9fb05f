"""Recipes from plausible pieces, so that most get past the parser: stages, words with modifiers, mounts, flags,
triggers, named contexts. Each is a plan, or an error that knows its place; and the linter comes to the same."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import event, given, settings
from hypothesis import strategies as st

from layerbuild.errors import LayerbuildError, NotFoundError, RecipeError, UsageError
from layerbuild.image.config import ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.lint.facts import Setting
from layerbuild.recipe.lint.linter import lint
from layerbuild.recipe.planner import plan, recipe_epoch
from layerbuild.recipe.syntax import Recipe, parse
from layerbuild.steps import CopyStep, ImageBase, LayerPlan, RunStep, StageBase, fingerprint

PLATFORM = Platform("linux", "amd64")
NAMES = ("A", "B", "PATH", "http_proxy", "SOURCE_DATE_EPOCH", "TARGETARCH", "1", "@")


def pick(*pieces: str) -> st.SearchStrategy[str]:
    return st.sampled_from(pieces)


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map("".join)


def several(part: st.SearchStrategy[str], least: int = 1, between: str = " ") -> st.SearchStrategy[str]:
    return st.lists(part, min_size=least, max_size=3).map(between.join)


NAME = pick(*NAMES)
PLAIN = pick("a", "dir/", "/abs", "../up", "*.c", "x:y", "1", "linux/arm64", "", ".", "é", "[a", "\\*", "a b", "${")
MODIFIER = joined(pick(":-", "-", ":+", "+", ":?", "?", "#", "##", "%", "%%", "/a/", "//", "^", ":"), PLAIN)
VARIABLE = st.one_of(NAME.map("${}".format), joined(pick("${"), NAME, st.one_of(pick(""), MODIFIER), pick("}")))
NESTED = joined(pick("${"), NAME, pick(":-", "#", "/"), VARIABLE, pick("}", "/b}", ""))
QUOTED = st.one_of(
    joined(pick('"'), st.one_of(PLAIN, VARIABLE), pick('"', '"', "")), joined(pick("'"), PLAIN, pick("'", "'", ""))
)
WORD = st.lists(st.one_of(PLAIN, VARIABLE, NESTED, QUOTED), min_size=1, max_size=3).map("".join)
STAGE = pick("s0", "S1", "s2", "0", "1", "7", "base", "ctx", "img", "scratch", "late", "$A", "nosuch")

KEY = pick("type=", "target=", "dst=", "source=", "from=", "id=", "sharing=", "uid=", "gid=", "mode=", "size=", "env=")
MOUNT = several(
    st.one_of(
        joined(pick("type="), pick("bind", "cache", "tmpfs", "secret", "ssh", "x")),
        joined(pick("from="), STAGE),
        joined(KEY, st.one_of(WORD, pick("0755", "1000", "64m", "locked", "/t"))),
        pick("ro", "rw", "required", "ro=false", "required=true", '"a,b"', ""),
    ),
    between=",",
)
SOURCE = st.one_of(
    WORD,
    pick("https://h/f", "https://u:p@h/r.git#v:d", "git@h:r?ref=x", "https://h/r.git?submodules=no", "<<E", "<<-'E'"),
)
COPYING = pick(
    *("--chmod=755 ", "--chmod=u=rwX,go= ", "--chmod=9 ", "--link ", "--parents ", "--exclude=*.o ", "--exclude=[ "),
    *("--checksum=sha256:" + "0" * 64 + " ", "--keep-git-dir ", "--unpack=false ", ""),
)
DOCUMENT = pick("", "\nx $A ${B:-y} ${\nE", "\n#!/bin/sh\n\tE", "\nE")
COMMAND = pick("make", '["a", "b"]', "[]", '["a", 1]', "<<E", "cat <<E | sh", "")

PLAINLY = st.one_of(
    joined(pick("ENV ", "LABEL ", "ARG "), several(joined(st.one_of(NAME, WORD), pick("=", "=", " "), WORD))),
    joined(pick("RUN "), several(joined(pick("--mount="), MOUNT), least=0), pick(" "), COMMAND, DOCUMENT),
    joined(
        pick("RUN --network=", "RUN --security=", "RUN --device="),
        pick("none", "host", "sandbox", "v/d=x", ""),
        pick(" x"),
    ),
    joined(pick("COPY ", "ADD "), COPYING, several(SOURCE), pick(" "), WORD, DOCUMENT),
    joined(pick("COPY --from="), STAGE, pick(" "), COPYING, SOURCE, pick(" "), WORD, DOCUMENT),
    joined(pick("COPY --chown="), WORD, pick(" a b")),
    joined(pick("WORKDIR ", "USER ", "STOPSIGNAL ", "EXPOSE ", "VOLUME ", "MAINTAINER "), several(WORD)),
    joined(pick("CMD ", "ENTRYPOINT ", "SHELL ", "HEALTHCHECK CMD ", "HEALTHCHECK --interval=1s NONE "), COMMAND),
)
TRIGGER = joined(pick("ONBUILD "), PLAINLY)
FROM = joined(
    pick("FROM ", "FROM --platform=$TARGETARCH ", "FROM --platform=arm64 "),
    STAGE,
    pick("", " AS s0", " AS s2", " AS ctx"),
)
BODY = several(st.one_of(PLAINLY, PLAINLY, TRIGGER), least=0, between="\n")
STAGES = several(joined(FROM, pick("\n"), BODY), between="\n")
GLOBALS = several(
    joined(pick("ARG "), NAME, pick("", "="), st.one_of(WORD, pick("base", "s0", "ctx", "5"))), least=0, between="\n"
)
RECIPES = joined(pick("", "# escape=`\n", "# check=error=true\n"), GLOBALS, pick("\n"), STAGES, pick("\n", ""))

ARGUMENTS = st.dictionaries(st.sampled_from(NAMES), pick("", "a", "base", "s0", "ctx", "7", "arm64"), max_size=3)
CONTEXTS: Mapping[str, str | None] = {"ctx": None, "img": "base", "s2::linux/arm64": None}
ON_BUILD = ("RUN <<E\nx\nE", "COPY --from=s0 a /", "ENV A=${B}")


def bases(name: str, platform: Platform) -> ImageConfig:
    if name == "nosuch":
        raise NotFoundError("no such image")
    return ImageConfig(platform, RuntimeConfig(env=(("A", "1"),), on_build=ON_BUILD if name == "late" else ()))


@given(RECIPES, ARGUMENTS, st.one_of(st.none(), pick("s0", "1", "ctx", "nosuch")))
@settings(max_examples=300, deadline=None)
def test_a_plan_or_an_error_with_its_place(text: str, build_args: Mapping[str, str], target: str | None) -> None:
    try:
        recipe = parse(text)
        recipe_epoch(recipe, platform=PLATFORM, build_args=build_args, target=target, named_contexts=CONTEXTS)
        found = plan(
            recipe,
            bases=bases,
            platform=PLATFORM,
            build_args=build_args,
            target=target,
            named_contexts=CONTEXTS,
            epoch=1,
        )
    except LayerbuildError as error:
        event(type(error).__name__)
        assert isinstance(error, RecipeError | NotFoundError | UsageError)
        if not isinstance(error, UsageError):  # which is about the target, or a build argument
            assert error.span is not None
            assert 1 <= error.span.line <= text.count("\n") + 1 and error.span.column >= 1
        return
    event("plan")
    _holds(found)
    _linted(recipe, build_args, target)


def _holds(found: LayerPlan) -> None:
    """Stages come in an order in which they can be built, and what they say can be written."""
    done: set[int] = set()
    for stage in found.stages:
        assert not isinstance(stage.base, StageBase) or stage.base.stage in done
        assert not isinstance(stage.base, ImageBase) or stage.base.reference
        done.add(stage.index)
        for step in stage.steps:
            assert step.origin.span.line >= 1
            if isinstance(step, RunStep | CopyStep):
                assert len(fingerprint(step)) == 64
            if isinstance(step, CopyStep):
                assert step.dest.startswith("/") and "/../" not in step.dest
            if isinstance(step, RunStep):
                assert all(mount.target.startswith("/") or mount.env for mount in step.mounts)


def _linted(recipe: Recipe, build_args: Mapping[str, str], target: str | None) -> None:
    """What can be planned has no failure for the linter either."""
    setting = Setting(
        bases=bases, platform=PLATFORM, build_args=build_args, target=target, every=False, named_contexts=CONTEXTS
    )
    report = lint(recipe, setting)
    assert report.failure is None
    assert all(warning.span.line >= 1 for warning in report.warnings)
