"""``--progress rawjson``: one line of JSON on standard error for each event, and for the error that ends the command.

What stands in the lines is told in docs/progress.md, to which a test holds them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from typing import Any

import click

from layerbuild import events
from layerbuild.cli.failures import Stopped, exit_code, of_os_error
from layerbuild.errors import LayerbuildError, StepFailed
from layerbuild.image.config import Platform
from layerbuild.steps import ConfigStep, CopyStep, LayerPlan, RunStep, SkippedStage, StagePlan

STYLE = "rawjson"


def tell(event: events.Event) -> None:
    """Write the line of ``event``; a plan's and a step's insides are cut to what names them."""
    line = {"event": type(event).__name__, "time": round(time.time(), 3), **_members(event)}
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()


def errors_as_events(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the option ``progress``, whose errors are told in that style: as text, or as the last line."""

    @wraps(command)
    def told(*arguments: Any, progress: str, **options: Any) -> None:
        with _told(progress):
            command(*arguments, progress=progress, **options)

    return told


@contextmanager
def _told(progress: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (LayerbuildError, OSError) as error:
        if progress != STYLE:
            raise
        known = of_os_error(error) if isinstance(error, OSError) else error
        tell(_failed(known))
        raise click.exceptions.Exit(exit_code(known)) from error
    except (Stopped, KeyboardInterrupt) as stopped:
        if progress == STYLE:
            tell(events.Failed("stopped by a signal", getattr(stopped, "code", 130)))
        raise


def _failed(error: LayerbuildError) -> events.Failed:
    step = error if isinstance(error, StepFailed) else None
    return events.Failed(
        error.message,
        exit_code(error),
        hint=error.hint,
        place=str(error.span) if error.span else "",
        output=step.output if step else b"",
        workspace=step.workspace if step else "",
    )


def _members(event: events.Event) -> Mapping[str, Any]:
    return {field.name: _value(getattr(event, field.name)) for field in fields(event)}


def _value(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case LayerPlan():
            return [stage.title for stage in value.stages]
        case StagePlan() | SkippedStage():
            return value.title
        case ConfigStep() | RunStep() | CopyStep():
            return value.origin.text
        case Platform():
            return str(value)
        case tuple():
            return [_value(each) for each in value]
    return value
