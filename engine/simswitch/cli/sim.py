"""``simswitch sim``: everything about one SIM, and why it is as it is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_text, counted, instant_text, money_text
from simswitch.cli.caps import ENDLESS_DO, PREPAID_DO, pool_text
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show, table

_PEOPLE = ("terminal", "subscriber")
_WHY_SWAPPED = {
    "failure": "the SIM before could not attach",
    "throttled": "the SIM before was slowed or spent",
    "predicted": "the SIM before would soon have been spent",
    "rebalance": "the load was moved",
}


def sim(
    iccid: Annotated[str, typer.Argument(help="Its ICCID, 19 or 20 digits.")],
    numbers: Annotated[
        bool, typer.Option("--numbers", help="Show IMSI, terminals, subscribers and other SIMs in full, not masked.")
    ] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Explain a SIM: what is left, who holds and held it, and why.

    Its card, lot and caps too, and why it was chosen, throttled or trusted.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.v1 import sim_service_pb2

    with connected(*target(config, address, actor)) as service:
        request = sim_service_pb2.ExplainSimRequest(iccid=iccid)
        found = plain(service.sims.ExplainSim(request, timeout=CALL_TIMEOUT_S))
    # Before it is masked: two terminals may look alike then.
    why = {"chosen": chosen(found), "throttled": _throttled(found), "trusted": _trusted(found)}
    if not numbers:
        _mask(found)
    found["why"] = why
    if json:
        print_json(found)
    else:
        show(*_described(found))


def _mask(found: dict[str, Any]) -> None:
    """Whoever is named beside the SIM that was asked for, its IMSI included."""
    from simswitch.masking import hidden, masked

    found["sim"]["imsi"] = masked(found["sim"]["imsi"])
    for each in [found["sim"], found["holder"] or {}, *found["uses"], *found["trusts"], *found["swaps"]]:
        each.update({name: hidden(each[name]) for name in _PEOPLE if each.get(name)})
    for each in found["swaps"]:
        each["other_iccid"] = masked(each["other_iccid"])


# ---------------------------------------------------------------------------------------------------- why, in words


def chosen(found: dict[str, Any]) -> str:
    """Why its holder has it, or why it may or may not be handed out now.

    What the lease needs is as it was then, and so are swaps; the place in the market is that of today, and said to be.
    """
    card, holder = found["sim"], found["holder"]
    if holder is None:
        return _selectable(found)
    wanted = f"at least {bytes_text(holder['expected_bytes'])} left"
    place = f"class {found['lot']['sim_class']}, number {holder['preference']} of market {holder['market']} today"
    if not holder["preference"]:
        place = f"class {found['lot']['sim_class']}, which market {holder['market']} no longer names"
    reserved = card["occupancy"] == "reserved"
    # The last swap that brought its terminal here or took it away; after one away, an allocation brought it back.
    own = (each for each in found["swaps"] if each["terminal"] == holder["terminal"])
    swap = next((each for each in own if each["result"] == "confirmed" or (reserved and not each["away"])), None)
    if swap and not swap["away"]:
        when = instant_text(swap["ordered_ms"])
        # A job has a reason of its own; its priority only says how urgent it is.
        why = f", because {_WHY_SWAPPED.get(swap['priority'], 'of an order')}"
        if swap["job"] is not None:
            why = f" by job {swap['job']} (`simswitch swap show {swap['job']}` says who and why)"
        return f"By the swap that was ordered {when}{why}: a healthy SIM of {place}, with {wanted}."
    if reserved:
        return f"As the target of a swap that is not ordered yet: a healthy SIM of {place}, with {wanted}."
    return (
        f"By an allocation: a free and healthy SIM of {place}, with {wanted}; of those the ones go first whose lot "
        "ends first, then the ones with most left, and among equals the one that has rested longest."
    )


def _selectable(found: dict[str, Any]) -> str:
    card = found["sim"]
    if found["validity"]:
        return f"Nobody is given it: its lot is {found['validity'].replace('_', ' ')} valid."
    reasons = []
    if card["occupancy"] == "cooling":
        until = instant_text(found["cooling_until_ms"])
        reasons.append("its access server has not let go of it" if found["held"] else f"it rests until {until}")
    elif card["occupancy"] != "free":
        reasons.append(f"it is {card['occupancy']}")
    if card["health"] != "healthy":
        reasons.append(f"it is {card['health']}")
    if found["masked"]:
        reasons.append("an operator took its lot or bank out of selection")
    if reasons:
        return f"Nobody is given it: {', '.join(reasons)}."
    # A tier says what is left of the SIM's own quotas; of a shared one there may be less.
    most = found["tier_bytes"]
    if found["pool"] is not None and card["headroom_bytes"] is not None:
        most = min(most, card["headroom_bytes"])
    return f"It can be handed out, to who needs up to {bytes_text(most)} (tier {found['tier']})."


def _throttled(found: dict[str, Any]) -> str:
    """Why it is, or was, held for slowed; else how far it is from its caps."""
    decision = next((each for each in found["throttles"] if each["throttled"]), None)
    said = next((each for each in found["healths"] if each["health"] == "throttled"), None)
    if decision is None and said is None:
        return "It was never seen slowed, as far as history knows."
    parts = []
    if decision is not None:
        parts.append(
            f"{instant_text(decision['at_ms'])}: seen at {decision['goodput_kbps']:,} kbit/s in "
            f"{counted(decision['windows_count'], 'window')} in agreement, {decision['demand_seconds']:,} s of demand, "
            f"{decision['confidence_permille'] / 10:.1f} % sure"
        )
    if said is not None:
        parts.append(f"{instant_text(said['at_ms'])}: said by {said['actor'] or 'nobody that is known'}")
    now = "It is slowed" if found["sim"]["health"] == "throttled" else "It was slowed"
    return f"{now}. {'; '.join(parts)}."


_NOT_TRUSTED = {
    "throttled": "Not while it is slowed",
    "suspended": "Not while it is suspended at the carrier",
    "quarantined": "Not while an operator has set it aside",
    "retired": "No more: it is out of use for good",
}


def _trusted(found: dict[str, Any]) -> str:
    # What was seen of it before speaks no longer for it.
    if not_trusted := _NOT_TRUSTED.get(found["sim"]["health"]):
        return f"{not_trusted}; {comes_back(found)}." if found["sim"]["health"] == "throttled" else f"{not_trusted}."
    if found["sim"]["on_probation"]:
        since = instant_text(found["health_since_ms"])
        return (
            f"On probation since {since}: it was slowed before, and no report has shown since that it is fast, which "
            "takes one of 1.0 MB at least: light use never does. Until then it goes to who needs up to "
            f"{bytes_text(found['tier_bytes'])}."
        )
    if found["trusts"]:
        last = found["trusts"][0]
        return f"Since {instant_text(last['at_ms'])}, when it was seen at {last['goodput_kbps']:,} kbit/s."
    return "Nothing has spoken against it since its last reset, as far as history knows."


def comes_back(found: dict[str, Any]) -> str:
    """What puts a slowed SIM on probation, if anything does."""
    tried_ms = found["tried_ms"]
    if found["validity"] == "no_longer":
        return "its lot is no longer valid"
    if found["stays_slowed"]:
        return f"it is prepaid and no reset is known, so nothing brings such SIMs back: {PREPAID_DO}"
    if found["reset_probes"]:
        return "after its reset it is on probation"
    if tried_ms is None:
        return "nothing is known that puts it on probation: no reset to come is known, or `probe_kbps` is 0"
    when = f"soon after {instant_text(tried_ms)}" if tried_ms else "a day after its terminal has let go of it"
    return f"no reset is known that brings it back, so it is on probation {when}: {ENDLESS_DO}"


# ---------------------------------------------------------------------------------------------------- the page


def _described(found: dict[str, Any]) -> list[Any]:
    card, lot, holder = found["sim"], found["lot"], found["holder"]
    parts: list[Any] = [
        f"SIM {card['iccid']}, IMSI {card['imsi']}, bank {card['bank']} slot {card['slot']}",
        f"Lot {lot['name']} of {lot['supplier']}, plan {lot['plan']}, class {lot['sim_class']}"
        + (f", carrier {found['carrier']}" if found["carrier"] else ""),
        _life(found),
        _state(found),
    ]
    if holder is not None:
        parts.append(_held(holder))
    tier = f"tier {found['tier']}" if found["tier"] is not None else "in no tier"
    room = f"Left to the nearest cap: {left_text(found)}{lease_text(found)} ({tier})"
    if found["validity"]:
        room = f"Nothing is left of it: its lot is {found['validity'].replace('_', ' ')} valid"
    parts += [
        f"{room}; {bytes_text(card['counted_bytes'])} counted in all",
        *(f"{word.capitalize()}: {text}" for word, text in found["why"].items()),
    ]
    if found["pool"] is not None:
        parts.append(f"Lot {lot['name']}: {pool_text(found['pool'], [each['cap'] for each in found['windows']])}")
    if found["windows"]:
        columns = ["window", "used", "cap", "basis", "since", "left", "next reset"]
        parts.append(table("Windows", columns, [_window(found, each) for each in found["windows"]]))
        allowed = max(each["allowed_bytes"] for each in found["windows"])
        if allowed:
            parts.append(
                f"Beside that up to {bytes_text(allowed)} may have been used that nobody reported: leases ended "
                "without their last report. It is not left (`simswitch history unreported` has each)."
            )
    parts += _tables(found)
    missing = found["history_missing"]
    parts.append(f"History: {missing}" if missing else f"History is as of {instant_text(found['history_ms'])}.")
    return parts


def left_text(found: dict[str, Any]) -> str:
    """Nothing is over of a shared quota that the lot has not used up: what leases may yet use is kept for them."""
    left, pool = found["sim"]["headroom_bytes"], found["pool"]
    if left is None:
        return "any amount, there is none"
    if left < 0 and pool is not None and (pool["left_bytes"] or 0) >= 0:
        own = ((each["cap"]["quota_bytes"], each) for each in found["windows"] if not each["cap"]["pooled"])
        if all(quota is None or each["used_bytes"] <= quota for quota, each in own):
            return "nothing that the leases of its lot may not yet use"
    return _signed(left)


def lease_text(found: dict[str, Any]) -> str:
    """What is left counts reports only, and its lease goes on, or is silent. Of a shared quota it is kept already."""
    left, holder = found["sim"]["headroom_bytes"], found["holder"]
    if left is None or left <= 0 or found["pool"] is not None or holder is None or not holder["may_use_bytes"]:
        return ""
    may_use = holder["may_use_bytes"]
    return f", of which its lease may yet use {bytes_text(may_use) if may_use < left else 'all'}"


def _state(found: dict[str, Any]) -> str:
    """Of a lot that does not work every SIM counts as exhausted: that says nothing of what was used."""
    card = found["sim"]
    words = [card["occupancy"].capitalize(), f"{card['health']} since {_since(found['health_since_ms'])}"]
    if found["validity"] and card["health"] == "exhausted":
        words[1] = "none can use it"
    if card["health"] not in _NOT_TRUSTED:
        words.append("ON PROBATION" if card["on_probation"] else "trusted")
    return "; ".join(words)


_WORKS_NOT = {"suspended": "SUSPENDED at the carrier", "retired": "RETIRED, works no more"}


def _life(found: dict[str, Any]) -> str:
    """The carrier's side: dates, whether it works, and what it cost."""
    lot = found["lot"]
    works = f"works from {lot['active_from']}" if lot["active_from"] else "activated"
    words = [_WORKS_NOT.get(found["sim"]["health"], works)]
    words.append(f"valid until {lot['valid_until']}" if lot["valid_until"] else "no end of validity known")
    if found["validity"]:
        words.append(f"{found['validity'].replace('_', ' ')} valid")
    if lot["purchase_date"]:
        words.append(f"bought {lot['purchase_date']}")
    if lot["payment"]:
        words.append(lot["payment"])
    if lot["cost_minor"] is not None:
        minor, currency, count = lot["cost_minor"], lot["currency"], lot["sims_count"]
        cost = f"cost {money_text(minor, currency)}"
        words.append(
            f"{cost} for {counted(count, 'SIM')}, {money_text(minor / count, currency)} each" if count else cost
        )
    if lot["terms"]:
        words.append(f"terms: {lot['terms']}")
    text = ", ".join(words)
    return f"{text[0].upper()}{text[1:]}"


