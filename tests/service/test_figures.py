"""Carriers' figures over a real socket: each meets what history knows to have been counted by its instant."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from simswitch.client import Client, OperatorClient
from simswitch.core import layout
from simswitch.core.commands import encode_iccid
from simswitch.history.schema import open_reader
from simswitch.v1 import caps_pb2 as pb
from simswitch.v1 import event_pb2, inventory_pb2, pool_pb2

from tests.service.serving import Serving, define, define_pool
from tests.service.test_calls import refusal
from tests.service.test_sims import MB, followed

CYCLE = inventory_pb2.CAP_WINDOW_KIND_CYCLE


def told(
    operator: OperatorClient,
    sims: list[int],
    carrier_bytes: list[int],
    as_of_s: int,
    *,
    dry_run: bool = False,
    by_imsi: bool = False,
) -> tuple[list[int], list[int]]:
    """Statuses and corrections."""
    request = pb.ImportCarrierUsageRequest(
        window=CYCLE,
        carrier_bytes=carrier_bytes,
        as_of_s=[as_of_s],
        dry_run=dry_run,
        iccid=[] if by_imsi else sims,
        imsi=sims if by_imsi else [],
    )
    answer = operator.caps.ImportCarrierUsage(request)
    return list(answer.status), list(answer.correction_bytes)


def test_a_figure_counts_with_what_was_counted_since_and_a_dry_run_takes_nothing(
    serving: Serving, pool: OperatorClient
) -> None:
    with Client(serving.address, access_server="as-01") as client:
        lease = client.allocate(1, "jp")
        as_of_s = serving.cell.call_read(lambda machine: machine.now_ms) // 1000
        assert refusal(lambda: told(pool, [encode_iccid(lease.iccid)], [1], as_of_s)).reason == "HISTORY_BEHIND"
        client.report_usage([1], [lease.epoch], [0], [30 * MB])
    followed(serving)
    index = serving.cell.call_read(lambda machine: machine.find_sim(encode_iccid(lease.iccid)))
    assert index is not None
    sim = serving.cell.call_read(lambda machine: machine.sim(index))
    # Nothing was counted by that instant, so all of it counts as used since.
    names = [sim["iccid"], encode_iccid("8999999999999999999"), sim["iccid"]]
    figures = [100 * MB, 1, -1]
    wanted = [layout.OK, layout.UNKNOWN_SIM, layout.NEGATIVE_USAGE]
    assert told(pool, names, figures, as_of_s, dry_run=True) == (wanted, [100 * MB, 0, 0])
    followed(serving)
    assert serving.cell.call_read(lambda machine: machine.sim(index))["used_cycle_bytes"] == 30 * MB
    assert serving.cell.call_read(lambda machine: machine.header())["figures_aside_count"] == 0
    assert told(pool, names, figures, as_of_s) == (wanted, [100 * MB, 0, 0])
    followed(serving)
    with closing(open_reader(serving.folder)) as history:
        kept = history.execute("SELECT iccid, bytes, status FROM set_aside ORDER BY status").fetchall()
    assert sorted(kept) == sorted([(names[1], 1, layout.UNKNOWN_SIM), (names[0], -1, layout.NEGATIVE_USAGE)])
    assert told(pool, [sim["imsi"]], [100 * MB], as_of_s, by_imsi=True) == ([layout.SAME], [100 * MB])
    after = serving.cell.call_read(lambda machine: machine.sim(index))
    assert (after["used_cycle_bytes"], after["counted_bytes"]) == (130 * MB, 30 * MB)
    summary = pool.pool.GetSummary(pool_pb2.GetSummaryRequest())
    assert (summary.corrections_count, summary.figures_aside_count, summary.subscribers_missed_count) == (1, 1, 0)
    followed(serving)
    assert told(pool, [sim["iccid"]], [5], as_of_s - 1)[0] == [layout.LATE]
    followed(serving)
    less = pb.ImportCarrierUsageRequest(
        window=CYCLE, iccid=[sim["iccid"]], carrier_bytes=[90 * MB], as_of_s=[as_of_s], dry_run=True
    )
    assert list(pool.caps.ImportCarrierUsage(less).lowered_bytes) == [10 * MB]


def test_what_does_not_fit_together_is_refused_as_a_whole(pool: OperatorClient) -> None:
    for request in (
        pb.ImportCarrierUsageRequest(window=CYCLE, iccid=[1], carrier_bytes=[1, 2], as_of_s=[1]),
        pb.ImportCarrierUsageRequest(window=CYCLE, iccid=[1], imsi=[1], carrier_bytes=[1], as_of_s=[1]),
        pb.ImportCarrierUsageRequest(window=CYCLE, iccid=[1], carrier_bytes=[1]),
        pb.ImportCarrierUsageRequest(window=CYCLE, iccid=[1], lot=["lot"], carrier_bytes=[1], as_of_s=[1]),
        pb.ImportCarrierUsageRequest(window=CYCLE, lot=["lot", "lot"], carrier_bytes=[1], as_of_s=[1]),
    ):
        assert refusal(partial(pool.caps.ImportCarrierUsage, request)).reason == "INVALID_ARGUMENT"


def test_a_figure_of_a_whole_pool_counts_with_what_its_sims_used_since(serving: Serving) -> None:
    with OperatorClient(serving.address) as operator:
        define(operator, 2)
        define_pool(operator, 6)
        with Client(serving.address, access_server="as-01") as client:
            leases = [client.allocate(terminal, "shared") for terminal in (1, 2)]
            as_of_s = serving.cell.call_read(lambda machine: machine.now_ms) // 1000
            for terminal, lease in enumerate(leases, 1):
                client.report_usage([terminal], [lease.epoch], [0], [terminal * 10 * MB])
        followed(serving)

        def told(lots: list[str], carrier_bytes: list[int], *, dry_run: bool = False) -> tuple[list[int], list[int]]:
            answer = operator.caps.ImportCarrierUsage(
                pb.ImportCarrierUsageRequest(
                    window=CYCLE, lot=lots, carrier_bytes=carrier_bytes, as_of_s=[as_of_s], dry_run=dry_run
                )
            )
            assert list(answer.iccid) == [0] * len(lots)
            followed(serving)
            return list(answer.status), list(answer.correction_bytes)

        def shown() -> pb.LotCap:
            (lot,) = operator.caps.ListLotCaps(pb.ListLotCapsRequest(lot="shared")).lots
            return lot.windows[0]

        # Of the hour that runs all that was used counts as used since; what of it is taken to be before straddles.
        names, wanted = ["shared", "nobody's", "shared"], [layout.OK, layout.UNKNOWN_LOT, layout.NEGATIVE_USAGE]
        assert told(names, [1_000 * MB, 1, -1], dry_run=True)[0] == wanted
        assert (shown().pool_used_bytes, shown().pool_as_of_ms) == (30 * MB, 0)
        assert told(names, [1_000 * MB, 1, -1])[0] == wanted
        cap = shown()
        assert (cap.pool_carrier_bytes, cap.pool_as_of_ms) == (1_000 * MB, as_of_s * 1000)
        own = 1_000 * MB - cap.pool_correction_bytes
        assert cap.pool_straddling_bytes == own < 30 * MB, "nothing of that hour had surely been used before"
        assert cap.pool_used_bytes == 1_030 * MB
        assert told(["shared"], [1_000 * MB]) == ([layout.SAME], [cap.pool_correction_bytes])
        with closing(open_reader(serving.folder)) as history:
            kept = history.execute("SELECT lot, iccid, bytes, status FROM set_aside").fetchall()
            ((lot, carrier_bytes),) = history.execute("SELECT lot, carrier_bytes FROM pool_corrections").fetchall()
        assert (kept, carrier_bytes) == ([(lot, 0, -1, layout.NEGATIVE_USAGE)], 1_000 * MB)
        events = next(iter(operator.events.WatchEvents(event_pb2.WatchEventsRequest(after=0, once=True)))).events
        told_of = [
            (event.lot_or_plan, event.correction_bytes, event.status)
            for event in events
            if event.kind in (event_pb2.EVENT_KIND_POOL_CORRECTED, event_pb2.EVENT_KIND_POOL_ASIDE)
        ]
        assert told_of == [("shared", cap.pool_correction_bytes, 0), ("shared", 0, layout.NEGATIVE_USAGE)]
        # Its carrier said more of one of its SIMs: the answer says how much counts beside what it said of all of them.
        of_sim = pb.ImportCarrierUsageRequest(
            window=CYCLE, iccid=[encode_iccid(leases[0].iccid)], carrier_bytes=[1_500 * MB], as_of_s=[as_of_s]
        )
        answer = operator.caps.ImportCarrierUsage(of_sim)
        assert ([int(status) for status in answer.status], list(answer.raised_bytes)) == ([layout.OK], [0])
        followed(serving)
        same = pb.ImportCarrierUsageRequest(window=CYCLE, lot=["shared"], carrier_bytes=[1_000 * MB], as_of_s=[as_of_s])
        answer = operator.caps.ImportCarrierUsage(same)
        assert [int(status) for status in answer.status] == [layout.SAME]
        assert list(answer.raised_bytes) == [shown().pool_raised_bytes]
        assert shown().pool_raised_bytes >= 500 * MB
