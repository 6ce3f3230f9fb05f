"""The recipes of the README: each has its expected plan, layers and output beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import PROJECT, Layerbuild

pytestmark = [pytest.mark.memory, pytest.mark.forked]

# The application is built on a Debian base: test_debian.py.
RECIPES = sorted(path.parent for path in (PROJECT / "recipes").glob("*/Dockerfile") if "debian" not in path.read_text())


@pytest.mark.host
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe(layerbuild: Layerbuild, recipe: Path) -> None:
    layerbuild.check_recipe(recipe)


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