def _held(holder: dict[str, Any]) -> str:
    who = f"Held by terminal {holder['terminal']}"
    if holder["subscriber"]:
        who += f" of subscriber {holder['subscriber']}"
    who += f" on {holder['access_server']} in {holder['market']}"
    if holder["used_since_ms"]:
        who += f", in use since {instant_text(holder['used_since_ms'])}"
    if not holder["epoch"]:
        return f"{who}, as the target of a swap"
    return f"{who}, lease {holder['epoch']} until {instant_text(holder['expires_ms'])}"


def _since(milliseconds: int) -> str:
    return instant_text(milliseconds) if milliseconds else "its import"


def _signed(count: int) -> str:
    return bytes_text(count) if count >= 0 else f"{bytes_text(-count)} over"


def _window(found: dict[str, Any], window: dict[str, Any]) -> list[str]:
    cap = window["cap"]
    quota = cap["quota_bytes"]
    used = cap["pool_used_bytes"] if cap["pooled"] else window["used_bytes"]
    reset = instant_text(cap["reset_ms"]) if cap["reset_ms"] else "nobody knows"
    return [
        counted(found["rolling_days"], "day") if cap["window"] == "rolling" else cap["window"],
        bytes_text(max(window["used_bytes"], 0)),
        (bytes_text(quota) if quota is not None else "none") + (", shared" if cap["pooled"] else ""),
        cap["certainty"],
        instant_text(cap["since_ms"]),
        _signed(quota - used) if quota is not None else "",
        "under way" if cap["resetting"] else reset,
    ]


