"""The ways to isolate a RUN, as a table. Another one is another row; the tests run over the rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self

from layerbuild.errors import MachineError, UsageError
from layerbuild.frozen import frozen
from layerbuild.isolate.job import Exit, Job, Limits
from layerbuild.isolate.namespaces import Identity
from layerbuild.isolate.sandbox import Sandbox


class Isolation(Protocol):
    """Runs jobs. ``sandbox.Sandbox`` says what each of these means."""

    def run(self, job: Job, on_output: Callable[[bytes], None]) -> Exit: ...

    def attach(self, job: Job, *, stdin: int = 0, stdout: int = 1, stderr: int = 2, terminal: bool = False) -> Exit: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@frozen
class Backend:
    """``start`` it once per build, in the build's namespaces and before there are threads, with the limits of each job;
    MachineError if this machine has no such thing."""

    name: str
    summary: str
    start: Callable[[Identity, Limits], Isolation]


def _runtime(program: str, identity: Identity, limits: Limits) -> Isolation:
    if shutil.which(program) is None:
        raise MachineError(
            f"{program} is not installed", hint=f"install the package {program}, or use another isolation"
        )
    return Sandbox.start(identity, limits, runtime=program)


BACKENDS: Final[Mapping[str, Backend]] = {
    backend.name: backend
    for backend in (
        Backend("namespaces", "layerbuild's own containers", Sandbox.start),
        Backend("runc", "containers of the OCI runtime runc", partial(_runtime, "runc")),
        Backend("crun", "containers of the OCI runtime crun", partial(_runtime, "crun")),
    )
}


def backend(name: str) -> Backend:
    """The backend called ``name``; UsageError with the known names if there is none."""
    try:
        return BACKENDS[name]
    except KeyError:
        raise UsageError(f"{name!r} is no isolation backend", hint=f"there are: {', '.join(BACKENDS)}") from None
