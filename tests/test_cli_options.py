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
from layerbuild.cli.commands.run import run
from layerbuild.cli.main import COMMANDS
from layerbuild.cli.options.command import HEADINGS, Command, Option
from layerbuild.cli.options.elsewhere import COMMANDS_OF_OTHERS, OF_RUN, REASONS
from layerbuild.cli.overview import OVERVIEW


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


@pytest.mark.parametrize(
    "words",
    ["-v /a:/b", "-p 80:80", "-d", "-dit", "--name x", "--mount type=bind", "--env-file f", "--privileged", "--pull=x"],
)
def test_an_option_of_docker_run_is_refused_with_its_reason(rooted: Layerbuild, words: str) -> None:
    said = rooted.run("run", *words.split(), "busybox", "true", code=2).stderr
    assert said.startswith("layerbuild: run has no option --") and "\nhint: " in said


def test_a_flag_may_have_a_value(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo it\n")
    said = "| it\n"
    assert said in rooted.run("build", "--rm=true", "--load=true", "--layers=true", "--squash=false", context).stderr
    assert said not in rooted.run("build", "--no-cache=false", "--force-rm=false", "--tls-verify=true", context).stderr
    assert said in rooted.run("build", "--no-cache=True", "--rm=0", context).stderr
    assert "nothing says where to push to" in rooted.run("build", "--push=1", context, code=2).stderr
    assert rooted.run("build", "--quiet=t", context).stderr == ""
    assert "does not take a value" in rooted.run("build", "--quiet=x", context, code=2).stderr


@pytest.mark.parametrize(
    "word", ["--layers=false", "--skip-unused-stages=false", "--rewrite-timestamp=0", "--squash=true"]
)
def test_a_value_that_can_t_be_had_is_refused_with_its_reason(rooted: Layerbuild, word: str) -> None:
    said = rooted.run("build", word, ".", code=2).stderr
    assert said.startswith(f"layerbuild: {word} can't be had: ") and "\nhint: " in said


@pytest.mark.parametrize("words", ["bud .", "buildx build .", "version", "ps -a", "image ls", "from debian"])
def test_a_command_of_another_builder_is_answered_with_what_to_write(rooted: Layerbuild, words: str) -> None:
    said = rooted.run(*words.split(), code=2).stderr
    assert said == (
        f"layerbuild: there is no command {words.split()[0]!r} here\nhint: {COMMANDS_OF_OTHERS[words.split()[0]]}\n"
    )


def test_no_command_is_refused_that_is_there() -> None:
    assert set(COMMANDS) & set(COMMANDS_OF_OTHERS) == set()


@pytest.mark.parametrize("command", ["build", "plan", "lint", "verify"])
def test_a_context_that_nobody_names(rooted: Layerbuild, command: str) -> None:
    said = rooted.run(command, code=2).stderr
    assert said == f"layerbuild: no CONTEXT is named\nhint: layerbuild {command} . for this folder\n"


def test_help_tells_of_each_command_in_a_line(rooted: Layerbuild) -> None:
    assert sorted(name for rows in OVERVIEW.values() for name in rows) == sorted(COMMANDS)
    lines = rooted.run("--help", env={"COLUMNS": "80"}).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for rows in OVERVIEW.values():
        for name, what in rows.items():
            assert f"  {name:<7}  {what}" in lines
    assert "Exit codes: 0 done" in "\n".join(lines)


@pytest.mark.parametrize(("words", "known"), [("layerbuild bui", "build"), ("layerbuild build --no-c", "--no-cache")])
def test_a_shell_completes_commands_and_options(rooted: Layerbuild, words: str, known: str) -> None:
    count = str(len(words.split()) - 1)
    asked = {"_LAYERBUILD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    assert f"plain,{known}\n" in rooted.run(env=asked).stdout


def test_no_option_of_run_is_refused_that_is_there() -> None:
    assert {name for parameter in run.params for name in parameter.opts} & set(OF_RUN) == set()


def test_behind_the_image_all_words_are_the_containers(rooted: Layerbuild) -> None:
    assert rooted("run", "--rm", "busybox", "echo", "--name", "-v", "--pull", "--", "-x") == "--name -v --pull -- -x\n"
    assert rooted("shell", "busybox", "echo", "--failed", "-v") == "--failed -v\n"
    for command, wrong, meant in (("run", "--kep", "--keep"), ("shell", "--faild", "--failed")):
        said = rooted.run(command, wrong, "busybox", code=2).stderr
        assert "No such option" in said and wrong in said and meant in said


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
