"""``simswitch learn``: posts what was observed of slowed SIMs and caps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.exits import CommandFailed
from simswitch.cli.learned import needs_scipy, opened
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, target
from simswitch.cli.screen import complain

ACTOR = "learner:local"
AGAIN_S = 2.0


def learn(
    folder: Annotated[Path, typer.Argument(help="The data folder of the service.", exists=True, file_okay=False)],
    decide_every: Annotated[
        float, typer.Option(help="Seconds between two looks at who was seen slowed.", min=0.01, max=3_600)
    ] = 1.0,
    learn_every: Annotated[
        float, typer.Option(help="Seconds between two looks at the caps of lots.", min=0.01, max=86_400)
    ] = 3_600.0,
    parent: Annotated[int, typer.Option(hidden=True, help="End when this process is no longer the parent.")] = 0,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
) -> None:
    """Post what the follower saw: SIMs that are slowed, and the caps that their lots really have, until interrupted.

    It runs beside the service, on the same machine, and reads its history. It acts as learner:local unless told or
    proven otherwise, keeps nothing, and may be ended and started at any time.
    """
    needs_scipy()
    import os

    os.nice(10)
    service_at = target(config, address, actor)
    if actor is None and service_at.actor is not None:
        service_at = service_at._replace(actor=ACTOR)
    from simswitch.caps.learner import Learner
    from simswitch.cli.connection import connected

    try:
        while not parent or os.getppid() == parent:
            try:
                with connected(*service_at) as service:
                    learner = Learner(service, complain)
                    due_s = time.monotonic()
                    while not parent or os.getppid() == parent:
                        # Opened each time: somebody may have moved the file away.
                        with opened(folder) as connection:
                            learner.decide(connection)
                            if time.monotonic() >= due_s:
                                learner.learn(connection)
                                due_s = time.monotonic() + learn_every
                        time.sleep(decide_every)
            except CommandFailed as error:
                if not error.later:
                    raise
                complain(f"{error}. Again in {AGAIN_S:.0f} s")
            time.sleep(AGAIN_S)
    except KeyboardInterrupt:
        return
