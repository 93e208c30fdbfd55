"""``simswitch mask``: takes a bank, a lot, or a lot's cards in a bank out of selection, and back in."""

from __future__ import annotations

from typing import Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show


def mask(
    bank: Annotated[str, typer.Option(help="The SIMs in this bank.")] = "",
    lot: Annotated[str, typer.Option(help="The SIMs of this lot; with --bank: those of it that are there.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Hand them out again.")] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Hand out no SIM of a bank or a lot, from this instant on, until `--undo`.

    Who has one keeps it: `simswitch swap create` moves terminals off.
    """
    if not bank and not lot:
        raise CommandFailed(Exit.USAGE, "name a bank, a lot, or both: --bank, --lot")
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S
    from simswitch.v1 import pool_pb2

    with connected(*target(config, address, actor)) as service:
        request = pool_pb2.SetMaskRequest(lot=lot, bank=bank, masked=not undo)
        service.pool.SetMask(request, timeout=CALL_TIMEOUT_S)
    if json:
        print_json({"lot": lot, "bank": bank, "masked": not undo})
        return
    which = (f" of lot {lot}" if lot else "") + (f" in bank {bank}" if bank else "")
    show(f"The SIMs{which} are handed out again." if undo else f"No SIM{which} is handed out any more.")
