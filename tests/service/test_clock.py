"""The clock of a served cell: an operator confirms a jump, nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from simswitch.client import OperatorClient
from simswitch.core import commands
from simswitch.core.layout import FREEZE
from simswitch.v1 import pool_pb2 as pb

from tests.service.serving import Serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path)
    yield serving
    serving.end()


def test_an_operator_confirms_a_clock_that_jumped(served: Serving) -> None:
    served.cell.call(commands.run(FREEZE))
    with OperatorClient(served.address) as operator:
        assert operator.pool.GetSummary(pb.GetSummaryRequest()).frozen
        answer = operator.pool.ConfirmClock(pb.ConfirmClockRequest())
        assert answer.was_frozen
        assert answer.now_ms > 0
        assert not operator.pool.GetSummary(pb.GetSummaryRequest()).frozen
        assert not operator.pool.ConfirmClock(pb.ConfirmClockRequest()).was_frozen


def test_an_auditor_does_not_confirm_the_clock(served: Serving) -> None:
    served.cell.call(commands.run(FREEZE))
    with OperatorClient(served.address, actor="auditor:eve") as auditor:
        with pytest.raises(grpc.RpcError) as caught:
            auditor.pool.ConfirmClock(pb.ConfirmClockRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert auditor.pool.GetSummary(pb.GetSummaryRequest()).frozen
