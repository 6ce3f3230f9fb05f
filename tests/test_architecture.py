"""The import table of docs/design.md, read from that page and held against the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "layerbuild"


def allowed_imports() -> dict[str, set[str]]:
    """The table between the two marks in docs/design.md: chapter, and the chapters that it may import."""
    text = (ROOT / "docs/design.md").read_text()
    table = text.split("<!-- import table -->")[1]
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines() if "|" in line]
    return {row[0]: set(row[1].split()) - {"–"} for row in rows[2:]}


def chapter(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The chapters that a module imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = node.module == "layerbuild"
            names = [f"layerbuild.{alias.name}" if whole else str(node.module) for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("layerbuild.") and "__version__" not in name}
    return found - {chapter(path)}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    table = allowed_imports()
    name = chapter(path)
    assert name in table, f"{name} is not in the import table of docs/design.md"
    assert imported(path) <= table[name], f"{name} may import {sorted(table[name])}"


def test_only_the_command_line_prints_reads_the_environment_or_exits() -> None:
    for path in MODULES:
        if chapter(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit", "input"), f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in (("os", "environ"), ("os", "getenv"), ("sys", "exit")), (
                    f"{path}:{node.lineno}"
                )


def test_chapters_teach_and_hold_no_imports() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{path} has no docstring"
        assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], path
