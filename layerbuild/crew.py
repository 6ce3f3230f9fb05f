"""A few threads for work that waits, on the network mostly. They are no reason for a process to go on: who is
interrupted need not wait until a server has answered."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, TypeVar

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


class Crew:
    """At most ``size`` threads, begun as there is work. A context manager: what has not begun when it is left will not.

    Thread pools of the standard library are waited for when the interpreter ends; these threads are not.
    """

    def __init__(self, size: int, *, name: str) -> None:
        self._size = size
        self._name = name
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def start(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Let a thread do ``work``; the future has its result, or what it raised."""
        future: Future[_Result] = Future()
        with self._guard:
            if len(self._threads) < self._size:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._work.put((future, work))
        return future

    def map(self, do: Callable[[_Given], _Result], given: Iterable[_Given]) -> list[_Result]:
        """``do`` each of ``given``, side by side; the results in order. Raises the first error in that order."""
        futures = [self.start(partial(do, item)) for item in given]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Drop what has not begun, and let the threads go."""
        while not self._work.empty():
            waiting = self._work.get()
            if waiting is not None:
                waiting[0].cancel()
        for _ in self._threads:
            self._work.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while (given := self._work.get()) is not None:
            future, work = given
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # raised again where the future is asked
                    future.set_exception(error)
