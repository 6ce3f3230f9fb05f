"""BuildKit's cases of variable expansion."""

from __future__ import annotations

import pytest
from corpus_rows import Row, corpus, differs

from layerbuild.errors import RecipeError
from layerbuild.recipe.words import expand, expand_words, expansion, pattern_to_regex, reverse_pattern


def environment(row: Row) -> dict[str, str]:
    pairs = [entry.partition("=")[::2] for entry in row.get("env_list", ())]
    return {**row.get("env", {}), **dict(pairs)}


def fails(row: Row) -> None:
    with pytest.raises(RecipeError) as raised:
        expand(row["input"], environment(row))
    if isinstance(row["error"], str):
        assert row["error"] in raised.value.message


@corpus("buildkit/shell/env_var")
def test_expansion(row: Row) -> None:
    if row.get("tag") == "W":
        differs("a case for Windows, where names of variables have no case")
    if "error" in row:
        fails(row)
    else:
        assert expand(row["input"], environment(row)) == row["expected"]


@corpus("buildkit/shell/words")
def test_words_after_expansion(row: Row) -> None:
    if "error" in row:
        fails(row)
    else:
        assert list(expand_words(row["input"], environment(row)) or ("",)) == row["words"]


@corpus("buildkit/shell/expand_matches")
def test_names_that_were_met(row: Row) -> None:
    if "error" in row:
        fails(row)
        return
    found = expansion(row["input"], environment(row))
    assert found.text == row["expected"]
    met = {"matched": sorted(found.used), "unmatched": sorted(found.unset)}
    assert met | {name: row[name] for name in met if name in row} == met


@corpus("buildkit/shell/mandatory")
def test_mandatory_variables(row: Row) -> None:
    if "error" in row:
        fails(row)
    else:
        assert expand(row["input"], environment(row)) == row["expected"]


@corpus("buildkit/shell/pattern_to_regex")
def test_patterns_as_regular_expressions(row: Row) -> None:
    if "error" in row:
        with pytest.raises(RecipeError):
            pattern_to_regex(row["pattern"])
        return
    forms = {name: regex for name, regex in row.items() if name.startswith("regex")}
    assert forms
    for name, regex in forms.items():
        parts = name.split("_")[1:]
        greedy = "greedy" in parts and not {"non", "not"} & set(parts)
        assert pattern_to_regex(row["pattern"], greedy=greedy, anchored="anchored" in parts) == regex


@corpus("buildkit/shell/reverse_pattern")
def test_reversed_patterns(row: Row) -> None:
    assert reverse_pattern(row["pattern"]) == row["reversed"]
