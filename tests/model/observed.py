"""Says of a carried-out transition whether the words of its row's last column are true."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
from simswitch.core import layout

from tests.model.records import Table
from tests.model.things import lowest_bytes
from tests.model.transitions import DAY_MS, NONE, POOL_BYTES, SLOW_KBPS, Case, Row, T
from tests.model.world import EXHAUSTED_BYTES, GIB, LOW_BYTES, MIB, SUBSCRIBER

AWAITS_TRAFFIC = NONE - 1
LAST_SIM = 1 << 31
ORDER_WORDS: dict[int, str] = {
    layout.QUEUED: "queued",
    layout.WAITING: "waiting",
    layout.OUTSTANDING: "outstanding",
    layout.UNKNOWN: "unknown",
    layout.PARKED: "parked",
    layout.ANNOUNCED: "announced",
}


def lease_word(case: Case, tables: dict[str, Table]) -> str:
    terminal = case.terminal(tables)
    if terminal is None:
        return "unknown"
    if terminal["sim"] == NONE:
        return "none"
    if terminal["order"] == AWAITS_TRAFFIC:
        return "moved"
    if terminal["order"] != NONE:
        state = tables["orders"][terminal["order"]]["state"]
        if state in (layout.OUTSTANDING, layout.UNKNOWN):
            return "swapping"
    return "held"


def sim_word(sim: Any) -> str:
    if sim["occupancy"] == layout.COOLING and sim["held"]:
        return "held"
    return layout.Occupancy(int(sim["occupancy"])).name.lower()


def order_word(case: Case) -> str:
    """What became of the order; one that is gone was confirmed, given up or dropped."""
    if case.order == NONE:
        return "settled"
    order = case.after["orders"][case.order]
    if order["state"] != layout.ORDER_UNUSED:
        return ORDER_WORDS[int(order["state"])]
    job_before, job_after = (tables["jobs"][case.job] for tables in (case.before, case.after))
    if job_after["given_up_count"] > job_before["given_up_count"]:
        return "given_up"
    confirmed = case.after["servers"]["confirmed_count"].sum() > case.before["servers"]["confirmed_count"].sum()
    return "settled" if confirmed else "dropped"


def word_after(row: Row, case: Case) -> str:
    if row.subject == "lease":
        return lease_word(case, case.after)
    if row.subject == "sim":
        return sim_word(case.after["sims"][case.named_sim])
    if row.subject == "order":
        return order_word(case)
    if row.subject == "gate":
        return layout.Gate(int(case.after["servers"][case.server]["gate"])).name.removeprefix("GATE_").lower()
    if row.subject == "cap":
        return cap_word(case)
    if row.subject == "reset":
        if int(case.after["lots"]["resetting"][case.lot]) >> case.window & 1:
            return "under_way"
        return "scheduled" if _lot(case, case.after, "reset_ms") else "none"
    if row.subject == "pool":
        return ("plenty", "", "low", "exhausted")[int(case.after["lots"]["pool_health"][case.lot])]
    if row.subject == "figure":
        return "told" if _correction(case, case.after) else "none"
    if row.subject == "limit":
        return limit_word(case)
    if row.subject == "rule":
        return "holds" if case.after["header"]["limits_count"][0] else "none"
    if row.subject == "given_up":
        return "resolved" if case.after["given_up"]["resolved"][1] else "open"
    return layout.JobState(int(case.after["jobs"][case.job]["state"])).name.removeprefix("JOB_").lower()


def _lot(case: Case, tables: dict[str, Table], name: str) -> int:
    return int(tables["lots"][case.lot][name][case.window])


def _correction(case: Case, tables: dict[str, Table]) -> int:
    ledger = tables["sims_ledger"]["correction_bytes"]
    return int(ledger[case.named_sim][case.window]) if case.named_sim < len(ledger) else 0


def _allowed(case: Case) -> int:
    """What counts of the row's SIM beyond reports: the same in every window that its lot has."""
    terminal = case.terminal(case.before)
    held = terminal is not None and terminal["sim"] != NONE
    sim = int(terminal["sim"]) if held else case.named_sim
    allowed = case.world.machine.sim(sim)["allowances_bytes"]
    assert allowed[0] == allowed[1] or not allowed[0]
    return int(allowed[0])


