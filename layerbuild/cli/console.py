"""Progress on standard error, and lists on standard output."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from typing import TextIO

import click

from layerbuild import events
from layerbuild.cli import rawjson
from layerbuild.cli.bars import Bars
from layerbuild.errors import UsageError
from layerbuild.steps import ConfigStep, StagePlan, Step
from layerbuild.views import text as show

FORMATS = ("table", "json", "yaml")

format_option = click.option(
    "--format", "output_format", type=click.Choice(FORMATS), default="table", help="How to print the result."
)


def emit(output_format: str, data: object, as_text: Callable[[], str]) -> None:
    """Print a result: as text for people, or ``data`` as JSON or YAML."""
    if output_format == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif output_format == "yaml":
        import yaml

        # Through JSON first: digests are subclasses of str, which YAML would spell out as Python objects.
        click.echo(yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(as_text())


def width() -> int:
    """Columns of the terminal; plenty where there is none, so that a file gets whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def observer(progress: str) -> events.Observer:
    """The observer for ``--progress``: plain, quiet or rawjson; auto is plain."""
    if progress == "quiet":
        return lambda event: None
    if progress == rawjson.STYLE:
        return rawjson.tell
    if progress in ("auto", "plain"):
        return _Plain(sys.stderr)
    raise UsageError(f"--progress can't be {progress!r}", hint="auto, plain, quiet or rawjson")


def told_all(*observers: events.Observer) -> events.Observer:
    """One observer for several, who hear in this order."""

    def tell(event: events.Event) -> None:
        for observe in observers:
            observe(event)

    return tell


class _Plain:
    """One line per step, and the output of a RUN below it. Stages go on beside each other: where there are several,
    each line bears its stage's title. A layer is told of when it is made, which may be after its step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._columns = shutil.get_terminal_size().columns if stream.isatty() else 10_000
        self._color = stream.isatty() and not os.environ.get("NO_COLOR")
        self._open_lines: dict[int, bytes] = {}
        self._seconds: dict[tuple[int, int], float] = {}
        self._several = False
        self._bars = Bars(stream, columns=self._columns if stream.isatty() else None)

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.StageSkipped(stage):
                self._say(f"stage {stage.title}: skipped, {stage.reason}")
            case events.StageStarted(stage, layers):
                self._say(f"stage {stage.title}: {stage.origin.text} ({show.count(layers, 'layer')} below)")
            case events.StepStarted(stage, number, step):
                self._say(self._head(stage, number, step))
            case events.CacheHit(stage, number, step, by):
                source = f" by {event.source}" if event.source else ""
                self._say(f"{self._head(stage, number, step)}  {self._green('cached')}{source}{_by(by)}")
            case events.StepOutput(stage, _, data):
                self._output(stage, data)
            case events.LayerSealed():
                self._sealed(event)
            case events.StepFinished():
                self._finished(event)
            case events.ImageWritten():
                names = f" as {', '.join(event.names)}" if event.names else ""
                self._say(f"image {event.image_id}{names}")
            case events.RootMounting() | events.UpperWritten():
                pass  # for those who are taught
            case events.IndexWritten(digest, platforms):
                names = f" as {', '.join(event.names)}" if event.names else ""
                self._say(f"index {digest} for {', '.join(map(str, platforms))}{names}")
            case events.BlobMoved():
                self._bars.show(event)
            case events.Note(text):
                self._say(f"note: {text}")
            case events.BuildStarted(plan, platform):
                self._several = len(plan.stages) > 1
                if platform is not None:
                    self._say(f"platform {platform}")

    def _finished(self, event: events.StepFinished) -> None:
        self._flush(event.stage)
        if event.layer:
            self._seconds[event.stage.index, event.number] = event.seconds
        elif not isinstance(event.step, ConfigStep):
            place = self._place(event.stage, event.number)
            self._say(f"{place}  no layer: no file changed  {show.seconds(event.seconds)}")
        else:
            self._say(f"{self._head(event.stage, event.number, event.step)}  metadata")

    def _sealed(self, event: events.LayerSealed) -> None:
        entries = show.count(event.entries, "entry", "entries")
        sizes = f"{entries}, {show.size(event.tar_size)}, {show.size(event.size)} compressed"
        took = show.seconds(self._seconds.pop((event.stage.index, event.number), 0.0))
        self._say(f"{self._place(event.stage, event.number)}  layer {event.diff_id.short}: {sizes}  {took}")

    def _output(self, stage: StagePlan, data: bytes) -> None:
        *lines, self._open_lines[stage.index] = (self._open_lines.get(stage.index, b"") + data).split(b"\n")
        for line in lines:
            self._line(stage, line)

    def _flush(self, stage: StagePlan) -> None:
        line = self._open_lines.pop(stage.index, b"")
        if line:
            self._line(stage, line)

    def _line(self, stage: StagePlan, line: bytes) -> None:
        self._bars.clear()
        title = f"{stage.title} " if self._several else ""
        self._stream.write(f"       {title}| {line.decode('utf-8', 'replace').rstrip()}\n")
        self._stream.flush()

    def _place(self, stage: StagePlan, number: int) -> str:
        counted = f"{number}/{len(stage.steps)}"
        return f"{counted:>5}  {stage.title}" if self._several else f"{counted:>5}"

    def _head(self, stage: StagePlan, number: int, step: Step) -> str:
        text = show.shorten(step.origin.text, max(30, min(100, self._columns - 20)))
        return f"{self._place(stage, number)}  {text}"

    def _say(self, text: str) -> None:
        self._bars.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _green(self, text: str) -> str:
        return f"\x1b[32m{text}\x1b[0m" if self._color else text


def _by(key: str) -> str:
    return " (an earlier step ran again and gave the same)" if key == "content" else ""
