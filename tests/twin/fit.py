"""What fit costs in swaps a terminal and day, and what is left on SIMs at their reset.

The pool is the engine's own; terminals use what a lognormal market uses (sigma 1.681), report each hour, and are moved
by automatic swaps, which are answered at once. One terminal in twenty needs a SIM with 2 GB left and takes no other, as
in a market of its own; the others ask:

    floor      for a quarter of a GB, as where nobody has said what a lease uses
    quantile   for the 95 % quantile of a day, as the design wants it, and for the floor where none has that
    fresh      for nearly a whole fresh SIM, and for the floor where none has that

Where the SIM with most left is handed out, the three hardly differ; where the tightest is, as it was once, they do.

``python -m tests.twin.fit [terminals] [days]`` prints a table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.world import World

GB = 10**9
QUOTA_BYTES = 3 * GB
FLOOR_BYTES = GB // 4
LARGE_BYTES = 2 * GB
LARGE_EACH = 20
"""One terminal of so many makes large requests."""
LOW_BYTES, EXHAUSTED_BYTES = GB // 10, GB // 50
MEDIAN_DAY_BYTES = 28 * GB // 300
"""2.8 GB a month, the median of an unlimited plan."""
SIGMA = 1.681
EXPECTED_BYTES = {
    "floor": FLOOR_BYTES,
    "quantile": round(MEDIAN_DAY_BYTES * float(np.exp(1.645 * SIGMA))),
    "fresh": 5 * GB // 2,
}
HOUR_MS = 3_600_000
HOURS_ON = 8
LINE_BYTES_PER_S = 125_000_000


@dataclass(frozen=True)
class Figures:
    swaps_per_terminal_day: float
    stranded_bytes_per_sim_day: float
    """Left at the reset on SIMs that have too little for another lease."""
    refused: int
    """Allocations for which there was no SIM with the floor left."""
    refused_large: int
    """Large requests for which there was no SIM with so much left."""
    slowed_bytes_share: float
    """Of the bytes wanted, those beyond a SIM's quota: at the carrier they are slowed."""


def _world(terminals: int, sims: int) -> World:
    world = World(Machine(sims_max=sims, terminals_max=terminals, orders_max=2 * terminals), keeps_records=False)
    for setting, value in (
        (layout.LEASE_MS, 24 * HOUR_MS),
        (layout.COOLING_MS, 60_000),
        (layout.EXPECTED_FLOOR_BYTES, FLOOR_BYTES),
        (layout.LINE_BYTES_PER_S, LINE_BYTES_PER_S),
        (layout.AUTOMATIC_SWAPS, 3),
        (layout.AUTOMATIC_AHEAD_MS, 0),
        (layout.SWAP_COOL_DOWN_MS, 1),
        (layout.SWAPS_PER_DAY_MAX, 255),
        (layout.ADMISSION_QUEUE_MS, 0),
    ):
        world.configure(setting, value)
    world.define(layout.SUPPLIER, "supplier")
    plan = {
        layout.PLAN_QUOTA_DAY: QUOTA_BYTES,
        layout.PLAN_LOW_BYTES: LOW_BYTES,
        layout.PLAN_EXHAUSTED_BYTES: EXHAUSTED_BYTES,
    }
    world.define(layout.PLAN, "daily", plan)
    world.define(layout.SIM_CLASS, "class")
    lot = {
        layout.LOT_SUPPLIER: world.entities["supplier"],
        layout.LOT_PLAN: world.entities["daily"],
        layout.LOT_CLASS: world.entities["class"],
    }
    world.define(layout.LOT, "lot", lot)
    world.define(layout.BANK, "bank-1")
    world.define(
        layout.MARKET,
        "home",
        {layout.MARKET_EXPECTED_BYTES: FLOOR_BYTES, layout.MARKET_FIRST_CLASS: world.entities["class"]},
    )
    world.define(layout.ACCESS_SERVER, "as-1")
    world.open_session(0)
    world.import_sims(sims, lot="lot")
    return world


def _move(world: World) -> int:
    """Carries out the orders that come, until none does; how many swaps that were."""
    swaps = 0
    for _ in range(400):
        orders, world.orders = world.orders, []
        if orders:
            swaps += sum(order["kind"] == layout.SWITCH for order in orders)
            numbers = np.array([order["order"] for order in orders], np.uint64)
            world.send(
                commands.run(
                    layout.ACKNOWLEDGE,
                    len(numbers),
                    access_server=0,
                    argument=world.sessions[0],
                    order=numbers,
                    result=layout.ACK_DONE,
                )
            )
        world.pass_ms(200)
        seen = world.machine.server(0)
        if not world.orders and not (seen["queued_count"] and seen["waits_for"] != layout.WAITS_FOR_TARGET):
            break
    return swaps


