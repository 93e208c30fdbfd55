"""``simswitch caps``: the caps of lots that are in force or will be, and when windows start anew; and to set them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_of, bytes_text, counted, instant_ms, instant_text
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.learned import described, draw, find_learned, learned_table
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import complain, print_json, show, table

app = typer.Typer(help="Show the caps of lots, or set one.")
PLANNED = "plan"
ENDLESS_DO = "write `[resets]` into its plan, and a cap of a window if it has none"
PREPAID_DO = "replace them; `[resets]` belongs into its plan only if its carrier gives the quota anew"


class WindowWord(StrEnum):
    CYCLE = "cycle"
    DAY = "day"
    ROLLING = "rolling"


class CertaintyWord(StrEnum):
    CONTRACTUAL = "contractual"
    BELIEVED = "believed"
    LEARNED = "learned"


@app.callback(invoke_without_command=True)
def caps(
    context: typer.Context,
    lot: Annotated[str, typer.Option("--lot", help="Only this lot. Default: all.")] = "",
    history: Annotated[
        Path | None,
        typer.Option(help="The service's data folder: shows what was learned, too.", exists=True, file_okay=False),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what is learned of one lot beside what is believed (PNG).")
    ] = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the caps of lots: in force, how well known, since when, what the plan says, what comes, the next reset."""
    if context.invoked_subcommand is not None:
        return
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import caps_pb2

    with connected(*target(config, address, actor)) as service:

        def request(**page: Any) -> caps_pb2.ListLotCapsRequest:
            return caps_pb2.ListLotCapsRequest(lot=lot, **page)

        found = [plain(entry) for entry in pages(service.caps.ListLotCaps, request, "lots")]
    learned = find_learned(history, found) if history is not None else {}
    for each in found:
        each.update(described(learned[each["lot"]]) if each["lot"] in learned else {})
    if plot is not None:
        if history is None:
            raise CommandFailed(Exit.USAGE, "--plot draws what history knows: say --history DIR too")
        draw(learned, found, plot)
        complain(f"picture: {plot}")
    if json:
        print_json({"lots": found})
        return
    rows = [_row(each, window) for each in found for window in each["windows"]]
    columns = ["lot", "window", "in force", "basis", "since", "plan", "before", "comes", "next reset"]
    show(table("Caps", columns, rows) if rows else "No cap is known: `simswitch import` brings plans and lots.")
    for each in found:
        if each["pool"] is not None:
            nothing = "; nothing is learned from what single ones had used" if history is not None else ""
            show(f"{each['lot']}: {pool_text(each['pool'], each['windows'])}{nothing}")
        if each["tried_ms"] or each["stays_slowed"]:
            show(endless_text(each))
        if unfit := unfit_text(each):
            show(unfit)
    if history is not None:
        show(learned_table(found))


def endless_text(lot: dict[str, Any]) -> str:
    """Of a lot whose slowed SIMs no reset brings back: when they are tried, if they are, and what to do."""
    if lot["stays_slowed"]:
        return (
            f"{lot['lot']}: {counted(lot['slowed_count'], 'SIM')} of it slowed, and nothing brings such back, since it "
            f"is prepaid: {PREPAID_DO}."
        )
    return (
        f"{lot['lot']}: {counted(lot['slowed_count'], 'SIM')} of it slowed, and no reset is known that brings such "
        f"back. From {instant_text(lot['tried_ms'])} on those are put on probation that nobody has had for a day. "
        f"Plan {lot['plan']}: {ENDLESS_DO}."
    )


