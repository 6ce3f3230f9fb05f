"""--progress tty, as a person sees it: a build in a pseudo terminal, and a terminal emulator that reads it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyte
import pytest
from support import Layerbuild
from test_cli_kill import fresh_mark, own_terminal
from traces import processes, wait_until

from layerbuild.cli.screen import cells, cut, reflows, rows_taken, seen
from layerbuild.cli.terminal import Terminal
from layerbuild.cli.weigh import Weigher
from layerbuild.digest import BlobDigest
from layerbuild.events import BlobMoved, Note

COLOR = re.compile(r"\x1b\[[\d;]*m")


class Person:
    """A terminal with a build in it, and what stands on its screen."""

    def __init__(self, layerbuild: Layerbuild, *arguments: str | Path, columns: int = 90, **options: Any) -> None:
        self._master, self.slave = pty.openpty()
        self.screen = pyte.Screen(columns, 60)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(columns)
        self.before = termios.tcgetattr(self.slave)
        streams = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, **options}
        self.process = layerbuild.start(*arguments, **streams, start_new_session=True, preexec_fn=own_terminal)

    def resize(self, columns: int) -> None:
        self.screen.resize(60, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", 60, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def sees(self, *patterns: str, seconds: float = 20.0) -> None:
        """Look until each pattern is on the screen, all at one time."""
        end = time.monotonic() + seconds
        while not all(re.search(pattern, "\n".join(self.lines), re.MULTILINE) for pattern in patterns):
            assert time.monotonic() < end, (patterns, self.lines)
            self._read(0.5)

    def ended(self, code: int) -> list[str]:
        """The screen after the build has ended with ``code``."""
        end = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < end, self.lines
            self._read(0.05)
        while self._read(0.0):
            pass
        assert self.process.returncode == code, self.lines
        return self.lines

    def is_as_before(self) -> bool:
        """Whether the terminal is as a shell expects it: modes, cursor, and a fresh line."""
        hidden = self.screen.cursor.hidden or b"\x1b[?25l" in self.raw
        return termios.tcgetattr(self.slave) == self.before and not hidden and self.screen.cursor.x == 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self.slave)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        data = os.read(self._master, 65536)
        self.raw += data
        self._stream.feed(data)
        return True


Start = Callable[..., Person]


@pytest.fixture
def at_terminal(context: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(layerbuild: Layerbuild, recipe: str, *arguments: str, columns: int = 90, **env: str) -> Person:
            (context / "Dockerfile").write_text(recipe)
            told = {"TERM": "xterm", "COLUMNS": "", **env}
            here = Layerbuild(
                layerbuild.root, layerbuild.prefix, layerbuild.python, {**layerbuild.env, **told}, layerbuild.rootless
            )
            person = Person(here, "build", "--jobs", "2", *arguments, context, columns=columns)
            return stack.enter_context(contextlib.closing(person))

        yield start


def go_on(mark: str, *, sleeping: int = 2) -> None:
    """End the sleeps that RUN steps wait for, when all have begun."""
    wait_until(lambda: len(sleeps(mark)) == sleeping)
    for process in sleeps(mark):
        os.kill(process, signal.SIGTERM)


def sleeps(mark: str) -> list[int]:
    found = []
    for process in processes(mark):
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{process}/comm").read_text().strip() == "sleep":
                found.append(process)
    return found


def side_by_side(mark: str) -> str:
    return (
        f"FROM busybox AS one\nRUN echo one-says; head -c 3000000 /dev/zero > /one; sleep {mark} || true\n"
        f"FROM busybox AS two\nRUN printf 'two-\\r\\033[2Jsays\\n'; touch /two; sleep {mark} || true\n"
        "FROM busybox\nLABEL a=b\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    )


def test_stages_side_by_side(layerbuild: Layerbuild, at_terminal: Start) -> None:
    mark = fresh_mark()
    person = at_terminal(layerbuild, side_by_side(mark))
    person.sees(
        r"1/1  one  RUN echo one-says.*  3\.00MB  \d+\.\ds\n +\| one-says",
        r"1/1  two  RUN printf.*  0B  \d+\.\ds\n +\| says",
    )
    go_on(mark)
    lines = person.ended(0)
    for once in (
        "1/1  one  RUN",
        "1/1  two  RUN",
        "LABEL a=b  metadata",
        "COPY --from=one",
        "COPY --from=two",
        "image",
    ):
        assert sum(once in line for line in lines) == 1, (once, lines)
    assert sum("  layer " in line for line in lines) == 4
    assert not any(line.startswith("       |") for line in lines)
    assert lines[-1].startswith("sha256:")
    assert person.is_as_before()
    assert COLOR.search(person.raw.decode())


def test_narrow_and_without_colors(rooted: Layerbuild, at_terminal: Start) -> None:
    mark = fresh_mark()
    person = at_terminal(rooted, side_by_side(mark), columns=40, NO_COLOR="1")
    person.sees(r"1/1  one  RUN.*…  3\.00MB  \d", r"1/1  two  RUN.*…  0B  \d")
    go_on(mark)
    person.ended(0)
    said = person.raw.decode()
    assert not COLOR.search(said)
    for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[\d*[A-Z]", "", said)):
        assert cells(line) < 40 or line.startswith("sha256:"), line


def test_what_a_step_has_written_to_a_complete_tree(rooted: Layerbuild, at_terminal: Start) -> None:
    mark = fresh_mark()
    person = at_terminal(rooted, side_by_side(mark), LAYERBUILD_DRIVER="copy")
    person.sees(r"1/1  one  RUN.*  3\.00MB  \d", r"1/1  two  RUN.*  0B  \d", seconds=40)
    go_on(mark)
    person.ended(0)


def test_resized_while_it_goes_on(rooted: Layerbuild, at_terminal: Start) -> None:
    mark = fresh_mark()
    person = at_terminal(rooted, side_by_side(mark))
    person.sees(r"one  RUN .* \d+\.\ds$")
    for columns in (30, 120, 50):
        person.resize(columns)
        person.sees(rf"^(?=.{{{columns - 1}}}$)  1/1  one  R.*s$")
    go_on(mark)
    lines = person.ended(0)
    assert sum("1/1  one  RUN" in line for line in lines) == sum("1/1  two  RUN" in line for line in lines) == 1


@pytest.mark.parametrize("env", [{"CI": "true"}, {"TERM": "dumb"}])
def test_where_nobody_watches(rooted: Layerbuild, at_terminal: Start, env: dict[str, str]) -> None:
    person = at_terminal(rooted, "FROM busybox\nRUN echo said; sleep 0.5\n", NO_COLOR="1", **env)
    assert "       | said" in person.ended(0)
    assert b"\x1b" not in person.raw


@pytest.mark.parametrize(("env", "colors"), [({"TERM": "dumb"}, False), ({"CI": "true"}, True)], ids=["dumb", "CI"])
def test_colors_of_lines(rooted: Layerbuild, at_terminal: Start, env: dict[str, str], colors: bool) -> None:
    for _ in range(2):  # a hit is colored
        person = at_terminal(rooted, "FROM busybox\nRUN echo said > /said\n", **env)
        person.ended(0)
    assert (COLOR.search(person.raw.decode()) is not None) is colors


def test_taught_at_a_terminal(rooted: Layerbuild, at_terminal: Start) -> None:
    person = at_terminal(rooted, "FROM busybox\nRUN echo said; sleep 0.5\n", "--teach", NO_COLOR="1")
    assert "       | said" in person.ended(0)
    assert b"\x1b" not in person.raw


@pytest.mark.parametrize(("key", "number", "code"), [(b"\x03", None, 130), (b"", signal.SIGTERM, 143)])
def test_stopped(rooted: Layerbuild, at_terminal: Start, key: bytes, number: signal.Signals | None, code: int) -> None:
    person = at_terminal(rooted, side_by_side(fresh_mark()))
    person.sees(r"one  RUN .* \d+\.\ds$")
    person.type(key) if number is None else person.process.send_signal(number)
    lines = person.ended(code)
    assert not any("RUN" in line for line in lines)
    assert person.is_as_before() or key  # the terminal itself has shown the key: ^C
    assert b"\x1b[?25l" not in person.raw and b"Traceback" not in person.raw


def test_a_layer_that_is_made_behind_the_steps(rooted: Layerbuild, at_terminal: Start) -> None:
    person = at_terminal(rooted, "FROM busybox\nRUN truncate -s 600M /hole\n")
    person.sees(r"^  1/1  layer .* \d+MB captured  \d\.\ds$")
    lines = person.ended(0)
    assert len([line for line in lines if re.match(r"  1/1  layer \w{12}: 1 entry, 629MB,", line)]) == 1
    assert not any("captured" in line for line in lines)


def test_failed(rooted: Layerbuild, at_terminal: Start) -> None:
    mark = fresh_mark()
    fails = f"FROM busybox\nRUN for n in $(seq 30); do echo line-$n-; done; sleep {mark}; exit 3\n"
    person = at_terminal(rooted, fails)
    person.sees(r"\| line-30-")
    assert not any("line-20-" in line for line in person.lines)  # the area has the last few only
    go_on(mark, sleeping=1)
    lines = person.ended(1)
    error = next(place for place, line in enumerate(lines) if "layerbuild: " in line)
    assert [line.strip() for line in lines if "line-1-" in line] == ["| line-1-"]
    assert sum("line-30-" in line for line in lines[:error]) == 1
    assert person.is_as_before()


# The window's title, the clipboard, a question that the terminal answers, a screen without what was said, in seven bits
# and in eight; a line in the place of another. And color, which is harmless.
OBEYED = (
    r"\033]0;title\007\033]52;c;ZXZpbA==\007\033[c\033[2J\033[H\302\2332J\033P+q to obey\n"
    r"\033[31mred\033[8m\nover\rnew\n"
)


@pytest.mark.parametrize("progress", ["plain", "tty"])
def test_a_terminal_obeys_no_step(rooted: Layerbuild, at_terminal: Start, progress: str) -> None:
    recipe = f"FROM busybox\nRUN printf '{OBEYED}'; exit 3 # \033]0;title\007\n"
    person = at_terminal(rooted, recipe, "--progress", progress)
    lines = person.ended(1)
    orders = (b"\x1b]", b"\x1bP", b"\x1b[c", b"\x1b[2J", b"\x1b[H", "\x9b".encode(), b"over\rnew")
    assert [order for order in orders if order in person.raw] == []
    assert len([line for line in lines if re.search(r"\| .*to obey$", line)]) == 2  # as it came, and in the error
    assert b"\x1b[31mred\x1b[8m\x1b[0m" in person.raw


def test_it_has_to_be_a_terminal(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    assert "standard error is none" in rooted.run("build", "--progress", "tty", context, code=2).stderr


# -- the area itself ---------------------------------------------------------------------------------------------------


def test_blobs_from_many_threads_on_a_low_screen() -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 8, 50, 0, 0))
    screen = pyte.Screen(50, 8)
    emulator = pyte.ByteStream(screen)
    with os.fdopen(slave, "w") as stream, Terminal(stream, color=False) as terminal:
        blobs = [BlobDigest.of(bytes([number])) for number in range(9)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda blob: terminal(BlobMoved(blob, "pull", "host/app", 1, 1000)), blobs))
        assert select.select([master], [], [], 10)[0]  # the area is there
        terminal(Note("said above"))
        terminal(BlobMoved(blobs[0], "pull", "host/app", 1000, 1000))
        while select.select([master], [], [], 0.05)[0]:
            emulator.feed(os.read(master, 65536))
        drawn = [line.rstrip() for line in screen.display]
        assert [line for line in drawn if line][-1] == "       … and 3 more"
        assert sum("pulling" in line for line in drawn) == 5 and sum("pulled" in line for line in drawn) == 1
    os.close(master)


def test_a_terminal_that_is_gone() -> None:
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w")
    with Terminal(stream, color=True) as terminal:
        os.close(master)
        terminal(BlobMoved(BlobDigest.of(b""), "pull", "host/app", 1, 1000))
        terminal(Note("nobody hears"))
    with pytest.raises(OSError):  # what could not be written
        stream.close()


def test_what_a_line_shows() -> None:
    assert seen("10%\r\x1b[32m20%\x1b[0m\r") == "20%"
    assert seen("\x1b]0;title\x07a\tb\x1b[2J\x08") == "a       b"
    assert seen("\x1b") == seen("\r\r") == ""
    assert (cut("RUN 漢字", 8), cut("RUN 漢字", 7), cells("e\u0301")) == ("RUN 漢字", "RUN 漢…", 1)


def test_what_a_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 1500)
    (tmp_path / "link").symlink_to("/")
    assert (Weigher(str(tmp_path)).look(), Weigher(str(tmp_path / "gone")).look()) == ("1.50kB", "0B")


def test_of_a_tree_what_was_written_since_it_was_whole(tmp_path: Path) -> None:
    weigher = Weigher(str(tmp_path / "tree"), tree=True)
    made = tmp_path / "made"
    made.mkdir()
    for name in "abc":
        (made / name).write_bytes(b"x" * 1500)
    assert weigher.look() == ""
    time.sleep(0.02)  # a file's times are as fine as the kernel's ticks
    made.rename(tmp_path / "tree")
    assert weigher.look() == "0B"
    time.sleep(0.02)
    (tmp_path / "tree" / "a").write_bytes(b"y" * 700)
    os.utime(tmp_path / "tree" / "a", (0, 0))  # as dpkg does
    assert weigher.look() == "700B"


def test_a_look_is_short_and_the_next_one_goes_on(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"x" * 10)
    weigher = Weigher(str(tmp_path))
    looks = [weigher.look(seconds=-1.0) for _ in range(52)]  # one file each
    assert looks[0] == ">10B" and looks[1] == ">20B" and looks[-1] == "500B"
    assert weigher.look(seconds=-1.0) == "500B"  # what the last round has found, until there is more


# -- terminals that wrap their rows anew -------------------------------------------------------------------------------


def narrowed(screen: pyte.Screen, columns: int) -> tuple[pyte.Screen, pyte.ByteStream]:
    """The screen of a terminal that wraps rows anew when it gets so narrow, as VTE does."""
    lines = [line.rstrip() for line in screen.display[: screen.cursor.y]]
    wrapped = [line[at : at + columns] for line in lines for at in range(0, max(1, len(line)), columns)]
    smaller = pyte.Screen(columns, screen.lines)
    stream = pyte.ByteStream(smaller)
    stream.feed("".join(f"{line}\r\n" for line in wrapped).encode())
    return smaller, stream


@pytest.mark.parametrize("columns", [60, 41, 25, 20])
def test_narrowed_nothing_is_left_above_the_area(columns: int) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    screen = pyte.Screen(100, 40)
    emulator = pyte.ByteStream(screen)

    def read() -> None:
        while select.select([master], [], [], 0.6)[0]:
            emulator.feed(os.read(master, 65536))

    with os.fdopen(slave, "w") as stream, Terminal(stream, color=False, reflows=True) as terminal:
        for number in range(3):
            terminal(BlobMoved(BlobDigest.of(bytes([number])), "pull", "host/app", 1, 1000))
        read()
        assert sum("pulling" in line for line in screen.display) == 3
        screen, emulator = narrowed(screen, columns)
        fcntl.ioctl(stream.fileno(), termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        terminal(Note("above"))
        read()
        assert next(line.strip() for line in screen.display if line.strip()).startswith("note: above"[:columns])
        assert sum("pulling" in line for line in screen.display) == 3
        assert sum(bool(line.strip()) for line in screen.display) == 4
    os.close(master)


def test_which_terminals_wrap_anew() -> None:
    assert reflows({"TERM": "xterm-256color", "VTE_VERSION": "7600"}) and reflows({"TERM": "foot"})
    assert reflows({"TERM": "screen-256color", "TMUX": "/tmp/tmux-0/default,1,0"})
    assert not reflows({"TERM": "xterm", "VTE_VERSION": "7600", "XTERM_VERSION": "XTerm(390)"})
    assert not reflows({"TERM": "screen", "VTE_VERSION": "7600", "STY": "1.pts-0"}) and not reflows({"TERM": "linux"})
    assert [rows_taken(text, 3) for text in ("123456", "1234567", "", "\x1b[2m12漢\x1b[0m")] == [2, 3, 1, 2]
