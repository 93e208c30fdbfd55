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
from simswitch.history.carriers import Counted, PoolWanted, Wanted, counted_by, knows_since, pool_counted_by
from simswitch.history.reading import known
from simswitch.history.schema import HistoryRefused, open_reader
from simswitch.service.call import Call
from simswitch.service.directory import Directory
from simswitch.service.errors import HISTORY_BEHIND, INVALID_ARGUMENT, TOO_MANY_ITEMS, Refused
from simswitch.v1 import caps_pb2 as pb
from simswitch.v1 import inventory_pb2, status_pb2

FIGURES_MAX = 16_384
BEHIND_S = 10.0
"""For so long history may be behind before a call is refused. Under load it is written every few seconds."""


class _Named(NamedTuple):
    """What the machine knows of the SIMs of a call, or of its lots."""

    sequence: int
    now_s: int
    keys: list[int]
    """ICCIDs, or indexes of lots. 0: there is no such one."""
    counts: list[int]
    """Of those that there are: what they have counted, over their lives."""
    of_pools: bool
    """Each figure is of all SIMs of a lot together."""


class Figures:
    """Takes carriers' figures into the pool."""

    def __init__(self, cell: Cell, directory: Directory, folder: Path | None) -> None:
        self._cell = cell
        self._directory = directory
        self._folder = folder

    async def take(self, request: pb.ImportCarrierUsageRequest, call: Call) -> pb.ImportCarrierUsageResponse:
        count = len(request.carrier_bytes)
        instants = _instants(request, count)
        if not count:
            return pb.ImportCarrierUsageResponse()
        named = await self._named(request, call)
        of_day = request.of_day and request.window == inventory_pb2.CAP_WINDOW_KIND_ROLLING
        # A day's figure takes the place of our count, whatever that is.
        counts: list[Counted | None] = [Counted(0, 0)] * count
        if not of_day:
            counts = await self._counted(named, instants, call)
        unknown = layout.UNKNOWN_LOT if named.of_pools else layout.UNKNOWN_SIM
        statuses = np.full(count, unknown, np.uint8)
        corrections, lowered, raised = np.zeros((3, count), np.int64)
        statuses[[bool(key) and then is None for key, then in zip(named.keys, counts, strict=True)]] = (
            layout.COUNT_UNKNOWN
        )
        known_then = {place: then for place, then in enumerate(counts) if named.keys[place] and then is not None}
        # The engine doesn't know these either, and history keeps from its answer that they were told.
        known_then |= {place: Counted(0, 0) for place, key in enumerate(named.keys) if not key and request.iccid}
        sent = list(known_then)
        if sent:
            keys = [named.keys[place] or request.iccid[place] for place in sent]
            commands = run(
                layout.POOL_USAGE if named.of_pools else layout.CARRIER_USAGE,
                len(sent),
                actor=call.actor.index,
                argument=int(request.dry_run),
                carrier_bytes=[request.carrier_bytes[place] for place in sent],
                counted_bytes=np.array([then.bytes_ for then in known_then.values()], np.uint64),
                straddling_bytes=np.array([then.straddling_bytes for then in known_then.values()], np.uint64),
                as_of_s=[instants[place] for place in sent],
                window=layout.ROLLING_DAY if of_day else min(int(request.window), 255),
                **{"lot": keys} if named.of_pools else {"iccid": np.array(keys, np.uint64)},
            )
            outcome = await self._cell.submit(commands, call.deadline)
            statuses[sent] = outcome["status"]
            taken = np.isin(outcome["status"], (layout.OK, layout.SAME))
            corrections[sent] = np.where(taken, outcome["correction_bytes"], 0)
            lowered[sent] = np.where(taken, outcome["lowered_bytes"], 0)
            if named.of_pools and not of_day:
                stand = np.isin(statuses, (layout.SAME,) if request.dry_run else (layout.OK, layout.SAME))
                raised[stand] = await self._raised(np.array(named.keys)[stand].tolist(), int(request.window), call)
        return pb.ImportCarrierUsageResponse(
            status=[status_pb2.Status.ValueType(status) for status in statuses.tolist()],
            correction_bytes=corrections.tolist(),
            iccid=[0] * count if named.of_pools else named.keys,
            lowered_bytes=lowered.tolist(),
            raised_bytes=raised.tolist(),
        )

    async def _named(self, request: pb.ImportCarrierUsageRequest, call: Call) -> _Named:
        if not request.lot:
            return await self._cell.read(lambda machine: _sims(machine, request.iccid, request.imsi), call.deadline)
        indexes = self._directory.indexes(layout.LOT, request.lot)
        lots = [0 if index == layout.NONE_SHORT else index for index in indexes]
        return await self._cell.read(lambda machine: _lots(machine, lots), call.deadline)

    async def _raised(self, lots: list[int], window: int, call: Call) -> list[int]:
        """How much more counts of each lot than what its carrier said of all its SIMs together."""

        def read(machine: Machine) -> list[int]:
            raised = {lot: machine.lot(lot)["pool_raised_bytes"][window - 1] for lot in set(lots)}
            return [raised[lot] for lot in lots]

        return await self._cell.read(read, call.deadline)

    async def _counted(self, named: _Named, instants: Sequence[int], call: Call) -> list[Counted | None]:
        """Waits a moment for history: it is behind by the record that was written last, if only for a dry run."""
        loop = asyncio.get_running_loop()
        until = loop.time() + BEHIND_S
        while True:
            try:
                return await call.aside(self._counts, named, instants)
            except Refused as error:
                if error.reason is not HISTORY_BEHIND or loop.time() >= until:
                    raise
            await asyncio.sleep(0.1)

    def _counts(self, named: _Named, instants: Sequence[int]) -> list[Counted | None]:
        """What had been counted of each by the instant of its figure; None: not known. For a thread."""
        if self._folder is None:
            raise Refused(HISTORY_BEHIND, "the service keeps no data folder")
        try:
            connection = open_reader(self._folder)
        except HistoryRefused as error:
            raise Refused(HISTORY_BEHIND, str(error)) from error
        try:
            state = known(connection)
            # Who has no row since an instant has counted nothing since; for that all that was counted has to be there.
            if state.sequence < named.sequence:
                raise Refused(HISTORY_BEHIND, f"it has come to record {state.sequence:,} of {named.sequence:,}")
            # One of an instant to come is impossible, whatever was counted.
            past = [min(instant, named.now_s) for instant in instants]
            known_since = {at_s: knows_since(connection, state.at_ms, at_s * 1000) for at_s in set(past)}
            places = [place for place, key in enumerate(named.keys) if key and known_since[past[place]]]
            wanted = [(named.keys[place], past[place], named.counts[place]) for place in places]
            found: Sequence[Counted | None]
            if named.of_pools:
                found = pool_counted_by(connection, [PoolWanted(*each) for each in wanted], state.at_ms)
            else:
                found = counted_by(connection, [Wanted(*each) for each in wanted])
            counts: list[Counted | None] = [None] * len(past)
            for place, then in zip(places, found, strict=True):
                counts[place] = then
            return counts
        finally:
            connection.close()


