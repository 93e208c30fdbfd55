"""Single allocations that join, over both transports."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from simswitch.audit.attempts import Attempts
from simswitch.cell import Posted
from simswitch.core import layout
from simswitch.service import overload
from simswitch.service.call import Actor, Call
from simswitch.service.directory import Directory, Entity
from simswitch.service.joined import Joiner
from simswitch.service.share import Share
from simswitch.v1 import allocation_pb2 as pb
from simswitch.v1 import status_pb2

from tests.service.joining import HeldUp, allocating, single
from tests.service.serving import SIMS, Serving


def test_singles_that_join_are_answered_each_for_itself(
    serving: Serving, held_up: HeldUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than there are SIMs, from two access servers, unknown names among them; a batch of them is one run."""
    sequence = serving.cell.durable_sequence
    asked = [(terminal, "jp", f"as-0{terminal % 2 + 1}") for terminal in range(1, SIMS + 50)]
    asked[7] = (7, "nowhere", "as-01")
    asked[8] = (8, "jp", "nobody")
    came = itertools.count(1)
    all_came = threading.Event()
    join = Joiner.join

    def joined(*call: Any) -> Any:
        found = join(*call)
        if next(came) == len(asked):
            all_came.set()
        return found

    monkeypatch.setattr(Joiner, "join", joined)
    # They wait because they are held up, however long a busy machine takes to send them: none is to be shed for it.
    monkeypatch.setattr(overload, "_LEAST_S", 60.0)
    with grpc.insecure_channel(serving.address) as channel:
        call = allocating(channel)
        calls = [call.future(single(*one), timeout=30) for one in asked]
        assert all_came.wait(20)
        held_up.let_go()
        outcomes = [
            (one, found.exception() or pb.AllocateResponse.FromString(found.result()))
            for one, found in zip(asked, calls, strict=True)
        ]
    leases = [outcome.lease for _, outcome in outcomes if isinstance(outcome, pb.AllocateResponse)]
    refusals = {one: outcome for one, outcome in outcomes if not isinstance(outcome, pb.AllocateResponse)}
    assert len(leases) == SIMS - 1
    assert len({lease.iccid for lease in leases}) == SIMS - 1
    for one, outcome in outcomes:
        if one not in refusals:
            assert outcome.lease.terminal == one[0]
            assert outcome.status == status_pb2.STATUS_OK
    assert "market is called 'nowhere'" in str(refusals[asked[7]].details())
    assert "access server is called 'nobody'" in str(refusals[asked[8]].details())
    full = [refusal for one, refusal in refusals.items() if one not in asked[7:9]]
    assert {refusal.code() for refusal in full} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all(dict(refusal.trailing_metadata())["grpc-status-details-bin"] for refusal in full)
    # The workers had nothing else to do: far fewer records than calls.
    assert serving.cell.durable_sequence - sequence < len(asked) // 2


def test_a_deadline_among_singles_that_join_ends_only_its_own_call(serving: Serving, held_up: HeldUp) -> None:
    assert held_up
    with grpc.insecure_channel(serving.address) as channel:
        call = allocating(channel)
        short = [call.future(single(terminal), timeout=0.3) for terminal in (1, 3)]
        long = [call.future(single(terminal), timeout=30) for terminal in (2, 4)]
        assert {found.exception().code() for found in short} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        held_up.let_go()
        leases = [pb.AllocateResponse.FromString(found.result()).lease for found in long]
    assert [lease.terminal for lease in leases] == [2, 4]
    assert serving.cell.call_read(lambda machine: machine.header()["terminals_count"]) == 3


def test_singles_that_all_left_are_dropped(serving: Serving, held_up: HeldUp) -> None:
    with grpc.insecure_channel(serving.address) as channel:
        calls = [allocating(channel).future(single(terminal), timeout=30) for terminal in (1, 2)]
        held_up.wait_for(1)
        for call in calls:
            call.cancel()
        # The server hears of those that left in its own time.
        while not all(waiting.cancelled for waiting in list(serving.cell._queue)):
            threading.Event().wait(0.001)
        held_up.let_go()
    assert serving.cell.call_read(lambda machine: machine.header()["terminals_count"]) == 1


def test_who_joins_after_all_others_left_is_not_dropped() -> None:
    def find(kind: int, name: str) -> Entity:
        return Entity(1, kind, name, (), b"", 1)

    finished: list[Posted] = []
    joiner: Joiner[int] = Joiner(cast(Directory, SimpleNamespace(find=find, name=str)), finished.extend)
    call = Call(Actor(1, "operator:local", layout.Role.OPERATOR, -1, Share(0, 1, 1), Attempts(None), "claimed"), None)
    group = joiner.join(1, single(1), call)
    assert group is not None
    group.leave()
    assert group.cancelled
    assert joiner.join(2, single(2), call) is group
    assert not group.cancelled
    group.leave()
    assert group.cancelled
    assert joiner.close() == [group]
    assert joiner.close() == []
