"""One worker thread beside the caller, with bounded memory between the two.

Hashing, compressing, reading and writing release the interpreter's lock, so that two threads use two cores. A worker
holds no lock while it waits, ends with its context, and what it raised is raised in the caller.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from layerbuild.digest import Piece

CHUNK = 1 << 20
_DEPTH = 8  # chunks under way: 8 MiB


class Pump:
    """Hands chunks of bytes to ``consume`` on a thread of its own, in order.

    As a context manager: leaving it normally waits until all is consumed; leaving it by an exception drops what is
    still waiting.
    """

    def __init__(self, consume: Callable[[Piece], None]) -> None:
        self._consume = consume
        self._queue: queue.Queue[Piece | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="layer-writer", daemon=True)
        self._thread.start()

    def put(self, chunk: Piece) -> None:
        """Give one chunk; raises what ``consume`` raised before."""
        if self._error is not None:
            raise self._error
        self._queue.put(chunk)

    def fail(self, error: BaseException) -> None:
        """From any thread: the next ``put``, or ``close``, raises ``error``; what is still waiting is dropped."""
        self._error = self._error or error

    def close(self) -> None:
        """Wait until every chunk is consumed; raises what ``consume`` raised."""
        self._stop()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        if error is not None:
            self.fail(error)
        self._stop()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._error is None:  # after an error the queue is only emptied, so that put() can't block for ever
                try:
                    self._consume(chunk)
                except BaseException as error:  # raised again in the caller
                    self._error = error


class Prefetch:
    """Reads ``source`` ahead on a thread of its own, and hashes it there: decompression beside unpacking.

    ``hexdigest`` and ``size`` are those of all that was read from the source, so they are known after the end.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_DEPTH)
        self._rest = b""
        self._ended = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="layer-reader", daemon=True)
        self._thread.start()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end. Raises what the source raised."""
        data = self._rest or self._next()
        self._rest = data[size:]
        return data[:size] if self._rest else data

    def hexdigest(self) -> str:
        """sha256 of the whole source; only meaningful after its end."""
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)  # makes room for a worker that waits to put
            except queue.Empty:
                pass

    def _next(self) -> bytes:
        if self._ended:
            return b""
        found = self._queue.get()
        if isinstance(found, BaseException):
            self._ended = True
            raise found
        self._ended = not found
        return found

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                data = self._source.read(CHUNK)
                self._hash.update(data)
                self.size += len(data)
                self._queue.put(data)
                if not data:
                    return
        except BaseException as error:  # raised again in the caller
            self._queue.put(error)
