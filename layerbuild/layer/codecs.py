"""How a blob is compressed: one row for each codec, with its name, media suffix, magic bytes and functions.

``WRITTEN`` are the codecs a layer can be made with; ``READ`` are all that can be unpacked (bzip2 and xz come as
archives that ADD opens). The bytes of a compressor depend on its input and level alone: not on how the input was cut
into writes, nor on the number of cores, nor on what the processor can do. They may depend on the version of the
library, which ``pyproject.toml`` pins therefore. A diff ID never depends on the codec at all.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from layerbuild.digest import Piece, Sink
from layerbuild.errors import FormatError, UsageError
from layerbuild.frozen import frozen

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from zstandard import ZstdCompressor

_MOST_WORKERS = 8


class Compressor(Protocol):
    """Takes bytes; ``close`` writes what is left to the sink, and does not close the sink."""

    def write(self, data: Piece, /) -> object: ...
    def close(self) -> None: ...


@frozen
class Codec:
    """``suffix`` follows ``…layer.v1.tar`` in an OCI media type; a stream begins with one of ``magic``. ``level`` is
    the default one, of ``levels``.

    ``compressor(sink, level)`` is None for a codec that is only read. ``decompressor(source)`` gives a stream that
    raises FormatError for corrupt or truncated input; closing it leaves ``source`` open.
    """

    name: str
    suffix: str
    magic: tuple[bytes, ...]
    level: int
    levels: range
    compressor: Callable[[Sink, int], Compressor] | None
    decompressor: Callable[[BinaryIO], BinaryIO]


# -- writing -----------------------------------------------------------------------------------------------------------


class _Plain:
    def __init__(self, sink: Sink, level: int) -> None:
        self._sink = sink

    def write(self, data: Piece, /) -> object:
        return self._sink.write(data)

    def close(self) -> None:
        pass


class _Blocks:
    """Cuts its input into blocks of ``size`` bytes and compresses each apart, so that several cores can work at once:
    where the input is cut decides the bytes, and how many there are to do the work does not."""

    size: int

    def __init__(self, sink: Sink, level: int) -> None:
        self._sink = sink
        self._level = level
        self._pending = bytearray()
        self._blocks = 0
        self._workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
        self._crew: ThreadPoolExecutor | None = None  # small layers need none
        self._begun: deque[Future[Piece]] = deque()

    def write(self, data: Piece, /) -> None:
        if len(data) == self.size and not self._pending:
            self._begin(data)
            return
        start = 0
        while start < len(data):
            cut = start + self.size - len(self._pending)
            self._pending += data[start:cut]
            start = cut
            if len(self._pending) == self.size:
                self._begin(self._pending)
                self._pending = bytearray()

    def close(self) -> None:
        while self._begun:
            self._sink.write(self._begun.popleft().result())
        if self._pending or not self._blocks:
            self._sink.write(self._compress(self._pending))
            self._pending.clear()
        if self._crew is not None:
            self._crew.shutdown()

    def _compress(self, block: Piece) -> Piece:
        raise NotImplementedError

    def _begin(self, block: Piece) -> None:
        self._blocks += 1
        if self._workers == 1:
            self._sink.write(self._compress(block))
            return
        if self._crew is None:
            from concurrent.futures import ThreadPoolExecutor

            self._crew = ThreadPoolExecutor(self._workers, thread_name_prefix="compress")
        self._begun.append(self._crew.submit(self._compress, block))
        if len(self._begun) > self._workers:
            self._sink.write(self._begun.popleft().result())


class _Gzip(_Blocks):
    """A member (RFC 1952, section 2.2) for each block.

    libdeflate decides by the input alone how to write it. igzip does not: its hash is another one with SSE 4.2 than
    without or on ARM, and so are the bytes. The header has no name and the time 0.

    The fastest level stores what is compressed already (archives, pictures, keys) as it is: to find out that a block of
    such bytes does not shrink takes it longer than all else that is done with them, and samples tell as well.
    """

    size = 1 << 20
    _SAMPLES, _SAMPLE = 32, 256  # how many of a block, and the bytes of each

    def _compress(self, block: Piece) -> Piece:
        from deflate import gzip_compress

        stored = self._level == 1 and len(block) == self.size and self._is_dense(block)
        return gzip_compress(block, 0 if stored else self._level)

    def _is_dense(self, block: Piece) -> bool:
        """Whether nothing of it would shrink, as far as samples tell."""
        from deflate import deflate_compress

        step = self.size // self._SAMPLES
        samples = b"".join(block[start : start + self._SAMPLE] for start in range(0, self.size, step))
        return len(deflate_compress(samples, 1)) > len(samples)


class _Zstd(_Blocks):
    """A frame (RFC 8878, section 3.1) for each block; twice the window of the default level, so that little is lost.

    With the library's own threads the size of their jobs would decide the bytes.
    """

    size = 4 << 20

    def __init__(self, sink: Sink, level: int) -> None:
        super().__init__(sink, level)
        self._idle: list[ZstdCompressor] = []  # each is for one thread at a time

    def _compress(self, block: Piece) -> Piece:
        import zstandard

        try:
            compressor = self._idle.pop()
        except IndexError:
            compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=True)
        frame = compressor.compress(block)
        self._idle.append(compressor)
        return frame


# -- reading -----------------------------------------------------------------------------------------------------------


class _Decoded(io.RawIOBase):
    """A decompressing file, whose every complaint is a FormatError. Nothing is buffered here: decompressors do that."""

    def __init__(self, inner: Any, name: str, complaints: tuple[type[Exception], ...]) -> None:
        self._inner = inner
        self._name = name
        self._complaints: tuple[type[Exception], ...] = (*complaints, EOFError)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        try:
            return cast(bytes, self._inner.read(size))
        except self._complaints as error:
            raise FormatError(f"{self._name} stream is corrupt or ends too early: {error}") from error

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Marked:
    """Reads zstd frames, and notices when the last one is incomplete.

    ``stream_reader`` takes a truncated frame for the end of the data, without a word. So one more frame of known
    content is appended to the source: only after complete frames it is decoded, and then the output ends with that
    content. Its own checksum follows its content, so the frame's raw bytes can't be mistaken for it.
    """

    _MARK = b"layerbuild: end of the last frame"

    def __init__(self, source: BinaryIO) -> None:
        import zstandard

        mark = zstandard.ZstdCompressor(write_checksum=True).compress(self._MARK)
        self._tail: Iterator[bytes] = iter((mark,))
        self._source = source
        stream = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(
            cast(BinaryIO, _Reading(self._feed)), read_size=1 << 17, read_across_frames=True
        )
        self._stream = stream
        self._held = b""

    def _feed(self, size: int) -> bytes:
        return self._source.read(size) or next(self._tail, b"")

    def read(self, size: int) -> bytes:
        """Fewer bytes than ``size`` only at the end, as from the other decompressors: who looks at the beginning of a
        stream asks once."""
        pieces = []
        while size and (piece := self._piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        while True:
            data = self._stream.read(size)
            if not data:
                if self._held != self._MARK:
                    raise EOFError("the last frame is incomplete")
                return b""
            data = self._held + data
            cut = max(0, len(data) - len(self._MARK))
            self._held = data[cut:]
            if cut:
                return data[:cut]


class _Reading:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def _plain(source: BinaryIO) -> BinaryIO:
    return source


def _stream(inner: Any, name: str, *complaints: type[Exception]) -> BinaryIO:
    return cast(BinaryIO, _Decoded(inner, name, complaints))


def _gunzip(source: BinaryIO) -> BinaryIO:
    import isal.igzip
    import isal.isal_zlib

    igzip: Any = isal.igzip  # its types are only half told
    zlib: Any = isal.isal_zlib
    return _stream(igzip.IGzipFile(fileobj=source, mode="rb"), "gzip", zlib.error, igzip.BadGzipFile)


def _unzstd(source: BinaryIO) -> BinaryIO:
    import zstandard

    return _stream(_Marked(source), "zstd", zstandard.ZstdError)


def _bunzip2(source: BinaryIO) -> BinaryIO:
    import bz2

    return _stream(bz2.BZ2File(source), "bzip2", OSError)


def _unxz(source: BinaryIO) -> BinaryIO:
    import lzma

    return _stream(lzma.LZMAFile(source), "xz", lzma.LZMAError)


# -- the table ---------------------------------------------------------------------------------------------------------

NONE = Codec("none", "", (b"",), 0, range(1), _Plain, _plain)
# libdeflate at level 1 makes about 220 MB/s of each core (igzip 480, but of one; zlib at 6: 40), some 6 % smaller than
# igzip's.
GZIP = Codec("gzip", "+gzip", (b"\x1f\x8b\x08",), 1, range(13), _Gzip, _gunzip)
# RFC 8878, section 3.1: a frame, or one that is to be skipped; pzstd(1) begins with those.
_FRAMES = (b"\x28\xb5\x2f\xfd", *(bytes((0x50 + user, 0x2A, 0x4D, 0x18)) for user in range(16)))
ZSTD = Codec("zstd", "+zstd", _FRAMES, 3, range(1, 23), _Zstd, _unzstd)
BZIP2 = Codec("bzip2", "", (b"BZh",), 0, range(0), None, _bunzip2)
XZ = Codec("xz", "", (b"\xfd7zXZ\x00",), 0, range(0), None, _unxz)

READ = (GZIP, ZSTD, BZIP2, XZ, NONE)
WRITTEN = {codec.name: codec for codec in (GZIP, ZSTD, NONE)}
MAGIC_SIZE = max(len(magic) for codec in READ for magic in codec.magic)


def detect(start: bytes) -> Codec:
    """The codec of a stream that begins with ``start`` (at least ``MAGIC_SIZE`` bytes, if it has so many)."""
    return next(codec for codec in READ if start.startswith(codec.magic))


def named(name: str) -> Codec:
    """The codec of that name that layers can be written with; UsageError otherwise."""
    if name not in WRITTEN:
        raise UsageError(f"unknown compression {name!r}", hint=f"one of {', '.join(WRITTEN)}")
    return WRITTEN[name]


def compress(codec: Codec, sink: Sink, *, level: int | None = None) -> Compressor:
    """Start writing to ``sink``; ``level`` None is the codec's default. UsageError for a level it does not have."""
    chosen = codec.level if level is None else level
    if codec.compressor is None or chosen not in codec.levels:
        known = f"levels {codec.levels.start} to {codec.levels.stop - 1}" if codec.levels else "only reading"
        raise UsageError(f"{codec.name} has no compression level {chosen}", hint=f"{codec.name} has {known}")
    return codec.compressor(sink, chosen)


def decompress(source: BinaryIO) -> tuple[Codec, BinaryIO]:
    """Detect the codec of ``source`` and give it with the stream of what is inside."""
    buffered = source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, source))
    codec = detect(buffered.peek(MAGIC_SIZE)[:MAGIC_SIZE])
    return codec, codec.decompressor(buffered)
