"""The wire and protobuf's own parser on generated, changed and kept messages; ``make fuzz`` tries a million."""

from __future__ import annotations

import signal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch.core.wire import Table

from tests.fuzz import messages, run
from tests.fuzz.agreement import SHAPES, Disagreement, Shape, compare, compare_encoded, compare_session

SOME_SHAPES = st.sampled_from(sorted(SHAPES)).map(SHAPES.__getitem__)
RANDOMS = st.randoms(use_true_random=False)


@pytest.mark.parametrize(
    ("name", "data"), [pytest.param(name, data, id=f"{name}: {why}") for name, data, why in run.corpus()]
)
def test_inputs_that_are_kept(name: str, data: bytes) -> None:
    run.check(name, data)


def test_the_corpus_says_why() -> None:
    assert all(why for _, _, why in run.corpus())


@settings(max_examples=1_500)
@given(SOME_SHAPES, RANDOMS)
def test_accepts_what_protobuf_accepts(shape: Shape, random: Random) -> None:
    compare(shape, messages.message(shape, random))


@settings(max_examples=300)
@given(SOME_SHAPES, st.binary(max_size=60))
def test_any_bytes(shape: Shape, data: bytes) -> None:
    compare(shape, data)


@settings(max_examples=500)
@given(SOME_SHAPES, RANDOMS)
def test_writes_what_protobuf_reads(shape: Shape, random: Random) -> None:
    compare(shape, compare_encoded(shape, *messages.columns(shape, random)))


@settings(max_examples=500)
@given(RANDOMS)
def test_members_of_a_oneof_as_protobuf_settles_them(random: Random) -> None:
    compare_session(messages.session(SHAPES, random))


def test_a_run_meets_both_answers_for_every_message() -> None:
    """Else the generator has drifted, and the fuzzing shows nothing."""
    tally = run.run(1, 0, 10_000, lambda _: None, lambda _name, _data: None)
    for name in (*SHAPES, run.SESSION, run.NUMBERED):
        tried = tally.accepted[name] + tally.refused[name]
        assert tally.accepted[name] > tried / 10, name
        assert tally.refused[name] > tried / 10, name


def test_a_wire_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that takes two columns for each other."""
    right = SHAPES["RenewRequest"]
    columns = [("terminal", 3, "fixed64", 8, True, None), ("epoch", 2, "fixed64", 8, True, None)]
    table = Table("RenewRequest", columns, [("access_server", 1, False)])  # type: ignore[arg-type]
    monkeypatch.setitem(SHAPES, "RenewRequest", Shape(table, right.message, right.columns, right.texts))
    monkeypatch.setattr(run, "_SHAPES", [SHAPES["RenewRequest"]])
    with pytest.raises(Disagreement, match="column terminal differs") as found:
        run.run(1, 0, 1_000, lambda _: None, lambda _name, _data: None)
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0), "a run that found something would end the process later"
    name, encoded = str(found.value).splitlines()[1].split()[:2]
    with pytest.raises(Disagreement):
        run.check(name, bytes.fromhex(encoded))
