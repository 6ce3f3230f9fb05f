"""Every codec of the table: round trips, the same bytes however written, and broken streams."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import FormatError, UsageError
from layerbuild.layer import codecs
from layerbuild.layer.codecs import BZIP2, GZIP, NONE, READ, WRITTEN, XZ, ZSTD, Codec, compress, decompress, detect

DATA = b"".join(b"%d apples, " % (number * number) for number in range(300_000))
written = pytest.mark.parametrize("codec", WRITTEN.values(), ids=lambda codec: codec.name)


def packed(codec: Codec, data: bytes, cuts: list[int] | None = None, level: int | None = None) -> bytes:
    if codec is BZIP2:
        return bz2.compress(data)
    if codec is XZ:
        return lzma.compress(data, preset=0)
    sink = io.BytesIO()
    writer = compress(codec, sink, level=level)
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
@given(cuts=st.lists(st.integers(0, 3_000_000), max_size=8))
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


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("place", ["first", "between", "last"])
def test_frames_of_zstd_that_are_to_be_skipped(place: str) -> None:
    """As pzstd(1) writes them first, and zstd:chunked last."""
    frame, skipped = zstandard.compress(DATA), b"\x5e\x2a\x4d\x18\x03\0\0\0any"
    frames = {"first": skipped + frame, "between": frame + skipped + frame, "last": frame + skipped}
    codec, stream = decompress(io.BytesIO(frames[place]))
    assert codec is ZSTD and stream.read() == DATA * (2 if place == "between" else 1)


def test_gzip_stores_blocks_that_would_not_shrink() -> None:
    for content in (noise(1 << 20), lzma.compress(noise(3 << 19), preset=0)[: 1 << 20]):
        whole = packed(GZIP, content)
        assert whole[10:15] == b"\x00\xff\xff\x00\x00", "a stored block that is not the last (RFC 1951, section 3.2.4)"
        assert gzip.decompress(whole) == content
        assert len(whole) < len(content) + 128


@pytest.mark.parametrize("share", [2, 4, 16, 32])
def test_gzip_compresses_a_block_of_which_a_part_shrinks(share: int) -> None:
    text = DATA[: (1 << 20) // share]
    content = noise((1 << 20) - len(text)) + text
    assert len(packed(GZIP, content)) < len(content) - len(text) // 2


def test_only_the_fastest_level_guesses() -> None:
    half = noise(30_000)
    content = (half * 40)[: 1 << 20]  # it repeats itself, which samples don't show
    assert len(packed(GZIP, content)) > len(content)
    assert len(packed(GZIP, content, level=2)) < len(content) // 10


def test_zstd_frames_say_their_size_and_have_a_checksum() -> None:
    content = (DATA * 5)[: 9 << 20]
    whole = packed(ZSTD, content)
    sizes = []
    while whole:
        frame = zstandard.get_frame_parameters(whole)
        assert frame.has_checksum
        sizes.append(frame.content_size)
        decoder = zstandard.ZstdDecompressor().decompressobj()
        decoder.decompress(whole)
        whole = decoder.unused_data
    assert sizes == [4 << 20, 4 << 20, 1 << 20]


def test_gzip_says_neither_time_nor_name() -> None:
    assert packed(GZIP, b"x")[3:8] == bytes(5)
    assert gzip.decompress(packed(GZIP, DATA)) == DATA


def test_detection_goes_by_content() -> None:
    assert all(detect(magic + b"rest") is codec for codec in READ for magic in codec.magic)
    assert detect(b"") is NONE


def test_unknown_names_and_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="lzip"):
        codecs.named("lzip")
    with pytest.raises(UsageError, match="level 99"):
        compress(GZIP, io.BytesIO(), level=99)
