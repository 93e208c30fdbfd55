"""``simswitch events``: what happens to swaps, jobs, markets and access servers."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_text, counted, instant_text
from simswitch.cli.caps import ENDLESS_DO, PREPAID_DO
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import complain, print_json_line, show


class EventWord(StrEnum):
    """Kinds of events."""

    ANNOUNCED = "announced"
    WITHDRAWN = "withdrawn"
    ORDERED = "ordered"
    REFUSED = "refused"
    OVERDUE = "overdue"
    CONFIRMED = "confirmed"
    TRAFFIC = "traffic"
    UNMEASURED = "unmeasured"
    GIVEN_UP = "given_up"
    DIFFERENCE = "difference"
    JOB = "job"
    SHORTFALL = "shortfall"
    SHORTFALL_OVER = "shortfall_over"
    DEATH = "death"
    BREAKER = "breaker"
    HEALTH = "health"
    CAP = "cap"
    CAP_CHANGED = "cap_changed"
    RESET = "reset"
    TRUSTED = "trusted"
    LIMIT = "limit"
    EXEMPT = "exempt"
    PAUSE = "pause"
    VALIDITY = "validity"
    SET_ASIDE = "set_aside"
    CORRECTION = "correction"
    UNREPORTED = "unreported"
    POOL = "pool"
    POOL_CORRECTED = "pool_corrected"
    POOL_ASIDE = "pool_aside"
    ENDLESS = "endless"


def events(
    after: Annotated[
        int | None,
        typer.Option(help="Those with a higher number. Default: all that are known.", min=0, max=(1 << 64) - 1),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens.")] = False,
    kind: Annotated[list[EventWord] | None, typer.Option(help="Only these. May be repeated.")] = None,
    subscriber: Annotated[int, typer.Option(help="Only what concerns this subscriber.", min=0, max=(1 << 64) - 1)] = 0,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show what happened, a line an event: announcements, orders, outages, jobs. With --json an object a line."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import plain
    from simswitch.v1 import event_pb2

    request = event_pb2.WatchEventsRequest(
        after=after or 0,
        kinds=[event_pb2.EventKind.Value(f"EVENT_KIND_{word.name}") for word in kind or []],
        subscriber=subscriber,
        once=not follow,
    )
    told = 0
    with connected(*target(config, address, actor)) as service:
        for response in service.events.WatchEvents(request):
            if response.missed_count and after is not None:
                complain(f"{counted(response.missed_count, 'event')} not remembered any more")
            told += len(response.events)
            for event in response.events:
                found = plain(event)
                if json:
                    print_json_line(found)
                else:
                    show(line(found))
            sys.stdout.flush()
    if not told:
        complain("No such event is remembered." if kind or subscriber or after else "Nothing has happened yet.")


def line(event: dict[str, Any]) -> str:
    """One event for people."""
    who = f"terminal {event['terminal']}" if event["terminal"] else ""
    of_job = f"job {event['job']}" if event["job"] is not None else ""
    words = " ".join(filter(None, (who, event["access_server"], of_job, details(event))))
    kind = event["kind"].replace("_", " ")
    return f"{event['number']:>10}  {instant_text(event['told_ms'])}  {kind:<14}  {words}"


def details(event: dict[str, Any]) -> str:
    """What is particular to its kind."""
    match event["kind"]:
        case "announced":
            expected = f"about {event['expected_outage_ms'] / 1000:.0f} s without traffic"
            return f"not before {instant_text(event['not_before_ms'])}, {expected} ({event['priority']})"
        case "withdrawn":
            return str(event["withdrawn_by"]).replace("_", " ")
        case "ordered":
            return f"order {event['order']} ({event['priority']})"
        case "overdue" | "confirmed":
            return f"after {event['elapsed_ms'] / 1000:.1f} s"
        case "refused" | "given_up":
            return f"attempt {event['attempts_count']}"
        case "traffic":
            return f"{event['outage_ms'] / 1000:.1f} s after the order"
        case "difference":
            return str(event["status"]).replace("_", " ")
        case "job":
            why = f" ({event['job_why']})" if event["job_why"] else ""
            beyond = f", {event['beyond_count']:,} beyond its size left out" if event["beyond_count"] else ""
            return str(event["job_state"]).replace("_", " ") + why + beyond
        case "shortfall":
            return f"market {event['market']}: no SIM with {bytes_text(event['headroom_bytes'])} left for swaps"
        case "shortfall_over":
            return f"market {event['market']}"
        case "death":
            return str(event["death"])
        case "health":
            seen = f"{event['goodput_kbps']:,} kbit/s under demand in {counted(event['windows_count'], 'window')}"
            sure = f"{seen}, {event['confidence_permille'] / 10:.1f} % sure" if event["confidence_permille"] else seen
            return f"SIM {event['iccid']}: {event['health']} ({sure if event['windows_count'] else 'as somebody says'})"
        case "cap":
            quota = event["quota_bytes"]
            cap = "no cap" if quota is None else f"{bytes_text(quota)} ({event['certainty']})"
            of = "the lots of plan " if event["of_plan"] else ""
            return f"{of}{event['lot_or_plan']}, {event['window']}: {cap}"
        case "cap_changed":
            speed = event["shift"] == "speed"
            before, amount = (
                f"{event[name]:,} kbit/s" if speed else bytes_text(event[name]) for name in ("before", "amount")
            )
            since = f"since {instant_text(event['first_evidence_ms'])}"
            what = f"{event['shift']} without a word, {before} to {amount}, {since}"
            return f"{event['lot_or_plan']}, {event['window']}: {what}"
        case "set_aside":
            of = f", SIM {event['iccid']}" if event["iccid"] else ""
            # How much less than nothing, history knows.
            told = "less than nothing" if event["status"] == "negative_usage" else bytes_text(event["told_bytes"])
            return f"{told}{of}: {event['status'].replace('_', ' ')}"
        case "unreported":
            counts = (
                "count no more: it was reported" if event["reported"] else "may have been used and were not reported"
            )
            return f"SIM {event['iccid']}: {bytes_text(event['allowed_bytes'])} {counts}"
        case "pool":
            left, masked = event["left_bytes"], "" if event["health"] == "healthy" else ": no SIM of it is handed out"
            what = f"{bytes_text(left)} left" if left >= 0 else f"{bytes_text(-left)} over"
            return f"what {event['lot_or_plan']} shares is {event['health']}, {what}{masked}"
        case "correction":
            return (
                f"SIM {event['iccid']}, {event['window']}: the carrier counted {_than_we(event)}{_than_before(event)}"
            )
        case "pool_corrected":
            said = f"the carrier counted {_than_we(event)}{_than_before(event)}"
            return f"{event['lot_or_plan']}, {event['window']}, all its SIMs: {said}"
        case "pool_aside":
            told = "less than nothing" if event["status"] == "negative_usage" else bytes_text(event["told_bytes"])
            status = event["status"].replace("_", " ")
            return f"{told}, {event['lot_or_plan']}, {event['window']}, all its SIMs: {status}"
        case "trusted":
            return f"SIM {event['iccid']}: fast again, {event['goodput_kbps']:,} kbit/s"
        case "reset":
            return f"{event['lot_or_plan']}, {event['window']}: {counted(event['sims_count'], 'SIM')} from zero again"
        case "endless":
            sims = event["sims_count"]
            what = f"{counted(sims, 'SIM')} on probation" if sims else "a SIM was slowed"
            if event["stays_slowed"]:
                return (
                    f"{event['lot_or_plan']}: {what}; nothing brings such SIMs back, since it is prepaid: {PREPAID_DO}"
                )
            return f"{event['lot_or_plan']}: {what}; no reset is known that brings such SIMs back: {ENDLESS_DO}"
        case "validity":
            validity = {"not_yet": "its SIMs do not work yet", "no_longer": "its SIMs work no longer"}
            return f"{event['lot_or_plan']}: {validity.get(event['validity'], 'its SIMs work')}"
        case "breaker":
            again = f", tried again at {instant_text(event['retry_ms'])}" if event["breaker_state"] == "open" else ""
            state = str(event["breaker_state"]).replace("_", " ")
            return f"{event['breaker_name']}: {state}{again if event['retry_ms'] else ''}"
        case "limit":
            span = "day" if event["of_day"] else "month"
            limit = f" of {bytes_text(event['quota_bytes'])}" if event["quota_bytes"] else ""
            speed = f" to {event['slow_kbps']:,} kbit/s" if event["slow_kbps"] else ""
            rule = f" ({event['limit_rule']})" if event["limit_rule"] else ""
            used = f"{bytes_text(event['used_bytes'])}{limit} used in the {span}"
            return f"subscriber {event['subscriber']}: {event['limit_step']}{speed}, {used}{rule}"
        case "exempt":
            until = f"exempt until {instant_text(event['freed_ms'])}" if event["exempt"] else "no longer exempt"
            return f"subscriber {event['subscriber']}: {until} ({event['actor']})"
        case "pause":
            return "gets no orders" if event["paused"] else "gets orders again"
        case _:
            return ""


def _than_before(event: dict[str, Any]) -> str:
    lowered = event["lowered_bytes"]
    return f"; {bytes_text(lowered)} less than it said before" if lowered else ""


def _than_we(event: dict[str, Any]) -> str:
    than = "more" if event["correction_bytes"] > 0 else "less"
    return f"{bytes_text(abs(event['correction_bytes']))} {than} than we"
