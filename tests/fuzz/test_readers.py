"""Some inputs of each reader; ``make fuzz-readers`` tries a million, under the sanitizers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.readers import SEED, TARGETS, kept, made, tried
from tests.fuzz.watch import LOOKS, Grown, Watch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_are_read_and_others_read_or_refused(name: str) -> None:
    assert all(tried(name, data) for data in TARGETS[name].sound())
    answers = {tried(name, made(name, SEED, number)) for number in range(150)}
    assert False in answers


@pytest.mark.parametrize("name", [name for name in TARGETS if kept(name)])
def test_what_is_kept_is_read_or_refused(name: str) -> None:
    """Among it what was a fault once."""
    answers = [tried(name, data) for data in kept(name)]
    assert answers.count(False) > 0


def test_an_input_that_comes_to_no_end_is_a_fault() -> None:
    """In C too, where no handler of Python's would run."""
    code = "from tests.fuzz import watch; watch.HANG_S = 0.2; watch.Watch(1).begin(); sum(range(1 << 60))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == -signal.SIGPROF
    assert "Current thread" in found.stderr


def test_memory_that_grows_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100.0 + 5 * number for number in range(LOOKS)])
    monkeypatch.setattr("tests.fuzz.watch.resident_mb", lambda: next(sizes))

    def run() -> None:
        with Watch(LOOKS) as watch:
            for _ in range(LOOKS):
                watch.begin()

    with pytest.raises(Grown, match=r"222 MB .* 272"):
        run()
