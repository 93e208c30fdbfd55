"""A real server on a real socket, in a thread of the test's own process, so that its state can be looked at."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from simswitch.cell import Capacity, Cell, CellSettings
from simswitch.client import OperatorClient
from simswitch.service.server import RunningServer, start
from simswitch.v1 import inventory_pb2 as inv
from simswitch.v1 import pool_pb2

SIMS = 200


class Serving:
    """A server that can be stopped, and started again on the same folder."""

    def __init__(
        self, folder: Path, transport: str = "grpcio", *, options: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        """``options``: more of ``start``."""
        self.folder = folder
        self._options = options or {}
        self._transport = transport
        self._settings = CellSettings(**settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.running: RunningServer | None = None
        self.begin()

    def begin(self, port: int = 0) -> None:
        self.cell = Cell.open(
            self.folder, capacity=Capacity(sims=2_000, terminals=2_000, orders=1_000), settings=self._settings
        )
        self.running = asyncio.run_coroutine_threadsafe(
            start(self.cell, port=port, transport=self._transport, folder=self.folder, **self._options), self._loop
        ).result(20)
        self.address = self.running.address

    def limit(self, **settings: Any) -> None:
        """Other bounds of the cell, from the next ``begin`` on."""
        self._settings = CellSettings(**settings)

    def drain(self) -> None:
        """What SIGTERM does."""
        running, self.running = self.running, None
        if running is not None:
            asyncio.run_coroutine_threadsafe(running.stop(), self._loop).result(20)
            self.cell.close()

    def end(self) -> None:
        self.drain()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def state_hash(self) -> int:
        return self.cell.call_read(lambda machine: machine.state_hash())

    def hold_loop(self, until: threading.Event) -> None:
        """The event loop does nothing else until then."""
        self._loop.call_soon_threadsafe(until.wait)

    def in_loop(self, function: Any) -> Any:
        """Runs a function where the server's own code runs."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)


def define(operator: OperatorClient, sims: int = SIMS) -> None:
    """A small inventory: one lot of healthy SIMs in one bank, one market, two access servers."""
    inventory = operator.inventory
    inventory.DefineSupplier(inv.DefineSupplierRequest(supplier=inv.Supplier(name="wholesale")))
    window = inv.CapWindow(kind=inv.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30)
    inventory.DefinePlan(inv.DefinePlanRequest(plan=inv.Plan(name="plan", carrier="carrier", windows=[window])))
    inventory.DefineSimClass(inv.DefineSimClassRequest(sim_class=inv.SimClass(name="class")))
    lot = inv.Lot(name="lot", supplier="wholesale", plan="plan", sim_class="class")
    inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    inventory.DefineMarket(inv.DefineMarketRequest(market=inv.Market(name="jp", sim_classes=["class"])))
    inventory.DefineBank(inv.DefineBankRequest(bank=inv.Bank(name="bank")))
    for name in ("as-01", "as-02"):
        server = inv.AccessServer(name=name)
        inventory.DefineAccessServer(inv.DefineAccessServerRequest(access_server=server))
    # Swaps are what tests order.
    none = pool_pb2.SettingValue(setting=pool_pb2.SETTING_AUTOMATIC_SWAPS, value=0)
    operator.pool.Configure(pool_pb2.ConfigureRequest(settings=[none]))
    numbers = range(sims)
    inventory.ImportSims(
        iter(
            [
                inv.ImportSimsRequest(
                    lots=["lot"],
                    banks=["bank"],
                    iccid=[2 * (10**15 + number) for number in numbers],
                    imsi=[440_100_000_000_000 + number for number in numbers],
                    slot=numbers,
                )
            ]
        )
    )


def define_pool(operator: OperatorClient, sims: int) -> None:
    """Beside that a lot ``shared``, whose SIMs share a quota, in a market ``shared`` of its own."""
    inventory = operator.inventory
    window = inv.CapWindow(kind=inv.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30, pooled=True)
    inventory.DefinePlan(inv.DefinePlanRequest(plan=inv.Plan(name="shared", carrier="carrier", windows=[window])))
    inventory.DefineSimClass(inv.DefineSimClassRequest(sim_class=inv.SimClass(name="shared")))
    lot = inv.Lot(name="shared", supplier="wholesale", plan="shared", sim_class="shared")
    inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    inventory.DefineMarket(inv.DefineMarketRequest(market=inv.Market(name="shared", sim_classes=["shared"])))
    request = inv.ImportSimsRequest(
        lots=["shared"],
        banks=["bank"],
        iccid=[2 * (2 * 10**15 + number) for number in range(sims)],
        imsi=[440_200_000_000_000 + number for number in range(sims)],
        slot=range(1_000, 1_000 + sims),
    )
    inventory.ImportSims(iter([request]))