def _tables(found: dict[str, Any]) -> list[Any]:
    """What history has, a table each."""
    uses = [
        [each["day"], _key(each["terminal"]), _key(each["subscriber"]), bytes_text(each["bytes"]), *_span(each)]
        for each in found["uses"]
    ]
    throttles = [
        [
            instant_text(each["at_ms"]),
            "slowed" if each["throttled"] else "no longer",
            f"{each['goodput_kbps']:,} kbit/s",
            each["windows_count"],
            f"{each['demand_seconds']:,} s",
            f"{each['confidence_permille'] / 10:.1f} %",
        ]
        for each in found["throttles"]
    ]
    healths = [
        [
            instant_text(each["at_ms"]),
            each["health"],
            each["actor"] or "the engine",
            f"{each['goodput_kbps']:,} kbit/s in {counted(each['windows_count'], 'window')}"
            if each["windows_count"]
            else each["reason"],
        ]
        for each in found["healths"]
    ]
    swaps = [
        [
            instant_text(each["ordered_ms"]),
            "away to" if each["away"] else "here from",
            each["other_iccid"] or "?",
            _key(each["terminal"]),
            each["priority"],
            "" if each["job"] is None else str(each["job"]),
            each["result"],
            "" if each["outage_ms"] is None else f"{each['outage_ms'] / 1000:.1f} s",
        ]
        for each in found["swaps"]
    ]
    corrections = [
        [
            f"{instant_text(each['as_of_ms'])}, {each['window']}{' (that day)' if each['of_day'] else ''}",
            "taken",
            bytes_text(each["carrier_bytes"]),
            bytes_text(each["our_bytes"]),
            f"{'-' if each['correction_bytes'] < 0 else '+'}{bytes_text(abs(each['correction_bytes']))}",
            each["actor"],
        ]
        for each in found["corrections"]
    ] + [
        [
            f"{instant_text(each['as_of_ms'])}, {each['window']}",
            f"set aside: {each['status'].replace('_', ' ')}",
            bytes_text(each["bytes"]) if each["bytes"] >= 0 else f"{each['bytes']:,} B",
            "",
            "",
            each["actor"],
        ]
        for each in found["set_aside"]
    ]
    tables = [
        ("Who used it", ["day", "terminal", "subscriber", "used", "from", "to"], uses),
        ("What was seen", ["when", "", "plateau", "windows", "demand", "sure"], throttles),
        ("What was said of its health", ["when", "health", "by", "because"], healths),
        ("Its carrier's figures", ["as of", "", "carrier", "ours", "added", "told by"], corrections),
        ("Swaps", ["ordered", "", "other SIM", "terminal", "urgency", "job", "result", "outage"], swaps),
    ]
    return [table(title, columns, rows) for title, columns, rows in tables if rows]


def _key(number: int | str) -> str:
    """A terminal or subscriber: no amount, so without separators."""
    return str(number or "")


def _span(use: dict[str, Any]) -> list[str]:
    return [instant_text(use["first_ms"])[11:], instant_text(use["last_ms"])[11:]]
