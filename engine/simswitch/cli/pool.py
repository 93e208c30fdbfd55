"""``simswitch pool``: what is left, by lot, supplier, class, market or SIM."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simswitch.cli.amounts import bytes_text, counted, instant_text
from simswitch.cli.caps import pool_text
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.history import SHOWN, FormatOption, write_rows
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import complain, print_json, show, table

if TYPE_CHECKING:
    from simswitch.client import OperatorClient

_COLUMNS = (
    "", "SIMs", "can be handed out", "left", "assigned", "healthy", "probation", "low", "exhausted", "not valid",
    "throttled", "others", "masked",
)  # fmt: skip
_SIM_COLUMNS = ("SIM", "lot", "bank", "occupancy", "health", "left", "in the cycle", "today")
_OF_SIM = (
    "iccid", "lot", "bank", "slot", "occupancy", "health", "on_probation", "headroom_bytes", "counted_bytes",
    "used_cycle_bytes", "used_day_bytes", "used_rolling_bytes",
)  # fmt: skip


_COUNTED = (
    "headroom_bytes", "unlimited_count", "used_cycle_bytes", "healthy_count", "probation_count", "low_count",
    "exhausted_count", "throttled_count", "quarantined_count", "retired_count", "others_count", "free_count",
    "assigned_count", "not_valid_count",
)  # fmt: skip
"""What the follower counts; not known before it has."""


class By(StrEnum):
    """By what the pool is added up."""

    LOT = "lot"
    SUPPLIER = "supplier"
    CLASS = "class"
    MARKET = "market"
    SIM = "sim"


def pool(
    by: Annotated[By, typer.Option("--by", help="What is added up; sim: one by one.")] = By.LOT,
    lot: Annotated[str, typer.Option("--lot", help="With --by sim: only those of this lot.")] = "",
    on_probation: Annotated[
        bool, typer.Option("--on-probation", help="With --by sim: only those that were slowed and not seen fast since.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows at most on the screen.")] = SHOWN,
    file: Annotated[
        Path | None, typer.Option("--export", help="Write all rows to this file. It must not exist.", dir_okay=False)
    ] = None,
    format_: FormatOption = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show what is left: bytes, and SIMs by what state they are in.

    SIMs that can be handed out, low, exhausted and throttled ones among them.
    """
    from simswitch.cli.connection import connected
    from simswitch.v1 import pool_pb2

    if by is not By.SIM and (lot or on_probation):
        raise CommandFailed(Exit.USAGE, "--lot and --on-probation choose SIMs: say --by sim too")
    with connected(*target(config, address, actor)) as service:
        found = _sims(service, lot, on_probation) if by is By.SIM else _remaining(service, by)
        if file is not None:
            columns = _OF_SIM if by is By.SIM else [field.name for field in pool_pb2.Remaining.DESCRIPTOR.fields]
            count = write_rows(file, format_, columns, found)
            complain(f"{counted(count, 'row')} written to {file}")
            if json:
                print_json({"file": str(file), "rows_count": count})
            return
        rows = list(islice(found, limit))
        more = next(found, None) is not None
        shared = list(_shared(service, rows)) if by is By.LOT and not json else []
    if json:
        print_json({"by": by.value, "rows": rows})
    elif by is By.SIM:
        show(table("SIMs", _SIM_COLUMNS, [_sim_row(each) for each in rows]))
    else:
        show(table(f"By {by}", (by, *_COLUMNS[1:]), [_row(each, by is By.LOT) for each in rows]))
        for line in shared:
            show(line)
        counts_ms = {each["counted_ms"] for each in rows if each["sims_count"]}
        if counts_ms - {0}:
            show(
                f"SIMs, handed out and masked are of now; the rest as of {instant_text(min(counts_ms - {0}))} or later."
            )
        if 0 in counts_ms:
            show("Some have not been counted yet: the follower does it every minute.")
    if more:
        complain(f"These are the first {limit:,}: there are more (--limit, or --export for all).")


def _remaining(service: OperatorClient, by: By) -> Iterator[dict[str, Any]]:
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import pool_pb2

    def request(**page: Any) -> pool_pb2.ListRemainingRequest:
        return pool_pb2.ListRemainingRequest(by=pool_pb2.RemainingBy.Value(f"REMAINING_BY_{by.name}"), **page)

    for entry in pages(service.pool.ListRemaining, request, "remaining"):
        row = plain(entry)
        yield row if row["counted_ms"] else row | dict.fromkeys(_COUNTED)


def _shared(service: OperatorClient, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Of each lot whose SIMs share a quota: how many they are, what is left and from where on it is low."""
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.v1 import caps_pb2

    for row in rows:
        if row["pools_count"]:
            request = caps_pb2.ListLotCapsRequest(lot=row["name"])
            lot = plain(service.caps.ListLotCaps(request, timeout=CALL_TIMEOUT_S).lots[0])
            yield f"{row['name']}, {counted(row['sims_count'], 'SIM')}: {pool_text(lot['pool'], lot['windows'])}"


def _sims(service: OperatorClient, lot: str, on_probation: bool) -> Iterator[dict[str, Any]]:
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import inventory_pb2

    def request(**page: Any) -> inventory_pb2.ListSimsRequest:
        return inventory_pb2.ListSimsRequest(lot=lot, on_probation=on_probation, **page)

    for entry in pages(service.inventory.ListSims, request, "sims"):
        found = plain(entry)
        yield {name: found[name] for name in _OF_SIM}


def _row(each: dict[str, Any], by_lot: bool) -> list[Any]:
    kept = [each["name"], each["sims_count"], each["selectable_count"]]
    if not each["counted_ms"]:
        return [*kept, *[None] * 9, each["masked_count"]]
    left = bytes_text(each["headroom_bytes"])
    if each["unlimited_count"]:
        left += f" and {each['unlimited_count']:,} without a cap"
    if each["pools_count"]:
        left += ", shared" if by_lot else f", {counted(each['pools_count'], 'lot')} shared"
    names = ("assigned", "healthy", "probation", "low", "exhausted", "not_valid", "throttled")
    others = each["quarantined_count"] + each["retired_count"] + each["others_count"]
    return [*kept, left, *(each[f"{name}_count"] for name in names), others, each["masked_count"]]


def _sim_row(each: dict[str, Any]) -> list[Any]:
    left = each["headroom_bytes"]
    return [
        each["iccid"],
        each["lot"],
        f"{each['bank']} {each['slot']}",
        each["occupancy"],
        each["health"] + (", on probation" if each["on_probation"] else ""),
        "no cap" if left is None else bytes_text(max(left, 0)),
        bytes_text(max(each["used_cycle_bytes"], 0)),
        bytes_text(max(each["used_day_bytes"], 0)),
    ]
