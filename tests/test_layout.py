"""How the code is laid out: sizes that fit a screen, rooms that are on the map."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "resshift_cli"
FILES = sorted(
    path
    for folder in ("resshift_cli", "scripts", "tests")
    for path in (ROOT / folder).rglob("*.py")
)

LINES_OF_A_FILE, LINES_OF_A_BODY, LINES_OF_A_CLASS = 500, 60, 250


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def lines_of_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_and_what_it_defines_can_be_taken_in(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_OF_A_FILE
    for node in definitions(path):
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno < LINES_OF_A_CLASS, node.name
        else:
            assert lines_of_body(node) <= LINES_OF_A_BODY, node.name


@pytest.mark.parametrize("room", ["diffusion", "restoration", "weights"])
def test_who_calls_from_python_is_told_of_arguments(room: str) -> None:
    """Options stand in brackets behind them, or within a command."""
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                told = re.sub(r"`[^`]*`|\([^)]*(\)|$)", "", node.value)
                assert not re.search("--[a-z]", told), f"{named(path)}:{node.lineno}"


def test_every_module_is_on_the_map() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    missing = [module for module in modules if f"`{module.split('/')[-1]}`" not in page]
    assert not missing, f"docs/architecture.md does not name {sorted(missing)}"
