"""The recipes of the README: each has its expected plan, layers and output beside it."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import PROJECT, Layerbuild

RECIPES = sorted(path.parent for path in (PROJECT / "recipes").glob("*/Dockerfile"))


@pytest.fixture
def expected(recipe: Path) -> Any:
    return yaml.safe_load((recipe / "expected.yaml").read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe(layerbuild: Layerbuild, recipe: Path, expected: Any) -> None:
    plan = layerbuild.json("plan", recipe)
    assert [{key: step[key] for key in ("instruction", "makes")} for step in plan["steps"]] == expected["plan"]
    assert [stage["stage"] for stage in plan["skipped"]] == expected.get("skipped", [])
    layerbuild.build(recipe, None, "-t", recipe.name)
    made = layerbuild.layers(recipe.name)[1:]
    assert [layer["instruction"] for layer in made] == [layer["instruction"] for layer in expected["layers"]]
    for layer, wanted in zip(made, expected["layers"], strict=True):
        assert entries(layerbuild, layer["digest"]) == wanted["entries"]
    assert layerbuild.run("run", "--rm", recipe.name).stdout == expected["run"]


def entries(layerbuild: Layerbuild, digest: str) -> list[str]:
    with tarfile.open(layerbuild.root / "blobs" / "sha256" / digest.partition(":")[2]) as tar:
        return [shown(member) for member in tar]


def shown(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return f"{member.name}/"
    return f"{member.name} -> {member.linkname}" if member.linkname else member.name


def test_the_recipes_that_the_readme_names_are_there() -> None:
    assert {path.name for path in RECIPES} >= {
        "textbook",
        "delete-hides-but-keeps-bytes",
        "opaque-directory",
        "order-and-cache",
        "hardlinks-and-copy-up",
        "metadata-makes-no-layer",
        "stages",
    }
