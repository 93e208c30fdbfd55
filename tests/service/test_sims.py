"""One SIM explained over a real socket: from its import over a throttle, a swap and a reset to its trust."""

from __future__ import annotations

import numpy as np
from simswitch.caps.observer import Observer
from simswitch.client import Client, OperatorClient, Result, SessionThread
from simswitch.core import commands, layout
from simswitch.core.commands import encode_iccid
from simswitch.history.projector import Projector
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.v1 import event_pb2, inventory_pb2, sim_pb2, swap_pb2
from simswitch.v1 import sim_service_pb2 as pb

from tests.service.serving import Serving
from tests.service.test_calls import refusal

MB = 1_000_000
PERSON = 900
FIT = (sim_pb2.OCCUPANCY_FREE, sim_pb2.HEALTH_HEALTHY)


def followed(serving: Serving) -> None:
    """What was durable stands in history."""
    folder = serving.folder
    settings = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9)
    following = Follower(
        RealDisk(folder), settings=settings, readers=[lambda: Projector(folder), lambda: Observer(folder)]
    )
    following.finish(read_on=True)
    following.close()


def explained(operator: OperatorClient, iccid: str) -> pb.ExplainSimResponse:
    return operator.sims.ExplainSim(pb.ExplainSimRequest(iccid=iccid))


def report(client: Client, terminal: int, epoch: int, total: int, kbps: int = 0) -> None:
    fared = {"span_ms": [1_000], "demand_permille": [1_000]}
    statuses = client.report_usage([terminal], [epoch], [0], [total], goodput_kbps=[kbps], **fared)
    assert statuses.tolist() == [layout.OK]


def test_a_sim_is_explained_from_its_throttle_to_its_trust(serving: Serving, pool: OperatorClient) -> None:
    with (
        Client(serving.address, access_server="as-01") as client,
        SessionThread(serving.address, "as-01", lambda _: Result.DONE) as session,
    ):
        session.serving(20)
        serving.cell.call(commands.run(layout.CONFIGURE, setting=layout.COOLING_MS, value=0))
        lease = client.allocate(1, "jp", subscriber=PERSON)
        report(client, 1, lease.epoch, 30 * MB)
        sick = explained(pool, lease.iccid)
        # Without history nothing of the past, and why.
        assert "no history yet" in sick.history_missing
        assert (sick.holder.terminal, sick.holder.subscriber, sick.holder.epoch) == (1, PERSON, lease.epoch)
        assert (sick.holder.access_server, sick.holder.market, sick.holder.preference) == ("as-01", "jp", 1)
        assert sick.windows[0].used_bytes == 30 * MB
        assert sick.sim.headroom_bytes == (100 << 30) - 30 * MB
        assert (sick.carrier, sick.lot.supplier, sick.HasField("tier")) == ("carrier", "wholesale", False)
        said = inventory_pb2.SetSimHealthRequest(
            iccid=[encode_iccid(lease.iccid)],
            health=sim_pb2.HEALTH_THROTTLED,
            goodput_kbps=[128],
            windows_count=[4],
            confidence_permille=[970],
        )
        pool.inventory.SetSimHealth(said)
        job = pool.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="slow", terminal=[1])).job.number
        watched = swap_pb2.WatchJobRequest(job=job, interval_ms=100)
        assert [reply.job.confirmed_count for reply in pool.swaps.WatchJob(watched)][-1] == 1
        moved = client.allocate(1, "jp", subscriber=PERSON)
        report(client, 1, moved.epoch, 7 * MB)
        followed(serving)
        source, target = explained(pool, lease.iccid), explained(pool, moved.iccid)
        today = str(np.datetime64("today", "D"))
        assert [(use.day, use.terminal, use.subscriber, use.bytes) for use in source.uses] == [
            (today, 1, PERSON, 30 * MB)
        ]
        assert [(use.bytes, use.first_ms) for use in target.uses] == [(7 * MB, target.holder.used_since_ms)]
        (away,), (here,) = source.swaps, target.swaps
        assert (away.away, away.other_iccid, away.result) == (True, moved.iccid, event_pb2.EVENT_KIND_CONFIRMED)
        assert (here.away, here.other_iccid, here.job) == (False, lease.iccid, job)
        assert [
            (each.health, each.actor, each.goodput_kbps, each.windows_count, each.confidence_permille)
            for each in source.healths
        ] == [(sim_pb2.HEALTH_THROTTLED, "operator:local", 128, 4, 970)]
        # Its window starts anew: it comes back on probation, and whoever has it next shows that it is fast.
        lot = serving.cell.call_read(lambda machine: machine.entity_index(layout.LOT, "lot") or 0)
        serving.cell.call(commands.run(layout.SCHEDULE, lot=lot, window=layout.WINDOW_CYCLE, at_ms=1, spread_ms=0))
        # Its rest ends with a turn of the wheel, the reset with a walk.
        while (waits := explained(pool, lease.iccid).sim) and (waits.occupancy, waits.health) != FIT:
            serving.cell.call(commands.run(layout.TICK))
        others = np.arange(2, 2 + 199)
        leases = client.allocate_many(others, "jp", expected_bytes=1)
        doubted = explained(pool, lease.iccid)
        assert doubted.sim.on_probation
        listed = pool.inventory.ListSims(inventory_pb2.ListSimsRequest(on_probation=True)).sims
        assert [sim.iccid for sim in listed] == [lease.iccid]
        place = others.tolist().index(doubted.holder.terminal)
        report(client, doubted.holder.terminal, int(leases.epoch[place]), 9_000 * 125, kbps=9_000)
        followed(serving)
        trusted = explained(pool, lease.iccid)
        assert not trusted.sim.on_probation
        assert [(each.terminal, each.goodput_kbps) for each in trusted.trusts] == [(doubted.holder.terminal, 9_000)]


def test_a_supplier_is_told_of_its_own_sims_and_of_no_person(serving: Serving, pool: OperatorClient) -> None:
    pool.inventory.DefineSupplier(
        inventory_pb2.DefineSupplierRequest(supplier=inventory_pb2.Supplier(name="somebody-else"))
    )
    with Client(serving.address, access_server="as-01") as client:
        lease = client.allocate(1, "jp", subscriber=PERSON)
        report(client, 1, lease.epoch, 3 * MB)
    followed(serving)
    with OperatorClient(serving.address, actor="supplier:wholesale") as supplier:
        found = explained(supplier, lease.iccid)
        assert [(use.terminal, use.subscriber, use.bytes) for use in found.uses] == [(0, 0, 3 * MB)]
        assert not found.HasField("holder")
        assert not found.sim.HasField("terminal")
        # Whether a SIM that is not there would be somebody else's it is not told.
        assert refusal(lambda: explained(supplier, "8981999999999999994")).reason == "NOT_PERMITTED"
    with OperatorClient(serving.address, actor="supplier:somebody-else") as other:
        assert refusal(lambda: explained(other, lease.iccid)).reason == "NOT_PERMITTED"
    with OperatorClient(serving.address, actor="technology-provider:somebody") as provider:
        assert refusal(lambda: explained(provider, lease.iccid)).reason == "NOT_PERMITTED"
    assert refusal(lambda: explained(pool, "12")).reason == "INVALID_ARGUMENT"
    assert refusal(lambda: explained(pool, "8981999999999999994")).reason == "UNKNOWN_SIM"
