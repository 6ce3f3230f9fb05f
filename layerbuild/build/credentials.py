"""Secrets and agents: lent to one command at a time, and kept out of all that a build writes or says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from layerbuild.frozen import frozen

HIDDEN = b"***"


@frozen
class Credentials:
    """What the caller lends to RUN steps, by id: the bytes of secrets, and the sockets of SSH agents."""

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    agents: Mapping[str, Path] = field(default_factory=dict)


class Mask:
    """Passes output on with every secret replaced by ``***``, also one that comes in several pieces.

    What could be the beginning of a secret is held back until more comes, or ``close``. Newlines at a secret's end are
    no part of it here: a shell's ``$(…)`` takes them off, and alone they tell nothing.
    """

    def __init__(self, secrets: Iterable[bytes], output: Callable[[bytes], None]) -> None:
        texts = {secret.rstrip(b"\r\n") for secret in secrets} - {b""}
        self._texts = sorted(texts, key=len, reverse=True)  # a secret may begin with another one
        self._pattern = re.compile(b"|".join(map(re.escape, self._texts)))
        self._output = output
        self._held = b""

    def write(self, data: bytes) -> None:
        """Pass ``data`` on, as far as it is clear what is in it."""
        if not self._texts:
            self._output(data)
            return
        data = self._held + data
        clear = self._clear(data)
        self._held = data[clear:]
        self._pass_on(data[:clear])

    def close(self) -> None:
        """Pass on what was held back."""
        held, self._held = self._held, b""
        self._pass_on(held)

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._output(self._pattern.sub(HIDDEN, data))

    def _clear(self, data: bytes) -> int:
        """How many bytes of ``data`` can't be in a secret whose end is still to come."""
        whole = [found.span() for found in self._pattern.finditer(data)]
        starts = [start for text in self._texts for start in _beginnings(data, text)]
        open_ends = (start for start in starts if not any(begin < start < end for begin, end in whole))
        return min(open_ends, default=len(data))


def _beginnings(data: bytes, text: bytes) -> Iterator[int]:
    """Where the end of ``data`` is a beginning of ``text``, and not yet all of it."""
    start = data.find(text[:1], max(0, len(data) - len(text) + 1))
    while start >= 0:
        if text.startswith(data[start:]):
            yield start
        start = data.find(text[:1], start + 1)
