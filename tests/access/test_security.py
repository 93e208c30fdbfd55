"""SECURITY.md points to what shows each defence, and all of that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
HERE = "tests/access"


def test_every_test_that_it_names_exists() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    functions = {name for text in sources.values() for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    named = re.findall(r"`((?:\.\./|tests/)?[\w/]*test_\w+(?:\.py|…)?|tests/[\w/]+)`", TEXT)
    assert len(named) > 20
    for name in named:
        if name.endswith(".py") or "/" in name:
            places = [ROOT / name, ROOT / HERE / name]
            assert any(place.exists() for place in places), f"SECURITY.md names {name}, which is not there"
        else:
            found = [function for function in functions if function.startswith(name.rstrip("…"))]
            assert name in found or (name.endswith("…") and found), f"SECURITY.md names {name}, which is not there"


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)`", TEXT)) <= targets
