"""What a RUN needs, as plain values that can travel to another process as JSON."""

from __future__ import annotations

import base64
from dataclasses import fields, is_dataclass
from typing import Any, Final, Literal, Self

from layerbuild.frozen import frozen
from layerbuild.isolate.limits import NO_LIMITS, Limits
from layerbuild.isolate.mounts import Bind, Extra, File, Filesystem, View
from layerbuild.isolate.namespaces import Identity
from layerbuild.isolate.rlimits import Rlimit

Network = Literal["host", "none"]
Security = Literal["sandbox", "insecure"]


@frozen
class Rootfs:
    """The folders of a stack. All paths are absolute; ``lowers`` has the topmost first and may be empty (scratch).

    ``upper``, ``work`` (empty) and ``merged`` (empty) lie on one file system. An ``init`` folder is made beside
    ``merged`` for as long as the job runs. ``link_dir``: a folder above the others, relative to which the kernel is
    told them (see ``mounts.Overlay``). ``volatile``: nothing is synced, and the upper is worthless after a crash.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str
    merged: str
    volatile: bool = True
    link_dir: str | None = None


@frozen
class WholeTree:
    """A complete tree, in place of a stack of folders: the job may change all of it.

    Paths are absolute; ``work`` (empty) and ``merged`` are folders as for ``Rootfs``, and ``merged`` may be ``tree``
    itself. Owners of what is in ``tree`` are noted beside it and beside ``noted`` (layer/owners.py); ``upper`` is the
    folder in which what is written to it really lies, if that is another.
    """

    tree: str
    work: str
    merged: str
    noted: tuple[str, ...] = ()
    upper: str = ""


@frozen
class Process:
    """A command. ``env`` is its whole environment; ``argv[0]`` without a slash is looked up in its PATH, in the image.

    ``cwd`` is a folder of the image. ``groups`` are the supplementary ones; ids are those of the container.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    hostname: str = "layerbuild"


@frozen
class Job:
    """A process in a stack. ``mounts`` come after the sandbox's own (/proc, /sys, /dev), parents before children.

    ``security`` "insecure" keeps all capabilities, has no system call filter, and leaves /proc and /sys as they are.
    ``terminal``: the rows and columns of a terminal of its own, made in the container. ``private``: secrets are lent to
    it, so that no core dump may be written. The sandbox itself sets ``limits`` and ``cgroup``, the folders of the
    control group that has them, and ``name``, which no other job of the machine has. ``followed``: as a rule one of the
    same kind comes next, so that a process for that may be made ready (spares.py).
    """

    rootfs: Rootfs | WholeTree
    process: Process
    mounts: tuple[Extra, ...] = ()
    network: Network = "host"
    security: Security = "sandbox"
    terminal: tuple[int, int] | None = None
    private: bool = False
    followed: bool = False
    limits: Limits = NO_LIMITS
    cgroup: tuple[str, ...] = ()
    name: str = ""


@frozen
class Kind:
    """What of a job decides how the place is made in which its command runs; jobs are mostly alike in it."""

    identity: Identity
    network: Network
    security: Security
    shm_size: int

    @classmethod
    def of(cls, job: Job, identity: Identity) -> Self:
        return cls(identity, job.network, job.security, job.limits.shm_size)


@frozen
class Begin:
    """What the helper is told first. ``runtime`` is the OCI runtime that makes the containers; empty: they are its own.
    ``likely`` is the kind of the first job, as a rule."""

    runtime: str
    likely: Kind


@frozen
class Exit:
    """How a process ended. ``code`` is 128 + ``signal`` if a signal ended it (``signal`` 0: none did). ``hit`` are the
    limits that it ran into, as their fields are called: "memory", "pids", "timeout"; "cpu" and "fsize" of the rlimits.

    ``cpu`` is in seconds, user and system together, and ``max_rss`` in bytes: of the process and the children that it
    waited for.
    """

    code: int
    signal: int = 0
    cpu: float = 0.0
    max_rss: int = 0
    hit: tuple[str, ...] = ()


# -- as JSON -----------------------------------------------------------------------------------------------------------

_KINDS: Final = {
    kind.__name__: kind
    for kind in (
        *(Begin, Kind, Job, Exit, Rootfs, WholeTree, Process, Rlimit, Limits, Identity),
        *(Bind, View, File, Filesystem),
    )
}


def encode(value: Begin | Exit | tuple[Job, Identity]) -> object:
    """``value`` in JSON's own types; ``decode`` is the way back."""
    return _plain(value)


def decode(plain: object) -> Any:
    """The value that ``encode`` took apart."""
    match plain:
        case {"bytes": str(text)}:
            return base64.b64decode(text)
        case {"kind": str(kind), "fields": list(values)}:
            return _KINDS[kind](*map(decode, values))
        case list():
            return tuple(map(decode, plain))
    return plain


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {
            "kind": type(value).__name__,
            "fields": [_plain(getattr(value, field.name)) for field in fields(value)],
        }
    return value
