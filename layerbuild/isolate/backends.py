"""The ways to isolate a RUN, as a table. Another one is another row; the tests run over the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from layerbuild.errors import MachineError, UsageError
from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from layerbuild.isolate.fork import Helper
    from layerbuild.isolate.job import Exit, Job
    from layerbuild.isolate.limits import Limits
    from layerbuild.isolate.namespaces import Identity


class Isolation(Protocol):
    """Runs jobs. ``sandbox.Sandbox`` says what each of these means."""

    def run(self, job: Job, on_output: Callable[[bytes], None]) -> Exit: ...

    def kill(self) -> None: ...

    @property
    def trusts_notes(self) -> bool: ...


@frozen
class Backend:
    """``start`` it once per build, in the build's namespaces, with the build's helper and the limits of each job;
    MachineError if this machine has no such thing."""

    name: str
    summary: str
    start: Callable[[Identity, Helper, Limits], Isolation]


def _own(identity: Identity, helper: Helper, limits: Limits) -> Isolation:
    from layerbuild.isolate.sandbox import Sandbox

    return Sandbox(identity, helper, limits)


def _runtime(program: str, identity: Identity, helper: Helper, limits: Limits) -> Isolation:
    from shutil import which

    from layerbuild.isolate.sandbox import Sandbox

    if which(program) is None:
        raise MachineError(
            f"{program} is not installed", hint=f"install the package {program}, or use another isolation"
        )
    return Sandbox(identity, helper, limits, runtime=program)


BACKENDS: Final[Mapping[str, Backend]] = {
    backend.name: backend
    for backend in (
        Backend("namespaces", "layerbuild's own containers", _own),
        Backend("runc", "containers of the OCI runtime runc", partial(_runtime, "runc")),
        Backend("crun", "containers of the OCI runtime crun", partial(_runtime, "crun")),
    )
}


def backend(name: str) -> Backend:
    """The backend called ``name``; UsageError with the known names if there is none."""
    try:
        return BACKENDS[name]
    except KeyError:
        raise UsageError(
            f"{name!r} is no isolation backend", hint=f"leave it out, or one of {', '.join(BACKENDS)}"
        ) from None
