"""``simswitch clock``: what to do when the wall clock has jumped."""

from __future__ import annotations

import typer

from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show

app = typer.Typer(help="Say that the wall clock is right after it jumped.", no_args_is_help=True)


@app.command("confirm")
def confirm(
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Take the wall clock's time after a jump of over a minute.

    A start over a day after the last record is such a jump too. Until then the service goes on by its own measure of
    time, and no lease expires and no window resets. Look at the machine's clock first.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.v1 import pool_pb2

    with connected(*target(config, address, actor)) as service:
        answer = service.pool.ConfirmClock(pool_pb2.ConfirmClockRequest(), timeout=CALL_TIMEOUT_S)
    if json:
        print_json(plain(answer))
    elif answer.was_frozen:
        show("The wall clock is taken. Leases expire and windows reset again; every lease has one lease's time more.")
    else:
        show("There was nothing to confirm: the clock has not jumped.")