def unfit_text(lot: dict[str, Any], *to_come: int) -> str:
    """Of a lot with a cap, in force or ``to_come``, below which its SIMs are low before they are used. Else empty."""
    caps = [*to_come, *(each["quota_bytes"] for each in lot["windows"] if each["quota_bytes"] is not None)]
    if lot["low_bytes"] is None or not caps or lot["low_bytes"] <= min(caps):
        return ""
    return (
        f"{lot['lot']}: NONE OF ITS SIMS CAN BE HANDED OUT with a cap of {bytes_text(min(caps))}: by plan "
        f"{lot['plan']} they are low or exhausted below {bytes_text(lot['low_bytes'])} left. Lower its marks "
        "(`low_bytes`, `exhausted_bytes`), or raise the cap."
    )


def _shared(window: dict[str, Any]) -> str:
    return ", shared" if window["pooled"] else ""


def pool_text(pool: dict[str, Any], caps: list[dict[str, Any]]) -> str:
    """What the SIMs of a lot have together: what was counted of each cap that they share, what is left, the marks."""
    left = pool["left_bytes"]
    counted = " and ".join(
        f"{bytes_text(max(cap['pool_used_bytes'], 0))} of {bytes_text(cap['quota_bytes'])} "
        f"({cap['window']}, {cap['certainty']}{_figure(cap)})"
        for cap in caps
        if cap["pooled"] and cap["quota_bytes"] is not None
    )
    what = (
        "no end of it is known"
        if left is None
        else f"{bytes_text(left)} left"
        if left >= 0
        else (f"{bytes_text(-left)} over")
    )
    masked = "" if pool["health"] == "healthy" else f"; {pool['health']}, so that no SIM of it is handed out"
    used = f", {counted} used" if counted else ""
    claimed = bytes_text(pool["claimed_bytes"])
    marks = ""
    if pool["low_bytes"] is not None:
        marks = f"; low below {bytes_text(pool['low_bytes'])} and exhausted below {bytes_text(pool['exhausted_bytes'])}"
    return f"its SIMs share a quota{used}, {what}, of which leases may yet use {claimed}{marks}{masked}"


def _figure(cap: dict[str, Any]) -> str:
    """What its carrier said last of all SIMs of the lot together."""
    if not cap["pool_as_of_ms"]:
        return ""
    beyond = cap["pool_correction_bytes"]
    than = f"{bytes_text(abs(beyond))} {'less' if beyond < 0 else 'more'} than we" if beyond else "as we"
    told = f"{bytes_text(cap['pool_carrier_bytes'])} as of {instant_text(cap['pool_as_of_ms'])}"
    if cap["pool_raised_bytes"]:
        told += f", of its single SIMs {bytes_text(cap['pool_raised_bytes'])} more"
    said = f"; its carrier said {told}, {than}"
    straddling = cap["pool_straddling_bytes"]
    return said + (f", and {bytes_text(straddling)} may have come after it" if straddling else "")


def _comes(window: dict[str, Any]) -> str:
    if not window["waiting_ms"]:
        return ""
    quota = window["waiting_bytes"]
    return f"{bytes_text(quota) if quota is not None else 'the plan'} at {instant_text(window['waiting_ms'])}"


def _row(lot: dict[str, Any], window: dict[str, Any]) -> list[str]:
    reset = instant_text(window["reset_ms"]) if window["reset_ms"] else "nobody knows"
    return [
        lot["lot"] + (f" ({lot['validity'].replace('_', ' ')} valid)" if lot["validity"] else ""),
        counted(lot["rolling_days"], "day") if window["window"] == "rolling" else window["window"],
        (bytes_text(window["quota_bytes"]) if window["quota_bytes"] is not None else "none") + _shared(window),
        window["certainty"] or "",
        instant_text(window["since_ms"]),
        bytes_text(window["planned_bytes"]) if window["planned_bytes"] is not None else "",
        bytes_text(window["before_bytes"]) if window["before_bytes"] is not None else "",
        _comes(window),
        "under way" if window["resetting"] else reset,
    ]


