"""A real server whose SIMs need no rest, and a load that is small and quick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simswitch.client import OperatorClient
from simswitch.load.plan import Plan
from simswitch.v1 import pool_pb2, sim_pb2

from tests.service.serving import Serving, define

SIMS = 500


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "data")
    try:
        with OperatorClient(serving.address) as operator:
            define(operator, SIMS)
            configure(operator, pool_pb2.SETTING_COOLING_MS, 0)
        yield serving
    finally:
        serving.end()


def configure(operator: OperatorClient, setting: pool_pb2.Setting.ValueType, value: int) -> None:
    entry = pool_pb2.SettingValue(setting=setting, value=value)
    operator.pool.Configure(pool_pb2.ConfigureRequest(settings=[entry]))


def occupied(serving: Serving) -> int:
    """SIMs that a terminal has, or is to get."""
    with OperatorClient(serving.address) as operator:
        summary = operator.pool.GetSummary(pool_pb2.GetSummaryRequest())
    theirs = (sim_pb2.OCCUPANCY_ASSIGNED, sim_pb2.OCCUPANCY_RESERVED)
    return sum(found.count for found in summary.occupancies if found.occupancy in theirs)


def sessions(serving: Serving) -> dict[str, int]:
    """The access servers of loads, and their sessions."""
    with OperatorClient(serving.address) as operator:
        found = operator.pool.ListAccessServerStatuses(pool_pb2.ListAccessServerStatusesRequest()).statuses
    return {status.name: status.session for status in found if status.name.startswith("load-")}


@pytest.fixture
def plan() -> Callable[..., Plan]:
    def made(**changes: Any) -> Plan:
        values: dict[str, Any] = {
            "terminals": 200,
            "access_servers": 2,
            "duration_s": 1.0,
            "warm_up_s": 0.2,
            "dwell_s": 60.0,
            "away_s": 10.0,
            "renew_s": 10.0,
            "usage_s": 10.0,
            "rate": 400.0,
            "usage_bytes": 1_000,
            "batch": 1,
            "seed": 7,
        }
        return Plan(**{**values, **changes})

    return made
