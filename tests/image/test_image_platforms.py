"""Platforms: their spelling, and which image does best on one."""

from __future__ import annotations

import pytest

from layerbuild.errors import UsageError
from layerbuild.image.config import Platform
from layerbuild.image.platforms import best, distance, normal, read_platform

AMD64 = Platform("linux", "amd64")


def platform(text: str) -> Platform:
    return Platform(*text.split("/"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/arm64/v8", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("windows/amd64", "windows/amd64"),
        ("macos/arm64", "darwin/arm64"),
        ("windows", "windows/amd64"),
        ("linux/386", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_spellings(text: str, expected: str) -> None:
    assert read_platform(text, default=AMD64) == platform(expected)


@pytest.mark.parametrize("text", ["", "linux/", "a/b/c/d", "linux/amd 64", "linux//v8"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError, match="is no platform"):
        read_platform(text, default=AMD64)


@pytest.mark.parametrize(
    ("wanted", "found", "choice"),
    [
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", "linux/386"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v1"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"], 2),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm/v6", ["linux/arm/v5", "linux/arm/v7"], 0),
        ("linux/arm/v5", ["linux/arm/v6", "linux/arm/v7"], None),
        ("linux/386", ["linux/amd64"], None),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/s390x", ["linux/amd64", "linux/s390x"], 1),
    ],
)
def test_which_image_does_best(wanted: str, found: list[str], choice: int | None) -> None:
    candidates = [(None, -1), *((platform(text), number) for number, text in enumerate(found))]
    assert best(candidates, platform(wanted)) == choice


def test_one_platform_has_one_spelling() -> None:
    for one, other in (("linux/arm64/v8", "linux/arm64"), ("linux/arm", "linux/arm/v7")):
        assert normal(platform(one)) == normal(platform(other))
        assert distance(platform(one), platform(other)) == 0
