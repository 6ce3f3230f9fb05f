"""The observer of `build --teach`: beside the progress, what happens in each step."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from layerbuild import events
from layerbuild.steps import ConfigStep
from layerbuild.store.store import Store
from layerbuild.views import teach


class Teacher:
    """Hears after whoever prints the progress, so that each step's line comes first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else 100
        self._width = max(40, min(columns, 100)) - 7

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.StepStarted(step=step) if not isinstance(step, ConfigStep):
                self._say(teach.before(step))
            case events.CacheHit():
                self._say(teach.cached(event))
            case events.StepFinished(step=ConfigStep() as step):
                self._say(teach.metadata(step))
            case events.RootMounting():
                self._say(teach.mounting(self._store, event))
            case events.UpperWritten():
                self._say(teach.written(event))
            case events.LayerSealed():
                self._say(teach.layer(self._store, event))
            case _:
                pass

    def _say(self, text: str) -> None:
        for line in text.splitlines():
            # Lines that a person may paste are never broken.
            shown = [line] if line.startswith(" ") else textwrap.wrap(line, self._width)
            for part in shown:
                click.echo(f"       {part}", err=True)