def _carriers_and_since(case: Case) -> bool:
    """The carrier's figure and what was counted since; the correction is what that moved the offset by."""
    window = ("cycle", "day")[case.window]
    used = [case.world.machine.sim(case.named_sim)[f"used_{window}_bytes"]]
    columns = [tables["sims_cold"][f"offset_{window}_bytes"] for tables in (case.before, case.after)]
    offsets = [int(column[case.named_sim]) for column in columns]
    moved = _correction(case, case.after) - _correction(case, case.before)
    moved += case.world.machine.sim(case.named_sim)["straddling_bytes"][case.window]
    return used == [case.used_bytes] and moved == offsets[1] - offsets[0] and bool(moved)


def _asked(case: Case, kind: int) -> bool:
    asked = [(order["order"], order["kind"]) for order in case.orders]
    return asked == [(int(case.old_order["number"]), kind)]


def _target_is_another(case: Case) -> bool:
    target = case.after["orders"][case.order]["target"]
    return bool(target != case.old_order["target"] and case.after["sims"][target]["health"] == layout.HEALTHY)


def _pool(case: Case, name: str) -> Any:
    """A number, or one by window."""
    return case.after["lots"][f"pool_{name}_bytes"][case.lot].tolist()


def _pool_counts(case: Case) -> bool:
    """Each report once, and what the carrier counted beyond it."""
    mine = case.after["lots"][case.lot]
    correction = _correction(case, case.after)
    counted = int(case.after["sims"]["counted_bytes"].sum())
    return 0 < counted == int(mine["pool_counted_bytes"]) and int(mine["pool_beside_bytes"][0]) == correction


def _pools_and_since(case: Case) -> bool:
    """The carrier's figure of all its SIMs and what was counted since, which no count has moved."""
    lot, mine = case.world.machine.lot(case.lot), case.after["lots"][case.lot]
    used = lot["pool_used_bytes"][0] - lot["pool_straddling_bytes"][0] - int(mine["pool_allowance_bytes"][0])
    counts = [int(tables["sims"]["counted_bytes"].sum()) for tables in (case.before, case.after)]
    return bool(used == case.used_bytes and counts[0] == counts[1] == lot["pool_counted_bytes"])


def _hidden(case: Case) -> bool:
    groups = case.after["groups"][: int(case.after["header"]["groups_count"][0])]
    mine = groups[groups["lot"] == case.lot]
    sim_class = case.after["classes"][mine["sim_class"][0]]
    shown = [bool(int(word)) for word in sim_class["tiers"]]
    return bool(mine["masked"].all()) and not any(shown) and int(sim_class["free_count"]) == 0


def cap_word(case: Case) -> str:
    quota, planned = (_lot(case, case.after, name) for name in ("quota_bytes", "planned_bytes"))
    if quota < 0:
        return "none"
    if _lot(case, case.after, "waiting_ms"):
        return "waiting"
    return "planned" if quota == planned else "set"


def limit_word(case: Case) -> str:
    """By what was told of the month."""
    records = case.after["subscribers"]
    told = int(records["month"][records["key"] == SUBSCRIBER][0]) >> 62
    if told < 2:
        return ("under", "warned")[told]
    rule = case.after["entities"][case.after["header"]["limit_for_all"][0]]
    return ("passed", "slowed", "refused")[int(rule["numbers"][layout.RULE_ACTION]) - 1]


