"""ImportSims: a stream of columns into the pool, all of it or nothing, or what is good.

In the mode ALL_OR_NOTHING the whole stream is held (60 bytes a SIM) and compared with itself and with the pool before
anything is submitted. The pool is asked only for what the stream names, a few SIMs at a time, so that others come
between. Then it is submitted message by message. Nobody else can import meanwhile, so what was found free stays free.
In the mode PARTIAL each message is submitted as it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from simswitch import contract
from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import COMMAND_COLUMNS, RUN_HEADER
from simswitch.core.machine import Machine
from simswitch.service.call import Call
from simswitch.service.directory import Directory
from simswitch.service.errors import IMPORT_IDLE, IMPORT_RUNNING, INVALID_ARGUMENT, TOO_MANY_ITEMS, Refused
from simswitch.v1 import inventory_pb2 as pb

SIMS_MAX = 4_194_304
REFUSED_MAX = 65_536
MESSAGE_WITHIN_S = 30.0
LOOKED_UP_AT_ONCE = 1_024
"""SIMs that are looked for in one read of the cell, which holds up everybody else."""

_IMSI_END = 10**15
_ICCID_END = 2 * 10**18
# An even ICCID column value stands for one of 18 digits.
_EVEN_ICCID_END = _ICCID_END // 10
_OPENINGS = ("opening_cycle_bytes", "opening_day_bytes", "opening_rolling_bytes")
_LOTS, _BANKS = 0, 1
_SIM_COLUMNS = ("iccid", "imsi", "lot", "bank", "slot")

Column = npt.NDArray[Any]


class _Piece:
    """One message of the stream as a run, and its columns in place."""

    def __init__(self, run: bytes, count: int) -> None:
        self.run = run
        self.count = count
        self.columns: dict[str, Column] = {}
        offset = RUN_HEADER.itemsize
        for name, code in COMMAND_COLUMNS[layout.IMPORT_SIMS]:
            self.columns[name] = np.frombuffer(run, code, count, offset)
            offset += np.dtype(code).itemsize * count


class Importer:
    """Takes one import at a time."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        self._cell = cell
        self._directory = directory
        self._lock = asyncio.Lock()

    async def import_sims(self, stream: AsyncIterator[bytes], call: Call) -> bytes:
        call.may(layout.IMPORT_SIMS)
        if self._lock.locked():
            raise Refused(IMPORT_RUNNING)
        async with self._lock:
            return (await self._import(stream, call)).SerializeToString()

    async def _import(self, stream: AsyncIterator[bytes], call: Call) -> pb.ImportSimsResponse:
        response = pb.ImportSimsResponse()
        pieces: list[_Piece] = []
        mode: int | None = None
        async for data in _steady(stream):
            if mode is None:
                mode = _mode(data)
            piece = self._decode(data, call)
            if response.received_count + piece.count > SIMS_MAX:
                raise Refused(TOO_MANY_ITEMS, f"an import has at most {SIMS_MAX:,} SIMs")
            if mode == pb.IMPORT_MODE_PARTIAL:
                await self._submit(piece, response)
            elif piece.count:
                pieces.append(piece)
                response.received_count += piece.count
        if pieces:
            statuses = await self._validate(pieces)
            refused = np.flatnonzero(statuses)
            if len(refused):
                response.refused_count = len(refused)
                response.refused_item.extend(refused[:REFUSED_MAX].tolist())
                response.refused_status.extend(statuses[refused[:REFUSED_MAX]].tolist())
                return response
            response.received_count = 0
            for piece in pieces:
                await self._submit(piece, response)
        return response

    def _decode(self, data: bytes, call: Call) -> _Piece:
        batch = contract.IMPORT_REQUEST.decode(data)
        run = batch.run(
            layout.IMPORT_SIMS,
            actor=call.actor.index,
            access_server=layout.NONE_SHORT,
            indexes=(
                self._directory.indexes(layout.LOT, batch.names(_LOTS)),
                self._directory.indexes(layout.BANK, batch.names(_BANKS)),
            ),
        )
        return _Piece(_healthy_by_default(run, batch.count), batch.count)

    async def _submit(self, piece: _Piece, response: pb.ImportSimsResponse) -> None:
        if not piece.count:
            return
        outcome = await self._cell.submit(piece.run)
        statuses = outcome["status"]
        refused = np.flatnonzero(statuses >= layout.NOT_PERMITTED)
        room = max(0, REFUSED_MAX - len(response.refused_item))
        response.refused_item.extend((refused[:room] + response.received_count).tolist())
        response.refused_status.extend(statuses[refused[:room]].tolist())
        response.received_count += piece.count
        response.imported_count += int(np.count_nonzero(statuses == layout.OK))
        response.same_count += int(np.count_nonzero(statuses == layout.SAME))
        response.refused_count += len(refused)

    async def _validate(self, pieces: list[_Piece]) -> Column:
        """A status for each SIM of the stream: 0, or why it can't be imported."""
        columns = {name: np.concatenate([piece.columns[name] for piece in pieces]) for name, _ in _columns()}
        statuses = np.zeros(len(columns["iccid"]), np.uint8)

        def refuse(where: Column, status: int) -> None:
            statuses[where & (statuses == 0)] = status

        refuse(columns["lot"] == layout.NONE_SHORT, layout.UNKNOWN_LOT)
        refuse(columns["bank"] == layout.NONE_SHORT, layout.UNKNOWN_BANK)
        refuse((columns["iccid"] >= _ICCID_END) | (columns["imsi"] >= _IMSI_END), layout.INVALID_ARGUMENT)
        even = columns["iccid"] & np.uint64(1) == 0
        refuse(even & (columns["iccid"] >= _EVEN_ICCID_END), layout.INVALID_ARGUMENT)
        for name in _OPENINGS:
            refuse(columns[name] > layout.OPENING_MAX, layout.INVALID_ARGUMENT)
        refuse((columns["health"] < layout.HEALTHY) | (columns["health"] > layout.RETIRED), layout.INVALID_ARGUMENT)
        refuse(_repeated(columns["iccid"]), layout.ICCID_DIFFERS)
        refuse(_repeated(columns["imsi"]), layout.DUPLICATE_IMSI)
        found = np.zeros(len(statuses), bool)
        refuse(await self._beyond_pools(columns, statuses == 0), layout.INVALID_ARGUMENT)
        good = np.flatnonzero(statuses == 0)
        for first in range(0, len(good), LOOKED_UP_AT_ONCE):
            piece = good[first : first + LOOKED_UP_AT_ONCE]
            sims = list(zip(*(columns[name][piece].tolist() for name in _SIM_COLUMNS), strict=True))
            found[piece], statuses[piece] = await self._cell.read(partial(_look_up, sims))
        room = await self._cell.read(_room)
        fresh = np.cumsum(~found & (statuses == 0))
        refuse(~found & (fresh > room), layout.SIMS_FULL)
        return statuses

    async def _beyond_pools(self, columns: dict[str, Column], good: Column) -> Column:
        """The SIMs of lots that share a quota and whose openings would come to more than a pool takes."""
        most = np.maximum.reduce([columns[name] for name in _OPENINGS]).astype(np.float64)
        sums = np.bincount(columns["lot"][good], most[good], minlength=layout.NONE_SHORT + 1)
        lots = np.flatnonzero(sums > 0).tolist()
        rooms = await self._cell.read(lambda machine: [machine.lot(lot)["pool_room_bytes"] for lot in lots])
        beyond = [lot for lot, room in zip(lots, rooms, strict=True) if room is not None and sums[lot] > room]
        return good & np.isin(columns["lot"], beyond)


