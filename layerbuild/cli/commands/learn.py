"""``learn``: lessons about layers, played on this machine."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size

import click

from layerbuild.cli.console import width
from layerbuild.cli.place import settings_root
from layerbuild.errors import UsageError
from layerbuild.views.text import table


class _Terminal:
    """The person at this terminal. ``asked`` is False where nobody is to be asked."""

    def __init__(self, *, asked: bool, ask_again: str) -> None:
        self._asked = asked
        self._again = ask_again

    def show(self, text: str) -> None:
        click.echo(text)

    def pause(self) -> None:
        if self._asked:
            click.echo(f"[{self._again}] ", nl=False)
            self._line()

    def answer(self, prompt: str) -> str | None:
        if not self._asked:
            click.echo()
            return None
        click.echo(f"{prompt}: ", nl=False)
        return self._line() or None

    def _line(self) -> str:
        """What the person says, empty at the end of a file. At a terminal Ctrl-D leaves, as Ctrl-C does."""
        line = sys.stdin.readline()
        if not line and sys.stdin.isatty():
            raise KeyboardInterrupt
        return line


@click.command()
@click.argument("lesson", required=False)
@click.option("--language", metavar="CODE", help="en, de, fr or pt.  [default: the environment's]")
@click.option("--restart", is_flag=True, help="From the beginning, though the lesson was left halfway.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: show it all.")
def learn(lesson: str | None, language: str | None, restart: bool, yes: bool) -> None:
    """Take a LESSON about layers; without one, list them. It runs the real thing, in a store that is thrown away."""
    from layerbuild.lessons.lesson import N_
    from layerbuild.lessons.player import INDENT, Player
    from layerbuild.lessons.table import LESSONS
    from layerbuild.lessons.words import translator
    from layerbuild.lessons.world import World

    translate = translator(language)
    if lesson is None:
        listed = [[name, translate(found.title)] for name, found in LESSONS.items()]
        click.echo(table(["LESSON", ""], listed, width=width()))
        click.echo(translate(N_("\nBegin with: layerbuild learn copy-on-write")))
        return
    if lesson not in LESSONS:
        near = get_close_matches(lesson, LESSONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(LESSONS)}"
        raise UsageError(f"there is no lesson {lesson!r}", hint=hint)
    world = World(_folder(), lesson, os.environ, columns=get_terminal_size().columns - len(INDENT))
    if restart:
        world.remove()
    person = _Terminal(asked=not yes, ask_again=translate(N_("Enter goes on")))
    Player(LESSONS[lesson], world, person, translate).play()


def _folder() -> Path:
    """Beside the store, on a disk that can hold one; never in it."""
    root = settings_root()
    return root.with_name(f"{root.name}-lessons")