@app.command("set")
def set_cap(
    lot: Annotated[str, typer.Argument(help="The lot.")],
    window: Annotated[WindowWord, typer.Argument(help="Which of its windows.")],
    quota: Annotated[str, typer.Argument(help="100GB, say: what is surely not slowed. 'plan': what the plan says.")],
    certainty: Annotated[CertaintyWord, typer.Option(help="How well it is known.")] = CertaintyWord.BELIEVED,
    at: Annotated[str, typer.Option(help="From 2026-12-01T00:00+09:00 on, say, or in 4h. Default: now.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="With --at: instead of a change that waits already.")
    ] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a lot's cap is, from now on or from an instant. What was in force before stays in the record."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, enum_word, plain
    from simswitch.v1 import caps_pb2, inventory_pb2, status_pb2

    if replace and not at:
        raise CommandFailed(Exit.USAGE, "--replace is of a change that is to come: say --at too")
    now = datetime.now(UTC)
    at_ms = instant_ms("--at", at, now) if at else 0
    if at and at_ms < (now.timestamp() - 1) * 1000:
        raise CommandFailed(
            Exit.USAGE, f"--at: {instant_text(at_ms)} is past, and what was then can't be changed; leave it out for now"
        )
    change = caps_pb2.CapChange(
        lot=lot,
        window=inventory_pb2.CapWindowKind.Value(f"CAP_WINDOW_KIND_{window.name}"),
        quota_bytes=None if quota == PLANNED else bytes_of("QUOTA", quota),
        certainty=inventory_pb2.Certainty.Value(f"CERTAINTY_{certainty.name}"),
        at_ms=at_ms,
    )
    with connected(*target(config, address, actor)) as service:
        request = caps_pb2.SetCapsRequest(changes=[change], replace=replace)
        (status,) = service.caps.SetCaps(request, timeout=CALL_TIMEOUT_S).statuses
        known: dict[str, Any] = {}
        if status in (status_pb2.STATUS_OK, status_pb2.STATUS_CAP_WAITS):
            found = service.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot=lot), timeout=CALL_TIMEOUT_S)
            known = plain(found.lots[0])
        if status == status_pb2.STATUS_CAP_WAITS:
            comes = "".join(_comes(entry) for entry in known["windows"] if entry["window"] == window.value)
            raise CommandFailed(
                Exit.REFUSED,
                f"the cap of {lot}, {window}, was not set: {comes or 'another one'} waits already. Let it come first, "
                "or say --replace for this one instead of it",
            )
    if status not in (status_pb2.STATUS_OK, status_pb2.STATUS_SAME):
        word = enum_word(status_pb2.Status.DESCRIPTOR, status).replace("_", " ")
        if status == status_pb2.STATUS_UNKNOWN_LOT:
            word += " (`simswitch pool` names all)"
        if status == status_pb2.STATUS_INVALID_ARGUMENT and window == WindowWord.ROLLING:
            word = "its plan has no rolling window, so nobody knows of how many days"
        raise CommandFailed(Exit.REFUSED, f"the cap of {lot}, {window}, was not set: {word}")
    if json:
        print_json({"status": enum_word(status_pb2.Status.DESCRIPTOR, status), **plain(change)})
        return
    begins = f"from {instant_text(change.at_ms)} on" if change.at_ms else "from now on"
    amount = "what the plan says" if quota == PLANNED else f"{bytes_text(change.quota_bytes)} ({certainty})"
    show(f"{lot}, {window}: {amount} {begins}." if status == status_pb2.STATUS_OK else "It was so already.")
    if known and quota != PLANNED and _endless(known, window):
        show("Nobody says when this window starts anew (its plan has no `resets`): what is used in it counts for good.")
    if known and (unfit := unfit_text(known, *([] if quota == PLANNED else [change.quota_bytes]))):
        show(unfit)


def _endless(lot: dict[str, Any], window: WindowWord) -> bool:
    """Whether nobody knows when the window starts anew."""
    windows = (each for each in lot["windows"] if each["window"] == window.value)
    return any(not each["reset_ms"] and not each["resetting"] for each in windows)
