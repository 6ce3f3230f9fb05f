"""``--progress tty``: what is finished scrolls by as lines, what goes on is drawn below them.

::

      1/3  tools  RUN make                          lines, as --progress plain has them, each when its step has ended
      1/3  tools  layer 0a7d3f…: 12 entries, …
    ───────────────────────────────────────────────────────────────────────────────────────────────────────────
      2/3  tools  RUN make install    12.1MB  4.2s  the area: a row per running step, and the last of its output,
           | install -m 755 tool /usr/bin
      1/3  tools  layer      3.10MB captured  0.4s  a row per layer that is made behind them, and per blob

The terminal is only ever written to: its modes stay as they are and the cursor is never hidden, so there is nothing
that a process which is killed could leave undone. Rows are cut to the terminal's width, since one that the terminal
wraps could not be taken back.
"""

from __future__ import annotations

import os
import textwrap
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TextIO

from layerbuild import events
from layerbuild.cli.plain import Plain
from layerbuild.cli.screen import ESCAPES, cells, cut, harmless, rows_taken, seen
from layerbuild.cli.weigh import Weigher
from layerbuild.errors import StepFailed
from layerbuild.views import text as show

_TICK = 0.2  # seconds between two drawings; what ends sooner is not drawn
_SAMPLE = 1.0  # seconds between two looks at what a step has written
_WINDOW = 5  # lines of output below a running step
_WIDEST = 120
_NARROWEST = 20  # below that, lines are left to the terminal
_KEPT = 1 << 20  # bytes of output, in case the step fails


@dataclass(slots=True)
class _Running:
    """A step that runs: since when, what it has written to its folder and to its output."""

    started: events.StepStarted
    began: float
    weigher: Weigher | None = None
    written: str = ""
    looked: float = 0.0
    output: bytearray = field(default_factory=bytearray)
    cut: bool = False

    def say(self, data: bytes) -> None:
        self.output += data
        if len(self.output) > 2 * _KEPT:
            del self.output[:-_KEPT]
            self.cut = True

    def last_lines(self, number: int) -> list[str]:
        lines = bytes(self.output[-8192:]).decode("utf-8", "replace").split("\n")
        shown = [line for line in map(seen, lines) if line]
        return shown[-number:] if number > 0 else []


@dataclass(slots=True)
class _Making:
    """A layer that is being made behind the steps."""

    place: str
    began: float
    done: int


