"""Ignore files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import RecipeError
from layerbuild.recipe.ignore import IgnoreRules


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["a"], "a", True),
        (["a"], "a/b/c", True),
        (["a"], "b/a", False),
        (["/a/"], "a", True),
        (["./a/../b"], "b", True),
        (["*.txt"], "a.txt", True),
        (["*.txt"], "d/a.txt", False),
        (["**/*.txt"], "a.txt", True),
        (["**/*.txt"], "d/e/a.txt", True),
        (["**.txt"], "d/e/a.txt", True),
        (["a/**"], "a", False),
        (["a/**"], "a/b/c", True),
        (["a/**/c"], "a/c", True),
        (["a/**/c"], "a/b/d/c", True),
        (["**"], "a", True),
        (["**/d"], "a/xd", False),
        (["a?c"], "a/c", False),
        (["a?c"], "a☺c", True),
        (["[a-c]x"], "bx", True),
        (["[^a-c]x"], "bx", False),
        (["[\\]a]"], "]", True),
        (["a\\*b"], "a*b", True),
        (["a\\*b"], "axb", False),
        (["a.(b)+$"], "a.(b)+$", True),
        (["A"], "a", False),
        (["#a"], "#a", False),
        ([" #a"], "#a", True),
        (["a", "!a/b"], "a/b", False),
        (["a", "!a/b"], "a/b/c", False),
        (["a", "!a/b"], "a/c", True),
        (["!a/b", "a"], "a/b", True),
        (["a", "! a/b "], "a/b", False),
        (["*", "!a", "a/x"], "a/x/y", True),
        (["\ufeffa"], "a", True),
        # An exception for a directory takes in what is below it only if the directory was left out.
        (["**/*.o", "!d"], "d/x.o", True),
        (["**/*.o", "!d/x.o"], "d/x.o", False),
        (["d", "**/*.o", "!d"], "d/x.o", False),
        (["**/*.o", "!d", "!d/**"], "d/x.o", False),
    ],
)
def test_verdict(lines: list[str], path: str, ignored: bool) -> None:
    assert IgnoreRules.parse("\n".join(lines)).verdict(path.encode()).ignored is ignored


def test_the_verdict_names_the_rule_that_decided() -> None:
    rules = IgnoreRules.parse("# notes\r\n\r\n*.txt\r\n!keep.txt\r\n", file="x.dockerignore")
    assert str(rules.verdict(b"a.txt").rule) == "x.dockerignore line 3 (`*.txt`)"
    kept = rules.verdict(b"keep.txt")
    assert not kept.ignored and kept.rule is not None and kept.rule.line == 4
    assert rules.verdict(b"b").rule is None


@pytest.mark.parametrize("line", ["!", "!/", "! /./", "[", "[]a]", "[a-", "[x-]", "[-x]", "[^", "a\\", "[a\\"])
def test_malformed_patterns_have_a_line(line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        IgnoreRules.parse(f"ok\n{line}\n")
    assert caught.value.span is not None and caught.value.span.line == 2


@pytest.mark.parametrize(
    ("lines", "directory", "prunes"),
    [
        (["a"], "a", True),
        (["a"], "b", False),
        (["a", "!a/b"], "a", False),
        (["a", "!a/b"], "a/c", True),
        (["a", "!b/c"], "a", True),
        (["!a/b", "a"], "a", True),
        (["a", "!**/x"], "a", False),
        (["a", "!*/b/c"], "a/b", False),
        (["a", "!*/b/c"], "a/d", True),
        (["*", "!a"], "a", False),
    ],
)
def test_a_walk_skips_directories_that_nothing_can_take_back(lines: list[str], directory: str, prunes: bool) -> None:
    assert IgnoreRules.parse("\n".join(lines)).prunes(directory.encode()) is prunes


NAMES = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map("/".join)
GLOBS = st.lists(st.sampled_from(["a", "b", "*", "**", "a*", "?b", "[ab]", "\\a", "**b"]), min_size=1, max_size=4)
RULES = st.lists(st.builds(lambda mark, parts: mark + "/".join(parts), st.sampled_from(["", "!"]), GLOBS), max_size=5)


@given(RULES, NAMES, NAMES)
def test_below_a_pruned_directory_everything_is_ignored(lines: list[str], directory: str, below: str) -> None:
    rules = IgnoreRules.parse("\n".join(lines))
    if rules.prunes(directory.encode()):
        assert rules.verdict(f"{directory}/{below}".encode()).ignored
