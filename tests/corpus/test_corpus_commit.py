"""buildah's cases of committing a container, as far as there is the like here: the configuration that a container was
given is that of a base, and the changes are instructions upon it. What a change says counts; the rest is kept."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from corpus_bases import NAMES
from corpus_bench import Bench
from corpus_rows import Row, corpus

pytestmark = pytest.mark.forked

Config = dict[str, Any]


@corpus("buildah/conformance/commit_cases")
def test_commit(row: Row, bench: Bench) -> None:
    base, given = row["baseImage"], _durations(row.get("config", {}))
    if base not in NAMES:
        pytest.skip(f"corpus absent: base image {base}")
    changes = [*row.get("changes", ()), *row.get("derivedChanges", ())]
    plain = _built(bench, "plain", base, [])
    changed = _built(bench, "changed", base, changes)
    _configure(bench, base, given)
    found = _built(bench, "found", "configured", changes)
    assert "OnBuild" not in found  # the build that comes next has carried them out
    for key, value in given.items():
        if key != "OnBuild":
            assert _sorted(found[key]) == _sorted(_merged(value, plain.get(key), changed.get(key))), key


def _durations(value: Any) -> Any:
    """The row's value with Go's durations as nanoseconds."""
    if isinstance(value, dict):
        return {key: _durations(each) for key, each in value.items()}
    found = re.fullmatch(r"(\d+) \* time\.Second", value) if isinstance(value, str) else None
    return int(found[1]) * 10**9 if found else value


def _merged(given: Any, plain: Any, changed: Any) -> Any:
    """What remains of ``given`` when the changes have made ``changed`` of ``plain``: sets are united."""
    if isinstance(given, dict) and "Test" not in given:
        return {**given, **(changed or {})}
    if isinstance(given, list) and all("=" in each for each in given):
        names = {each.partition("=")[0] for each in changed}
        return [each for each in given if each.partition("=")[0] not in names] + changed
    return given if changed == plain else changed


def _sorted(value: Any) -> Any:
    """The variables in one order: that is a base's here, and a container's there."""
    return sorted(value) if isinstance(value, list) and all("=" in each for each in value) else value


def _built(bench: Bench, name: str, base: str, changes: list[str]) -> Config:
    context = bench.context(name, [])
    (context / "Dockerfile").write_text("\n".join([f"FROM {base}", *changes, ""]))
    outcome = bench.build(context)
    assert outcome.code == 0, outcome.text
    found: Config = bench.config(outcome.image_id)["config"]
    return found


def _configure(bench: Bench, base: str, given: Config) -> None:
    """Import ``base`` as ``configured``, with ``given`` in its configuration."""
    context, layout = bench.context("base", []), bench.folder / "layout"
    (context / "Dockerfile").write_text(f"FROM {base}\n")
    assert bench.build("-o", f"type=oci,tar=false,dest={layout}", context).code == 0
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_text())
    config = json.loads(_blob(layout, manifest["config"]["digest"]).read_text())
    config["config"] |= given
    manifest["config"] |= _put(layout, config)
    index["manifests"] = [{"mediaType": manifest["mediaType"], **_put(layout, manifest)}]
    (layout / "index.json").write_text(json.dumps(index))
    bench.layerbuild("import", "--tag", "configured", layout)


def _put(layout: Path, value: Any) -> dict[str, Any]:
    """Write a blob; its digest and size."""
    data = json.dumps(value).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _blob(layout, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.partition(":")[2]
