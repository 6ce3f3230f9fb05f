"""What can go wrong, and where.

::

    LayerbuildError            what, where, and a hint how to mend it
    ├── UsageError             the command line asks for something that can't be
    ├── RecipeError            the recipe is wrong; carries a Span
    ├── BuildError             a build can't go on
    │   ├── SourceError        a COPY or ADD source is missing or unusable
    │   └── StepFailed         a RUN ended with an exit code other than 0
    ├── NotFoundError          an image, a layer or a blob that the store does not hold
    ├── FormatError            bytes from outside that break their format (tar, manifest, archive)
    │   └── DigestMismatch     bytes that are not what their digest says
    ├── StoreError             the store is damaged or of another version
    ├── RegistryError          a registry or its credentials
    ├── MachineError           this machine can't: kernel, file system, rights, a missing program
    └── SpaceError             the disk is full

Only the command line turns an error into text on a terminal and an exit code.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

from layerbuild.frozen import frozen


def alike(word: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Those of ``known`` that look like ``word``, the likest first: what a hint may suggest."""
    from difflib import get_close_matches

    return get_close_matches(word, list(known), n=most)


def descriptors_hint(error: OSError) -> str:
    """What helps where the process, or the whole machine, may open no more files; empty for every other error."""
    if error.errno == errno.EMFILE:
        return "let the process open more files: ulimit -n"
    return "other processes have too many files open: end some, or raise fs.file-max" * (error.errno == errno.ENFILE)


@frozen
class Span:
    """A place in a recipe: lines and columns count from 1; ``end_line`` is the last line that belongs to it."""

    file: str
    line: int
    column: int = 1
    end_line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def at(self, line: int, column: int = 1) -> Span:
        """The same file at another place."""
        return replace(self, line=line, column=column, end_line=line)


@frozen
class RecipeWarning:
    """A recipe works, but breaks a rule of good writing: never raised. ``description`` is the rule's, ``detail`` this
    case's; ``url`` may be empty. ``str()`` is as BuildKit prints it."""

    rule: str
    description: str
    url: str
    detail: str
    span: Span

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail} (line {self.span.line})"


class LayerbuildError(Exception):
    """A failure that its reader can act upon: ``message`` says what and where, ``hint`` what to do about it."""

    def __init__(self, message: str, *, hint: str = "", span: Span | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.span = span

    def __str__(self) -> str:
        where = f"{self.span}: " if self.span else ""
        return f"{where}{self.message}"


class UsageError(LayerbuildError):
    """The command line asks for something that can't be."""


class RecipeError(LayerbuildError):
    """The recipe is wrong. Whoever raises it knows the span, or the parser adds it."""


class BuildError(LayerbuildError):
    """A build can't go on."""


class SourceError(BuildError):
    """A COPY or ADD source is missing or unusable."""


class StepFailed(BuildError):
    """A RUN ended with an exit code other than 0.

    ``exit_code`` is the command's (128 + N when signal N ended it), ``output`` its last lines, ``workspace`` the id
    of the kept workspace, empty where none was kept.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int,
        output: bytes = b"",
        workspace: str = "",
        hint: str = "",
        span: Span | None = None,
    ) -> None:
        super().__init__(message, hint=hint, span=span)
        self.exit_code = exit_code
        self.output = output
        self.workspace = workspace


class NotFoundError(LayerbuildError):
    """An image, a layer or a blob that the store does not hold."""


class FormatError(LayerbuildError):
    """Bytes from outside that break their format."""


class DigestMismatch(FormatError):
    """Bytes that are not what their digest says."""


class StoreError(LayerbuildError):
    """The store is damaged, locked or of another version."""


class RegistryError(LayerbuildError):
    """A registry refused or failed, or credentials are missing. ``status`` is what it answered, 0: nothing; and
    ``wait`` the seconds after which it wants to be asked again."""

    def __init__(
        self, message: str, *, hint: str = "", span: Span | None = None, status: int = 0, wait: float = 0.0
    ) -> None:
        super().__init__(message, hint=hint, span=span)
        self.status = status
        self.wait = wait


class MachineError(LayerbuildError):
    """This machine can't: the kernel, the file system, rights, or a missing program."""


class SpaceError(LayerbuildError):
    """The disk is full (ENOSPC, EDQUOT)."""
