"""The page of traps names tests: each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "traps.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def lines() -> list[str]:
    """The lines of the tables that name a trap."""
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [line for line in table if not line.startswith(("| Trap |", "|---"))]


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def unheld(line: str) -> str:
    """Why a line holds nothing; empty where every test that it names is there."""
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if len(cells) != 3 or not all(cells):
        return "it needs a trap, what goes wrong, and a test"
    named = [NAMED.fullmatch(one.strip()) for one in cells[2].split("<br>")]
    if not all(named):
        return "its tests are not written as `tests/file.py::test_name`"
    for found in named:
        path, name = found.groups()  # type: ignore[union-attr]
        if not (ROOT / path).is_file() or name not in names_in(path):
            return f"there is no {path}::{name}"
    return ""


@pytest.mark.parametrize("line", lines(), ids=lambda line: line.split("|")[1].strip()[:50])
def test_every_trap_is_held_by_tests_that_exist(line: str) -> None:
    assert not unheld(line), line


def test_the_page_has_traps_and_the_check_sees_what_is_missing() -> None:
    assert len(lines()) > 30
    here = "tests/architecture/test_traps.py"
    assert not unheld(f"| a | b | `{here}::test_every_trap_is_held_by_tests_that_exist` |")
    assert "there is no" in unheld(f"| a | b | `{here}::test_of_nothing` |")
    assert "there is no" in unheld("| a | b | `tests/nowhere.py::test_a` |")
    assert "not written" in unheld("| a | b | a test somewhere |")
    assert "needs" in unheld("| a | b | |")
