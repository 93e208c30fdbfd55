"""Known vulnerabilities, from a file of advisories and when nobody can be asked."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dependencies import audit
from dependencies.lock import DEVELOPMENT, read_lock

RELEASE = read_lock(DEVELOPMENT)[0]


def record(name: str, *events: dict[str, str], versions: tuple[str, ...] = ()) -> dict[str, Any]:
    affected = {
        "package": {"name": name, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
        "versions": list(versions),
    }
    return {"id": "PYSEC-1", "modified": "2026-02-01T00:00:00Z", "summary": "made up", "affected": [affected]}


@pytest.mark.parametrize(
    ("version", "reaches"),
    [("0.9", False), ("1.0", True), ("1.4.9", True), ("1.5", False), ("2.1", True), ("3", False)],
)
def test_a_range_ends_where_it_says(version: str, reaches: bool) -> None:
    events = [{"introduced": "2"}, {"last_affected": "2.1"}, {"introduced": "1.0"}, {"fixed": "1.5"}]
    known = audit.Advisories([record("Some_Package", *events, versions=("7",))])
    assert bool(known.of("some-package", version)) == reaches
    assert known.of("some-package", "7")
    assert not known.of("another", version)


def test_a_file_that_holds_no_advisories_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    for content in ("[", "[]", "[1]", '[{"affected": [{"package": {"ecosystem": "PyPI"}}]}]'):
        path.write_text(content)
        with pytest.raises(ValueError, match=str(path)):
            audit.Advisories.read(path)


def test_pip_audit_takes_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pip_audit", reason="`make audit` installs it")
    lock = tmp_path / "lock.txt"
    hashes = "".join(f" --hash=sha256:{digest}" for digest in RELEASE.hashes)
    lock.write_text(f"{RELEASE.name}=={RELEASE.version}{hashes}\n")
    path = tmp_path / "all.zip"
    for events, expected in (([{"introduced": "0"}], audit.VULNERABLE), ([{"introduced": "9999"}], audit.SOUND)):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("PYSEC-1.json", json.dumps(record(RELEASE.name, *events)))
        with audit.answering(audit.Advisories.read(path)) as address:
            words = ("--vulnerability-service", "osv", "--osv-url", address)
            assert audit.ask(lock, words) == expected
        assert ("PYSEC-1" in capsys.readouterr().out) == (expected == audit.VULNERABLE)
    # The database has gone.
    assert audit.ask(lock, words) == audit.NOT_ASKED
    said = capsys.readouterr().err
    assert "pip-audit: " in said
    assert "--advisories all.zip" in said
