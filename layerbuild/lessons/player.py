"""Plays a lesson to a person: shows its scenes one by one, and asks before it shows."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Mapping
from typing import Protocol, assert_never

from layerbuild.errors import BuildError
from layerbuild.lessons.lesson import N_, Ask, Lesson, Run, Say, Scene, Write
from layerbuild.lessons.world import World

_LETTERS = "abcdefgh"
INDENT = "  "  # of what a line prints
_TRIES = 3  # at a letter, before the answer is given


class Person(Protocol):
    """Who takes the lesson."""

    def show(self, text: str) -> None:
        """Print a text, which may have several lines."""

    def pause(self) -> None:
        """Wait until the person has read."""

    def answer(self, prompt: str) -> str | None:
        """A line from the person; None if there is nobody to ask."""


class Player:
    """Plays ``lesson`` in ``world`` to ``person``, with ``_`` to translate its texts."""

    def __init__(self, lesson: Lesson, world: World, person: Person, _: Callable[[str], str]) -> None:
        self._lesson = lesson
        self._world = world
        self._person = person
        self._translate = _

    def play(self) -> None:
        """From where the lesson was left to its end; then its folder is thrown away. BuildError if a line does not do
        what the lesson says: the folder stays, to be looked at."""
        done = self._world.open()
        self._person.show(f"\n{self._translate(self._lesson.title)}\n")
        if done:
            self._person.show(self._translate(N_("You have been here before: the lesson goes on where you left it.")))
        for number, scene in enumerate(self._lesson.scenes[done:], start=done + 1):
            self._scene(scene)
            self._world.played(number)
            if not isinstance(scene, Ask):
                self._person.pause()
        self._world.remove()
        self._person.show(self._translate(N_("That was all. What this lesson made has been thrown away.")))

    def _scene(self, scene: Scene) -> None:
        match scene:
            case Say(text):
                self._say(text)
            case Write(path, content):
                self._world.write(path, content)
                self._person.show(f"  {path}\n{textwrap.indent(content, '  | ')}")
            case Run(line, code):
                self._run(line, code)
            case Ask():
                self._ask(scene)
            case _:
                assert_never(scene)

    def _say(self, text: str) -> None:
        width = min(shutil.get_terminal_size().columns, 80)
        self._person.show(textwrap.fill(self._translate(text), width) + "\n")

    def _run(self, line: str, code: int) -> None:
        self._person.show(f"  $ {line}")
        found, output = self._world.run(line)
        self._person.show(textwrap.indent(output.rstrip("\n"), INDENT) + "\n")
        if found != code:
            raise BuildError(
                f"a line of lesson {self._lesson.name!r} ended with exit code {found} instead of {code}: {line}",
                hint=f"its folder is {self._world.folder}; `layerbuild doctor` says what this machine lacks",
            )

    def _ask(self, ask: Ask) -> None:
        self._say(ask.question)
        choices = dict(zip(_LETTERS, map(self._translate, ask.choices), strict=False))
        for letter, choice in choices.items():
            self._person.show(f"  {letter}) {choice}")
        answer, right = self._answer(choices), _LETTERS[ask.right]
        if answer is not None:
            self._person.show(self._translate(N_("Right.") if answer == right else N_("Not quite.")))
        if answer != right:
            self._person.show(self._translate(N_("The answer is {letter}.")).format(letter=right))
        self._say(ask.why)

    def _answer(self, choices: Mapping[str, str]) -> str | None:
        """The letter of one of ``choices``; None: nobody answers, or with nothing of the kind."""
        prompt = self._translate(N_("Your answer"))
        for _ in range(_TRIES):
            answer = self._person.answer(f"{prompt} ({'/'.join(choices)})")
            if answer is None:
                return None
            if meant := _meant(answer, choices):
                return meant
        return None


def _meant(answer: str, choices: Mapping[str, str]) -> str:
    """The letter that a person means, who may as well write how the choice begins; empty: none, or more than one.

    >>> _meant("B) ", {"a": "Yes", "b": "No"}), _meant("no", {"a": "Yes", "b": "No"})
    ('b', 'b')
    >>> _meant("not", {"a": "Yes", "b": "No"}), _meant("a f", {"a": "A file", "b": "A folder"})
    ('', '')
    """
    said = answer.strip().strip("().:").casefold()
    if said in choices:
        return said
    found = [letter for letter, choice in choices.items() if said and choice.casefold().startswith(said)]
    return found[0] if len(found) == 1 else ""
