"""Every invariant has a test that names it, and every folder of tests a row that says what it shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent


def named_invariants() -> dict[str, list[str]]:
    """By invariant: the test functions whose name or docstring names it."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            words = (ast.get_docstring(node) or "") + " " + node.name.upper().replace("_", " ")
            for number in set(re.findall(r"\bI(\d+)\b", words)):
                found.setdefault(f"I{number}", []).append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


@pytest.mark.parametrize("invariant", [f"I{number}" for number in range(1, 11)])
def test_an_invariant_has_a_test_that_names_it(invariant: str) -> None:
    assert named_invariants().get(invariant), f"no test names {invariant}"


def test_the_readme_says_what_each_folder_shows() -> None:
    folders = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob("*/test_*.py")}
    rows = [
        line.split("|")[1] for line in (TESTS / "README.md").read_text(encoding="utf-8").splitlines() if "|" in line
    ]
    told = [name for row in rows for name in re.findall(r"`(\w+)/`", row)]
    assert sorted(told) == sorted(folders)
