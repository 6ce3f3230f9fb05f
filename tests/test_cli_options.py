"""The options of ``build``: those of other builders, taken or refused with a reason, and what they do."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import click
import pytest
from support import Layerbuild

from layerbuild.cli.commands.build import build
from layerbuild.cli.options.command import HEADINGS, Command, Option
from layerbuild.cli.options.elsewhere import REASONS

pytestmark = [pytest.mark.memory, pytest.mark.forked]


def config_of(layerbuild: Layerbuild, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(layerbuild("inspect", image))[0]["Config"]
    return found


def own_names() -> set[str]:
    return {name for parameter in build.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_every_option_has_a_heading() -> None:
    assert isinstance(build, Command)
    visible = [each for each in build.params if isinstance(each, click.Option) and not each.hidden]
    assert {each.heading for each in visible if isinstance(each, Option)} == set(HEADINGS)
    assert [each for each in visible if not isinstance(each, Option)] == []


def test_no_option_is_refused_that_is_there() -> None:
    assert own_names() & set(REASONS) == set()


@pytest.mark.parametrize("name", sorted(REASONS))
def test_an_option_of_another_builder_is_refused_with_its_reason(name: str) -> None:
    from layerbuild.errors import UsageError

    for words in ([name, "x", "."], [f"{name}=x", "."]):
        with pytest.raises(UsageError) as caught:
            build.make_context("build", words)
        assert caught.value.message == f"build has no option {name}: {REASONS[name][0]}"
        assert caught.value.hint == REASONS[name][1]


def test_a_misspelled_option_is_told_the_nearest() -> None:
    with pytest.raises(click.NoSuchOption) as caught:
        build.make_context("build", ["--no-cash", "."])
    assert "--no-cache" in caught.value.format_message()


def test_what_is_done_anyway_may_be_asked_for(rooted: Layerbuild, context: Path) -> None:
    words = ("--load", "--rm", "--force-rm", "--compress", "--layers", "--provenance=false", "--sbom=false")
    said = rooted.build(context, "FROM busybox\nLABEL a=b\n", *words, "-o", "type=cacheonly", "-t", "x")
    assert "Traceback" not in said
    assert config_of(rooted, "x")["Labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--provenance", "mode=max"), "--provenance=mode=max: attestations are not written"),
        (("--sbom=true",), "--sbom=true: attestations are not written"),
        (("--call", "outline"), "--call can't be 'outline'"),
        (("--add-host", "x"), "'' is no address"),
        (("--add-host", "x:y"), "'y' is no address"),
        (("--add-host", ":1.2.3.4"), "'' is no name of a host"),
        (("--network=none", "--add-host", "x:host-gateway"), "no step reaches this machine"),
        (("--build-arg-file", "/nowhere"), "can't read the build arguments '/nowhere'"),
        (("--cache-to", "type=gha"), "type=gha: a service of its own"),
        (("--cache-from", "type=s3,region=x"), "type=s3: a service of its own"),
        (("-o", "type=docker"), "dest=- for `| docker load`"),
        (("-o", "type=cacheonly,dest=x"), "unknown key 'dest'"),
    ],
)
def test_wrong_use(rooted: Layerbuild, context: Path, words: tuple[str, ...], said: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    assert said in rooted.run("build", *words, context, code=2).stderr


def test_a_method_to_call(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("from busybox\nRUN true\n")
    assert "ConsistentInstructionCasing" in rooted("build", "--call=check", context)


def test_build_arguments_of_a_file(rooted: Layerbuild, context: Path) -> None:
    (context / "args").write_text("# of this build\n\nA=file=1\nB=file\nHOME\n")
    recipe = "FROM busybox\nARG A B HOME\nLABEL a=$A b=$B home=$HOME\n"
    rooted.build(context, recipe, "--build-arg", "B=given", "--build-arg-file", context / "args", "-t", "x")
    labels = config_of(rooted, "x")["Labels"]
    assert labels == {"a": "file=1", "b": "given", "home": "/nonexistent"}


HOSTS = "FROM busybox\nRUN cat /etc/hosts > /seen\n"


def test_hosts_that_a_run_knows(layerbuild: Layerbuild, context: Path) -> None:
    words = ("--add-host", "one:10.0.0.1", "--add-host=two=[fe80::1]", "--add-host", "a;b:host-gateway")
    layerbuild.build(context, HOSTS, *words, "-t", "x")
    seen = layerbuild("run", "x", "cat", "/seen").splitlines()
    assert seen[2:] == ["10.0.0.1\tone", "fe80::1\ttwo", "127.0.0.1\ta", "127.0.0.1\tb"]
    assert "one" not in layerbuild("run", "x", "cat", "/etc/hosts")  # K2, R32: it is no part of the image


def test_names_of_hosts_count_for_the_cache_and_addresses_do_not(rooted: Layerbuild, context: Path) -> None:  # K2
    rooted.build(context, HOSTS, "--add-host", "one:10.0.0.1")
    assert "cached" in rooted.build(context, None, "--add-host", "one:10.0.0.2")
    assert "cached" not in rooted.build(context, None, "--add-host", "two:10.0.0.1")
    assert rooted.json("plan", "--add-host", "two:10.0.0.9", context)["steps"][0]["cache"] == "hit"
    assert rooted.json("plan", context)["steps"][0]["cache"] != "hit"


def test_the_network_counts_for_the_cache(rooted: Layerbuild, context: Path) -> None:  # K2
    recipe = "FROM busybox\nRUN ls /sys/class/net > /seen\n"
    rooted.build(context, recipe)
    assert "cached" in rooted.build(context, None, "--network=host")  # which is the default
    assert "cached" not in rooted.build(context, None, "--network=none", "-t", "x")
    assert rooted("run", "x", "cat", "/seen").split() == ["lo"]
    assert "network default → none" in rooted("explain")


CLASH = "FROM busybox\nENV A=env\nARG A=arg\nRUN echo $A > /seen\nLABEL a=$A\n"


@pytest.mark.parametrize(("words", "value"), [((), "arg"), (("--env-wins",), "env")])
def test_a_variable_that_is_env_and_then_arg(
    rooted: Layerbuild, context: Path, words: tuple[str, ...], value: str
) -> None:  # A11, Z1
    rooted.build(context, CLASH, "--build-arg", f"A={value}", *words, "-t", "x")
    config = config_of(rooted, "x")
    assert rooted("run", "x", "cat", "/seen").strip() == config["Labels"]["a"] == value
    assert "A=env" in config["Env"]


def test_the_style_of_progress_comes_from_buildkits_variable(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    said = rooted.run("build", context, env={"BUILDKIT_PROGRESS": "rawjson"}).stderr
    assert said.startswith('{"event": ')


def test_what_is_written_to_a_device_does_not_replace_it(rooted: Layerbuild, context: Path) -> None:
    """/dev/stdout is a link to a pipe here; a device stands for /dev/null."""
    (context / "Dockerfile").write_text("FROM busybox\n")
    device = context / "null"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    words = ("--iidfile", device, "--metadata-file", device, "-o", f"type=tar,dest={device}")
    printed = rooted("build", *words, "--digest-file", "/dev/stdout", context)
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert sorted(os.listdir(context)) == ["Dockerfile", "null"]
    assert [line[:7] for line in printed.replace("sha256", "\nsha256").split()] == ["sha256:"] * 2
