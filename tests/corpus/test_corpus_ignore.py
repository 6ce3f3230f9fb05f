"""The cases of moby/patternmatcher, and of build contexts with ignore files from buildah."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from pathlib import Path

import pytest
from corpus_rows import CORPUS, Row, corpus, rows

from layerbuild.build.context import ContextTree, ignore_rules
from layerbuild.errors import RecipeError
from layerbuild.layer.entry import Kind
from layerbuild.recipe.ignore import IgnoreRules, read_pattern, to_regex


def rules(patterns: list[str]) -> IgnoreRules:
    return IgnoreRules(tuple(read_pattern(pattern.strip()) for pattern in patterns))


@corpus("patternmatcher/match")
def test_matches(row: Row) -> None:
    path = posixpath.normpath(row["path"]).strip("/").encode()
    if "error" in row:
        with pytest.raises(RecipeError, match=row["error"]):
            rules(row["patterns"]).verdict(path)
    else:
        assert rules(row["patterns"]).verdict(path).ignored is row["match"]


@corpus("patternmatcher/clean")
def test_cleaned_patterns(row: Row) -> None:
    if "error" in row:
        with pytest.raises(RecipeError):
            rules(row["patterns"])
        return
    found = rules([pattern for pattern in row["patterns"] if pattern.strip()])
    assert found.has_exceptions is row["exclusions"]


# The kinds are shortcuts of that implementation; what they promise holds for the pattern as an expression.
_PROMISES = {
    "exactMatch": lambda pattern: (pattern, pattern + "x"),
    "prefixMatch": lambda pattern: (pattern.removesuffix("**") + "any/x", "x" + pattern),
    "suffixMatch": lambda pattern: ("any/x" + pattern.removeprefix("**"), pattern.removeprefix("**") + "/x"),
}


@corpus("patternmatcher/compile")
def test_patterns_as_expressions(row: Row) -> None:
    regex = to_regex(posixpath.normpath(row["pattern"]))
    if "regex" in row:
        assert f"^{regex}$" == row["regex"]
        return
    matches, _ = _PROMISES[row["kind"]](row["pattern"])
    assert re.fullmatch(regex, matches)
    if row["kind"] == "exactMatch":
        assert not re.fullmatch(regex, row["pattern"] + "x")


@corpus("patternmatcher/ignorefile")
def test_ignore_files(row: Row) -> None:
    if "error" in row:
        with pytest.raises(RecipeError):
            IgnoreRules.parse(row["content"])
        return
    found = IgnoreRules.parse(row["content"]).patterns
    assert [f"{'!' * pattern.exception}{pattern.glob}" for pattern in found] == row["patterns"]


@corpus("buildah/conformance/dockerignore_context_paths")
def test_what_of_a_context_is_seen(row: Row, tmp_path: Path) -> None:
    known = {case["n"]: case for case in rows("buildah/conformance/cases")}
    if row["case"] not in known:
        pytest.skip(f"corpus absent: case {row['case']} of buildah/conformance/cases")
    context = made(known[row["case"]], tmp_path / "context")
    tree = ContextTree(context, ignore_rules(context, None))
    assert walked(tree, b"") == sorted(row["visible_context_paths"])


def made(case: Row, context: Path) -> Path:
    """The case's context, in a copy."""
    shutil.copytree(CORPUS / "buildah/conformance/testdata" / case["context_dir"], context, symlinks=True)
    if "dockerfile_contents" in case:
        (context / "Dockerfile").write_text(case["dockerfile_contents"])
    for edit in case.get("context_edits", ()):
        path = context / edit["path"]
        if edit["type"] == "dir":
            path.mkdir(exist_ok=True)
        elif edit["type"] == "symlink":
            path.symlink_to(edit["target"])
        else:
            path.write_text(edit["content"])
        os.chmod(path, int(edit.get("mode", "0755"), 8) | 0o400, follow_symlinks=edit["type"] == "symlink")
    return context


def walked(tree: ContextTree, folder: bytes) -> list[str]:
    found: list[str] = []
    for node in tree.children(folder):
        path = node.path.decode()
        is_folder = node.entry.kind is Kind.DIRECTORY
        found += [f"{path}/", *walked(tree, node.path)] if is_folder else [path]
    return sorted(found)
