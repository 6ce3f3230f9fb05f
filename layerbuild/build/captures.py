"""Layers are made here, behind the steps: tar, hashes, compression and index.

::

    stage threads ── add(sealed) ──▶ queue of bounded length ──▶ a few threads ──▶ snapshot, record, event

A task names its layer as soon as its tar is hashed and its parent is named, and commits it as soon as its parent is
committed. Tasks begin in the order in which they were added, so a parent's is never behind its child's in the queue,
and no thread waits for one that has not begun.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerbuild.build.lookup import located
from layerbuild.build.unnamed import Stack, Unnamed, chain_of, recorded
from layerbuild.digest import ChainID, chain_id
from layerbuild.frozen import frozen
from layerbuild.steps import Step
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.store import Store
from layerbuild.store.workspaces import Workspace

if TYPE_CHECKING:
    from layerbuild.build.guard import Guard, Scan
    from layerbuild.layer.capture import Captured, LayerWriter

_WAITING = 8  # sealed folders that may wait; they cost disk, not memory


@frozen
class Sealed:
    """What a step leaves: its folder, complete; and a writer with two files, which ``write`` is to complete. ``scan``
    watches what is written."""

    workspace: Workspace
    blob: Path
    index: Path
    writer: LayerWriter
    write: Callable[[LayerWriter], Captured]
    scan: Scan | None = None

    def drop(self, error: BaseException) -> None:
        """Give the files up, because of ``error``."""
        self.writer.__exit__(type(error), error, None)
        self._unlink()

    def capture(self) -> Captured:
        """Complete both files."""
        with self.writer:
            return self.write(self.writer)

    def _unlink(self) -> None:
        self.blob.unlink(missing_ok=True)
        self.index.unlink(missing_ok=True)


@frozen
class _Task:
    """Something to do for ``step`` on ``parent``: make a layer of ``sealed``, or only tell ``then`` when the parent is
    recorded."""

    step: Step
    parent: Stack
    unnamed: Unnamed | None
    sealed: Sealed | None
    then: Callable[[ChainID | None, LayerRecord | None, ChainID | None], None]


class Captures:
    """The layers of one build that are being made. ``failed`` is told the first error, from any thread; ``guard``
    judges a layer before it is recorded.

    As a context manager: leaving it waits until all is done, also after a failure of the build, since a finished step
    stays proved; whatever is no Exception (Ctrl-C) aborts what is going on instead. An error that nobody has been told
    of is raised then.
    """

    def __init__(self, store: Store, guard: Guard, *, threads: int, failed: Callable[[Exception], None]) -> None:
        self._store = store
        self._guard = guard
        self._limit = threads
        self._failed = failed
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._waiting: deque[_Task] = deque()
        self._running: list[_Task] = []
        self._ended: BaseException | None = None
        self._error: Exception | None = None

    def add(
        self,
        step: Step,
        parent: Stack,
        sealed: Sealed,
        *,
        then: Callable[[ChainID | None, LayerRecord | None, ChainID | None], None],
    ) -> Unnamed:
        """Make a layer of ``sealed`` on ``parent``; waits while too many do. ``then`` is called with the parent, the
        layer and its chain when the layer is committed, and before ``recorded`` comes true."""
        unnamed = Unnamed(sealed.workspace)
        self._put(_Task(step, parent, unnamed, sealed, then))
        return unnamed

    def after(
        self,
        step: Step,
        parent: Stack,
        *,
        then: Callable[[ChainID | None, LayerRecord | None, ChainID | None], None],
    ) -> None:
        """Call ``then`` for a step that made no layer, as soon as its parent is recorded."""
        if isinstance(parent, Unnamed):
            self._put(_Task(step, parent, None, None, then))
        else:
            then(parent, None, parent)

    def __enter__(self) -> Self:
        self._store.unsynced.confirm_earlier()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):
                self._drain()
            else:
                self._abort(error)
        except BaseException as stopped:
            self._abort(stopped)
            raise
        if error is None and self._error is not None:
            raise self._error

    def _put(self, task: _Task) -> None:
        with self._changed:
            while len(self._waiting) >= _WAITING and self._ended is None:
                self._changed.wait()
            if self._ended is not None:
                self._give_up(task, self._ended)
                raise self._ended
            self._waiting.append(task)
            if len(self._threads) < min(self._limit, len(self._waiting) + len(self._running)):
                thread = threading.Thread(target=self._work, name="captures", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def _drain(self) -> None:
        with self._changed:
            while self._waiting or self._running:
                self._changed.wait()
        self._abort(RuntimeError("all is done"))

    def _abort(self, error: BaseException) -> None:
        with self._changed:
            self._ended = self._ended or error
            dropped = tuple(self._waiting)
            self._waiting.clear()
            for task in self._running:
                if task.sealed is not None:
                    task.sealed.writer.abort(error)
            self._changed.notify_all()
        for task in dropped:
            self._give_up(task, error)
        for thread in self._threads:
            thread.join()

    # -- on the threads

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                with located(task.step):
                    self._carry_out(task)
            except BaseException as error:  # raised again in the build
                self._give_up(task, error)
                if self._error is None and isinstance(error, Exception):
                    self._error = error
                    self._failed(error)
            finally:
                with self._changed:
                    self._running.remove(task)
                    self._changed.notify_all()

    def _next(self) -> _Task | None:
        with self._changed:
            while not self._waiting and self._ended is None:
                self._changed.wait()
            if not self._waiting:
                return None
            task = self._waiting.popleft()
            self._running.append(task)
            self._changed.notify_all()
            return task

    def _carry_out(self, task: _Task) -> None:
        if task.sealed is None or task.unnamed is None:
            chain = recorded(task.parent)
            task.then(chain, None, chain)
            return
        sealed, unnamed = task.sealed, task.unnamed
        captured = sealed.capture()
        self._guard.judge(task.step, sealed.scan)
        unnamed.diff_id.keep(captured.diff_id)
        unnamed.chain.keep(chain_id(chain_of(task.parent), captured.diff_id))
        self._store.layers.adopt_index(sealed.index, captured.diff_id)
        self._store.blobs.adopt(sealed.blob, captured.digest)
        blob = BlobRecord(captured.digest, captured.size, captured.codec)
        layer = LayerRecord(captured.diff_id, captured.tar_size, captured.entries, (blob,))
        parent = recorded(task.parent)
        snapshot = self._store.workspaces.commit(sealed.workspace, layer)
        self._guard.keep(captured.diff_id, sealed.scan)
        task.then(parent, layer, snapshot.chain)
        unnamed.recorded.keep(snapshot.chain)

    def _give_up(self, task: _Task, error: BaseException) -> None:
        if task.unnamed is not None:
            task.unnamed.fail(error)
        if task.sealed is not None:
            task.sealed.drop(error)
