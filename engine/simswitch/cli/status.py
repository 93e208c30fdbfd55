"""``simswitch status``: the pool, the access servers and the jobs at a glance."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from simswitch.cli.amounts import bytes_text, counted, instant_text
from simswitch.cli.caps import ENDLESS_DO, PREPAID_DO, unfit_text
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show, table

if TYPE_CHECKING:
    from simswitch.client import OperatorClient

LOTS_NAMED = 8


def status(
    address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show the pool, the access servers and the jobs at a glance.

    The pool by health and occupancy, by market, class, lot and bank; access servers with window and gate.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import pool_pb2, swap_pb2

    with connected(*target(config, address, actor)) as service:
        summary = plain(service.pool.GetSummary(pool_pb2.GetSummaryRequest(), timeout=10))
        servers = [
            plain(entry)
            for entry in pages(
                service.pool.ListAccessServerStatuses, pool_pb2.ListAccessServerStatusesRequest, "statuses"
            )
        ]
        # By class, since each SIM has one, and whoever sees the pool sees classes.
        summary["probation_count"], summary["probation_ms"] = _probation(service)
        summary["endless_lots"], summary["spent_lots"], unfit = _lots(service)
        summary["unfit_lots"] = unfit
        jobs = [plain(entry) for entry in pages(service.swaps.ListJobs, swap_pb2.ListJobsRequest, "jobs")]
    if json:
        print_json({"summary": summary, "access_servers": servers, "jobs": jobs})
    else:
        show(*described(summary, servers, jobs))


def _probation(service: OperatorClient) -> tuple[int | None, int]:
    """SIMs that were slowed before their last reset and not seen fast since, and when that was counted. None: never."""
    from simswitch.cli.messages import pages
    from simswitch.v1 import pool_pb2

    def request(**page: Any) -> pool_pb2.ListRemainingRequest:
        return pool_pb2.ListRemainingRequest(by=pool_pb2.REMAINING_BY_CLASS, **page)

    counted = [each for each in pages(service.pool.ListRemaining, request, "remaining") if each.counted_ms]
    if not counted:
        return None, 0
    return sum(each.probation_count for each in counted), min(each.counted_ms for each in counted)


def _lots(service: OperatorClient) -> tuple[list[str] | None, list[str] | None, list[str] | None]:
    """Lots with slowed SIMs that no reset is known to bring back, and how many: those that are tried, and prepaid ones;
    and those of which no SIM can be handed out, since a cap is below their plan's marks.

    None: it is not told of caps.
    """
    import grpc

    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import caps_pb2

    try:
        lots = list(pages(service.caps.ListLotCaps, caps_pb2.ListLotCapsRequest, "lots"))
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.PERMISSION_DENIED:
            raise
        return None, None, None
    unfit = [each.lot for each in lots if unfit_text(plain(each))]
    tried = [f"{each.lot} ({each.slowed_count:,})" for each in lots if each.tried_ms]
    return tried, [f"{each.lot} ({each.slowed_count:,})" for each in lots if each.stays_slowed], unfit


def _named(lots: list[str]) -> str:
    more = f" and {len(lots) - LOTS_NAMED:,} more" if len(lots) > LOTS_NAMED else ""
    return f"{', '.join(lots[:LOTS_NAMED])}{more}"


def described(summary: dict[str, Any], servers: list[dict[str, Any]], jobs: list[dict[str, Any]]) -> list[Any]:
    """The same as lines and tables for people."""
    parts: list[Any] = [
        f"{counted(summary['sims_count'], 'SIM')}, {counted(summary['terminals_count'], 'terminal')}, "
        f"at {instant_text(summary['now_ms'])} (record {summary['sequence']:,})"
    ]
    if summary["swaps_stopped"]:
        parts.append("ALL SWAPS ARE STOPPED. `simswitch swap lift` lets them go on.")
    if summary["disk_full"]:
        parts.append(f"THE DISK IS FULL: {summary['disk_full']}. Make room there.")
    if summary["alarm"]:
        parts.append(f"ALARM of the follower: {summary['alarm']}")
    if summary["frozen"]:
        parts.append("THE CLOCK JUMPED: nothing expires until `simswitch clock confirm`.")
    parts += awaited_lines(awaited_servers(servers))
    if summary["set_aside_count"] or summary["impossible_count"]:
        parts.append(
            f"Usage reports set aside: {summary['set_aside_count']:,} of no lease that is known, "
            f"{summary['impossible_count']:,} impossible. `simswitch events` names each."
        )
    if summary["corrections_count"] or summary["figures_aside_count"]:
        parts.append(
            f"Carriers' figures: {summary['corrections_count']:,} taken, {summary['figures_aside_count']:,} set aside. "
            "`simswitch history corrections` and `… set_aside` have each."
        )
    if summary["unreported_count"]:
        parts.append(
            f"Leases that ended without their last report: {summary['unreported_count']:,} may have used up to "
            f"{bytes_text(summary['unreported_bytes'])} more, allowed for until their windows start anew. "
            "`simswitch history unreported` has each."
        )
    if summary["pools"]:
        by_health = ", ".join(f"{each['count']:,} {each['health']}" for each in summary["pools"])
        parts.append(f"Lots whose SIMs share a quota: {by_health}. `simswitch caps` has what each has left.")
    if summary["endless_lots"]:
        parts.append(
            f"SLOWED, AND NO RESET IS KNOWN: SIMs of {_named(summary['endless_lots'])}. Those that nobody has "
            f"are tried once a day only: {ENDLESS_DO}. `simswitch caps` says when."
        )
    if summary["spent_lots"]:
        parts.append(
            f"Prepaid, slowed, and nothing brings them back: SIMs of {_named(summary['spent_lots'])}. "
            f"{PREPAID_DO.capitalize()}."
        )
    if summary["unfit_lots"]:
        parts.append(
            f"NO SIM CAN BE HANDED OUT, SINCE A CAP IS BELOW THE PLAN'S MARKS: {_named(summary['unfit_lots'])}. "
            "`simswitch caps` says what to do."
        )
    if summary["subscribers_missed_count"]:
        parts.append(
            f"THE TABLE OF SUBSCRIBERS IS FULL: {counted(summary['subscribers_missed_count'], 'report')} not counted "
            "at any subscriber. Raise [capacity] terminals."
        )
    if summary["probation_count"]:
        parts.append(
            f"On probation: {counted(summary['probation_count'], 'SIM')} "
            f"(as of {instant_text(summary['probation_ms'])}). "
            "`simswitch pool --by sim --on-probation` names each."
        )
    healths = [[e["health"], e["count"]] for e in summary["healths"]]
    healths += [
        [f"of lots that are {word} valid", summary[f"{name}_valid_count"]]
        for name, word in (("not_yet", "not yet"), ("no_longer", "no longer"))
        if summary[f"{name}_valid_count"]
    ]
    parts.append(table("By health", ["health", "SIMs"], healths))
    parts.append(
        table("By occupancy", ["occupancy", "SIMs"], [[e["occupancy"], e["count"]] for e in summary["occupancies"]])
    )
    for kind in ("markets", "classes", "lots", "banks"):
        rows = [[e["name"], e["sims_count"], e["selectable_count"], e["masked_count"]] for e in summary[kind]]
        parts.append(table(kind.capitalize(), ["name", "SIMs", "can be handed out", "masked"], rows))
    parts.append(expected_table(summary["expected_uses"]))
    parts.append(server_table(servers))
    if jobs:
        parts.append(job_table(jobs))
    return parts


def awaited_servers(servers: list[dict[str, Any]]) -> list[str]:
    """Those that are waited for since a restore, and whether each is connected."""
    return [f"{each['name']} ({_connected(each)})" for each in servers if each["unheard"]]


def _connected(server: dict[str, Any]) -> str:
    if not server["session"]:
        return "declared dead" if server["gate"] == "dead" and server["dead_ms"] else "not connected"
    return "connected" if server["reconciled"] else "connected, not ready"


def awaited_lines(names: list[str]) -> list[str]:
    """Of a restored folder: which access servers are waited for, and what to do about one that is gone."""
    if not names:
        return []
    one = len(names) == 1
    return [
        f"RESTORED: nobody is given a SIM anew until {'access server' if one else 'access servers'} {_named(names)} "
        f"{'has' if one else 'have'} said what {'it holds' if one else 'they hold'}. Declare dead who is gone: "
        "`simswitch access-server declare-dead NAME`. When what it held is freed, no more is waited for it; "
        "while the clock is in doubt nothing is freed, so confirm that first: `simswitch clock confirm`."
    ]


def expected_table(uses: list[dict[str, Any]]) -> Any:
    """What a lease is expected to need, by market, and what was learned of it."""
    rows = [
        [
            e["market"],
            bytes_text(e["expected_bytes"]),
            "" if e["learned_bytes"] is None else bytes_text(e["learned_bytes"]),
            e["leases_count"],
        ]
        for e in uses
    ]
    return table("A lease is expected to need", ["market", "in force", "learned", "from leases"], rows)


def server_table(servers: list[dict[str, Any]]) -> Any:
    """Access servers with window and gate, and why the window last changed.

    Awaited: it has not said what it holds since a restore.
    """
    rows = [
        [
            e["name"],
            f"{e['gate'].replace('_', ' ')} ({e['gate_reason'].replace('_', ' ') or 'never seen'})"
            + (", paused" if e["paused"] and e["gate"] != "paused" else "")
            + (f", awaited: {_connected(e)}" if e["unheard"] else ""),
            f"{e['window']} ({e['window_reason'].replace('_', ' ')})",
            e["outstanding_count"],
            e["outstanding_count_max"],
            f"{e['queued_count']} ({e['waits_for'].replace('_', ' ')})" if e["waits_for"] else e["queued_count"],
            e["confirmed_count"],
            e["waiting"] if e["waiting"] is not None else "",
            f"{e['queue_wait_us'] / 1000:.1f} ms",
            f"{e['acknowledgement_us'] / 1000:.1f} ms",
            e["allocations_per_s"],
        ]
        for e in servers
    ]
    columns = [
        *("name", "gate", "window", "outstanding", "most", "queued", "confirmed"),
        *("waiting", "queue wait", "order to answer", "allocations/s"),
    ]
    return table("Access servers", columns, rows)


def over_by_text(job: dict[str, Any]) -> str:
    """When a job will be over. Empty when it is, or when nothing says so: an estimate that has passed doesn't."""
    found, expected_ms = job["feasibility"], job["expected_finish_ms"]
    moves = found and (found["targets_count"] or job["confirmed_count"])
    if job["finished_ms"] or not moves or not expected_ms or expected_ms < time.time() * 1000:
        return ""
    return instant_text(expected_ms)


def job_table(jobs: list[dict[str, Any]]) -> Any:
    """Swap jobs and how far they are."""
    rows = [
        [
            e["number"],
            e["state"].replace("_", " ") + (f" ({e['why']})" if e["why"] else ""),
            e["reason"],
            e["actor"],
            e["terminals_count"],
            e["confirmed_count"],
            e["outstanding_count"],
            e["queued_count"],
            e["given_up_count"],
            e["skipped_count"],
            over_by_text(e),
            f"{e['outage_ms'] / e['outages_count'] / 1000:.1f} s" if e["outages_count"] else "",
        ]
        for e in jobs
    ]
    columns = [
        *("job", "state", "reason", "ordered by", "terminals", "moved", "outstanding", "queued", "given up", "skipped"),
        *("over by", "mean outage"),
    ]
    return table("Swap jobs", columns, rows)
