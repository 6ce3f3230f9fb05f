"""Stages: which are needed, where they start, what they inherit."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from layerbuild.errors import NotFoundError, RecipeError, UsageError
from layerbuild.image.config import DEFAULT_PATH, ImageConfig, Platform, RuntimeConfig
from layerbuild.image.platforms import read_platform
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import parse
from layerbuild.steps import (
    ContextRoot,
    CopyStep,
    ImageBase,
    ImageRoot,
    LayerPlan,
    RunStep,
    ScratchBase,
    StageBase,
    StageRoot,
)

PLATFORM = Platform("linux", "amd64")


class Images:
    """Bases that remember who asked."""

    def __init__(self, **configs: RuntimeConfig) -> None:
        self.configs = configs
        self.asked: list[tuple[str, str]] = []

    def __call__(self, name: str, platform: Platform) -> ImageConfig:
        self.asked.append((name, str(platform)))
        if name not in self.configs:
            raise NotFoundError(f"no image {name}", hint="import it")
        return ImageConfig(platform, self.configs[name], author="base author", created="2020-01-01T00:00:00Z")


def planned(
    text: str, *, images: Images | None = None, target: str | None = None, build_args: Mapping[str, str] | None = None
) -> LayerPlan:
    bases = images or Images(base=RuntimeConfig(env=(("PATH", "/bin"),)))
    return plan(parse(text), bases=bases, platform=PLATFORM, target=target, build_args=build_args)


def commands(found: LayerPlan) -> list[str]:
    return [step.origin.text for step in found.target.steps]


def run_env(found: LayerPlan) -> dict[str, str]:
    step = found.target.steps[-1]
    assert isinstance(step, RunStep)
    return dict(step.env)


def test_only_needed_stages_are_planned_and_only_their_bases_asked_for() -> None:
    images = Images(base=RuntimeConfig())
    found = planned(
        "FROM base AS a\nFROM missing AS unused\nRUN ${broken}\nFROM scratch AS b\nCOPY --from=a /x /\n"
        "FROM scratch AS c\nRUN --mount=from=b,target=/m x\nFROM missing AS later\nCOPY --from=c / /",
        images=images,
        target="C",
    )
    assert [(stage.index, stage.name) for stage in found.stages] == [(0, "a"), (2, "b"), (3, "c")]
    assert [(stage.title, stage.reason) for stage in found.skipped] == [
        ("unused", "the target c does not need it"),
        ("later", "the target c does not need it"),
    ]
    assert images.asked == [("base", "linux/amd64")]


def test_a_mistake_in_an_unneeded_stage_is_still_one() -> None:
    with pytest.raises(RecipeError, match="unknown flag"):
        planned("FROM base\nRUN --nope x\nFROM base")


def test_targets() -> None:
    text = "FROM base AS One\nFROM base\nFROM base AS last"
    assert planned(text).target.name == "last"
    assert planned(text, target="ONE").target.index == 0
    assert planned(text, target="1").target.index == 1
    with pytest.raises(UsageError, match='target stage "lost" could not be found') as caught:
        planned(text, target="lost")
    assert caught.value.hint == "did you mean last?"


def test_an_unknown_base_names_the_line_of_its_from() -> None:
    with pytest.raises(NotFoundError) as caught:
        planned("FROM base AS a\nFROM missing\n")
    assert str(caught.value) == "Dockerfile:2:6: no image missing"
    assert caught.value.hint == "import it"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("ARG a", "dockerfile contains no stages to build", 1),
        ("RUN x\nFROM base", "no build stage in current context", 1),
        ("FROM base AS a\nCOPY --from=a x y", "circular dependency detected on stage: a", 1),
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nCOPY --from=a x y",
            "circular dependency detected on stage: a",
            1,
        ),
        ("FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nFROM a", "needs to be defined before", 2),
        ("FROM base AS a\nCOPY --from=1 x y\nFROM base AS b\nFROM a", 'cannot copy from stage "1"', 2),
    ],
)
def test_stage_errors(text: str, message: str, line: int) -> None:
    with pytest.raises(RecipeError) as caught:
        planned(text)
    assert message in caught.value.message
    assert caught.value.span is not None and caught.value.span.line == line


def test_what_from_means() -> None:
    found = planned(
        "FROM scratch AS base\nFROM BASE AS two\nFROM three\nCOPY --from=two / /", images=Images(three=RuntimeConfig())
    )
    assert [stage.base for stage in found.stages] == [ScratchBase(), StageBase(0), ImageBase("three")]
    assert found.stage(0).start.config == RuntimeConfig(env=(("PATH", DEFAULT_PATH),), working_dir="/")


def test_what_copy_from_means() -> None:
    found = plan(
        parse(
            "FROM base AS a\nFROM base\n"
            "COPY --from=0 x /\nCOPY --from=A x /\nCOPY --from=img:1 x /\nCOPY --from=ctx x /"
        ),
        bases=Images(base=RuntimeConfig()),
        platform=PLATFORM,
        named_contexts={"ctx": None},
    )
    steps = [step for step in found.target.steps if isinstance(step, CopyStep)]
    assert [step.root for step in steps] == [StageRoot(0), StageRoot(0), ImageRoot("img:1"), ContextRoot("ctx")]
    assert [step.keep_owner for step in steps] == [True, True, True, False]


def test_a_number_is_no_stage_for_a_mount() -> None:
    step = planned("FROM base\nFROM base\nRUN --mount=from=0,target=/x y").target.steps[0]
    assert isinstance(step, RunStep)
    assert step.mounts[0].root == ImageRoot("0")


def test_the_nearest_of_equal_names_counts() -> None:
    found = planned("FROM base AS x\nFROM base AS x\nFROM x")
    assert found.target.base == StageBase(1)


def test_global_arguments() -> None:
    text = "ARG V=1\nARG N=base-$V W\nFROM $N\nRUN a\nARG V\nARG W\nRUN ${W-none}\n"
    images = Images(**{"base-1": RuntimeConfig(), "base-2": RuntimeConfig()})
    found = planned(text, images=images)
    assert found.target.base == ImageBase("base-1")
    first, last = (step for step in found.target.steps if isinstance(step, RunStep))
    assert "V" not in dict(first.env)
    assert dict(last.env)["V"] == "1"
    assert "W" not in dict(last.env)
    assert last.created_by == "RUN |2 V=1 W= /bin/sh -c ${W-none} # buildkit"
    assert planned(text, images=images, build_args={"V": "2"}).target.base == ImageBase("base-2")


def test_a_local_default_beats_the_global_value() -> None:
    assert run_env(planned("ARG V=1\nFROM base\nARG V=2\nRUN x"))["V"] == "2"


def test_predefined_arguments_want_to_be_declared() -> None:
    assert "TARGETARCH" not in run_env(planned("FROM base\nRUN x"))
    env = run_env(planned("FROM base AS end\nARG TARGETARCH TARGETSTAGE BUILDPLATFORM\nRUN x"))
    assert (env["TARGETARCH"], env["TARGETSTAGE"], env["BUILDPLATFORM"]) == ("amd64", "end", "linux/amd64")


def test_platforms() -> None:
    images = Images(base=RuntimeConfig())
    found = planned(
        "FROM --platform=$BUILDPLATFORM base\nFROM --platform=arm base AS b\nFROM b\nCOPY --from=0 / /", images=images
    )
    assert sorted(images.asked) == [("base", "linux/amd64"), ("base", "linux/arm/v7")]
    assert str(found.target.platform) == "linux/arm/v7"
    assert read_platform("aarch64", default=PLATFORM) == Platform("linux", "arm64")
    assert read_platform("linux/arm64/v8", default=PLATFORM) == Platform("linux", "arm64")
    assert read_platform("windows", default=PLATFORM) == Platform("windows", "amd64")


def test_a_stage_inherits_from_its_parent_stage() -> None:
    found = planned(
        'FROM base AS a\nARG x=1\nENV y=2\nMAINTAINER me\nCMD ["c"]\nONBUILD USER u\n'
        'FROM a AS b\nENTRYPOINT ["e"]\nRUN z\nFROM b'
    )
    b = found.stage(1)
    assert commands(LayerPlan((b,))) == ["USER u", 'ENTRYPOINT ["e"]', "RUN z"]
    assert b.start.author == "me"
    assert b.start.config.on_build == ()
    last = b.steps[-1]
    assert isinstance(last, RunStep)
    assert {"x": "1", "y": "2"}.items() <= dict(last.env).items()
    assert last.config.cmd is None  # the parent's CMD was for the parent's entrypoint
    # A trigger fires once: the grandchild does not see it.
    assert found.target.steps == ()
    assert found.target.start.config.user == "u"


def test_what_the_image_sets_counts_more_than_an_argument_of_the_parent_stage() -> None:
    found = planned("FROM base AS a\nENV y=env\nARG y=arg z=arg\nRUN x\nFROM a\nRUN x")
    inherited = run_env(found)
    assert (inherited["y"], inherited["z"]) == ("env", "arg")
    parent = found.stage(0).steps[-1]
    assert isinstance(parent, RunStep) and dict(parent.env)["y"] == "arg"


def test_of_equal_names_in_a_base_the_last_counts() -> None:
    images = Images(base=RuntimeConfig(env=(("PATH", "/bin"), ("a", "1"), ("a", "2"))))
    step = planned("FROM base\nRUN x", images=images).target.steps[-1]
    assert isinstance(step, RunStep) and step.env == (("PATH", "/bin"), ("a", "2"))


def test_a_variable_that_is_set_again_is_the_last_that_a_run_is_given() -> None:
    step = planned("FROM base\nENV a=1 b=2\nENV a=3\nRUN x").target.steps[-1]
    assert isinstance(step, RunStep)
    assert [name for name, _ in step.env] == ["PATH", "b", "a"]
    assert [name for name, _ in step.config.env] == ["PATH", "a", "b"]


def test_a_stage_may_be_called_scratch() -> None:
    assert planned("FROM base AS scratch\nFROM scratch\nRUN x").target.base == StageBase(0)


def test_triggers_of_a_base_image_fire_first_and_may_name_stages_of_the_recipe() -> None:
    images = Images(base=RuntimeConfig(on_build=("ENV a=$PATH", "COPY --from=files <<E x /\nb\nE")))
    found = planned("FROM scratch AS files\nFROM base\nRUN c", images=images)
    assert [stage.index for stage in found.stages] == [0, 1]
    assert [step.origin.trigger for step in found.target.steps] == [True, True, False]
    copy = found.target.steps[1]
    assert isinstance(copy, CopyStep)
    assert copy.root == StageRoot(0)
    assert copy.origin.span.line == 2
    assert found.target.steps[-1].config.on_build == ()
    assert found.target.start.created == ""


@pytest.mark.parametrize("trigger", ["FROM x", "ONBUILD RUN x", "NOPE", "RUN <<E", "", "COPY a", "USER ${"])
def test_a_bad_trigger_is_reported_at_from(trigger: str) -> None:
    images = Images(base=RuntimeConfig(on_build=(trigger,)))
    with pytest.raises(RecipeError) as caught:
        planned("\nFROM base", images=images)
    assert caught.value.span is not None and caught.value.span.line == 2


def test_many_stages_need_no_deep_stack() -> None:
    text = "FROM base AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(3000))
    assert len(planned(text).stages) == 3001


def test_a_front_end_of_another_language_is_noted() -> None:
    assert planned("# syntax=docker/dockerfiles:1\nFROM base").notes == (
        "Dockerfile:1:1: the front end docker/dockerfiles:1 is not run: layerbuild reads the recipe itself",
    )
    (note,) = planned("# syntax=a\nFROM base", build_args={"BUILDKIT_SYNTAX": "me/mine"}).notes
    assert note.startswith("BUILDKIT_SYNTAX: the front end me/mine is not run")


@pytest.mark.parametrize(
    "name",
    [
        "docker/dockerfile",
        "docker/dockerfile:1.7-labs",
        "docker.io/docker/dockerfile:1 --flag",
        "docker/dockerfile-upstream:master",
        f"docker/dockerfile:1@sha256:{'0' * 64}",
    ],
)
def test_the_front_end_of_dockerfiles_needs_no_note(name: str) -> None:
    assert planned(f"# syntax={name}\nFROM base").notes == ()
    assert planned("# syntax=other\nFROM base", build_args={"BUILDKIT_SYNTAX": name}).notes == ()


def test_a_stack_that_few_can_run_is_noted() -> None:
    def text(count: int) -> str:
        return "FROM base AS one\n" + "RUN x\nLABEL a=b\n" * 100 + "FROM one\n" + "RUN y\n" * (count - 100)

    assert planned(text(127)).notes == ()
    assert planned(text(128)).notes == ("the image may get 128 layers: Docker runs none with more than 127",)
    assert planned(text(128), target="one").notes == ()