def measure(asked: str, terminals: int, days: int, seed: int, sims_per_terminal: float = 0.6) -> Figures:
    """A pool in which as many terminals are on as a third of all, and SIMs are scarce at the day's end."""
    random = np.random.default_rng(seed)
    world = _world(terminals, round(sims_per_terminal * terminals))
    hourly = MEDIAN_DAY_BYTES / HOURS_ON * np.exp(SIGMA * random.standard_normal(terminals))
    # No line carries more than 20 Mbit/s for hours.
    hourly = np.minimum(hourly, 9 * GB)
    begin_hour = random.integers(0, 24, terminals)
    keys = 1 + np.arange(terminals, dtype=np.uint64)
    used = np.zeros(terminals)
    epochs = np.zeros(terminals, np.uint64)
    large = np.arange(terminals) % LARGE_EACH == 0
    swaps = refused = refused_large = 0
    stranded = slowed = wanted = 0.0
    for hour in range(days * 24):
        world.now_ms += HOUR_MS
        if hour % 24 == 0 and hour:
            headroom = _headroom(world)
            stranded += float(headroom[(headroom > 0) & (headroom < FLOOR_BYTES)].sum())
            slowed += float(-headroom[headroom < 0].sum())
            world.send(world.schedule("lot", layout.WINDOW_DAY, world.now_ms))
        on = (hour - begin_hour) % 24 < HOURS_ON
        # Who was on in this hour reports it, under the lease that it has.
        sim, epoch = _leases(world, terminals)
        used[epoch != epochs] = 0
        epochs = epoch
        held = np.flatnonzero(sim != layout.NONE_INDEX)
        drawn = hourly[held] * random.exponential(1.0, len(held))
        used[held] += drawn
        wanted += float(drawn.sum())
        if len(held):
            total = used[held].astype(np.uint64)
            world.send(
                commands.run(
                    layout.REPORT_USAGE,
                    len(held),
                    access_server=0,
                    terminal=keys[held],
                    epoch=epoch[held],
                    up_bytes=np.zeros(len(held), np.uint64),
                    down_bytes=total,
                    **dict.fromkeys(("span_ms", "goodput_kbps", "demand_permille", "radio"), 0),
                )
            )
        swaps += _move(world)
        sim, epoch = _leases(world, terminals)
        leaves = np.flatnonzero((sim != layout.NONE_INDEX) & ~on)
        if len(leaves):
            world.send(
                commands.run(layout.RELEASE, len(leaves), access_server=0, terminal=keys[leaves], epoch=epoch[leaves])
            )
        asks = np.flatnonzero((sim == layout.NONE_INDEX) & on)
        for expected in sorted({EXPECTED_BYTES[asked], FLOOR_BYTES}, reverse=True):
            rest = np.flatnonzero(~large[asks])
            if len(rest):
                (outcome,) = world.send(world.allocate(keys[asks[rest]], expected_bytes=expected))
                asks = np.delete(asks, rest[outcome["status"] != layout.NO_HEALTHY_SIM])
        refused += int((~large[asks]).sum())
        asks = asks[large[asks]]
        if len(asks):
            (outcome,) = world.send(world.allocate(keys[asks], expected_bytes=LARGE_BYTES))
            refused_large += int((outcome["status"] == layout.NO_HEALTHY_SIM).sum())
        world.events.clear()
    assert world.machine.check() == []
    return Figures(
        swaps / terminals / days,
        stranded / world.sims_count / (days - 1),
        refused,
        refused_large,
        slowed / wanted,
    )


def _leases(world: World, terminals: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    columns = world.machine.terminals_columns()
    sim = np.full(terminals, layout.NONE_INDEX, np.uint32)
    epoch = np.zeros(terminals, np.uint64)
    place = columns["key"].astype(np.int64) - 1
    sim[place], epoch[place] = columns["sim"], columns["epoch"]
    return sim, epoch


def _headroom(world: World) -> npt.NDArray[np.int64]:
    return np.asarray(world.machine.sims_columns()["headroom_bytes"], np.int64)


def main() -> None:
    terminals = int(sys.argv[1]) if sys.argv[1:] else 5_000
    days = int(sys.argv[2]) if sys.argv[2:] else 7
    print("SIMs a terminal  asked for  seed  swaps/terminal/day  stranded MB/SIM/day  refused  large ones  beyond, %")
    for share in (0.4, 0.6, 1.0):
        for seed in (1, 2, 3):
            for asked in EXPECTED_BYTES:
                found = measure(asked, terminals, days, seed, share)
                print(
                    f"{share:15} {asked:>10} {seed:5} {found.swaps_per_terminal_day:19.4f} "
                    f"{found.stranded_bytes_per_sim_day / 1e6:20.2f} {found.refused:8} {found.refused_large:11} "
                    f"{100 * found.slowed_bytes_share:10.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
