"""Git repositories in a recipe (fact C38)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import RecipeError
from layerbuild.image.config import RuntimeConfig
from layerbuild.recipe.git import GitRef, read_git
from layerbuild.recipe.instructions.table import read_instruction
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import parse
from layerbuild.steps import CopyStep, GitSource, PathSource, Source, UrlSource


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("https://h/r.git#:sub", GitRef("https://h/r.git", "r", subdir="sub")),
        ("https://h/r.git#a%2Fb:c:d", GitRef("https://h/r.git", "r", ref="a/b", subdir="c:d")),
        ("HTTPS://h/r.git", GitRef("https://h/r.git", "r")),
        ("http://h/r.git", GitRef("http://h/r.git", "r", unencrypted=True)),
        ("ssh://git@h:2222/a/r#v1", GitRef("ssh://git@h:2222/a/r", "r", ref="v1")),
        ("https://h/r.git?tag=v1", GitRef("https://h/r.git", "r", ref="refs/tags/v1")),
        ("https://h/r.git?tag=v1#refs/tags/v1", GitRef("https://h/r.git", "r", ref="refs/tags/v1")),
        ("https://h/r.git?branch=refs/heads/x", GitRef("https://h/r.git", "r", ref="refs/heads/x")),
        ("https://h/r.git?commit=abc", GitRef("https://h/r.git", "r", checksum="abc")),
        ("https://h/r.git?keep-git-dir", GitRef("https://h/r.git", "r", keep_git_dir=True)),
        ("https://h/r.git?submodules=0", GitRef("https://h/r.git", "r", submodules=False)),
        ("me@h:a/r.git?ref=x&subdir=y", GitRef("me@h:a/r.git", "r", ref="x", subdir="y")),
        ("github.com/a/r#x", GitRef("github.com/a/r", "r", ref="x", like_local=True)),
        ("https://h:port/r.git", None),
        ("ftp://h/r.git", None),
        ("h:r.git", None),
        ("r.git", None),
        ("./me@h:r.git", None),
        ("", None),
    ],
)
def test_what_a_source_names(source: str, found: GitRef | None) -> None:
    assert read_git(source) == found


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("ref=a#b", 'ref conflicts: "b" vs "a"'),
        ("tag=a#a", 'ref conflicts: "a" vs "refs/tags/a"'),
        ("tag=a&branch=b", "branch conflicts with tag"),
        ("subdir=a#x:b", 'subdir conflicts: "b" vs "a"'),
        ("ref=", 'query "ref" has no value'),
        ("ref=a&ref=b", 'query "ref" has multiple values'),
        ("submodules=maybe", 'invalid submodules value: "maybe"'),
        ("mtime=now", 'invalid mtime value: "now" (must be "checkout" or "commit")'),
        ("nope", 'unexpected query "nope"'),
    ],
)
def test_queries_that_are_wrong(query: str, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        read_git(f"https://h/r.git?{query}")
    assert raised.value.message == message


@given(st.text() | st.text("githubcom:/@.#?&=%[]").map("https://{}".format) | st.text("a@:.#?=&").map("a@b:{}".format))
def test_any_text_is_a_repository_or_none_or_a_recipe_error(text: str) -> None:
    try:
        found = read_git(text)
    except RecipeError:
        return
    assert found is None or found.remote


def added(text: str) -> tuple[Source, ...]:
    step = read_instruction(parse(text).statements[0]).lower(Scope(RuntimeConfig())).step
    assert isinstance(step, CopyStep)
    return step.sources


def test_add_takes_what_the_query_says() -> None:
    url = "https://h/r.git?keep-git-dir=1&checksum=abc"
    assert added(f"ADD {url} /d") == (GitSource(url, keep_git_dir=True, checksum="abc"),)
    assert added(f"ADD --keep-git-dir --checksum=abc {url} /d") == (GitSource(url, True, "abc"),)
    assert added("ADD github.com/a/b https://h/r /d/") == (PathSource("github.com/a/b"), UrlSource("https://h/r"))


@pytest.mark.parametrize(
    ("flag", "query", "message"),
    [
        ("--keep-git-dir=false", "keep-git-dir", "inconsistent keep-git-dir configuration"),
        ("--keep-git-dir", "keep-git-dir=false", "inconsistent keep-git-dir configuration"),
        ("--checksum=abc", "checksum=abd", "checksum mismatch"),
        ("--keep-git-dir", "nope=1", "unexpected query"),
    ],
)
def test_add_refuses_a_query_that_says_otherwise(flag: str, query: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as raised:
        added(f"ADD {flag} https://h/r.git?{query} /d")
    assert raised.value.span is not None
