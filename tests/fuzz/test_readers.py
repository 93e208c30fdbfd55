"""Some inputs of each reader; ``make fuzz-readers`` tries a million, under the sanitizers."""

from __future__ import annotations

import pytest

from tests.fuzz.readers import SEED, TARGETS, made, tried

# Each was a fault once.
KEPT = [("description", 128), ("snapshot", 5305)]


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_are_read_and_others_read_or_refused(name: str) -> None:
    assert all(tried(name, data) for data in TARGETS[name].sound())
    answers = {tried(name, made(name, SEED, number)) for number in range(150)}
    assert False in answers


@pytest.mark.parametrize(("name", "number"), KEPT)
def test_what_was_a_fault_is_refused(name: str, number: int) -> None:
    assert not tried(name, made(name, SEED, number))
