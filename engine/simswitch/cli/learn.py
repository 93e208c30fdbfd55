"""``simswitch learn``: posts what was observed of slowed SIMs and caps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.learned import needs_scipy, opened
from simswitch.cli.options import (
    ActorOption,
    AddressOption,
    ConfigOption,
    MetricsBeyondOption,
    MetricsOption,
    target,
)
from simswitch.cli.screen import complain

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

ACTOR = "learner:local"
SOON_S = 60.0
"""Between two looks for lots whose SIMs went beyond their cap and were not slowed."""
AGAIN_S = 2.0


def learn(
    folder: Annotated[Path, typer.Argument(help="The data folder of the service.", exists=True, file_okay=False)],
    decide_every: Annotated[
        float, typer.Option(help="Seconds between two looks at who was seen slowed.", min=0.01, max=3_600)
    ] = 1.0,
    learn_every: Annotated[
        float, typer.Option(help="Seconds between two looks at the caps of lots.", min=0.01, max=86_400)
    ] = 3_600.0,
    metrics: MetricsOption = None,
    metrics_beyond_loopback: MetricsBeyondOption = False,
    parent: Annotated[int, typer.Option(hidden=True, help="End when this process is no longer the parent.")] = 0,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell the service which SIMs are slowed, and which caps their lots really have.

    It posts what the follower saw, until interrupted. It runs beside the service, on the same machine, and reads its
    history. It acts as learner:local unless told or proven otherwise, keeps nothing, and may be ended and started at
    any time.
    """
    needs_scipy()
    import os

    os.nice(10)
    service_at = target(config, address, actor)
    if actor is None and service_at.actor is not None:
        service_at = service_at._replace(actor=ACTOR)
    from simswitch.caps.learner import Learner
    from simswitch.cli.connection import connected

    looks = Looks()
    try:
        with _told(looks, metrics, metrics_beyond_loopback):
            while not parent or os.getppid() == parent:
                try:
                    with connected(*service_at) as service:
                        learner = Learner(service, complain)
                        due_s = soon_s = time.monotonic()
                        while not parent or os.getppid() == parent:
                            # Opened each time: somebody may have moved the file away.
                            with opened(folder) as connection:
                                looks.decided += learner.decide(connection)
                                if time.monotonic() >= due_s:
                                    looks.lots += learner.learn(connection)
                                    due_s = time.monotonic() + learn_every
                                elif time.monotonic() >= soon_s:
                                    looks.lots += learner.learn_soon(connection)
                                    soon_s = time.monotonic() + SOON_S
                            looks.lots_failed, learner.lots_failed = looks.lots_failed + learner.lots_failed, 0
                            looks.last_s = time.time()
                            time.sleep(decide_every)
                except CommandFailed as error:
                    if not error.later:
                        raise
                    looks.failed += 1
                    complain(f"{error}. Again in {AGAIN_S:.0f} s")
                time.sleep(AGAIN_S)
    except KeyboardInterrupt:
        return


class Looks:
    """What came of the learner's looks at history since it began, for Prometheus."""

    def __init__(self) -> None:
        self.decided = self.lots = self.lots_failed = self.failed = 0
        self.last_s = 0.0

    def collect(self) -> Iterator[Any]:
        from simswitch.metrics import counter, gauge

        yield counter("learner_decisions", "Decisions about SIMs that were posted since it began.", self.decided)
        yield counter("learner_lots", "Looks at a lot of which something new had been observed.", self.lots)
        text = (
            "Looks at a lot that ended with an error, which the log names; the other lots were looked at all the same."
        )
        yield counter("learner_lots_failed", text, self.lots_failed)
        yield counter("learner_failures", "Times that service or history could not be reached.", self.failed)
        text = "When it last looked at history and had posted what followed, Unix time; 0: not yet."
        yield gauge("learner_last_look_timestamp_seconds", text, self.last_s)


def _told(looks: Looks, listen: str | None, beyond_loopback: bool) -> AbstractContextManager[object]:
    """Tells Prometheus meanwhile, where that was asked for."""
    if listen is None:
        return nullcontext()
    from simswitch.metrics import MetricsRefused, listening

    try:
        return listening(listen, beyond_loopback, looks.collect, complain)
    except MetricsRefused as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
