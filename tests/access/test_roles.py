"""Each role on each call of the contract, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from simswitch.client import OperatorClient
from simswitch.client.errors import service_error
from simswitch.core import layout
from simswitch.core.roles import CALL_RIGHTS, ROLE_WORDS, Read, call_roles
from simswitch.service.server import Service

from tests.service.serving import Serving, define

NAMES = {"access-server": "as-01", "supplier": "wholesale"}
NOT_ITS_OWN = {("supplier", "InventoryService/GetLot")}
"""Allowed, but not for what an empty call names; a supplier isn't told whether such a lot exists."""


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("roles") / "data")
    try:
        with OperatorClient(serving.address) as operator:
            define(operator)
        yield serving
    finally:
        serving.end()


def service_of(serving: Serving) -> Service:
    assert serving.running is not None
    return serving.running.service


def reason(channel: Any, method: Any, actor: str) -> str:
    """Why an empty call is refused; empty: it is not."""
    metadata = (("simswitch-actor", actor),)
    try:
        if method.request_streaming:
            kind = channel.stream_stream if method.response_streaming else channel.stream_unary
            answer = kind(method.path, None, None)(iter(()), timeout=10, metadata=metadata)
        else:
            kind = channel.unary_stream if method.response_streaming else channel.unary_unary
            answer = kind(method.path, None, None)(b"", timeout=10, metadata=metadata)
        if method.response_streaming:
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        return service_error(error).reason
    return ""


@pytest.mark.parametrize("word", sorted(ROLE_WORDS))
def test_each_role_on_each_call(serving: Serving, word: str) -> None:
    actor = f"{word}:{NAMES.get(word, 'somebody')}"
    wrong = []
    with grpc.insecure_channel(serving.address) as channel:
        for method in service_of(serving).methods.values():
            call = method.path.rpartition(".")[2]
            allowed = ROLE_WORDS[word] in call_roles(call) and (word, call) not in NOT_ITS_OWN
            why = reason(channel, method, actor)
            if (why == "NOT_PERMITTED") == allowed:
                wrong.append((call, allowed, why))
    assert not wrong


def test_every_call_of_the_contract_has_exactly_one_row(serving: Serving) -> None:
    served = {method.path.rpartition(".")[2] for method in service_of(serving).methods.values()}
    assert served == set(CALL_RIGHTS)


def test_a_call_without_a_row_is_not_served() -> None:
    with pytest.raises(LookupError, match="CALL_RIGHTS"):
        call_roles("PoolService/SomethingNew")


def test_what_the_roles_must_never_have() -> None:
    """Pinned beside the table, so that a slip in it shows."""
    commands = {call: call_roles(call) for call in CALL_RIGHTS}
    gives_commands = {call for call, right in CALL_RIGHTS.items() if not isinstance(right, Read)}
    for call in gives_commands:
        assert layout.AUDITOR not in commands[call], call
        assert layout.ROLE_SUPPLIER not in commands[call], call
    learner = {call for call in CALL_RIGHTS if layout.LEARNER in commands[call]}
    # What it may say of health the core looks at: it retires nothing.
    assert learner == {
        "CapsService/SetCaps",
        "CapsService/TellCapShifts",
        "CapsService/ListLotCaps",
        "InventoryService/SetSimHealth",
        "InventoryService/RetireSims",
    }
    brakes = {call for call in gives_commands if layout.TECHNOLOGY_PROVIDER in commands[call]}
    assert {"SwapService/StopAllSwaps", "SwapService/PauseJob"} <= brakes
    assert not {"SwapService/CreateJob", "SwapService/LiftStop", "InventoryService/DefineLot"} & brakes
    for call in CALL_RIGHTS:
        if layout.ROLE_ACCESS_SERVER in commands[call]:
            assert not call.startswith("SwapService/"), call