async def _steady(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The messages of a stream that goes on: an idle one would keep everybody else from importing."""
    while True:
        try:
            async with asyncio.timeout(MESSAGE_WITHIN_S):
                data = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refused(IMPORT_IDLE, f"{MESSAGE_WITHIN_S:g}") from None
        yield data


def _columns() -> tuple[tuple[str, str], ...]:
    return COMMAND_COLUMNS[layout.IMPORT_SIMS]


def _repeated(values: Column) -> Column:
    """Every occurrence of a value but its first."""
    repeated = np.ones(len(values), bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def _look_up(sims: Sequence[tuple[int, ...]], machine: Machine) -> tuple[list[bool], list[int]]:
    """Of each SIM whether its ICCID is there, and 0 or why it can't be imported."""
    found: list[bool] = []
    statuses: list[int] = []
    for sim in sims:
        iccid, imsi, *_ = sim
        index = machine.find_sim(iccid)
        found.append(index is not None)
        if index is None:
            statuses.append(0 if machine.find_sim_by_imsi(imsi) is None else layout.DUPLICATE_IMSI)
        else:
            stands = machine.sim(index)
            same = all(stands[name] == value for name, value in zip(_SIM_COLUMNS, sim, strict=True))
            statuses.append(0 if same else layout.ICCID_DIFFERS)
    return found, statuses


def _room(machine: Machine) -> int:
    header = machine.header()
    return int(header["sims_max"] - header["sims_count"])


def _mode(data: bytes) -> int:
    mode = pb.ImportSimsRequest.FromString(data).mode
    if not 0 <= mode <= pb.IMPORT_MODE_PARTIAL:
        raise Refused(INVALID_ARGUMENT, f"mode {mode} does not exist")
    return mode


def _healthy_by_default(run: bytes, count: int) -> bytes:
    """UNSPECIFIED, also as a column that was left out, means healthy."""
    changed = bytearray(run)
    offset = RUN_HEADER.itemsize + sum(np.dtype(code).itemsize for name, code in _columns() if name != "health") * count
    health = np.frombuffer(changed, np.uint8, count, offset)
    health[health == 0] = layout.HEALTHY
    return bytes(changed)
