"""Annotations as they are asked for, and where they go."""

from __future__ import annotations

import pytest

from layerbuild.errors import UsageError
from layerbuild.image.annotations import Annotation, chosen, chosen_for, read_option, read_output_key, refuse_index
from layerbuild.image.config import Platform

ARM64, AMD64 = Platform("linux", "arm64"), Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key=value", [Annotation("key", "value")]),
        ("a.b/c=d=e", [Annotation("a.b/c", "d=e")]),
        ("index:key=value", [Annotation("key", "value", "index")]),
        ("manifest[linux/arm64/v8]:k=", [Annotation("k", "", "manifest", ARM64)]),
        ("index,manifest-descriptor:k=v", [Annotation("k", "v", "index"), Annotation("k", "v", "manifest-descriptor")]),
        ("k=http://a:b", [Annotation("k", "http://a:b")]),
    ],
)
def test_options(text: str, expected: list[Annotation]) -> None:
    assert list(read_option(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "key", "=v", "index:", "index:=v", "indx:k=v", "index[linux/amd64]:k=v", "[x:k=v"]
)
def test_wrong_options(text: str) -> None:
    with pytest.raises(UsageError):
        read_option(text)


def test_keys_of_an_output() -> None:
    assert read_output_key("annotation-manifest-descriptor[linux/arm64].Some.Key", "v") == Annotation(
        "Some.Key", "v", "manifest-descriptor", ARM64
    )
    with pytest.raises(UsageError, match="no annotation"):
        read_output_key("annotation-index", "v")


def test_what_is_for_one_platform_counts_there_and_last() -> None:
    said = [Annotation("k", "arm", platform=ARM64), Annotation("k", "all"), Annotation("i", "x", "index")]
    assert chosen_for(said, "manifest", ARM64) == (("k", "arm"),)
    assert chosen_for(said, "manifest", AMD64) == (("k", "all"),)
    assert chosen(said, "index") == (("i", "x"),)
    with pytest.raises(UsageError, match="has no index"):
        refuse_index(said)
