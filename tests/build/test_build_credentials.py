"""What a secret may look like when a command prints it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.build.credentials import HIDDEN, Credentials, Mask


def masked(secrets: list[bytes], pieces: list[bytes]) -> bytes:
    out: list[bytes] = []
    mask = Mask(secrets, out.append)
    for piece in pieces:
        mask.write(piece)
    mask.close()
    return b"".join(out)


@pytest.mark.parametrize(
    ("secrets", "pieces", "shown"),
    [
        ([b"hunter2"], [b"it is hunter2.\n"], b"it is ***.\n"),
        ([b"hunter2"], [b"it is hun", b"ter2.\n"], b"it is ***.\n"),
        ([b"hunter2\n"], [b"hunter2", b"\n"], b"***\n"),
        ([b"hunter2"], [b"hunt", b"ing hunter", b"s\n"], b"hunting hunters\n"),
        ([b"hunter2"], [b"ends with hunt"], b"ends with hunt"),
        ([b"aab"], [b"aa", b"aab"], b"aa***"),
        ([b"abc", b"abcdef"], [b"abc", b"def abc", b"x"], b"*** ***x"),
        ([b"a.c"], [b"abc a.c"], b"abc ***"),
        ([b"-BEGIN-\nx\n-END-\n"], [b"-BEGIN-\nx", b"\n-END-\n"], b"***\n"),
        ([b"", b"\n"], [b"one\n", b"two\n"], b"one\ntwo\n"),
        ([], [b"one"], b"one"),
    ],
)
def test_a_secret_is_hidden_however_it_is_cut(secrets: list[bytes], pieces: list[bytes], shown: bytes) -> None:
    assert masked(secrets, pieces) == shown


@given(
    st.lists(st.text("ab", min_size=1, max_size=5).map(str.encode), max_size=3),
    st.lists(st.text("abc", max_size=6).map(str.encode), max_size=8),
)
def test_cuts_do_not_matter(secrets: list[bytes], pieces: list[bytes]) -> None:
    assert masked(secrets, pieces) == masked(secrets, [b"".join(pieces)])


@given(st.binary(min_size=1, max_size=8).filter(lambda secret: secret.strip(b"\r\n*")), st.binary(), st.integers(0, 40))
def test_no_secret_gets_through(secret: bytes, around: bytes, cut: int) -> None:
    text = around + secret + around
    shown = masked([secret], [text[:cut], text[cut:]])
    assert secret.rstrip(b"\r\n") not in shown.split(HIDDEN)
    assert HIDDEN in shown


def test_output_without_a_beginning_of_a_secret_is_not_held_back() -> None:
    out: list[bytes] = []
    Mask([b"hunter2"], out.append).write(b"progress 10%")
    assert out == [b"progress 10%"]


def test_a_secret_is_not_in_the_text_of_what_holds_it() -> None:
    assert "hunter2" not in repr(Credentials({"password": b"hunter2"}))
