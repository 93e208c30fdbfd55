"""Some inputs of each reader; ``make fuzz-readers`` tries a million, under the sanitizers."""

from __future__ import annotations

import pytest

from tests.fuzz.readers import SEED, TARGETS, kept, made, tried
from tests.fuzz.watch import LOOKS, Grown, Watch


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_are_read_and_others_read_or_refused(name: str) -> None:
    assert all(tried(name, data) for data in TARGETS[name].sound())
    answers = {tried(name, made(name, SEED, number)) for number in range(150)}
    assert False in answers


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_is_read_or_refused(name: str) -> None:
    """Among it what was a fault once."""
    answers = [tried(name, data) for data in kept(name)]
    assert answers.count(False) > 0


def test_memory_that_grows_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100.0 + 5 * number for number in range(LOOKS)])
    monkeypatch.setattr("tests.fuzz.watch.resident_mb", lambda: next(sizes))
    watch = Watch(LOOKS)
    for _ in range(LOOKS):
        watch.begin()
    with pytest.raises(Grown, match=r"222 MB .* 272"):
        watch.end()
