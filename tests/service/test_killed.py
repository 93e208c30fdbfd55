"""A service that is killed in the middle of a job goes on with it: nobody is swapped twice, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from simswitch.client import AsyncClient, Holdings, OperatorClient, Order, Result, Session
from simswitch.demo.processes import Server
from simswitch.v1 import event_pb2, sim_pb2, swap_pb2

from tests.service.serving import define

TERMINALS = 80
KILLED_AT = (15, 45)
"""After so many swaps were carried out."""
SETTINGS = """
[capacity]
sims = 1_000
terminals = 1_000
orders = 1_000
[journal]
segment_bytes = 1_048_576
free_mark_bytes = 0
[follower]
enabled = false
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    config = tmp_path / "simswitch.toml"
    config.write_text(SETTINGS, encoding="utf-8")
    running = Server(tmp_path / "data", config, tmp_path / "server.log")
    running.start()
    yield running
    running.stop()


@pytest.mark.timeout(300)
def test_a_job_goes_on_after_each_kill(server: Server) -> None:
    with OperatorClient(server.address) as operator:
        define(operator)
    carried_out, iccids = asyncio.run(_killed(server))
    assert Counter(carried_out.values()) == Counter(dict.fromkeys(range(1, TERMINALS + 1), 1))
    with OperatorClient(server.address) as operator:
        (job,) = operator.swaps.ListJobs(swap_pb2.ListJobsRequest()).jobs
        assert (job.state, job.confirmed_count) == (swap_pb2.JOB_STATE_DONE, TERMINALS)
        assert (job.given_up_count, job.skipped_count) == (0, 0)
        # Who was told of nothing until now still hears of all of it, across both kills.
        request = event_pb2.WatchEventsRequest(after=0, once=True)
        told = [event for response in operator.events.WatchEvents(request) for event in response.events]
        assert [event.number for event in told] == list(range(1, len(told) + 1))
        confirmed = [event.terminal for event in told if event.kind == event_pb2.EVENT_KIND_CONFIRMED]
        assert sorted(confirmed) == list(range(1, TERMINALS + 1))
    # Each has a SIM of its own, and it is not the one that it had.
    assert len(set(iccids[1].values())) == TERMINALS
    assert not set(iccids[0].values()) & set(iccids[1].values())


async def _killed(server: Server) -> tuple[dict[int, int], list[dict[int, str]]]:
    """Runs an access server through a job and two kills; the terminal of each order that it carried out, and the SIMs
    before and after."""
    holdings = Holdings()
    carried_out: dict[int, int] = {}
    reached = asyncio.Condition()

    async def carry_out(order: Order) -> Result:
        await asyncio.sleep(0.02)
        async with reached:
            carried_out[order.number] = order.terminal
            reached.notify_all()
        return Result.DONE

    async def until(count: int) -> None:
        async with reached:
            await reached.wait_for(lambda: len(carried_out) >= count)

    iccids = []
    async with Session(server.address, "as-01", carry_out, holdings=holdings, pause_max_s=0.2) as session:
        serving = asyncio.create_task(session.run())
        async with AsyncClient(server.address, access_server="as-01", holdings=holdings) as client:
            await client.allocate_many(range(1, TERMINALS + 1), "jp")
        iccids.append({lease.terminal: lease.iccid for lease in holdings})
        await asyncio.to_thread(_order, server)
        for count in KILLED_AT:
            await until(count)
            server.kill()
            await asyncio.to_thread(server.start)
        await until(TERMINALS)
        await asyncio.to_thread(_done, server)
        iccids.append({lease.terminal: lease.iccid for lease in holdings})
        serving.cancel()
    return carried_out, iccids


def _order(server: Server) -> None:
    with OperatorClient(server.address) as operator:
        request = swap_pb2.CreateJobRequest(reason="all", healths=[sim_pb2.HEALTH_HEALTHY])
        operator.swaps.CreateJob(request)


def _done(server: Server) -> None:
    with OperatorClient(server.address) as operator:
        updates = operator.swaps.WatchJob(swap_pb2.WatchJobRequest(job=0, interval_ms=100))
        assert [update.job.state for update in updates][-1] == swap_pb2.JOB_STATE_DONE
