"""What README.md says is so."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
import sessions
from support import PROJECT, Layerbuild

from layerbuild.cli.failures import _CODES
from layerbuild.cli.main import COMMANDS, main

SECTIONS = (
    "Try it",
    "See the layers",
    "Why it ran again, whose file it is, what it wastes",
    "A page to look at",
    "A build that explains itself",
    "Lessons",
    "When a step fails",
)
VIEWS = (
    *({name} for name in ("plan", "layers", "inspect", "history", "where", "explain", "blame", "diff", "verify")),
    *({name} for name in ("advise", "report", "learn", "logs")),
    *({"build", option} for option in ("--teach", "--fail-on-miss", "--secrets")),
    *({"shell", option} for option in ("--failed", "--step", "textbook")),
    *({"explain", option} for option in ("--plan", "--between")),
    *({"plan", "--change"}, {"advise", "--rules"}, {"verify", "recipes/textbook"}),
)

README = (PROJECT / "README.md").read_text()
PLAYED = "".join(sessions.section(README, title) for title in SECTIONS)
BLOCKS = "\n".join(
    block
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    if kind == "sh" or block not in PLAYED
)
CALLS = re.findall(r"^(?:\$ )?(layerbuild [a-z][^#\n]*)", BLOCKS, re.MULTILINE)


@pytest.mark.parametrize("call", CALLS)
def test_commands_and_options_exist(call: str) -> None:
    words = shlex.split(call)[1:]
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if re.fullmatch(r"--?[a-z-]+", word)} <= known


def test_every_command_has_help() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None and command.help, name


def test_links_lead_somewhere() -> None:
    for page in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md"), PROJECT / "bench" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_recipe_is_named() -> None:
    for folder in (PROJECT / "recipes").iterdir():
        assert f"recipes/{folder.name}/Dockerfile" in README, folder.name


def test_exit_codes() -> None:
    said = re.findall(r"(\d+) [^·]+", README.split("Exit codes:")[1].split("\n\n")[0])
    assert {int(code) for code in said} >= {0, *(code for _, code in _CODES)}


@pytest.mark.host
@pytest.mark.parametrize("title", SECTIONS)
def test_sessions(rooted: Layerbuild, context: Path, title: str) -> None:
    """Each section begins where `make demo` ends."""
    shutil.copytree(PROJECT / "recipes", context / "recipes")
    rooted.build(context / "recipes" / "textbook", None, "-t", "textbook")
    for command in sessions.commands(sessions.section(README, title)):
        printed = sessions.play(command.line, rooted, context)
        assert sessions.matches(command.shown, printed), "\n".join([command.line, *map(sessions.plain, printed)])


def test_every_view_is_shown() -> None:
    lines = [command.line for title in SECTIONS for command in sessions.commands(sessions.section(README, title))]
    for view in VIEWS:
        assert any(view <= set(shlex.split(line)) for line in lines), view


@pytest.mark.host
def test_the_example_of_a_failure(rooted: Layerbuild, context: Path) -> None:
    said = rooted.build(context, "FROM base:host\nRUN exit 2\n", code=1)
    for words in ("did not complete successfully: exit code: 2", "    2 | RUN exit 2", "hint:", "shell"):
        assert words in said