def _retry_at_month(case: Case) -> bool:
    """When the month is over, and some jitter."""
    base = int(case.after["header"]["settings"][0][layout.RETRY_AFTER_MS])
    again = case.world.now_ms + case.answer["retry_after_ms"]
    first = again - again % DAY_MS
    return (
        date.fromordinal(date(1970, 1, 1).toordinal() + first // DAY_MS).day == 1 and base <= again - first <= 2 * base
    )


def _limits_by(case: Case, offset: int) -> bool:
    """Of the SIM that has used something."""
    sim = case.after["sims"][case.named_sim]
    limits = [_lot(case, case.after, "quota_bytes") - offset]
    if case.window != layout.WINDOW_CYCLE - 1:
        limits.append(int(case.after["lots"][case.lot]["quota_bytes"][0]))
    return bool(sim["limit_bytes"] == min(limits) and case.events[-1]["a"] == _lot(case, case.after, "quota_bytes"))


def _before_stays(case: Case) -> bool:
    names = (("before_bytes", "quota_bytes"), ("before_basis", "basis"), ("before_since_ms", "since_ms"))
    return all(_lot(case, case.after, before) == _lot(case, case.before, now) for before, now in names)


def unchanged(row: Row, case: Case) -> bool:
    """The subject's own record is as it was, and so is everything that hangs on it."""
    if row.subject == "lease":
        before, after = case.terminal(case.before), case.terminal(case.after)
        if before is None or after is None:
            return before is None and after is None
        same_sims = np.array_equal(case.before["sims"], case.after["sims"])
        if "order=REVOKE" in row.then:
            return bool(before == after)
        return bool(before == after) and same_sims
    tables = {
        "sim": ("sims",),
        "order": ("orders", "sims", "terminals"),
        "gate": ("servers",),
        "job": ("orders", "sims"),
        "cap": ("lots", "sims"),
        "reset": ("lots", "sims", "sims_cold"),
        "figure": ("sims", "sims_cold", "sims_ledger"),
        "limit": ("subscribers", "exemptions"),
        "pool": ("lots", "sims", "entities"),
        "rule": ("entities",),
    }
    return all(np.array_equal(case.before[name], case.after[name]) for name in tables[row.subject])


def _target(case: Case) -> Any:
    return case.after["sims"][case.old_order["target"]]


def _source(case: Case) -> Any:
    return case.after["sims"][case.old_order["source"]]


def _now_holds(case: Case, sim: int) -> bool:
    return bool(case.terminal(case.after)["sim"] == sim)


def _epoch_is_new(case: Case) -> bool:
    before, after = case.terminal(case.before), case.terminal(case.after)
    return bool(after["epoch"] > (0 if before is None else before["epoch"]))


def _free_healthy(case: Case) -> bool:
    sim = case.before["sims"][case.terminal(case.after)["sim"]]
    return bool(sim["occupancy"] == layout.FREE and sim["health"] == layout.HEALTHY)


def _counted_both(case: Case) -> bool:
    terminal = case.terminal(case.after)
    total = int(case.after["header"]["counted_bytes"][0])
    more = total - int(case.before["header"]["counted_bytes"][0])
    by_sim = int(case.after["sims"]["counted_bytes"].sum())
    return more > 0 and by_sim == total and int(terminal["counted_bytes"]) == total


def _counted_last(case: Case) -> bool:
    """The SIM of the lease that is over has it, as the terminal and the total have."""
    named = int(case.terminal(case.after)["order"]) - LAST_SIM
    return _counted_both(case) and int(case.after["sims"][named]["counted_bytes"]) > 0


def _counted_before(case: Case) -> bool:
    """The SIM of the lease before has it, whoever holds which SIM now; no other has."""
    wanted = case.before["sims"]["counted_bytes"].copy()
    wanted[case.named_sim] += np.uint64(2 << 20)
    return _counted_both(case) and np.array_equal(case.after["sims"]["counted_bytes"], wanted)


def _allowed_both(case: Case) -> bool:
    """Beside the row's SIM the target of the switch that was out."""
    sims = (case.named_sim, int(case.old_order["target"]))
    return all(case.world.machine.sim(sim)["allowances_bytes"][0] > 0 for sim in sims)


def _health_by_headroom(case: Case) -> bool:
    sim = case.sim_of(case.after)
    headroom = int(sim["limit_bytes"]) - int(sim["counted_bytes"])
    wanted = (
        layout.HEALTHY if headroom >= LOW_BYTES else layout.LOW if headroom >= EXHAUSTED_BYTES else layout.EXHAUSTED
    )
    return bool(sim["health"] == wanted)


def _new_order(case: Case, kind: int) -> bool:
    """An order of that kind is there that was not, for the SIM in question."""
    known = {(int(order["source"]), int(order["kind"])) for order in case.before["orders"] if order["state"]}
    found = [
        order
        for order in case.after["orders"]
        if order["state"] and (int(order["source"]), int(order["kind"])) not in known
    ]
    return len(found) == 1 and bool(found[0]["kind"] == kind)


def _order_confirmed(case: Case) -> bool:
    return bool(case.after["orders"][case.order]["state"] == layout.ORDER_UNUSED) and order_word(case) == "settled"


def _window_halved(case: Case) -> bool:
    before, after = (int(tables["servers"][0]["window"]) for tables in (case.before, case.after))
    return after == before // 2


def _back_to_queue(case: Case) -> bool:
    order = case.after["orders"][case.order]
    return bool(order["state"] == layout.QUEUED and order["target"] == NONE)


def _outstanding_same(case: Case) -> bool:
    before, after = case.before["orders"]["state"], case.after["orders"]["state"]
    return layout.OUTSTANDING in before and np.array_equal(before, after)


def _outstanding_finishes(case: Case) -> bool:
    def in_flight(tables: dict[str, Table]) -> int:
        return int((tables["orders"]["state"] == layout.OUTSTANDING).sum())

    return in_flight(case.before) == in_flight(case.after) >= 1


def _retry_jittered(case: Case) -> bool:
    base = int(case.after["header"]["settings"][0][layout.RETRY_AFTER_MS])
    return bool(base <= case.answer["retry_after_ms"] <= 2 * base)


def _rank(case: Case) -> int:
    """Among the lots of its class, by when they end."""
    return int(case.after["groups"][case.after["sims"][case.named_sim]["group"]]["rank"])


def _skipped_more(case: Case) -> bool:
    before, after = (int(tables["jobs"][case.job]["skipped_count"]) for tables in (case.before, case.after))
    return after == before + 1


def _renewed_ms(case: Case) -> int:
    return case.world.now_ms + int(case.after["header"]["settings"][0][layout.LEASE_MS])


def _cools_until(case: Case) -> int:
    return int(case.world.machine.sim(case.named_sim)["cooling_until_ms"])


def _expected_bytes(case: Case, key: int = T) -> int:
    terminal = case.terminal(case.after, key)
    return lowest_bytes(int(terminal["expected_tier"]) & 127)


WORDS: dict[str, Callable[[Case], bool]] = {
    "claims=nothing": lambda case: _pool(case, "claimed") == 0,
    "claims=expected": lambda case: _pool(case, "claimed") == _expected_bytes(case),
    "claims=two": lambda case: _pool(case, "claimed") == 2 * _expected_bytes(case),
    "claims=rest": lambda case: (
        _pool(case, "claimed") == _expected_bytes(case) - int(case.terminal(case.after)["reported_bytes"])
    ),
    "allowed=pool": lambda case: 0 < _allowed(case) == _pool(case, "beside")[0] == _pool(case, "allowance")[0],
    "counted=pool": _pool_counts,
    "used=pools_and_since": _pools_and_since,
    "used=pools_and_sims": _pools_and_since,
    "pool=less_what_straddles": lambda case: (
        case.world.machine.lot(case.lot)["pool_left_bytes"] == POOL_BYTES - case.used_bytes - MIB
    ),
    "pool=anew": lambda case: (
        case.world.machine.lot(case.lot)["pool_used_bytes"][0] == 0 == _pool(case, "correction")[0]
        and case.world.machine.lot(case.lot)["pool_as_of_s"][0] == 0
    ),
    "hidden=yes": _hidden,
    "hidden=no": lambda case: not case.after["groups"]["masked"].any(),
    "health=LOW": lambda case: bool((case.after["sims"]["health"] == layout.LOW).all()),
    "health=EXHAUSTED": lambda case: bool((case.after["sims"]["health"] == layout.EXHAUSTED).all()),
    "health=HEALTHY": lambda case: bool((case.after["sims"]["health"] == layout.HEALTHY).all()),
    "epoch=same": lambda case: bool(
        case.terminal(case.after)["epoch"]
        == case.terminal(case.before)["epoch"]
        == case.answer.get("epoch", case.terminal(case.after)["epoch"])
    ),
    "epoch=new": _epoch_is_new,
    "sim=same": lambda case: _now_holds(case, case.terminal(case.before)["sim"]),
    "sim=free_healthy": _free_healthy,
    "sim=target": lambda case: _now_holds(case, case.old_order["target"]),
    "sim=source": lambda case: _now_holds(case, case.old_order["source"]),
    "sim=named": lambda case: _now_holds(case, case.named_sim),
    "expiry=same": lambda case: bool(
        case.terminal(case.after)["expires_ms"] == case.terminal(case.before)["expires_ms"]
    ),
    "slow=yes": lambda case: case.answer["slow_kbps"] == SLOW_KBPS,
    "slow=no": lambda case: case.answer["slow_kbps"] == 0,
    "retry_after=month": _retry_at_month,
    "expiry=renewed": lambda case: bool(case.terminal(case.after)["expires_ms"] == _renewed_ms(case)),
    "old_sim=cooling": lambda case: sim_word(case.old_sim) == "cooling",
    "old_sim=held": lambda case: sim_word(case.old_sim) == "held",
    "old_health=healthy": lambda case: bool(case.old_sim["health"] == layout.HEALTHY),
    "old_health=quarantined": lambda case: bool(case.old_sim["health"] == layout.QUARANTINED),
    "revoke=stands": lambda case: layout.REVOKE in case.after["orders"]["kind"][case.after["orders"]["state"] > 0],
    "target=held": lambda case: sim_word(_target(case)) == "held",
    "target=cooling": lambda case: sim_word(_target(case)) == "cooling",
    "target_health=quarantined": lambda case: bool(_target(case)["health"] == layout.QUARANTINED),
    "target=free": lambda case: sim_word(_target(case)) == "free",
    "target=reserved": lambda case: bool(
        case.after["sims"][case.after["orders"][case.order]["target"]]["occupancy"] == layout.RESERVED
    ),
    "source=cooling": lambda case: sim_word(_source(case)) == "cooling",
    "order=STOP": lambda case: _new_order(case, layout.STOP),
    "order=REVOKE": lambda case: _new_order(case, layout.REVOKE),
    "order=confirmed": _order_confirmed,
    "order=SWITCH": lambda case: _new_order(case, layout.SWITCH),
    "orders=none": lambda case: not (case.after["orders"]["state"] != layout.ORDER_UNUSED).any(),
    "leases=ended": lambda case: lease_word(case, case.after) == "none",
    "sims=cooling": lambda case: sim_word(_source(case)) == sim_word(_target(case)) == "cooling",
    "until=midnight": lambda case: _cools_until(case) == -(-case.world.now_ms // DAY_MS) * DAY_MS,
    "order=orphaned": lambda case: bool(case.after["orders"][case.order]["orphaned"]),
    "order=back_to_queue": _back_to_queue,
    "counted=both": _counted_both,
    "health=by_headroom": _health_by_headroom,
    "impossible_count+1": lambda case: (
        int(case.after["header"]["impossible_count"][0]) == int(case.before["header"]["impossible_count"][0]) + 1
    ),
    "figures_aside+1": lambda case: (
        int(case.after["header"]["figures_aside_count"][0]) == int(case.before["header"]["figures_aside_count"][0]) + 1
    ),
    "used=carriers_and_since": _carriers_and_since,
    "events=with_lease": lambda case: [event["terminal"] for event in case.events] == [T],
    "used=as_in_the_day": lambda case: (
        case.world.machine.sim(case.named_sim)["used_cycle_bytes"]
        == case.world.machine.sim(case.named_sim)["used_day_bytes"]
        > case.used_bytes
    ),
    "lowered=yes": lambda case: case.answer["lowered_bytes"] == MIB == case.events[-1]["terminal"],
    "lowered=no": lambda case: case.answer["lowered_bytes"] == 0 == case.events[-1]["terminal"],
    "cycle=carriers_days": lambda case: case.world.machine.sim(case.named_sim)["used_cycle_bytes"] == case.used_bytes,
    "cycle=today": lambda case: case.world.machine.sim(case.named_sim)["used_cycle_bytes"] == 3 * MIB,
    "used=carriers_days": lambda case: case.world.machine.sim(case.named_sim)["used_rolling_bytes"] == case.used_bytes,
    "left=less_what_straddles": lambda case: (
        case.world.machine.sim(case.named_sim)["headroom_bytes"] == 100 * GIB - case.used_bytes - MIB
    ),
    "events=none": lambda case: not case.events,
    "events=one": lambda case: len(case.events) == 1,
    "events=warned_first": lambda case: (
        [event["kind"] for event in case.events] == [layout.EVENT_LIMIT] * 2
        and [event["reason"] == layout.LIMIT_WARNED for event in case.events] == [True, False]
    ),
    "counted=same": lambda case: np.array_equal(
        case.before["sims"]["counted_bytes"], case.after["sims"]["counted_bytes"]
    ),
    "set_aside+1": lambda case: (
        int(case.after["header"]["set_aside_count"][0]) == int(case.before["header"]["set_aside_count"][0]) + 1
    ),
    "counted=last": _counted_last,
    "counted=before": _counted_before,
    "awaited=yes": lambda case: (
        int(case.after["header"]["reports_awaited"][0])
        == int((case.after["sims_ledger"]["unreported_bytes"] < 0).sum())
        == 1
    ),
    "heard=now": lambda case: (
        case.after["sims"][case.terminal(case.after)["sim"]]["previous"] == case.world.now_ms // 1000
    ),
    "awaited=no": lambda case: int(case.after["header"]["reports_awaited"][0]) == 0,
    "allowed=both": _allowed_both,
    "allowed=before": lambda case: case.world.machine.sim(case.named_sim)["allowances_bytes"][0] > 0,
    "held=nothing": lambda case: not case.after["sims"]["held"].any(),
    "allowed=rest": lambda case: _allowed(case) > 0,
    "allowed=nothing": lambda case: _allowed(case) == 0,
    "retry_after=jittered": _retry_jittered,
    "index=in": lambda case: bool(case.after["sims"][case.named_sim]["tier"] != layout.TIER_NONE),
    "index=out": lambda case: bool(case.after["sims"][case.named_sim]["tier"] == layout.TIER_NONE),
    "index=by_health": lambda case: (
        bool(case.after["sims"][case.named_sim]["tier"] != layout.TIER_NONE)
        == bool(case.after["sims"][case.named_sim]["health"] == layout.HEALTHY)
    ),
    "skipped+1": _skipped_more,
    "rank=first": lambda case: _rank(case) == 0,
    "rank=last": lambda case: _rank(case) == 1,
    "trusted=yes": lambda case: not int(case.after["sims"]["cooling"][case.named_sim]) >> 55 & 1,
    "trusted=no": lambda case: bool(int(case.after["sims"]["cooling"][case.named_sim]) >> 55 & 1),
    "limits=same": lambda case: np.array_equal(case.before["sims"]["limit_bytes"], case.after["sims"]["limit_bytes"]),
    "used=same": lambda case: np.array_equal(case.before["sims_cold"], case.after["sims_cold"]),
    "used=nothing": lambda case: (
        int(case.after["sims_cold"]["offset_cycle_bytes"][0]) == -int(case.after["sims"]["counted_bytes"][0]) < 0
    ),
    "limits=by_cap": lambda case: _limits_by(case, 0),
    "limits=from_begin": lambda case: _limits_by(case, -3 * MIB),
    "limits=from_now": lambda case: _limits_by(case, -int(case.after["sims"][case.named_sim]["counted_bytes"])),
    "before=plan": _before_stays,
    "before=set": _before_stays,
    "gate=back_off": lambda case: bool(case.after["servers"][0]["gate"] == layout.GATE_BACK_OFF),
    "window=halved": _window_halved,
    "session=new": lambda case: bool(case.answer["session"] > case.before["servers"]["session"].max()),
    "session=none": lambda case: int(case.after["servers"]["session"][0]) == 0,
    "outstanding=same": _outstanding_same,
    "outstanding=finish": _outstanding_finishes,
    "asked=again": lambda case: _asked(case, layout.SWITCH),
    "asked=withdrawn": lambda case: _asked(case, layout.WITHDRAW),
    "attempts=same": lambda case: bool(case.after["orders"][case.order]["attempts"] == case.old_order["attempts"]),
    "target=another": _target_is_another,
    "asked=not": lambda case: not case.orders,
    "why=QUIET": lambda case: bool(case.after["jobs"][case.job]["why"] == layout.WHY_QUIET),
    "why=CANARY": lambda case: bool(case.after["jobs"][case.job]["why"] == layout.WHY_CANARY),
    "why=TARGETS": lambda case: bool(case.after["jobs"][case.job]["why"] == layout.WHY_TARGETS),
    "left_out=1": lambda case: bool(case.after["jobs"][case.job]["beyond_count"] == 1),
    "why=LATE": lambda case: bool(case.after["jobs"][case.job]["why"] == layout.WHY_LATE),
    "queued=dropped": lambda case: not (case.after["orders"]["state"] == layout.QUEUED).any(),
}


def event_is(case: Case, row: Row, event: dict[str, int], name: str) -> bool:
    """Whether it is of that kind and about the row's terminal or job."""
    if event["kind"] != layout.EventKind["EVENT_" + name]:
        return False
    if row.subject == "gate":
        return event["access_server"] == case.server
    return event["job"] == case.job if row.subject == "job" else event["terminal"] == T


def differences(row: Row, case: Case) -> list[str]:
    """What the row says and is not so."""
    found = []
    if row.status != "-":
        status = layout.Status(case.answer["status"]).name
        if status != row.status:
            found.append(f"the status is {status}, not {row.status}")
    state, *words = row.then
    if state == "unchanged":
        if not unchanged(row, case):
            found.append("it did change")
    elif (after := word_after(row, case)) != state:
        found.append(f"afterwards it is {after}, not {state}")
    for word in words:
        kind, _, name = word.partition("=")
        if kind == "event":
            if not any(event_is(case, row, event, name) for event in case.events):
                found.append(f"the event {name} did not come: {case.events}")
        elif kind == "told":
            if not any(event["kind"] == layout.EventKind["EVENT_" + name] for event in case.events):
                found.append(f"{name} was not told: {case.events}")
        elif word not in WORDS:
            found.append(f"nobody knows what {word} means")
        elif not found and not WORDS[word](case):
            found.append(f"{word} is not so")
    return found
