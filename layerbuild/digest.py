"""Names for content.

::

    DiffID       sha256 of the uncompressed layer tar
    BlobDigest   sha256 of a blob as stored or sent
    ChainID      first layer: its DiffID; then sha256("<parent ChainID> <DiffID>")

All three are written ``sha256:<64 hex>``, and mean different things, so they are different types: a function that
wants a chain ID can't be handed a diff ID. Source: OCI image-spec, config.md ("Layer DiffID", "Layer ChainID") and
descriptor.md ("Digests").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import BinaryIO, Protocol, Self

from layerbuild.errors import DigestMismatch, FormatError

_FORM = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Digest(str):
    """A well-formed digest text. ``parse`` is the door; a Digest in hand needs no second look."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take ``sha256:<64 lower-case hex>``; anything else is a FormatError."""
        if not _FORM.fullmatch(text):
            raise FormatError(f"{text!r} is not a sha256 digest", hint="expected sha256: and 64 hexadecimal digits")
        return cls(text)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The digest of ``data``."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 hexadecimal digits."""
        return self[7:]

    @property
    def short(self) -> str:
        """Its first 12 digits, as people quote it."""
        return self[7:19]


class BlobDigest(Digest):
    """Of a blob as stored or sent: a compressed layer, a configuration, a manifest."""

    __slots__ = ()


class DiffID(Digest):
    """Of a layer's uncompressed tar."""

    __slots__ = ()


class ChainID(Digest):
    """Of a stack of layers, the topmost included."""

    __slots__ = ()


def chain_id(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """The chain ID of ``diff_id`` on top of ``parent`` (None: it is the first layer).

    >>> chain_id(None, DiffID("sha256:aa"))
    'sha256:aa'
    """
    if parent is None:
        return ChainID(diff_id)
    return ChainID.of(f"{parent} {diff_id}".encode())


def chain_ids(diff_ids: Iterable[DiffID]) -> tuple[ChainID, ...]:
    """The chain ID of every prefix of ``diff_ids``, bottom first."""
    chains: list[ChainID] = []
    for diff_id in diff_ids:
        chains.append(chain_id(chains[-1] if chains else None, diff_id))
    return tuple(chains)


Piece = bytes | bytearray | memoryview  # of a stream; whoever passes one on does not change it any more


class Sink(Protocol):
    """Whatever takes bytes."""

    def write(self, data: Piece, /) -> object: ...


class HashingWriter:
    """Passes bytes on to ``sink`` (None: nowhere) and knows their digest and count."""

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Piece, /) -> int:
        self._hash.update(data)
        self.size += len(data)
        if self._sink is not None:
            self._sink.write(data)
        return len(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def digest(self) -> str:
        """``sha256:<hex>`` of all that was written so far."""
        return "sha256:" + self._hash.hexdigest()


class VerifyingReader:
    """Reads ``source`` and raises DigestMismatch at its end if the bytes are not those of ``expected``.

    ``size`` (bytes), where known, is checked too, and stops an endless source at the first byte too many.
    """

    def __init__(self, source: BinaryIO, expected: Digest, *, size: int | None = None, name: str = "") -> None:
        self._source = source
        self._expected = expected
        self._size = size
        self._name = name or expected
        self._hash = hashlib.sha256()
        self._seen = 0
        self._checked = False

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self._seen += len(data)
        if self._size is not None and self._seen > self._size:
            raise DigestMismatch(f"{self._name} is longer than the {self._size} bytes it should have")
        if (not data and size != 0) or size < 0:
            self._check()
        return data

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """``read`` into a buffer, as decompressors ask for it; returns the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> None:
        """Read what is left and check: for a reader that stopped before the end of the bytes."""
        while not self._checked:
            self.read(1 << 20)

    def _check(self) -> None:
        self._checked = True
        if self._size is not None and self._seen != self._size:
            raise DigestMismatch(f"{self._name} has {self._seen} bytes instead of {self._size}")
        found = "sha256:" + self._hash.hexdigest()
        if found != self._expected:
            raise DigestMismatch(f"{self._name} has digest {found} instead of {self._expected}")

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
