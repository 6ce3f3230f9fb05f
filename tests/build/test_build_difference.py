"""Why a step missed: each kind of change, as a difference of inputs."""

from __future__ import annotations

import pytest

from layerbuild.build.difference import differences
from layerbuild.digest import BlobDigest

A = b"file\t644\t0\t0\t1\t(0, 0)\taa\t\t"


def line(path: str, facts: bytes = A) -> bytes:
    return path.encode() + b"\t" + facts


def told(
    before: dict[str, str | bytes], after: dict[str, str | bytes], *, args: frozenset[str] = frozenset()
) -> list[str]:
    """The differences in words; a value that is bytes is a listing."""
    listings = {
        BlobDigest.of(value): value for value in (*before.values(), *after.values()) if isinstance(value, bytes)
    }

    def named(inputs: dict[str, str | bytes]) -> dict[str, str]:
        return {key: BlobDigest.of(value) if isinstance(value, bytes) else value for key, value in inputs.items()}

    found, more = differences(named(before), named(after), lambda digest: listings.get(BlobDigest(digest)), args=args)
    assert more == 0
    return [str(difference) for difference in found]


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ({"user": "a"}, {"user": "a"}, []),
        ({"user": "a"}, {"user": "b"}, ["user a → b"]),
        ({"user": ""}, {"user": "b"}, ['user "" → b']),
        ({"env X": "1"}, {"env X": "2"}, ["ENV X 1 → 2"]),
        ({}, {"env X": "2"}, ["ENV X added"]),
        ({"env X": "2"}, {}, ["ENV X removed"]),
        ({"parent": "p"}, {"parent": "q"}, ["the layers below changed"]),
        ({"times": "kept"}, {"times": "clamped to 1"}, ["times in layers kept → clamped to 1"]),
        ({"command": "x" * 99}, {"command": "y"}, [f"command {'x' * 59}… → y"]),
    ],
)
def test_values(before: dict[str, str | bytes], after: dict[str, str | bytes], wanted: list[str]) -> None:
    assert told(before, after) == wanted


def test_an_argument_is_told_from_a_variable() -> None:
    assert told({"env X": "1", "env Y": "1"}, {"env X": "2", "env Y": "2"}, args=frozenset("X")) == [
        "ARG X 1 → 2",
        "ENV Y 1 → 2",
    ]


def test_what_lies_below_is_told_last() -> None:
    assert told({"parent": "p", "user": "a"}, {"parent": "q", "user": "b"})[-1] == "the layers below changed"


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (A, A.replace(b"aa", b"bb"), ["src/x content changed"]),
        (A, A.replace(b"644", b"755"), ["src/x mode 0644 → 0755"]),
        (A, A.replace(b"0\t0\t1", b"7\t8\t1"), ["src/x owner 0:0 → 7:8"]),
        (A, A.replace(b"1\t(", b"2\t(").replace(b"aa", b"bb"), ["src/x content changed"]),
        (A, b"directory\t755\t0\t0\t0\t(0, 0)\t\t\t", ["src/x kind file → directory"]),
        (b"symlink\t777\t0\t0\t0\t(0, 0)\t\ta\t", b"symlink\t777\t0\t0\t0\t(0, 0)\t\tb\t", ["src/x target a → b"]),
        (A, A + b"user.k=00", ["src/x attributes changed"]),
        (A, A + b"\t=other", ['src/x names "" → =other']),
        (A, A.replace(b"644", b"755").replace(b"aa", b"bb"), ["src/x mode 0644 → 0755", "src/x content changed"]),
    ],
)
def test_files(before: bytes, after: bytes, wanted: list[str]) -> None:
    assert told({"files src": b"d\t\n" + line("x", before)}, {"files src": b"d\t\n" + line("x", after)}) == wanted


def test_files_that_come_and_go() -> None:
    before, after = b"d\t\n" + line("x") + b"\n" + line("y"), b"d\t\n" + line("y") + b"\n" + line("z/w")
    assert told({"files .": before}, {"files .": after}) == ["x removed", "z/w added"]


@pytest.mark.parametrize(
    ("name", "path", "wanted"),
    [
        ("files app.py", "", "app.py"),
        ("files src/app.py", "", "src/app.py"),
        ("files src/*.py", "app.py", "src/app.py"),
        ("files /", "app.py", "/app.py"),
        ("files /out/tool", "", "/out/tool"),
        ("files ./src/", "app.py", "src/app.py"),
        ("files *", "app.py", "app.py"),
        ("mounted at /ctx", "app.py", "/ctx/app.py"),
    ],
)
def test_a_file_is_told_by_the_path_that_the_recipe_means(name: str, path: str, wanted: str) -> None:
    changed = line(path, A.replace(b"aa", b"bb"))
    assert told({name: line(path)}, {name: changed}) == [f"{wanted} content changed"]


def test_a_listing_that_is_gone_leaves_the_digests() -> None:
    found, _ = differences({"files a": BlobDigest.of(b"1")}, {"files a": BlobDigest.of(b"2")}, lambda digest: None)
    assert [difference.subject for difference in found] == ["files a"]


def test_of_very_many_the_first_are_told_and_the_rest_is_counted() -> None:
    before = b"d\t\n" + b"\n".join(line(f"{number:04}") for number in range(1000))
    listings = {BlobDigest.of(before): before, BlobDigest.of(b"d\t"): b"d\t"}
    found, more = differences(
        {"files .": BlobDigest.of(before)},
        {"files .": BlobDigest.of(b"d\t")},
        lambda digest: listings[BlobDigest(digest)],
    )
    assert len(found) + more == 1000 and more > 0
