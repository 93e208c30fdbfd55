"""What has happened before an operator opens the guide at one of its sections."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from simswitch.access.tokens import create_token
from simswitch.client import Client, Holdings, OperatorClient, Result, SessionThread
from simswitch.client.credentials import Credentials
from simswitch.v1 import inventory_pb2 as inv

from tests.access.authority import Authority
from tests.operating import service_manager
from tests.operating.guide import GUIDE, Command, Guide, World, read_guide

PYTHON = sys.executable
ROOT = Path(__file__).resolve().parents[2]
SMALL = """
# What a test needs to be quick.
[capacity]
sims = 1_000
terminals = 1_000
orders = 1_000

[journal]
segment_bytes = 1_048_576
free_mark_bytes = {mark}

[engine]
fencing_ms = 2_000
"""
FOUND_AGAIN = 7_777_777_777
SEEN = FOUND_AGAIN.to_bytes(8, "little")
"""A terminal's number, as it stands in one record."""
FULL = "The disk is full"
SMALL_DISK_BYTES = 64 << 20
SMALL_DISK_MARK = 12 << 20
BANKS = ("bank-1", "bank-2")
SERVERS = ("as-1", "as-2")
SIMS = 40
UNIT = "/etc/systemd/system/simswitch.service"
SETTINGS = "/etc/simswitch/simswitch.toml"


