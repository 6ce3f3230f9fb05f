"""What README.md says is so."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from support import PROJECT, Layerbuild

from layerbuild.cli.failures import _CODES
from layerbuild.cli.main import COMMANDS, main

README = (PROJECT / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```(?:sh|console)\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
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


def test_the_table_of_the_textbook(rooted: Layerbuild) -> None:
    shown = README.split("$ layerbuild layers textbook\n")[1].split("```")[0].splitlines()
    rooted.build(PROJECT / "recipes" / "textbook", None, "-t", "textbook")
    found = rooted("layers", "textbook").splitlines()
    assert [columns(line) for line in shown] == [columns(line) for line in found]


def shown_after(command: str) -> list[str]:
    """What the README shows of a command: the lines up to the next command, or to the end of the block."""
    return README.split(f"$ {command}\n")[1].split("```")[0].split("\n$ ")[0].splitlines()


def without_what_varies(lines: list[str]) -> list[str]:
    """Lines without times, durations and what depends on the machine and its own base."""
    told = [
        re.sub(r"\d{4}-\d\d-\d\dT[0-9:]+Z|\([0-9.]+m?s\)|[0-9.]+ seconds|instead of \d+|sha256:\w+", "…", line)
        for line in lines
    ]
    return [re.sub(r"/\S+/Dockerfile", "…", line) for line in told if "layerbuild base host" not in line]


def test_what_the_views_show(rooted: Layerbuild, context: Path) -> None:
    def check(command: str, *, code: int = 0) -> None:
        found = rooted.run(*shlex.split(command)[1:], code=code).stdout.splitlines()
        assert without_what_varies(found) == without_what_varies(shown_after(command)), command

    order = context / "order"
    shutil.copytree(PROJECT / "recipes" / "order-and-cache", order)
    rooted.build(order, None, "-t", "before")
    (order / "app.sh").write_text((order / "app.sh").read_text().replace("\ncat", "\ncat -n"))
    rooted.build(order, None, "-t", "after")
    check("layerbuild explain")
    check("layerbuild diff before after", code=1)
    rooted.build(PROJECT / "recipes" / "delete-hides-but-keeps-bytes", None, "-t", "delete-hides-but-keeps-bytes")
    check("layerbuild blame delete-hides-but-keeps-bytes")
    check("layerbuild blame delete-hides-but-keeps-bytes /big.txt")


def test_what_the_views_show_of_recipes(rooted: Layerbuild) -> None:
    def check(command: str) -> None:
        *words, recipe = shlex.split(command)[1:]
        found = without_what_varies(rooted(*words, PROJECT / recipe).splitlines())
        shown = without_what_varies(shown_after(command))
        assert [line for line in shown if "cores" not in line] == [line for line in found if "cores" not in line], (
            command
        )

    rooted.build(PROJECT / "recipes" / "hardlinks-and-copy-up")
    check("layerbuild advise recipes/hardlinks-and-copy-up")
    check("layerbuild verify recipes/textbook")


def columns(line: str) -> list[str]:
    """A line of the table without what depends on the machine: sizes and names of the base, folders, identities."""
    cells = re.split(r"  +", line.strip())
    if "layers," in line:
        return [line.partition(" ")[0]]
    return cells[:2] if cells[0] in ("LAYER", "-", "1") else cells[:5]


def test_the_example_of_a_failure(rooted: Layerbuild, context: Path) -> None:
    said = rooted.build(context, "FROM base:host\nRUN exit 2\n", code=1)
    for words in ("did not complete successfully: exit code: 2", "    2 | RUN exit 2", "hint:", "shell"):
        assert words in said
