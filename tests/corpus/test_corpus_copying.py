"""The cases of fsutil: symbolic modes, what a copy includes and excludes, and links among what it reads."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from corpus_rows import Row, corpus, perform

from layerbuild.build.chmod import Chmod
from layerbuild.build.context import ContextTree
from layerbuild.build.selecting import select
from layerbuild.errors import BuildError, Span
from layerbuild.image.config import RuntimeConfig
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.steps import ContextRoot, CopyStep, Origin, PathSource

SPAN = Span("Dockerfile", 1)


@corpus("fsutil/chmod_symbolic")
def test_symbolic_modes(row: Row) -> None:
    mode = Chmod.parse(row["mode"], span=SPAN)
    found = {name: f"{mode.apply(int(start, 8), is_folder='dir' in name):04o}" for name, start in row["start"].items()}
    assert found == row["result"]


@corpus("fsutil/copy_include_exclude")
def test_what_a_copy_takes(row: Row, tmp_path: Path) -> None:
    """A pattern that includes is a source of ``COPY --parents``."""
    for path in row["tree"]:
        (tmp_path / path).mkdir(parents=True) if path.endswith("/") else (tmp_path / path).touch()
    found: set[str] = set()
    for pattern in row["include"] or ["."]:
        source = PathSource(pattern)
        step = CopyStep(
            Origin(SPAN, "COPY", ""),
            RuntimeConfig(),
            "",
            ContextRoot(),
            (source,),
            "/",
            parents=True,
            exclude=tuple(row["exclude"]),
        )
        found |= taken(step, source, ContextTree(tmp_path, IgnoreRules()))
    assert sorted(found) == sorted(row["result"])


def taken(step: CopyStep, source: PathSource, tree: ContextTree) -> set[str]:
    try:
        matches = select(step, source, tree)
    except BuildError:  # COPY refuses a literal source that is not there
        return set()
    return {below.path.decode() for match in matches for below in match.below}


@corpus("fsutil/follow_links")
def test_links_lead_to_what_is_listed(row: Row, tmp_path: Path) -> None:
    """Nothing is sent here, so nothing is listed beforehand: but what a path means, links followed, is in the list."""
    perform(tmp_path, row["tree"])
    tree = ContextTree(tmp_path, IgnoreRules())
    for pattern in row["paths"]:
        found = (
            [str(path.relative_to(tmp_path)) for path in tmp_path.glob(pattern.strip("/"))] if "*" in pattern else []
        )
        for path in found or [pattern]:
            assert any(covers(listed, meant) for listed in row["result"] or [""] for meant in means(tree, path))


def means(tree: ContextTree, path: str) -> list[str]:
    try:
        return [tree.resolve(path.encode()).decode()]
    except BuildError as error:
        assert "too many links" in error.message
        return [path]


def covers(listed: str, path: str) -> bool:
    return listed in ("", ".", path) or fnmatch.fnmatch(path, listed) or path.startswith(f"{listed}/")
