"""The lessons: each runs to its end, each answer is what the machine says, and each text is there in each language."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from places import fresh
from support import PROJECT, Layerbuild, missing
from test_cli_kill import own_terminal

from layerbuild.errors import BuildError, UsageError
from layerbuild.lessons.lesson import Ask, Lesson, Run, Say, Write
from layerbuild.lessons.player import Player
from layerbuild.lessons.table import LESSONS
from layerbuild.lessons.words import FOLDER, LANGUAGES, translator
from layerbuild.lessons.world import World

pytestmark = pytest.mark.machine

TRANSLATED = [language for language in LANGUAGES if language != "en"]


class Scripted:
    """A person who answers what the test says, and stops (Ctrl-C) after so many pauses."""

    def __init__(self, answers: Iterable[str] = "", *, stops_after: int = 1000) -> None:
        self.seen: list[str] = []
        self.asked: list[str] = []
        self._answers = iter(answers)
        self._left = stops_after

    def show(self, text: str) -> None:
        self.seen.append(text)

    def pause(self) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt

    def answer(self, prompt: str) -> str | None:
        self.asked.append(prompt)
        return next(self._answers, None)


@pytest.fixture
def folder(templates: object) -> Iterator[Path]:
    if os.geteuid() != 0:
        missing("not run as root")
    folder = fresh("lessons") / "world"
    yield folder
    for world in folder.iterdir() if folder.exists() else ():
        World(folder, world.name, os.environ).remove()


@pytest.mark.parametrize("name", LESSONS)
def test_each_line_runs_and_each_answer_is_what_the_machine_says(name: str, folder: Path) -> None:
    world = World(folder, name, os.environ)
    world.open()
    for scene in LESSONS[name].scenes:
        match scene:
            case Write(path, content):
                world.write(path, content)
            case Run(line, code):
                found, output = world.run(line)
                assert found == code, f"{line}\n{output}"
            case Ask(holds=holds):
                found, output = world.run(holds)
                assert found == 0, f"{scene.question}\n{holds}\n{output}"
    world.remove()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["whiteout", "chain-ids", "container-layer"])
def test_an_ordinary_user_takes_them_too(name: str, templates: object, as_user: Callable[[Path], Layerbuild]) -> None:
    layerbuild = _user_root(templates, as_user)
    shown = layerbuild("learn", "--yes", "--language", "de", name)
    assert "weggeworfen" in shown
    assert not layerbuild.root.with_name(f"{layerbuild.root.name}-lessons").exists()


def _user_root(templates: object, as_user: Callable[[Path], Layerbuild]) -> Layerbuild:
    return templates.copy("user", templates.folder / f"lessons-{os.urandom(4).hex()}")  # type: ignore[attr-defined]


def test_a_lesson_left_halfway_goes_on_there(folder: Path) -> None:
    lesson = Lesson("short", "Short", (Say("first"), Run("echo made > there"), Say("third"), Run("cat there")))
    stopped = Scripted(stops_after=2)
    with pytest.raises(KeyboardInterrupt):
        Player(lesson, World(folder, "short", os.environ), stopped, str).play()
    assert "third\n" not in stopped.seen
    back = Scripted()
    Player(lesson, World(folder, "short", os.environ), back, str).play()
    assert "first\n" not in back.seen
    assert any("goes on where you left it" in text for text in back.seen)
    assert "  made\n" in back.seen
    assert not folder.exists()


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_left_at_a_terminal(rooted: Layerbuild, key: bytes) -> None:
    master, slave = pty.openpty()
    options = {"stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True}
    lesson = rooted.start("learn", "metadata", preexec_fn=own_terminal, **options)
    shown = b""
    while b"Enter goes on" not in shown:
        shown += os.read(master, 1 << 16)
    os.write(master, key)
    assert lesson.wait(60) == 130
    os.close(slave)
    os.close(master)
    assert "goes on where you left it" in rooted("learn", "--yes", "metadata")


def test_a_question_comes_before_its_answer(folder: Path) -> None:
    ask = Ask("Which?", ("this", "that"), 1, "Because.", "true")
    for letter, verdict in (("b", "Right."), ("a", "Not quite.")):
        person = Scripted(f"?{letter}")  # the first answer is none of the letters: asked again
        Player(Lesson("asked", "Asked", (ask,)), World(folder, "asked", os.environ), person, str).play()
        assert person.seen.index("  b) that") < person.seen.index(verdict) < person.seen.index("Because.\n")


@pytest.mark.parametrize("answer", ["b", "B", " b) ", "(b)", "b.", "that", "THAT:", "that: a f", "th", "x", "?"])
def test_an_answer_may_be_written_in_many_ways(folder: Path, answer: str) -> None:
    ask = Ask("Which?", ("this", "that: a file", "none"), 1, "Because.", "true")
    person = Scripted([answer, "a"])  # who is not understood is asked again, and says something wrong
    Player(Lesson("asked", "Asked", (ask,)), World(folder, "asked", os.environ), person, str).play()
    understood = answer not in ("th", "x", "?")  # what begins two choices, or none
    assert (len(person.asked), "Right." in person.seen) == (1, True) if understood else (2, False)


def test_the_answer_is_given_to_who_does_not_find_it(folder: Path) -> None:
    """At once after a wrong letter; after three tries to who answers no letter at all, however long."""
    ask = Ask("Which?", ("this", "that"), 1, "Because.", "true")
    for answers, told in (("a", True), ("?" * 100, True), ("", True), ("b", False)):
        person = Scripted(answers)
        Player(Lesson("asked", "Asked", (ask,)), World(folder, "asked", os.environ), person, str).play()
        assert ("The answer is b." in person.seen) == told, answers
        assert "Because.\n" in person.seen
        assert len(person.asked) == min(len(answers) + (not answers), 3)


def test_a_line_that_goes_wrong_is_told_and_the_folder_stays(folder: Path) -> None:
    world = World(folder, "wrong", os.environ)
    with pytest.raises(BuildError, match="exit code 3 instead of 0") as caught:
        Player(Lesson("wrong", "Wrong", (Run("exit 3"),)), world, Scripted(), str).play()
    assert str(world.folder) in caught.value.hint
    assert world.folder.exists()


def test_lessons_are_listed_and_an_unknown_one_is_an_error(rooted: Layerbuild) -> None:
    listed = rooted("learn", env={"LANGUAGE": "fr"})
    assert all(name in listed for name in LESSONS)
    assert "Copie sur écriture" in listed
    assert "copy-on-write" in rooted.run("learn", "nothing", code=2).stderr


# -- languages ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> set[str]:
    """Every text of the lessons, as it stands in the source."""
    method = [("**.py", "python")]
    found = {
        message
        for folder in ("lessons", "cli/commands")
        for _, _, message, _, _ in extract_from_dir(PROJECT / "layerbuild" / folder, method, keywords={"N_": None})
    }
    assert LESSONS["whiteout"].title in found
    return found


@pytest.mark.parametrize("language", TRANSLATED)
def test_no_text_is_missing_in_a_language(language: str, texts: set[str]) -> None:
    catalog = _catalog(language)
    translated = {message.id: message for message in catalog if message.id}
    assert texts - set(translated) == set(), "run `make catalogues` and translate"
    assert set(translated) - texts == set(), "texts that are no more: run `make catalogues`"
    assert [text for text, message in translated.items() if not message.string or message.fuzzy] == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_what_is_shipped_is_what_was_translated(language: str) -> None:
    with open(FOLDER / language / "LC_MESSAGES" / "lessons.mo", "rb") as file:
        compiled = {message.id: message.string for message in read_mo(file) if message.id}
    assert compiled == {message.id: message.string for message in _catalog(language) if message.id}


def test_commands_and_numbers_survive_translation(texts: set[str]) -> None:
    """What a person would type or look for is the same in every language."""
    words = (
        "--chmod",
        "--chown",
        "--all",
        ".wh.",
        "empty_layer",
        "RUN",
        "COPY",
        "sha256",
        "overlay.opaque",
        "list.txt",
    )
    for language in TRANSLATED:
        translate = translator(language)
        for text in texts:
            lost = [word for word in words if word in text and word not in translate(text)]
            assert lost == [], f"{language}: {text}"


def test_a_language_that_there_is_none_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "is")
    assert translator()("Right.") == "Right."
    assert translator("pt-BR")("Right.") == "Certo."
    with pytest.raises(UsageError, match="tlh"):
        translator("tlh")


def _catalog(language: str) -> Catalog:
    with open(FOLDER / language / "LC_MESSAGES" / "lessons.po", "rb") as file:
        return read_po(file)
