"""A lesson as values: nothing has run yet."""

from __future__ import annotations

from layerbuild.frozen import frozen


def N_(text: str) -> str:
    """``text`` itself; marks it for the catalogues."""
    return text


@frozen
class Say:
    """A paragraph."""

    text: str


@frozen
class Write:
    """A file of the lesson's folder, which is shown as it is written."""

    path: str
    content: str


@frozen
class Run:
    """A shell line, shown and run in the lesson's folder; ``code`` is how it ends."""

    line: str
    code: int = 0


@frozen
class Ask:
    """A question, its choices, which of them is right (from 0), and why. ``holds`` is a shell condition that is true on
    the machine, at this point of the lesson, if and only if that choice is right."""

    question: str
    choices: tuple[str, ...]
    right: int
    why: str
    holds: str


Scene = Say | Write | Run | Ask


@frozen
class Lesson:
    """``name`` is what `layerbuild learn NAME` takes."""

    name: str
    title: str
    scenes: tuple[Scene, ...]


#: What every lesson begins with: a base from this machine's own programs, so that no network is needed.
BASE = Run("layerbuild base host --tag base")
