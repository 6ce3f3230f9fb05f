"""The contract of a driver."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from layerbuild.isolate.job import Rootfs, WholeTree
from layerbuild.store.overlay import StackedFolder


class Driver(Protocol):
    """Makes roots for jobs. ``name`` is what ``--driver`` calls it."""

    @property
    def name(self) -> str: ...

    def tree(self, folder: StackedFolder) -> Path | None:
        """Where the job of ``rootfs`` finds the complete tree that it writes to, which has that name once it is whole.
        None: it writes to ``folder.diff``."""

    def spaces(self, *, user_xattr: bool) -> tuple[str, ...]:
        """How the marks begin that it leaves in ``folder.diff``, and lets no command set."""

    def rootfs(self, folder: StackedFolder) -> AbstractContextManager[Rootfs | WholeTree]:
        """The root for one job, on top of ``folder.below``, which is unpacked, and of what ``folder.diff`` holds.

        When the context ends, ``folder.diff`` holds all that is different from ``folder.below``, as overlay would have
        left it. After an exception it is of no use.
        """