class Terminal:
    """Draws on ``stream``, which is a terminal; ``reflows``: it wraps rows anew when it grows narrow. Events come from
    any thread. As a context manager: leaving it takes the area away, and tells what a failed step has said."""

    def __init__(self, stream: TextIO, *, color: bool, reflows: bool = False) -> None:
        self._stream = stream
        self._color = color
        self._reflows = reflows
        self._plain = Plain(self._say, columns=lambda: self._size().columns, color=color)
        self._guard = threading.RLock()
        self._running: dict[tuple[int, int], _Running] = {}
        self._making: dict[tuple[int, int], _Making] = {}
        self._drawn: list[str] = []
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def __call__(self, event: events.Event) -> None:
        with self._guard:
            self._take(event)
            # No thread before there is something to draw: a process with threads can't enter a user namespace.
            if self._ticker is None and (self._running or self._making or self._plain.blobs):
                self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
                self._ticker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._ended.set()
            running, self._running = self._running, {}
            self._paint("", [])
            if isinstance(error, StepFailed):
                for step in running.values():
                    if step.started.step.origin.span == error.span:
                        self._tell_all(step)

    def _take(self, event: events.Event) -> None:
        match event:
            case events.StepStarted(stage, number):
                self._running[stage.index, number] = _Running(event, time.monotonic())
            case events.RootMounting(stage, number):
                step = self._running.get((stage.index, number))
                if step is not None:
                    step.weigher = Weigher(event.tree or event.upper, tree=bool(event.tree))
            case events.StepOutput(stage, number, data):
                step = self._running.get((stage.index, number))
                if step is not None:  # what is stopped may still speak when the area is gone
                    step.say(data)
            case events.LayerProgress(stage, number, done):
                self._grown((stage.index, number), done)
            case events.StepFinished(stage, number):
                step = self._running.pop((stage.index, number), None)
                if event.layer:
                    place = self._plain.place(stage, number)
                    self._making[stage.index, number] = _Making(place, time.monotonic(), 0)
                if step is not None:
                    self._plain(step.started)
                self._plain(event)
            case events.LayerSealed(stage, number):
                self._making.pop((stage.index, number), None)
                self._plain(event)
            case _:
                self._plain(event)

    def _grown(self, key: tuple[int, int], done: int) -> None:
        if key in self._running:
            self._running[key].written = show.size(done)
        elif key in self._making:
            self._making[key].done = done

    def _tell_all(self, step: _Running) -> None:
        self._plain(step.started)
        if step.cut:
            self._say("       … `layerbuild logs` has what came before")
        for line in bytes(step.output).decode("utf-8", "replace").splitlines():
            self._write(f"       | {harmless(line.rstrip())}\n")

    # -- on the thread of its own

    def _tick(self) -> None:
        while not self._ended.wait(_TICK):
            self._look()
            with self._guard:
                if not self._ended.is_set():
                    self._paint("", self._rows())

    def _look(self) -> None:
        """See how much RUN steps have written."""
        with self._guard:
            steps = list(self._running.values())
        for step in steps:
            if step.weigher is not None and time.monotonic() - step.looked >= _SAMPLE:
                step.written = step.weigher.look()
                step.looked = time.monotonic()

    # -- drawing

    def _say(self, line: str) -> None:
        line, columns = harmless(line), max(self._size().columns, _NARROWEST)
        if cells(ESCAPES.sub("", line)) >= columns:
            line = "\n".join(textwrap.wrap(line, columns - 1, subsequent_indent=" " * 7, break_on_hyphens=False))
        self._paint(f"{line}\n", self._rows() if self._drawn else [])

    def _paint(self, above: str, rows: list[str]) -> None:
        """Put lines above the area, and draw it anew; in one piece, so that nothing flickers."""
        if not above and rows == self._drawn:
            return
        self._write(self._back() + above + "".join(f"{row}\n" for row in rows))
        self._drawn = rows

    def _back(self) -> str:
        """What takes the area away: up, and erase to the end (ECMA-48)."""
        if not self._drawn:
            return ""
        columns = self._size().columns
        rows = sum(rows_taken(row, columns) for row in self._drawn) if self._reflows else len(self._drawn)
        return f"\x1b[{rows}A\r\x1b[J"

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the build goes on
            self._ended.set()

    def _rows(self) -> list[str]:
        size, now = self._size(), time.monotonic()
        columns = max(1, min(size.columns - 1, _WIDEST))
        making = [_row(f"{each.place}  layer", _captured(each, now), columns) for each in self._making.values()]
        rest = [*making, *(cut(bar, columns) for bar in self._plain.blobs.bars(columns))]
        lines = max(1, size.lines - 2)
        window = min(_WINDOW, (lines - len(rest)) // max(1, len(self._running)) - 1)
        rows = [row for step in self._running.values() for row in self._step(step, now, columns, window)] + rest
        return (
            rows
            if len(rows) <= lines
            else [*rows[: lines - 1], cut(f"       … and {len(rows) - lines + 1} more", columns)]
        )

    def _step(self, step: _Running, now: float, columns: int, window: int) -> list[str]:
        started = step.started
        told = "  ".join(filter(None, (step.written, _elapsed(now - step.began))))
        text = show.printable(show.shorten(started.step.origin.text, _WIDEST))
        head = f"{self._plain.place(started.stage, started.number)}  {text}"
        lines = [cut(f"       | {line}", columns) for line in step.last_lines(window)]
        return [_row(head, told, columns), *(f"\x1b[2m{line}\x1b[0m" if self._color else line for line in lines)]

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return os.terminal_size((80, 24))
        # A terminal that nobody told its size says 0 (ioctl_tty(2)).
        return os.terminal_size((size.columns or 80, size.lines or 24))


def _row(left: str, right: str, columns: int) -> str:
    left = cut(left, max(1, columns - len(right) - 2))
    return cut(left + " " * (columns - cells(left) - len(right)) + right, columns)


def _captured(making: _Making, now: float) -> str:
    done = f"{show.size(making.done)} captured" if making.done else "compressing"
    return f"{done}  {_elapsed(now - making.began)}"


def _elapsed(seconds: float) -> str:
    return show.seconds(seconds) if seconds >= 1 else f"{seconds:.1f}s"