class Machine(World):
    """The machine of the guide with everything on it."""

    def __init__(self, root: Path, guide: Guide, mark_bytes: int = 0) -> None:
        super().__init__(root, free_ports(), guide)
        self.data = self.path("/var/lib/simswitch")
        self.backups = self.path("/var/backups/simswitch")
        self.tls = self.path("/etc/simswitch/tls")
        for folder in (self.data.parent, self.backups, self.tls / "new", self.path("/opt"), root / "bin"):
            folder.mkdir(parents=True, exist_ok=True)
        (root / "simswitch.service").write_text(self.put(guide.files[UNIT]))
        self.path(SETTINGS).write_text(self.put(guide.files[SETTINGS]) + SMALL.format(mark=mark_bytes))
        for name in ("systemctl", "journalctl"):
            self.tool(
                root / "bin" / name, f"cd {ROOT} && exec {sys.executable} -m tests.operating.service_manager {name}"
            )
        for version in ("simswitch-old", "simswitch-new"):
            self.tool(self.path(f"/opt/{version}") / "bin" / "simswitch", f"exec {PYTHON} -m simswitch")
        self.path("/opt/simswitch").symlink_to(self.path("/opt/simswitch-old"))
        self.own, self.servers = Authority(self.tls / "own"), Authority(self.tls / "servers")
        for name, days in (("service", 2), ("new/service", 30)):
            made = self.own.sign("service", host=True, file="made", ends_hours=24 * days)
            for file in made:
                shutil.copy(file, self.tls / f"{name}{file.suffix}")
        shutil.copy(self.own.pem, self.tls / "ca.pem")
        shutil.copy(self.servers.pem, self.tls / "access-servers-ca.pem")
        (self.tls / "revoked.txt").write_text("# Fingerprints, one a line.\n")
        for name in SERVERS:
            shutil.copy(self.servers.sign(name)[0], self.tls / f"{name}.pem")
        self.token = self.path("/etc/simswitch/token")
        self.closing = contextlib.ExitStack()

    def tool(self, path: Path, command: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\n{command} "$@"\n')
        path.chmod(0o755)

    def start(self) -> None:
        assert self.bash("systemctl start simswitch")[0] == 0
        end_s = time.monotonic() + 60
        while not self.answers():
            assert service_manager.running(self.root), (self.root / "simswitch.log").read_text()
            assert time.monotonic() < end_s
            time.sleep(0.05)

    def answers(self) -> bool:
        host, _, port = self.put("127.0.0.1:7468").partition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    def operator(self) -> OperatorClient:
        credentials = Credentials(self.own.pem, token_file=self.token)
        return OperatorClient(self.put("127.0.0.1:7468"), credentials=credentials)

    def credentials(self, name: str) -> Credentials:
        return Credentials(self.own.pem, self.servers.folder / f"{name}.pem", self.servers.folder / f"{name}.key")

    def client(self, name: str, holdings: Holdings | None = None) -> Client:
        address = self.put("127.0.0.1:7467")
        return Client(address, access_server=name, holdings=holdings, credentials=self.credentials(name))

    def serving(self, name: str, terminals: range, market: str = "tokyo") -> SessionThread:
        """An access server with these terminals, that carries out what it is told; ended with the scene."""
        holdings, address = Holdings(), self.put("127.0.0.1:7467")
        with self.client(name, holdings) as client:
            assert len(client.allocate_many(terminals, market).epoch) == len(terminals)
        thread = SessionThread(
            address, name, lambda _: Result.DONE, holdings=holdings, credentials=self.credentials(name)
        )
        self.closing.callback(thread.close)
        thread.serving(30)
        return thread

    def kill(self) -> None:
        process = int((self.root / "simswitch.pid").read_text())
        os.kill(process, signal.SIGKILL)
        while service_manager.running(self.root):
            time.sleep(0.02)

    def end(self) -> None:
        self.closing.close()
        self.bash("systemctl stop simswitch")


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def furnish(machine: Machine) -> None:
    """Two banks of forty cards, and two access servers."""
    with machine.operator() as operator:
        inventory = operator.inventory
        inventory.DefineSupplier(inv.DefineSupplierRequest(supplier=inv.Supplier(name="wholesale")))
        window = inv.CapWindow(kind=inv.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30)
        plan = inv.Plan(name="100gb", carrier="blue", windows=[window])
        inventory.DefinePlan(inv.DefinePlanRequest(plan=plan))
        inventory.DefineSimClass(inv.DefineSimClassRequest(sim_class=inv.SimClass(name="nationwide")))
        lot = inv.Lot(name="march", supplier="wholesale", plan="100gb", sim_class="nationwide")
        inventory.DefineLot(inv.DefineLotRequest(lot=lot))
        inventory.DefineMarket(inv.DefineMarketRequest(market=inv.Market(name="tokyo", sim_classes=["nationwide"])))
        for bank in BANKS:
            inventory.DefineBank(inv.DefineBankRequest(bank=inv.Bank(name=bank)))
        for name in SERVERS:
            server = inv.AccessServer(name=name)
            inventory.DefineAccessServer(inv.DefineAccessServerRequest(access_server=server))
        numbers = range(len(BANKS) * SIMS)
        cards = inv.ImportSimsRequest(
            lots=["march"],
            banks=list(BANKS),
            iccid=[2 * (10**15 + number) for number in numbers],
            imsi=[440_100_000_000_000 + number for number in numbers],
            bank=[number // SIMS for number in numbers],
            slot=[number % SIMS for number in numbers],
        )
        assert inventory.ImportSims(iter([cards])).imported_count == len(numbers)


def furnished(root: Path) -> Path:
    """The data folder of a machine that was furnished and stopped, and a token of its operator beside it."""
    machine = Machine(root, read_guide())
    try:
        machine.data.mkdir()
        _, text = create_token(machine.data, "operator:alice", 3_600_000)
        machine.token.write_text(text)
        machine.token.chmod(0o600)
        machine.start()
        furnish(machine)
    finally:
        machine.end()
    return machine.data


# ---------------------------------------------------------------------------------------------- before each section


def well(machine: Machine) -> None:
    machine.start()
    machine.serving("as-1", range(1, 11))


def lost(machine: Machine) -> None:
    well(machine)
    assert machine.bash("simswitch backup /var/lib/simswitch /var/backups/simswitch/newest")[0] == 0
    machine.kill()
    for path in machine.data.glob("*.journal"):
        path.unlink()


def damaged(machine: Machine) -> None:
    """One bit of a record is another one, good ones stand behind it, and the service died of something else."""
    well(machine)
    with machine.client("as-2") as client:
        for terminal in (FOUND_AGAIN, 21, 22):
            client.allocate(terminal, "tokyo")
    machine.kill()
    segment = next(path for path in sorted(machine.data.glob("*.journal")) if SEEN in path.read_bytes())
    content = bytearray(segment.read_bytes())
    content[content.rindex(SEEN)] ^= 1
    segment.write_bytes(content)
    assert machine.bash("systemctl start simswitch")[0] == 0
    while service_manager.running(machine.root):
        time.sleep(0.05)


def replaced(machine: Machine) -> None:
    """The header of the segment that the clean stop's snapshot was taken in is not what was written."""
    segment = next(machine.data.glob("*-0000000001.journal"))
    segment.write_bytes(b"?" + segment.read_bytes()[1:])
    machine.start()


def older(machine: Machine) -> None:
    """The folder is one that version 8 of the machine has left."""
    for path in machine.data.iterdir():
        if path.is_file():
            path.unlink()
    with tarfile.open(ROOT / "tests" / "journal" / "formats" / "machine-8.tar.xz") as archive:
        archive.extractall(machine.data, filter="data")


def full(machine: Machine) -> None:
    """Somebody left a folder beside the data, and the disk is small."""
    well(machine)
    left = machine.data.with_name("simswitch.lost")
    left.mkdir()
    free = shutil.disk_usage(left).free
    (left / "core").write_bytes(bytes(free - SMALL_DISK_MARK // 2))


def stolen(machine: Machine) -> None:
    well(machine)
    machine.serving("as-2", range(11, 21))
    create_token(machine.data, "operator:mallory", 3_600_000)


def with_new_authorities(machine: Machine) -> None:
    """Somebody has made new CAs, and what they are to sign, and put it beside the old."""
    well(machine)
    shutil.copy(machine.servers.folder / "as-1.key", machine.tls / "as-1.key")
    own, servers = Authority(machine.tls / "own-new"), Authority(machine.tls / "servers-new")
    made = {"ca.pem": own.pem, "access-servers-ca.pem": servers.pem}
    for name, files in (("service", own.sign("service", host=True)), ("as-1", servers.sign("as-1"))):
        made |= {f"{name}{file.suffix}": file for file in files}
    for name, file in made.items():
        shutil.copy(file, machine.tls / "new" / name)


def dead(machine: Machine) -> None:
    well(machine)
    machine.serving("as-2", range(11, 21)).close()


def without_a_bank(machine: Machine) -> None:
    well(machine)
    machine.serving("as-2", range(11, 31))


SCENES: dict[str, Callable[[Machine], None]] = {
    "Is all well?": well,
    "Backup": well,
    "The data folder is lost": lost,
    "A record is damaged": damaged,
    "Something is damaged that a snapshot replaces": replaced,
    "Upgrade, and back": older,
    FULL: full,
    "Overload": well,
    "A certificate expires": well,
    "An authority changes": with_new_authorities,
    "A certificate or a token was stolen": stolen,
    "An access server is dead": dead,
    "A bank is lost": without_a_bank,
}


def play(section: str, root: Path, data: Path) -> Iterator[tuple[Command, str]]:
    """Runs a section on a machine of its own, whose data folder begins as a copy of that one."""
    machine = Machine(root, read_guide(), SMALL_DISK_MARK if section == FULL else 0)
    try:
        shutil.copytree(data, machine.data)
        shutil.copy(data.parents[2] / "etc/simswitch/token", machine.token)
        SCENES[section](machine)
        yield from machine.follow(section)
    finally:
        machine.end()


def main() -> None:
    """What a section prints: ``python -m tests.operating.scenes ROOT DATA SECTION``."""
    root, data, section = sys.argv[1:]
    for command, printed in play(section, Path(root), Path(data)):
        print(f"{GUIDE.name}:{command.line}: {command.text}\n{printed}", end="", flush=True)


if __name__ == "__main__":
    main()
