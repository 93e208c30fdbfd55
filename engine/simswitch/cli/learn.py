"""``simswitch learn``: posts what was observed of slowed SIMs and caps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, target
from simswitch.cli.screen import complain

if TYPE_CHECKING:
    import sqlite3

ACTOR = "operator:learner"
AGAIN_S = 2.0


def learn(
    folder: Annotated[Path, typer.Argument(help="The data folder of the service.", exists=True, file_okay=False)],
    decide_every: Annotated[
        float, typer.Option(help="Seconds between two looks at who was seen slowed.", min=0.01, max=3_600)
    ] = 1.0,
    learn_every: Annotated[
        float, typer.Option(help="Seconds between two looks at the caps of lots.", min=0.01, max=86_400)
    ] = 3_600.0,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
) -> None:
    """Post what the follower saw: SIMs that are slowed, and the caps that their lots really have, until interrupted.

    It runs beside the service, on the same machine, and reads its history. It acts as operator:learner unless told or
    proven otherwise, keeps nothing, and may be ended and started at any time.
    """
    learner_of = _needs_scipy()
    import os

    os.nice(10)
    service_at = target(config, address, actor)
    if actor is None and service_at.actor is not None:
        service_at = service_at._replace(actor=ACTOR)
    from simswitch.cli.connection import connected

    try:
        while True:
            try:
                with connected(*service_at) as service, _history(folder) as connection:
                    learner = learner_of(service, complain)
                    due_s = time.monotonic()
                    while True:
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


def _needs_scipy() -> type:
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise CommandFailed(Exit.USAGE, "this needs the extra: pip install 'simswitch[caps]'") from None
    from simswitch.caps.learner import Learner

    return Learner


@contextmanager
def _history(folder: Path) -> Iterator[sqlite3.Connection]:
    """What can't be read may be there later: the service makes it, and may begin a new one."""
    import sqlite3

    from simswitch.history.schema import HistoryRefused, open_reader

    try:
        with closing(open_reader(folder)) as connection:
            yield connection
    except (HistoryRefused, sqlite3.Error) as error:
        raise CommandFailed(Exit.REFUSED, str(error), later=True) from error
