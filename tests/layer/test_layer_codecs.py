"""Every codec of the table: round trips, the same bytes however written, and broken streams."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import FormatError, UsageError
from layerbuild.layer import codecs
from layerbuild.layer.codecs import BZIP2, GZIP, NONE, READ, WRITTEN, XZ, ZSTD, Codec, compress, decompress, detect

DATA = b"".join(b"%d apples, " % (number * number) for number in range(200_000))
written = pytest.mark.parametrize("codec", WRITTEN.values(), ids=lambda codec: codec.name)


def packed(codec: Codec, data: bytes, cuts: list[int] | None = None) -> bytes:
    if codec is BZIP2:
        return bz2.compress(data)
    if codec is XZ:
        return lzma.compress(data)
    sink = io.BytesIO()
    writer = compress(codec, sink)
    start = 0
    for cut in [*(cuts or []), len(data)]:
        writer.write(data[start : start + cut])
        start += cut
    writer.close()
    return sink.getvalue()


@pytest.mark.parametrize("codec", READ, ids=lambda codec: codec.name)
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "byte", "megabytes"])
def test_round_trip(codec: Codec, data: bytes) -> None:
    found, stream = decompress(io.BytesIO(packed(codec, data)))
    assert found is codec
    assert stream.read() == data


@pytest.mark.parametrize("codec", READ, ids=lambda codec: codec.name)
def test_a_read_gives_less_than_it_was_asked_for_at_the_end_alone(codec: Codec) -> None:
    # Whoever tells an archive by its first block reads once: an ADD of a small .tar.zst was once taken for a file.
    _, stream = decompress(io.BytesIO(packed(codec, DATA)))
    assert [len(stream.read(size)) for size in (512, 1, 4096, 1 << 20)] == [512, 1, 4096, 1 << 20]
    assert len(stream.read(len(DATA))) == len(DATA) - 512 - 1 - 4096 - (1 << 20)
    assert stream.read(1) == b""


@written
@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 900_000), max_size=8))
def test_the_bytes_do_not_depend_on_how_they_were_written(codec: Codec, cuts: list[int]) -> None:
    assert packed(codec, DATA, cuts) == packed(codec, DATA)


@pytest.mark.parametrize("codec", [GZIP, ZSTD, BZIP2, XZ], ids=lambda codec: codec.name)
def test_a_truncated_or_corrupt_stream_is_a_format_error(codec: Codec) -> None:
    whole = packed(codec, DATA)
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:-9] + b"wrong bytes"):
        with pytest.raises(FormatError, match=codec.name):
            codec.decompressor(io.BytesIO(broken)).read()


@pytest.mark.parametrize("codec", [GZIP, ZSTD], ids=lambda codec: codec.name)
def test_several_members_are_one_stream(codec: Codec) -> None:
    assert codec.decompressor(io.BytesIO(packed(codec, b"one ") + packed(codec, b"two"))).read() == b"one two"


def test_gzip_says_neither_time_nor_name() -> None:
    assert packed(GZIP, b"x")[3:8] == bytes(5)
    assert gzip.decompress(packed(GZIP, DATA)) == DATA


def test_detection_goes_by_content() -> None:
    assert [detect(codec.magic + b"rest") for codec in READ] == list(READ)
    assert detect(b"") is NONE


def test_unknown_names_and_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="lzip"):
        codecs.named("lzip")
    with pytest.raises(UsageError, match="level 99"):
        compress(GZIP, io.BytesIO(), level=99)
