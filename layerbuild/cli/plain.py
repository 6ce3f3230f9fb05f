"""``--progress plain``: lines, one below the other."""

from __future__ import annotations

import threading
from collections.abc import Callable

from layerbuild import events
from layerbuild.cli.bars import Blobs
from layerbuild.steps import ConfigStep, StagePlan, Step
from layerbuild.views import text as show


class Plain:
    """One line per step, and the output of a RUN below it. Stages go on beside each other: where there are several,
    each line bears its stage's title. A layer is told of when it is made, which may be after its step.

    ``say`` takes a line; ``columns`` is how wide it may be. Events come from any thread.
    """

    def __init__(self, say: Callable[[str], None], *, columns: Callable[[], int], color: bool) -> None:
        self.blobs = Blobs()
        self._say = say
        self._columns = columns
        self._color = color
        self._guard = threading.RLock()
        self._open_lines: dict[int, bytes] = {}
        self._seconds: dict[tuple[int, int], float] = {}
        self._several = False

    def __call__(self, event: events.Event) -> None:
        with self._guard:
            self._take(event)

    def _take(self, event: events.Event) -> None:
        match event:
            case events.StageSkipped(stage):
                self._say(f"stage {stage.title}: skipped, {stage.reason}")
            case events.StageStarted(stage, layers):
                self._say(f"stage {stage.title}: {stage.opening} ({show.count(layers, 'layer')} below)")
            case events.StepStarted(stage, number, step):
                self._say(self.head(stage, number, step))
            case events.CacheHit(stage, number, step, by):
                source = f" by {event.source}" if event.source else ""
                self._say(f"{self.head(stage, number, step)}  {self._green('cached')}{source}{_by(by)}")
            case events.StepOutput(stage, _, data):
                self._output(stage, data)
            case events.LayerSealed():
                self._sealed(event)
            case events.StepFinished():
                self._finished(event)
            case events.ImageWritten():
                names = f" as {', '.join(event.names)}" if event.names else ""
                self._say(f"image {event.image_id}{names}")
            case events.ImagePushed(name, digest):
                self._say(f"pushed {name}@{digest}")
            case events.RootMounting() | events.UpperWritten() | events.LayerProgress():
                pass  # for those who are taught, or watch
            case events.IndexWritten(digest, platforms):
                names = f" as {', '.join(event.names)}" if event.names else ""
                self._say(f"index {digest} for {', '.join(map(str, platforms))}{names}")
            case events.BlobMoved():
                line = self.blobs.take(event)
                if line:
                    self._say(line)
            case events.Note(text):
                self._say(f"note: {text}")
            case events.BuildStarted(plan, platform):
                self._several = len(plan.stages) > 1
                if platform is not None:
                    self._say(f"platform {platform}")

    def place(self, stage: StagePlan, number: int) -> str:
        """Which step: its number of how many, and its stage's title where there are several."""
        counted = f"{number}/{len(stage.steps)}"
        return f"{counted:>5}  {stage.title}" if self._several else f"{counted:>5}"

    def head(self, stage: StagePlan, number: int, step: Step) -> str:
        """A step's place and its instruction, shortened."""
        text = show.shorten(step.origin.text, max(20, min(100, self._columns() - 20)))
        return f"{self.place(stage, number)}  {text}"

    def _finished(self, event: events.StepFinished) -> None:
        self._flush(event.stage)
        if event.layer:
            self._seconds[event.stage.index, event.number] = event.seconds
        elif not isinstance(event.step, ConfigStep):
            place = self.place(event.stage, event.number)
            self._say(f"{place}  no layer: no file changed  {show.seconds(event.seconds)}")
        else:
            self._say(f"{self.head(event.stage, event.number, event.step)}  metadata")

    def _sealed(self, event: events.LayerSealed) -> None:
        entries = show.count(event.entries, "entry", "entries")
        sizes = f"{entries}, {show.size(event.tar_size)}, {show.size(event.size)} compressed"
        took = show.seconds(self._seconds.pop((event.stage.index, event.number), 0.0))
        self._say(f"{self.place(event.stage, event.number)}  layer {event.diff_id.short}: {sizes}  {took}")

    def _output(self, stage: StagePlan, data: bytes) -> None:
        *lines, self._open_lines[stage.index] = (self._open_lines.get(stage.index, b"") + data).split(b"\n")
        for line in lines:
            self._line(stage, line)

    def _flush(self, stage: StagePlan) -> None:
        line = self._open_lines.pop(stage.index, b"")
        if line:
            self._line(stage, line)

    def _line(self, stage: StagePlan, line: bytes) -> None:
        title = f"{stage.title} " if self._several else ""
        self._say(f"       {title}| {line.decode('utf-8', 'replace').rstrip()}")

    def _green(self, text: str) -> str:
        return f"\x1b[32m{text}\x1b[0m" if self._color else text


def _by(key: str) -> str:
    return " (the layers below came out the same)" if key == "content" else ""
