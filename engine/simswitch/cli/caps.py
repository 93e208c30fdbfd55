"""``simswitch caps``: the caps of lots that are in force."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_text, instant_text
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show, table


def caps(
    lot: Annotated[str, typer.Argument(help="Only this lot. Default: all.")] = "",
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the caps of lots: in force, how well known, since when, what the plan says and what held before."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import caps_pb2

    with connected(*target(config, address, actor)) as service:

        def request(**page: Any) -> caps_pb2.ListLotCapsRequest:
            return caps_pb2.ListLotCapsRequest(lot=lot, **page)

        found = [plain(entry) for entry in pages(service.caps.ListLotCaps, request, "lots")]
    if json:
        print_json({"lots": found})
        return
    rows = [
        [
            each["lot"],
            f"{each['rolling_days']} days" if window["window"] == "rolling" else window["window"],
            bytes_text(window["quota_bytes"]) if window["quota_bytes"] is not None else "none",
            window["certainty"] or "",
            instant_text(window["since_ms"]),
            bytes_text(window["planned_bytes"]) if window["planned_bytes"] is not None else "",
            bytes_text(window["before_bytes"]) if window["before_bytes"] is not None else "",
        ]
        for each in found
        for window in each["windows"]
    ]
    show(
        table("Caps", ["lot", "window", "in force", "basis", "since", "plan", "before"], rows, 2)
        if rows
        else "No cap is known."
    )
