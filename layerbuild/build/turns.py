"""Taking turns: stages that are built side by side and want the same thing from elsewhere get it once."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Turns:
    """A lock for each thing that may be wanted: who holds it gets the thing, who waited for it finds it there."""

    def __init__(self) -> None:
        self._own = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}

    def of(self, thing: Hashable) -> threading.Lock:
        """The lock of ``thing``."""
        with self._own:
            return self._locks.setdefault(thing, threading.Lock())
