"""What carries the steps of a build out. A build that finds all in the cache needs none of it, nor its modules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerbuild.build.guard import Guard
from layerbuild.build.lookup import Lookup
from layerbuild.build.options import Options
from layerbuild.build.times import Times
from layerbuild.steps import LayerPlan
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from layerbuild.build.layers import LayerMaker
    from layerbuild.build.mounting import Mounter
    from layerbuild.build.running import Runner


class Workers:
    """Those of one build, each made when a step first needs it. ``begin`` makes what executes RUN steps; ``prepare`` is
    called when that is to be expected, and comes back at once; ``tell`` is told what is no error.

    A context manager: what the mounts of steps have in common goes when it is left.
    """

    def __init__(
        self,
        plan: LayerPlan,
        store: Store,
        lookup: Lookup,
        guard: Guard,
        *,
        begin: Callable[[], Runner],
        prepare: Callable[[], object],
        options: Options,
        times: Times,
        tell: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._store = store
        self._lookup = lookup
        self._guard = guard
        self._begin = begin
        self._prepare = prepare
        self._options = options
        self._times = times
        self._tell = tell
        self._common = ExitStack()
        self._making = threading.Lock()
        self._maker: LayerMaker | None = None
        self._runner: Runner | None = None
        self._mounter: Mounter | None = None
        self._stopped: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._common.close()

    def stop(self, error: Exception) -> None:
        """From another thread: end what is going on, and whatever is asked for from now on."""
        with self._making:
            self._stopped = error
            if self._maker is not None:
                self._maker.stop(error)
            if self._runner is not None:
                self._runner.stop()

    def prepare(self) -> None:
        """Have ready what executes RUN steps: one will come."""
        with self._making:
            self._prepare()

    def runner(self) -> Runner:
        """What executes RUN steps."""
        with self._making:
            if self._stopped is not None:
                raise self._stopped
            if self._runner is None:
                self._runner = self._begin()
                for note in self._runner.notes(self._plan):
                    self._tell(note)
            return self._runner

    def mounter(self) -> Mounter:
        """What prepares the mounts of RUN steps."""
        from layerbuild.build.mounting import Mounter

        with self._making:
            if self._mounter is None:
                self._mounter = self._common.enter_context(
                    Mounter(self._store, self._lookup, self._options, tell=self._tell)
                )
            return self._mounter

    def maker(self) -> LayerMaker:
        """What makes layers."""
        from layerbuild.build.layers import LayerMaker

        with self._making:
            if self._stopped is not None:
                raise self._stopped
            if self._maker is None:
                self._maker = LayerMaker(
                    self._store,
                    self._lookup,
                    self._guard,
                    times=self._times,
                    codec=self._options.codec,
                    level=self._options.level,
                    one_id=self._options.one_id,
                )
            return self._maker
