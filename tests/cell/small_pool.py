"""A real machine with one class of SIMs, one market and one access server, made through a cell's commands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from simswitch.core import commands
from simswitch.core.layout import (
    ACCESS_SERVER,
    ALLOCATE,
    BANK,
    DEFINE,
    HEALTHY,
    IMPORT_SIMS,
    LOT,
    LOT_CLASS,
    LOT_PLAN,
    LOT_SUPPLIER,
    MARKET,
    MARKET_FIRST_CLASS,
    PLAN,
    PLAN_POOLED,
    PLAN_QUOTA_CYCLE,
    SIM_CLASS,
    SUPPLIER,
)

MARKET_INDEX = 6
SERVER_NUMBER = 0
"""The numbers that the definitions below get: entity 0 is the system actor."""

_DEFINITIONS: tuple[tuple[int, str, dict[int, int]], ...] = (
    (SUPPLIER, "supplier", {}),
    (PLAN, "plan", {PLAN_QUOTA_CYCLE: 100 << 30}),
    (SIM_CLASS, "class", {}),
    (LOT, "lot", {LOT_SUPPLIER: 1, LOT_PLAN: 2, LOT_CLASS: 3}),
    (BANK, "bank", {}),
    (MARKET, "market", {MARKET_FIRST_CLASS: 3}),
    (ACCESS_SERVER, "as-01", {}),
)


def fill(step: Callable[[bytes], object], sims_count: int, *, pooled: bool = False) -> None:
    """Gives the definitions and the SIMs to ``step``, batch by batch. ``pooled``: its SIMs share the quota."""
    for kind, name, values in _DEFINITIONS:
        shared = {PLAN_POOLED: 1} if pooled and kind == PLAN else {}
        step(commands.run(DEFINE, definition=commands.definition(kind, name, values | shared)))
    first = commands.encode_iccid("8981000000000000000")
    for start in range(0, sims_count, 1_000):
        count = min(1_000, sims_count - start)
        numbers = np.arange(start, start + count, dtype=np.uint64)
        step(
            commands.run(
                IMPORT_SIMS,
                count,
                iccid=np.uint64(first) + numbers * np.uint64(2),
                imsi=np.uint64(440_100_000_000_000) + numbers,
                opening_cycle_bytes=0,
                opening_day_bytes=0,
                opening_rolling_bytes=0,
                lot=4,
                bank=5,
                slot=(numbers % np.uint64(60_000)).astype(np.uint16),
                health=HEALTHY,
            )
        )


def allocate(first_terminal: int, count: int = 1, subscribers: list[int] | None = None) -> bytes:
    """Each terminal has a subscriber of its own unless ``subscribers`` says whose they are."""
    terminals = np.arange(first_terminal, first_terminal + count, dtype=np.uint64)
    return commands.run(
        ALLOCATE,
        count,
        access_server=SERVER_NUMBER,
        terminal=terminals,
        subscriber=terminals + np.uint64(1) if subscribers is None else subscribers,
        expected_bytes=0,
        market=MARKET_INDEX,
    )
