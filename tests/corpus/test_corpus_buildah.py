"""buildah's conformance cases. It has no goldens: its suite compares with docker. What a row says is held: whether the
build succeeds, the line at which it fails, and what the steps print. The recipes assert the rest in RUN."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_bases import NAMES
from corpus_bench import Bench, fill
from corpus_rows import CORPUS, Row, corpus, differs

pytestmark = pytest.mark.forked

_DATA = CORPUS / "buildah" / "conformance" / "testdata"
_MTIME = 1485449953  # what the suite gives all that it copies


@corpus("buildah/conformance/cases")
def test_conformance(row: Row, bench: Bench) -> None:
    _refuse(row)
    context = _context(row, bench.folder / "context")
    outcome = bench.build(*_options(row, context), context)
    if "should_fail_at_line" in row:
        assert outcome.code != 0
        assert outcome.shows(row["should_fail_at_line"]), outcome.text
        # BuildKit says of a file that is not there no more than `not found`.
        assert re.search(f"{row.get('failure_regex', '')}|not found", outcome.text), outcome.text
        return
    if outcome.misses(context) or "can't fetch https://" in outcome.text:
        pytest.skip("corpus absent: a file of the case that is made, or fetched, when its suite runs")
    assert outcome.code == 0, outcome.text
    for key in ("buildah_regex", "buildah_err_regex"):
        assert re.search(row.get(key, ""), outcome.text), outcome.text


def _refuse(row: Row) -> None:
    if "transient_mounts" in row:
        differs("volumes that the caller mounts while it builds: here RUN --mount and --build-context are for that")
    foreign = [base for base in row["bases"] if "/" in base and "$" not in base and base not in NAMES]
    if foreign:
        pytest.skip(f"corpus absent: base image {', '.join(foreign)}")
    for name in (row.get("context_dir"), row.get("dockerfile")):
        if name and not (_DATA / name).exists():
            pytest.skip(f"corpus absent: {name}")


def _context(row: Row, folder: Path) -> Path:
    """The folder of the case, copied, with its edits."""
    if "context_dir" in row:
        shutil.copytree(_DATA / row["context_dir"], folder, symlinks=True)
    else:
        folder.mkdir()
    fill(folder, ({"mtime": _MTIME, **edit} for edit in row.get("context_edits", ())))
    return folder


def _options(row: Row, context: Path) -> Iterator[str | Path]:
    yield from ("-f", _recipe(row, context))
    for name, value in row.get("build_args", {}).items():
        yield from ("--build-arg", f"{name}={value}")


def _recipe(row: Row, context: Path) -> Path:
    """The recipe: given in words, in the context, or beside it."""
    if "dockerfile_contents" in row:
        recipe = context.parent / "Dockerfile"
        recipe.write_text(row["dockerfile_contents"])
        return recipe
    if "context_dir" in row and Path(row["dockerfile"]).is_relative_to(row["context_dir"]):
        return context / Path(row["dockerfile"]).relative_to(row["context_dir"])
    return _DATA / str(row["dockerfile"])
