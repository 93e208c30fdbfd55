"""``simswitch carrier``: what carriers did to SIMs."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.amounts import counted
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import complain, print_json, show

CHUNK = 4_096
REFUSED = {
    "unknown_sim": "the pool has no such SIM: compare it with the carrier's list, or import it",
    "wrong_state": "it is retired, and stays so (a SIM that works again is a new one for the pool), or it is out for "
    "another reason, which a carrier doesn't lift: say it again when that is over (`simswitch sim` shows it)",
}
"""What was not taken: why, and what to do."""


class Life(StrEnum):
    """What a carrier did."""

    SUSPENDED = "suspended"
    ACTIVE = "active"
    TERMINATED = "terminated"


def carrier(
    life: Annotated[Life, typer.Argument(help="What the carrier did.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, up to 64 bytes. It is kept, with who said so.")],
    iccids: Annotated[list[str] | None, typer.Argument(metavar="[ICCID]...", help="The SIMs, 19 or 20 digits.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="More of them, an ICCID a line.", exists=True, dir_okay=False)
    ] = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a carrier did to SIMs: suspended, active (again), terminated for good.

    A suspended or terminated SIM is given to nobody, and who has it is swapped (automatic_swaps). `active` lifts a
    suspension and nothing else. Nothing is said when one of the ICCIDs is none; of those that are, each is taken or
    refused by itself, and the same again changes nothing.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, enum_word
    from simswitch.client.operator import how_far
    from simswitch.core.commands import encode_iccid
    from simswitch.v1 import inventory_pb2, status_pb2

    named = [(digits, digits) for digits in iccids or []]
    if file is not None:
        lines = file.read_text(encoding="utf-8").splitlines()
        named += [(f"{file}:{line}", text.strip()) for line, text in enumerate(lines, 1) if text.strip()]
    if not named:
        raise CommandFailed(Exit.USAGE, "name the SIMs: ICCIDs, or a file of them with --file")
    numbers, wrong = [], 0
    for where, digits in named:
        try:
            numbers.append(encode_iccid(digits))
        except ValueError as error:
            wrong += 1
            complain(str(error) if where == digits else f"{where}: {error}")
    if wrong:
        raise CommandFailed(
            Exit.REFUSED, f"{counted(wrong, 'word is no ICCID', 'words are no ICCIDs')}; nothing was said"
        )
    statuses: list[str] = []
    with connected(*target(config, address, actor)) as service:
        so_far = "it was said of {:,} of {:,} SIMs, and saying it of those again changes nothing"
        with how_far(lambda: so_far.format(len(statuses), len(numbers))):
            for start in range(0, len(numbers), CHUNK):
                request = inventory_pb2.TellCarrierLifeRequest(
                    iccid=numbers[start : start + CHUNK],
                    life=inventory_pb2.CarrierLife.Value(f"CARRIER_LIFE_{life.name}"),
                    reason=reason,
                )
                answer = service.inventory.TellCarrierLife(request, timeout=CALL_TIMEOUT_S)
                statuses += [enum_word(status_pb2.Status.DESCRIPTOR, status) for status in answer.status]
    counts = Counter(statuses)
    if json:
        each = [{"iccid": named[place][1], "status": status} for place, status in enumerate(statuses)]
        print_json({"counts": dict(sorted(counts.items())), "sims": each})
    for (where, digits), status in zip(named, statuses, strict=True):
        if status in REFUSED:
            which = digits if where == digits else f"{where}: {digits}"
            complain(f"{which}: {status.replace('_', ' ')} ({REFUSED[status]})")
    refused = sum(counts[status] for status in REFUSED)
    if not json:
        before = "not suspended" if life is Life.ACTIVE else f"{life} already"
        same = f"{counted(counts['same'], 'SIM was', 'SIMs were')} {before}" if counts["same"] else ""
        now = f"{counted(counts['ok'], 'SIM is', 'SIMs are')} {life} now" if counts["ok"] or not same else ""
        show(f"{', '.join(filter(None, (now, same)))}.")
    if refused:
        raise CommandFailed(Exit.REFUSED, f"{counted(refused, 'SIM was', 'SIMs were')} refused, as above")
