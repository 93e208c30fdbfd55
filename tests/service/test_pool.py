"""What is left, by lot, supplier, class and market, over a real socket: the sums of what is left SIM by SIM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from simswitch.client import Client, OperatorClient
from simswitch.core.commands import encode_iccid
from simswitch.history.projector import pool_rows
from simswitch.history.schema import open_writer
from simswitch.v1 import inventory_pb2 as inv
from simswitch.v1 import pool_pb2 as pb
from simswitch.v1 import sim_pb2

from tests.service.serving import Serving
from tests.service.test_calls import refusal

AT_MS = 1_790_000_000_000
OTHERS = 30


def more(pool: OperatorClient) -> None:
    """A second lot, of another supplier and class, that serves a market of its own and the first one."""
    inventory = pool.inventory
    inventory.DefineSupplier(inv.DefineSupplierRequest(supplier=inv.Supplier(name="another")))
    inventory.DefinePlan(inv.DefinePlanRequest(plan=inv.Plan(name="endless")))
    inventory.DefineSimClass(inv.DefineSimClassRequest(sim_class=inv.SimClass(name="roaming")))
    lot = inv.Lot(name="another-lot", supplier="another", plan="endless", sim_class="roaming")
    inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    for name, classes in (("jp", ["class", "roaming"]), ("kr", ["roaming"])):
        inventory.DefineMarket(inv.DefineMarketRequest(market=inv.Market(name=name, sim_classes=classes)))
    numbers = range(1_000, 1_000 + OTHERS)
    request = inv.ImportSimsRequest(
        lots=["another-lot"],
        banks=["bank"],
        iccid=[2 * (10**15 + number) for number in numbers],
        imsi=[440_100_000_000_000 + number for number in numbers],
        slot=numbers,
    )
    inventory.ImportSims(iter([request]))


def look(serving: Serving) -> None:
    """What the follower does every minute."""
    connection = open_writer(serving.folder)
    for statement, row in serving.cell.call_read(lambda machine: pool_rows(machine, 20_000, AT_MS, 0, of_leases=True)):
        connection.execute(statement, row)
    connection.close()


def remaining(operator: OperatorClient, by: Any, size: int = 0) -> dict[str, pb.Remaining]:
    found: dict[str, pb.Remaining] = {}
    token = ""
    while True:
        page = operator.pool.ListRemaining(pb.ListRemainingRequest(by=by, page_size=size, page_token=token))
        found |= {each.name: each for each in page.remaining}
        token = page.next_page_token
        if not token:
            return found


def all_sims(operator: OperatorClient) -> list[sim_pb2.Sim]:
    return list(operator.inventory.ListSims(inv.ListSimsRequest(page_size=1_000)).sims)


def test_what_is_left_is_the_sum_over_the_sims(serving: Serving, pool: OperatorClient) -> None:
    more(pool)
    with Client(serving.address, access_server="as-01") as client:
        leases = client.allocate_many(np.arange(1, 9), "jp")
        client.report_usage(np.arange(1, 9), leases.epoch, [0] * 8, np.arange(1, 9) * 1_000_000)
    sims = all_sims(pool)
    sick = ((sim_pb2.HEALTH_THROTTLED, 100), (sim_pb2.HEALTH_QUARANTINED, 101), (sim_pb2.HEALTH_SUSPENDED, 205))
    for health, place in sick:
        said = inv.SetSimHealthRequest(iccid=[encode_iccid(sims[place].iccid)], health=health)
        pool.inventory.SetSimHealth(said)
    before = remaining(pool, pb.REMAINING_BY_LOT)
    assert [each.counted_ms for each in before.values()] == [0, 0]
    look(serving)
    sims = all_sims(pool)
    first, both = {"lot"}, {"lot", "another-lot"}
    for by, lots_of in (
        (pb.REMAINING_BY_LOT, {"lot": first, "another-lot": {"another-lot"}}),
        (pb.REMAINING_BY_SUPPLIER, {"wholesale": first, "another": {"another-lot"}}),
        (pb.REMAINING_BY_CLASS, {"class": first, "roaming": {"another-lot"}}),
        (pb.REMAINING_BY_MARKET, {"jp": both, "kr": {"another-lot"}}),
    ):
        found = remaining(pool, by, size=1)
        assert set(found) == set(lots_of)
        for name, lots in lots_of.items():
            check(found[name], [sim for sim in sims if sim.lot in lots])


def check(found: pb.Remaining, sims: list[sim_pb2.Sim]) -> None:
    def count(wanted: Callable[[sim_pb2.Sim], bool]) -> int:
        return sum(1 for sim in sims if wanted(sim))

    usable = [sim for sim in sims if sim.health in (sim_pb2.HEALTH_HEALTHY, sim_pb2.HEALTH_LOW)]
    free_healthy = count(lambda sim: sim.health == sim_pb2.HEALTH_HEALTHY and sim.occupancy == sim_pb2.OCCUPANCY_FREE)
    assert (found.sims_count, found.selectable_count, found.counted_ms) == (len(sims), free_healthy, AT_MS)
    assert found.headroom_bytes == sum(sim.headroom_bytes for sim in usable)
    assert found.unlimited_count == sum(not sim.HasField("headroom_bytes") for sim in usable)
    assert found.healthy_count == count(lambda sim: sim.health == sim_pb2.HEALTH_HEALTHY)
    assert found.throttled_count == count(lambda sim: sim.health == sim_pb2.HEALTH_THROTTLED)
    assert found.quarantined_count == count(lambda sim: sim.health == sim_pb2.HEALTH_QUARANTINED)
    assert found.others_count == count(lambda sim: sim.health == sim_pb2.HEALTH_SUSPENDED)
    assert found.assigned_count == count(lambda sim: sim.occupancy == sim_pb2.OCCUPANCY_ASSIGNED)
    assert found.used_cycle_bytes == sum(sim.used_cycle_bytes for sim in usable)


def test_each_party_is_told_its_part(serving: Serving, pool: OperatorClient) -> None:
    more(pool)
    look(serving)
    with OperatorClient(serving.address, actor="supplier:another") as supplier:
        assert set(remaining(supplier, pb.REMAINING_BY_LOT)) == {"another-lot"}
        assert set(remaining(supplier, pb.REMAINING_BY_SUPPLIER)) == {"another"}
        for by in (pb.REMAINING_BY_CLASS, pb.REMAINING_BY_MARKET):
            assert refusal(partial(remaining, supplier, by)).reason == "NOT_PERMITTED"
    with OperatorClient(serving.address, actor="technology-provider:somebody") as provider:
        assert set(remaining(provider, pb.REMAINING_BY_CLASS)) == {"class", "roaming"}
        for by in (pb.REMAINING_BY_LOT, pb.REMAINING_BY_SUPPLIER):
            assert refusal(partial(remaining, provider, by)).reason == "NOT_PERMITTED"
    assert refusal(partial(remaining, pool, pb.REMAINING_BY_UNSPECIFIED)).reason == "INVALID_ARGUMENT"