def _instants(request: pb.ImportCarrierUsageRequest, count: int) -> list[int]:
    """The instant of each figure. Refuses columns that don't fit together."""
    if count > FIGURES_MAX:
        raise Refused(TOO_MANY_ITEMS, f"{count:,} figures; a call may have {FIGURES_MAX:,}")
    columns = [len(column) for column in (request.iccid, request.imsi, request.lot) if column]
    if len(columns) > 1:
        raise Refused(INVALID_ARGUMENT, "figures are of SIMs by iccid or by imsi, or of lots, not of several of these")
    (named,) = columns or [0]
    if named != count or len(request.as_of_s) not in (1, count):
        lengths = f"{named:,} SIMs or lots, {len(request.as_of_s):,} instants and {count:,} figures"
        raise Refused(INVALID_ARGUMENT, f"{lengths} are not columns of one length (one instant may be that of all)")
    instants = list(request.as_of_s)
    return instants * count if len(instants) == 1 else instants


def _sims(machine: Machine, iccids: Sequence[int], imsis: Sequence[int]) -> _Named:
    find = machine.find_sim if iccids else machine.find_sim_by_imsi
    places = [find(number) for number in iccids or imsis]
    known_places = np.array([place for place in places if place is not None], np.uint32)
    sims = zip(*(column.tolist() for column in machine.sim_counts(known_places)), strict=True)
    found = [(0, 0) if place is None else next(sims) for place in places]
    keys, counts = (list(column) for column in zip(*found, strict=True))
    return _Named(machine.sequence, machine.now_ms // 1000, keys, counts, of_pools=False)


def _lots(machine: Machine, lots: list[int]) -> _Named:
    counts = {lot: machine.lot(lot)["pool_counted_bytes"] if lot else 0 for lot in set(lots)}
    return _Named(machine.sequence, machine.now_ms // 1000, lots, [counts[lot] for lot in lots], of_pools=True)
