"""What is known of a layer before its name is: a sealed folder, and promises.

::

    RUN ends ─▶ seal ─▶ the folder: next step's parent ─┐ at once
                  └──▶ tar, sha256 ─▶ diff ID, chain ID ─┤ in the background: looked for in the cache
                           └──▶ blob, index, folder ─▶ snapshot: recorded

A step can run on a layer without a name; only a cache key needs the name.
"""

from __future__ import annotations

import threading
from dataclasses import field
from typing import Generic, TypeVar, cast

from layerbuild.digest import ChainID, DiffID
from layerbuild.frozen import frozen
from layerbuild.store.workspaces import Workspace

Value = TypeVar("Value")


class Promise(Generic[Value]):
    """A value that another thread will know. It is given once, by ``keep`` or ``fail``; what comes later is ignored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given = threading.Event()
        self._value: Value | None = None
        self._error: BaseException | None = None

    @classmethod
    def kept(cls, value: Value) -> Promise[Value]:
        """One whose value is known."""
        promise: Promise[Value] = cls()
        promise.keep(value)
        return promise

    def keep(self, value: Value) -> None:
        """Give the value to all who wait."""
        self._give(value, None)

    def fail(self, error: BaseException) -> None:
        """There will be no value: ``get`` raises ``error``."""
        self._give(None, error)

    def get(self) -> Value:
        """The value, as soon as it is known."""
        self._given.wait()
        if self._error is not None:
            raise self._error
        return cast(Value, self._value)

    @property
    def given(self) -> bool:
        """Whether ``get`` would return, or raise, at once."""
        return self._given.is_set()

    def _give(self, value: Value | None, error: BaseException | None) -> None:
        with self._lock:
            if not self._given.is_set():
                self._value, self._error = value, error
                self._given.set()


@frozen(eq=False)
class Unnamed:
    """A sealed layer folder.

    The promises come true in their order: the first two when the tar has been hashed, ``snapshot`` (its value is the
    chain again) when the layer is whole and recorded.
    """

    workspace: Workspace
    diff_id: Promise[DiffID] = field(default_factory=Promise)
    chain: Promise[ChainID] = field(default_factory=Promise)
    recorded: Promise[ChainID] = field(default_factory=Promise)

    def fail(self, error: BaseException) -> None:
        """It will never be a layer."""
        for promise in (self.diff_id, self.chain, self.recorded):
            promise.fail(error)


#: A stack to build upon: recorded, or with a topmost layer that has no name yet. None is the empty stack.
Stack = ChainID | Unnamed | None


def chain_of(stack: Stack) -> ChainID | None:
    """The chain ID of ``stack``; waits until it is known."""
    return stack.chain.get() if isinstance(stack, Unnamed) else stack


def recorded(stack: Stack) -> ChainID | None:
    """The chain ID of ``stack``; waits until the store has all of it."""
    return stack.recorded.get() if isinstance(stack, Unnamed) else stack
