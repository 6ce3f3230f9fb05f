"""Go's filepath.Match, as COPY applies it."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_trees import context

from layerbuild.build.wildcard import expand, is_pattern, split
from layerbuild.errors import RecipeError


@pytest.mark.parametrize(
    ("pattern", "names", "expected"),
    [
        ("*", ["a", ".b"], ".b a"),
        ("**", ["a", "bc"], "a bc"),
        ("a*c", ["ac", "abc", "abcd", "xac"], "abc ac"),
        ("*.t?t", ["a.txt", "a.tt", "a.tät"], "a.txt a.tät"),
        ("[ab]c", ["ac", "bc", "cc"], "ac bc"),
        ("[^ab]c", ["ac", "cc", "^c"], "^c cc"),
        ("[a-c]", ["a", "b", "d", "-"], "a b"),
        ("[ä-ö]", ["é", "a", "z"], "é"),
        ("[\\]]", ["]", "\\"], "]"),
        ("[\\-x]", ["-", "x", "y"], "- x"),
        ("[[]", ["[", "a"], "["),
        ("a[b*]", ["ab", "a*", "abc"], "a* ab"),
        ("\\**", ["*", "*a", "a"], "* *a"),
        ("a\\b*", ["ab", "a\\b", "abc"], "ab abc"),
        ("a.c*", ["a.c", "abc"], "a.c"),
        ("(a|b)*", ["a", "(a|b)"], "(a|b)"),
        ("*\n*", ["a\nb", "ab"], "a\nb"),
        ("\udcff*", ["\udcff", "\udcff1", "ÿ"], "\udcff \udcff1"),
    ],
)
def test_one_segment(tmp_path: Path, pattern: str, names: list[str], expected: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    tree = context(tmp_path)
    found = expand(tree, b"", [pattern.encode("utf-8", "surrogateescape")])
    assert " ".join(node.path.decode("utf-8", "surrogateescape") for node in found) == expected


@pytest.mark.parametrize("pattern", [b"[", b"[]", b"[]a]", b"[a-]*", b"[-a]", b"*\\", b"['f',"])
def test_malformed(tmp_path: Path, pattern: bytes) -> None:
    with pytest.raises(RecipeError, match="syntax error in pattern"):
        expand(context(tmp_path), b"", [b"*", pattern])


def test_segments(tmp_path: Path) -> None:
    tree = context(tmp_path / "s", "a/x/f a/y/f a/y/g/f b/x/f f")
    assert [node.path for node in expand(tree, b"a", [b"*", b"f"])] == [b"a/x/f", b"a/y/f"]
    assert [node.path for node in expand(tree, b"", [b"**", b"f"])] == [], "** is no more than *"
    assert [node.path for node in expand(tree, b"", [b"?", b"x"])] == [b"a/x", b"b/x"]


def test_what_is_a_pattern() -> None:
    assert [text for text in (b"a*", b"a?", b"[a", b"a\\*", b"\\[a", b"\\\\*", b"a") if is_pattern(text)] == [
        b"a*",
        b"a?",
        b"[a",
        b"\\\\*",
    ]
    assert split(b"./a//b*/c") == (b"a", [b"b*", b"c"])
    assert split(b"*") == (b"", [b"*"])
