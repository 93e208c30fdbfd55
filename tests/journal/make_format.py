"""Makes the fixture of the present format: ``python -m tests.journal.make_format`` (once for each machine version).

A data folder as a server leaves it after a clean end, with leases, swaps under way, a job and SIMs of every kind, and
what must be found in it by whoever opens it later.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.core import layout
from simswitch.core.machine import Machine, Outcome
from simswitch.journal.recovery import MachineKind

from tests.model.walk import SIMS, TERMINALS, Walk
from tests.model.world import Driver

FORMATS = Path(__file__).with_name("formats")
SEED = 16


def recorded() -> list[tuple[bytes, int, int]]:
    """Every batch of a walk, from the first definition on."""
    found: list[tuple[bytes, int, int]] = []
    apply = Driver.apply

    def keep(self: Driver, batch: bytes) -> Outcome:
        outcome = apply(self, batch)
        found.append((batch, self.now_ms, self.seed))
        return outcome

    Driver.apply = keep  # type: ignore[method-assign]
    try:
        walk = Walk(SEED, keeps_records=False)
        while not (walk.commands_count > 900 and lively(walk)):
            walk.step()
    finally:
        Driver.apply = apply  # type: ignore[method-assign]
    return found


def lively(walk: Walk) -> bool:
    """A state that has something of everything."""
    swaps = [order for order in walk.model.orders if order.in_flight and order.kind == layout.SWITCH]
    leases = [terminal for terminal in walk.model.terminals.values() if terminal.sim is not None]
    return len(swaps) >= 2 and len(leases) >= 12 and any(order.job for order in walk.model.orders)


def facts(machine: Machine) -> dict[str, Any]:
    """What a person would miss if it were gone. Sessions and outstanding windows end with a restart."""
    header = machine.header()
    leases = {}
    for index in range(header["terminals_count"]):
        terminal = machine.terminal(index)
        if terminal["sim"] is not None:
            leases[str(terminal["key"])] = {
                "iccid": machine.sim(terminal["sim"])["iccid"],
                "epoch": terminal["epoch"],
                "counted_bytes": terminal["counted_bytes"],
            }
    sims = [machine.sim(index) for index in range(header["sims_count"])]
    return {
        "counted_bytes": header["counted_bytes"],
        "sims_count": header["sims_count"],
        "terminals_count": header["terminals_count"],
        "entities": [entity["name"] for entity in machine.entities()],
        "leases": leases,
        "sims": {
            str(sim["iccid"]): {name: sim[name] for name in ("counted_bytes", "headroom_bytes", "health", "imsi")}
            for sim in sims
        },
        "jobs_count": machine.header()["jobs_count"],
        "lots": {str(lot["index"]): machine.lot(lot["index"]) for lot in machine.entities(layout.LOT)},
        "subscribers": {str(terminal): machine.subscriber(terminal) for terminal in range(1, TERMINALS + 1)},
        "swaps": {
            str(terminal["key"]): machine.sim(order["target"])["iccid"]
            for order in map(machine.order, range(header["orders_max"]))
            if order["kind"] == layout.SWITCH
            and order["state"] in (layout.OrderState.OUTSTANDING, layout.OrderState.UNKNOWN)
            for terminal in [machine.terminal(order["terminal"])]
        },
    }


def small_kind() -> MachineKind:
    def create() -> Machine:
        return Machine(SIMS, TERMINALS + 2, 256)

    return MachineKind(create, Machine.restore, int(layout.MACHINE_VERSION))


def main() -> None:
    name = f"machine-{int(layout.MACHINE_VERSION)}"
    batches = recorded()
    seeds: Iterator[int] = iter([seed for _, _, seed in batches])
    with tempfile.TemporaryDirectory() as folder:
        clock = VirtualClock(batches[0][1])
        cell = Cell.open(
            folder,
            capacity=Capacity(1, 1, 1),
            journal=JournalSettings(segment_bytes=256 * 1024, free_mark_bytes=0, prepare_ahead=False),
            clock=clock,
            seeds=lambda: next(seeds),
            machine=small_kind(),
        )
        for batch, now_ms, _ in batches:
            clock.set(now_ms)
            cell.step(batch)
        told = facts(cell.machine)
        cell.close()
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:xz") as archive:
            for path in sorted(Path(folder).iterdir()):
                info = tarfile.TarInfo(path.name)
                info.size = path.stat().st_size
                archive.addfile(info, io.BytesIO(path.read_bytes()))
    FORMATS.mkdir(exist_ok=True)
    (FORMATS / f"{name}.tar.xz").write_bytes(data.getvalue())
    (FORMATS / f"{name}.json").write_text(json.dumps(told, indent=1, default=int) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
