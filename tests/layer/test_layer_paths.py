"""Clean paths, links resolved inside the root, and the order of entries."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import BuildError
from layerbuild.layer.entry import sort_key
from layerbuild.layer.paths import clean, resolve

names = st.sampled_from([b"a", b"b", b"..", b".", b"", b"a-1", b".x"])


@given(st.lists(names).map(b"/".join))
def test_clean_paths_stay_inside_and_are_their_own_clean_form(path: bytes) -> None:
    cleaned = clean(path)
    assert clean(cleaned) == cleaned
    assert not set(cleaned.split(b"/")) & {b"..", b"."}
    assert not cleaned.startswith(b"/") and not cleaned.endswith(b"/") and b"//" not in cleaned


@pytest.mark.parametrize(
    ("links", "path", "expected"),
    [
        ({"foo": "/"}, "foo", ""),
        ({"foo": "../../"}, "foo/x", "x"),
        ({"fs/a/e": "../b"}, "fs/a/e/c/data", "fs/b/c/data"),
        ({"sym": "/idontexist/../slash", "slash": "/"}, "sym/file", "file"),
        ({"l": "missing/new"}, "l/x", "missing/new/x"),
        ({"l": "/etc/"}, "l/../y", "y"),
    ],
)
def test_links_are_resolved_inside_the_root(links: dict[str, str], path: str, expected: str) -> None:
    texts = {name.encode(): text.encode() for name, text in links.items()}
    assert resolve(path.encode(), texts.get) == expected.encode()


def test_the_last_link_is_kept_on_request() -> None:
    assert resolve(b"d/l", {b"d": b"/e", b"e/l": b"x"}.get, follow_last=False) == b"e/l"


def test_a_circle_of_links_is_an_error() -> None:
    with pytest.raises(BuildError, match="too many links"):
        resolve(b"a", {b"a": b"b", b"b": b"a"}.get)


@given(st.sets(st.sampled_from(["a", "a/x", "a-1", "a/x/y", "a.b", "b", "a0"])))
def test_the_order_is_that_of_a_walk(paths: set[str]) -> None:
    walked = sorted(paths, key=lambda path: Path(path).parts)
    assert [path.decode() for path in sorted((path.encode() for path in paths), key=sort_key)] == walked
