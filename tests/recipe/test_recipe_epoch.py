"""SOURCE_DATE_EPOCH in build arguments and recipes (facts E1, E2), and RUN --device (R23)."""

from __future__ import annotations

import pytest

from layerbuild.errors import RecipeError, UsageError
from layerbuild.image.config import ImageConfig, Platform, RuntimeConfig
from layerbuild.recipe.epoch import Epoch
from layerbuild.recipe.instructions.devices import Device, read_device
from layerbuild.recipe.planner import plan, recipe_epoch
from layerbuild.recipe.syntax import parse
from layerbuild.steps import ContextRoot, GitSource, RunStep, UrlSource

PLATFORM = Platform("linux", "amd64")


def epoch(text: str, **build_args: str) -> Epoch:
    return recipe_epoch(parse(text), platform=PLATFORM, build_args=build_args, named_contexts={"src": None})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM scratch", None),
        ("ARG SOURCE_DATE_EPOCH\nFROM scratch", None),
        ("ARG SOURCE_DATE_EPOCH=\nFROM scratch", None),
        ("ARG t=12\nARG SOURCE_DATE_EPOCH=${t}3\nFROM scratch", 123),
        ("FROM scratch\nARG SOURCE_DATE_EPOCH=9", None),
        ("ARG SOURCE_DATE_EPOCH=context\nFROM scratch", ContextRoot()),
        ("ARG SOURCE_DATE_EPOCH=src\nFROM scratch", ContextRoot("src")),
        ("ARG SOURCE_DATE_EPOCH=S\nFROM scratch AS s\nARG u=h\nADD http://$u/f /\nFROM a", UrlSource("http://h/f")),
        ("ARG SOURCE_DATE_EPOCH=s\nFROM a\nFROM scratch AS s\nADD me@h:r.git#v /", GitSource("me@h:r.git#v")),
    ],
)
def test_what_a_recipe_says(text: str, found: Epoch) -> None:
    assert epoch(text) == found


@pytest.mark.parametrize("where", ["ARG SOURCE_DATE_EPOCH=context\n", "ARG SOURCE_DATE_EPOCH\n"])
def test_a_word_becomes_the_time_that_it_stands_for(where: str) -> None:
    text = f"{where}FROM a\nARG SOURCE_DATE_EPOCH\nRUN x"
    args = {} if "=" in where else {"SOURCE_DATE_EPOCH": "context"}
    for seconds, value in ((77, "77"), (None, "")):
        step = plan(parse(text), bases=bases, platform=PLATFORM, build_args=args, epoch=seconds).target.steps[1]
        assert isinstance(step, RunStep) and dict(step.env)["SOURCE_DATE_EPOCH"] == value


def test_a_build_argument_wins() -> None:
    text = "ARG SOURCE_DATE_EPOCH=5\nFROM scratch"
    assert epoch(text, SOURCE_DATE_EPOCH="7") == 7
    assert epoch(text, SOURCE_DATE_EPOCH="") is None
    assert epoch("FROM scratch", SOURCE_DATE_EPOCH="-7") == -7


STAGE = "ARG SOURCE_DATE_EPOCH=s\nFROM {base} AS s\n{body}\nFROM scratch\n"


@pytest.mark.parametrize(
    ("base", "body", "message"),
    [
        ("a", "ADD http://h/f /", "must use FROM scratch"),
        ("scratch", "", "exactly one remote ADD"),
        ("scratch", "ADD http://h/f /\nADD http://h/g /", "exactly one remote ADD"),
        ("scratch", "ADD http://h/f http://h/g /", "exactly one remote ADD source"),
        ("scratch", "ADD f /", "exactly one remote ADD source"),
        ("scratch", "ADD <<f /\nf", "exactly one remote ADD source"),
        ("scratch", "COPY f /", "unsupported COPY instruction"),
    ],
)
def test_stages_that_tell_no_time(base: str, body: str, message: str) -> None:
    text = STAGE.format(base=base, body=body)
    with pytest.raises(RecipeError, match=message) as raised:
        epoch(text)
    assert raised.value.span is not None
    with pytest.raises(RecipeError, match=message):  # a plan does not pass over it
        plan(parse(text), bases=bases, platform=PLATFORM, epoch=1)


@pytest.mark.parametrize("value", ["soon", "1.5", "0x10", "9" * 40])
def test_values_that_are_no_time(value: str) -> None:
    with pytest.raises(UsageError, match="invalid SOURCE_DATE_EPOCH"):
        epoch("FROM scratch", SOURCE_DATE_EPOCH=value)
    with pytest.raises(RecipeError, match="invalid SOURCE_DATE_EPOCH") as raised:
        epoch(f"ARG a\nARG b SOURCE_DATE_EPOCH={value}\nFROM scratch")
    assert raised.value.span is not None and raised.value.span.line == 2


def bases(_name: str, platform: Platform) -> ImageConfig:
    return ImageConfig(platform, RuntimeConfig())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("v.com/d=x", Device("v.com/d=x")),
        ("name=v.com/d=x,required", Device("v.com/d=x", True)),
        ("REQUIRED=1,v.com/d", Device("v.com/d", True)),
        ("v.com/d,required=F", Device("v.com/d")),
        ("", Device("")),
    ],
)
def test_devices(text: str, found: Device) -> None:
    assert read_device(text) == found


@pytest.mark.parametrize("text", ["a,b", "a,b=c", "a,name=b", "a,required=maybe", 'a,"b'])
def test_devices_that_are_none(text: str) -> None:
    with pytest.raises(RecipeError):
        read_device(text)


def test_run_does_without_devices_that_are_not_required() -> None:
    step = plan(parse("FROM a\nRUN --device=v.com/d x"), bases=bases, platform=PLATFORM).target.steps[0]
    assert isinstance(step, RunStep) and step.argv[-1] == "x"
    with pytest.raises(RecipeError, match="required") as raised:
        plan(parse("FROM a\nRUN --device=v.com/d,required x"), bases=bases, platform=PLATFORM)
    assert raised.value.span is not None and raised.value.span.column == 14
