"""What carriers say was used: each figure meets what we had counted by its instant, which history knows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import run
from simswitch.core.machine import Machine
from simswitch.history.carriers import Counted, Wanted, counted_by, knows_since
from simswitch.history.reading import known
from simswitch.history.schema import HistoryRefused, open_reader
from simswitch.service.call import Call
from simswitch.service.errors import HISTORY_BEHIND, INVALID_ARGUMENT, TOO_MANY_ITEMS, Refused
from simswitch.v1 import caps_pb2 as pb
from simswitch.v1 import inventory_pb2, status_pb2

FIGURES_MAX = 16_384
BEHIND_S = 10.0
"""For so long history may be behind before a call is refused. Under load it is written every few seconds."""


class _Pool(NamedTuple):
    """What the machine knows of the SIMs of a call."""

    sequence: int
    now_s: int
    iccids: list[int]
    """0: there is no such SIM."""
    counts: list[int]
    """Of those that there are: what they have counted, over their lives."""


class Figures:
    """Takes carriers' figures into the pool."""

    def __init__(self, cell: Cell, folder: Path | None) -> None:
        self._cell = cell
        self._folder = folder

    async def take(self, request: pb.ImportCarrierUsageRequest, call: Call) -> pb.ImportCarrierUsageResponse:
        count = len(request.carrier_bytes)
        instants = _instants(request, count)
        if not count:
            return pb.ImportCarrierUsageResponse()
        pool = await self._cell.read(lambda machine: _find(machine, request.iccid, request.imsi), call.deadline)
        of_day = request.of_day and request.window == inventory_pb2.CAP_WINDOW_KIND_ROLLING
        # A day's figure takes the place of our count, whatever that is.
        counts: list[Counted | None] = [Counted(0, 0)] * count
        if not of_day:
            counts = await self._counted(pool, instants, call)
        statuses = np.full(count, layout.UNKNOWN_SIM, np.uint8)
        corrections = np.zeros(count, np.int64)
        statuses[[bool(iccid) and then is None for iccid, then in zip(pool.iccids, counts, strict=True)]] = (
            layout.COUNT_UNKNOWN
        )
        known_then = {place: then for place, then in enumerate(counts) if pool.iccids[place] and then is not None}
        # The engine doesn't know these either, and history keeps from its answer that they were told.
        known_then |= {place: Counted(0, 0) for place, iccid in enumerate(pool.iccids) if not iccid and request.iccid}
        sent = list(known_then)
        if sent:
            commands = run(
                layout.CARRIER_USAGE,
                len(sent),
                actor=call.actor.index,
                argument=int(request.dry_run),
                iccid=np.array([pool.iccids[place] or request.iccid[place] for place in sent], np.uint64),
                carrier_bytes=[request.carrier_bytes[place] for place in sent],
                counted_bytes=np.array([then.bytes_ for then in known_then.values()], np.uint64),
                straddling_bytes=np.array([then.straddling_bytes for then in known_then.values()], np.uint64),
                as_of_s=[instants[place] for place in sent],
                window=layout.ROLLING_DAY if of_day else min(int(request.window), 255),
            )
            outcome = await self._cell.submit(commands, call.deadline)
            statuses[sent] = outcome["status"]
            taken = np.isin(outcome["status"], (layout.OK, layout.SAME))
            corrections[sent] = np.where(taken, outcome["correction_bytes"], 0)
        return pb.ImportCarrierUsageResponse(
            status=[status_pb2.Status.ValueType(status) for status in statuses.tolist()],
            correction_bytes=corrections.tolist(),
            iccid=pool.iccids,
        )

    async def _counted(self, pool: _Pool, instants: Sequence[int], call: Call) -> list[Counted | None]:
        """Waits a moment for history: it is behind by the record that was written last, if only for a dry run."""
        loop = asyncio.get_running_loop()
        until = loop.time() + BEHIND_S
        while True:
            try:
                return await call.aside(self._counts, pool, instants)
            except Refused as error:
                if error.reason is not HISTORY_BEHIND or loop.time() >= until:
                    raise
            await asyncio.sleep(0.1)

    def _counts(self, pool: _Pool, instants: Sequence[int]) -> list[Counted | None]:
        """What had been counted of each SIM by the instant of its figure; None: not known. For a thread."""
        if self._folder is None:
            raise Refused(HISTORY_BEHIND, "the service keeps no data folder")
        try:
            connection = open_reader(self._folder)
        except HistoryRefused as error:
            raise Refused(HISTORY_BEHIND, str(error)) from error
        try:
            state = known(connection)
            # Who has no row since an instant has counted nothing since; for that all that was counted has to be there.
            if state.sequence < pool.sequence:
                raise Refused(HISTORY_BEHIND, f"it has come to record {state.sequence:,} of {pool.sequence:,}")
            # One of an instant to come is impossible, whatever was counted.
            past = [min(instant, pool.now_s) for instant in instants]
            known_since = {at_s: knows_since(connection, state.at_ms, at_s * 1000) for at_s in set(past)}
            places = [place for place, iccid in enumerate(pool.iccids) if iccid and known_since[past[place]]]
            wanted = [Wanted(pool.iccids[place], past[place], pool.counts[place]) for place in places]
            counts: list[Counted | None] = [None] * len(past)
            for place, then in zip(places, counted_by(connection, wanted), strict=True):
                counts[place] = then
            return counts
        finally:
            connection.close()


def _instants(request: pb.ImportCarrierUsageRequest, count: int) -> list[int]:
    """The instant of each figure. Refuses columns that don't fit together."""
    if count > FIGURES_MAX:
        raise Refused(TOO_MANY_ITEMS, f"{count:,} figures; a call may have {FIGURES_MAX:,}")
    if request.iccid and request.imsi:
        raise Refused(INVALID_ARGUMENT, "SIMs are named by iccid or by imsi, not by both")
    named = len(request.iccid) or len(request.imsi)
    if named != count or len(request.as_of_s) not in (1, count):
        lengths = f"{named:,} SIMs, {len(request.as_of_s):,} instants and {count:,} figures"
        raise Refused(INVALID_ARGUMENT, f"{lengths} are not columns of one length (one instant may be that of all)")
    instants = list(request.as_of_s)
    return instants * count if len(instants) == 1 else instants


def _find(machine: Machine, iccids: Sequence[int], imsis: Sequence[int]) -> _Pool:
    find = machine.find_sim if iccids else machine.find_sim_by_imsi
    places = [find(number) for number in iccids or imsis]
    known_places = np.array([place for place in places if place is not None], np.uint32)
    sims = zip(*(column.tolist() for column in machine.sim_counts(known_places)), strict=True)
    found = [(0, 0) if place is None else next(sims) for place in places]
    return _Pool(machine.sequence, machine.now_ms // 1000, *(list(column) for column in zip(*found, strict=True)))
