"""Named contexts as the planner sees them (S16), and credentials that no step tells."""

from __future__ import annotations

import pytest

from layerbuild.errors import NotFoundError, RecipeError, UsageError
from layerbuild.image.config import ImageConfig, Platform
from layerbuild.recipe.contexts import context_key, context_name, replaced
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import parse
from layerbuild.steps import (
    ContextRoot,
    CopyStep,
    ImageBase,
    ImageRoot,
    LayerPlan,
    PathSource,
    ScratchBase,
    UrlSource,
    fingerprint,
    identity,
    masked,
)

PLATFORM = Platform("linux", "amd64")


def planned(text: str, **contexts: str | None) -> LayerPlan:
    def bases(name: str, platform: Platform) -> ImageConfig:
        if name.startswith("no"):
            raise NotFoundError(name)
        return ImageConfig.scratch(platform)

    return plan(parse(text, file="Dockerfile"), bases=bases, platform=PLATFORM, named_contexts=contexts)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("busybox", "busybox"),
        ("docker.io/library/Busybox:latest", "busybox"),
        ("busybox:1", "busybox:1"),
        ("ghcr.io/a/b", "ghcr.io/a/b"),
        ("my context", "my context"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert context_name(text) == name


def test_reserved_names_are_not_replaced() -> None:
    for name in ("scratch", "Context"):
        assert replaced(name, {name.lower(): "x"}, PLATFORM) is None
    found = planned("FROM scratch\n", scratch="x")
    assert found.target.base == ScratchBase() and "scratch keeps its meaning" in found.notes[0]


def test_a_context_for_one_platform() -> None:
    text = "FROM --platform=linux/arm64 base AS b\nFROM base\nCOPY --from=src x /\nCOPY --from=b /y /\n"
    contexts = {"base::linux/arm64": "arm", "base": "other", "src": "plain", "src::linux/amd64": None}
    found = plan(parse(text), bases=_scratch, platform=PLATFORM, named_contexts=contexts)
    assert [stage.base for stage in found.stages] == [ImageBase("arm"), ImageBase("other")]
    copies = [step.root for step in found.target.steps if isinstance(step, CopyStep)]
    assert copies[0] == ContextRoot("src::linux/amd64")
    only = plan(parse("FROM base AS src\nLABEL a=1"), bases=_scratch, platform=PLATFORM, named_contexts=contexts)
    assert only.target.base == ScratchBase() and [type(step) for step in only.target.steps] == [CopyStep]


def _scratch(_name: str, platform: Platform) -> ImageConfig:
    return ImageConfig.scratch(platform)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a", ("a", PLATFORM)),
        ("A:latest::linux/aarch64", ("a::linux/arm64", Platform("linux", "arm64"))),
        ("a::arm", ("a::linux/arm/v7", Platform("linux", "arm", "v7"))),
    ],
)
def test_keys(text: str, key: tuple[str, Platform]) -> None:
    assert context_key(text, default=PLATFORM) == key
    with pytest.raises(UsageError, match="is no platform"):
        context_key("a::b/c/d/e", default=PLATFORM)


def test_a_base_is_replaced() -> None:
    assert planned("FROM nothing:latest\n", nothing="base").target.base == ImageBase("base")
    assert planned("FROM nothing\n", nothing="scratch").target.base == ScratchBase()
    with pytest.raises(NotFoundError):
        planned("FROM nothing:1\n", nothing="base")


def test_files_make_a_base() -> None:
    target = planned("FROM tree\nLABEL a=b\n", tree=None).target
    assert target.base == ScratchBase()
    first = target.steps[0]
    assert isinstance(first, CopyStep)
    assert (first.root, first.sources, first.dest) == (ContextRoot("tree"), (PathSource("/"),), "/")


def test_a_stage_that_is_replaced_needs_nothing() -> None:
    found = planned(
        "FROM nothing AS a\nFROM a AS b\nFROM nowhere AS c\nRUN x\nFROM c\nCOPY --from=b . /\n", c="base", b=None
    )
    assert [stage.index for stage in found.stages] == [3]
    (copy,) = found.target.steps
    assert found.target.base == ImageBase("base")
    assert isinstance(copy, CopyStep) and copy.root == ContextRoot("b") and not copy.keep_owner


def test_what_from_names() -> None:
    (copy,) = planned("FROM scratch\nCOPY --from=X:latest a /\n", x="base").target.steps
    assert isinstance(copy, CopyStep) and copy.root == ImageRoot("base") and copy.keep_owner
    with pytest.raises(RecipeError, match="circular dependency"):
        planned("FROM scratch AS a\nCOPY --from=a . /\n")
    planned("FROM scratch AS a\nCOPY --from=a . /\n", a="base")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ADD https://me:pw@h/x /", "ADD https://xxxxx:xxxxx@h/x /"),
        ("https://token@h/x@y", "https://xxxxx@h/x@y"),
        ("ssh://git@h/x git@h:x", "ssh://git@h/x git@h:x"),
        ("https://h/a?b=c@d me@host", "https://h/a?b=c@d me@host"),
        ("http://a:b@c@h https://u:p@i/", "http://xxxxx:xxxxx@h https://xxxxx:xxxxx@i/"),
    ],
)
def test_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_step_tells_no_credentials() -> None:
    (step,) = planned("FROM scratch\nADD https://me:hunter2@h/x /\n").target.steps
    assert isinstance(step, CopyStep) and step.sources == (UrlSource("https://me:hunter2@h/x"),)
    assert "hunter2" not in f"{step.origin.text} {step.created_by} {identity(step)}"
    (other,) = planned("FROM scratch\nADD https://me:changed@h/x /\n").target.steps
    assert isinstance(other, CopyStep) and fingerprint(other) == fingerprint(step)
