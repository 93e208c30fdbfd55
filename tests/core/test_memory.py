"""Bytes for a SIM and for a terminal: what layout.pxd promises, what the regions have, what the kernel counts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simswitch.core.machine import Machine

LAYOUT = Path(__file__).parents[2] / "engine" / "simswitch" / "core" / "layout.pxd"
SIMS_LOAD, TERMINALS_LOAD = 0.9, 0.55
# What there is once for each SIM and each terminal, and the tables that find them.
OF_SIMS = {
    "sims": 1.0,
    "sims_cold": 1.0,
    "timers_sims": 1.0,
    "iccid_table": 1 / SIMS_LOAD,
    "imsi_table": 1 / SIMS_LOAD,
}
OF_TERMINALS = {
    "terminals": 1.0,
    "terminals_cold": 1.0,
    "timers_terminals": 1.0,
    "terminal_table": 1 / TERMINALS_LOAD,
}
# What is bounded by other things than the number of SIMs and terminals.
OF_OTHERS = {
    *("header", "entities", "orders", "groups", "classes", "markets", "servers", "ready", "jobs", "sweeps", "wheel"),
    *("timers_orders", "timers_servers", "check", "given_up", "breakers", "lots", "sims_rolling", "sims_ledger"),
    *("sims_late", "subscribers", "exemptions", "events", "ended_leases", "ended_places"),
}
# The process fills a pool through commands and says what its memory grew by, and how large the regions are.
GROWTH = """
import json, sys
from pathlib import Path
from benches.world import POOLS, World

def resident():
    (line,) = [line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Rss:")]
    return int(line.split()[1]) << 10

size = int(sys.argv[1])
World(1_000, POOLS["spread"], 1)
before = resident()
world = World(size, POOLS["spread"], 1)
columns = sum(array.nbytes for array in (world.keys, world.epochs, world.iccids))
sizes = {name: item_bytes * count for name, item_bytes, count, _ in world.machine.snapshot_regions()}
others = sizes["subscribers"] + sizes["ended_leases"]
print(json.dumps({"grown": resident() - before - columns, "regions": sum(sizes.values()), "others": others}))
"""


def item_bytes() -> dict[str, int]:
    return {name: size for name, size, _, _ in Machine().snapshot_regions()}


def test_the_head_comment_says_how_many_bytes_a_sim_and_a_terminal_take() -> None:
    regions = item_bytes()
    text = LAYOUT.read_text(encoding="utf-8").partition("\nfrom ")[0]
    for word, share in (("Per SIM", OF_SIMS), ("Per terminal", OF_TERMINALS)):
        found = re.search(rf"{word}: [^.]*?(?:\d\.\d[^.]*?)?= (\d+) B", text)
        assert found is not None, f"layout.pxd does not say: {word}"
        assert int(found[1]) == round(sum(regions[name] * part for name, part in share.items() if name in regions))


def test_no_region_is_left_out_of_the_count() -> None:
    assert set(item_bytes()) - set(OF_SIMS) - set(OF_TERMINALS) == OF_OTHERS


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel does not say what a process holds")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer keeps what is freed")
def test_a_full_pool_grows_a_process_by_its_regions_and_next_to_nothing_else() -> None:
    size = 600_000
    process = subprocess.run(
        [sys.executable, "-c", GROWTH, str(size)], cwd=LAYOUT.parents[3], capture_output=True, text=True, check=True
    )
    found = json.loads(process.stdout)
    regions = item_bytes()
    a_pair = sum(
        regions[name] * part for share in (OF_SIMS, OF_TERMINALS) for name, part in share.items() if name in regions
    )
    assert found["regions"] - found["others"] == pytest.approx(a_pair * size, rel=0.03)
    # Huge pages round each region up; the columns of the last commands may not have been given back yet.
    assert found["grown"] == pytest.approx(found["regions"], abs=45e6)


SMALL_PAGES = """
import re
from pathlib import Path
from simswitch.core.machine import Machine

def small_pages_bytes():
    smaps = Path("/proc/self/smaps").read_text()
    mappings = re.findall(r"^Size: +(\\d+) kB$.*?^VmFlags:([^\\n]*)", smaps, re.MULTILINE | re.DOTALL)
    return sum(int(size) << 10 for size, flags in mappings if "nh" in flags.split())

before = small_pages_bytes()
machine = Machine()
print(small_pages_bytes() - before)
"""
"""How much of a fresh process's memory is never to lie in huge pages because of a machine."""


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the kernel has no huge pages")
def test_what_has_room_for_many_and_holds_few_lies_in_small_pages() -> None:
    """Else the first entity, lot, breaker and job would take 2 MiB each, in the server and in its follower."""
    header, sizes = Machine().header(), item_bytes()
    entities = sizes["entities"] + sizes["lots"] + sizes["breakers"]
    room = header["entities_max"] * entities + header["jobs_max"] * sizes["jobs"]
    small = subprocess.run([sys.executable, "-c", SMALL_PAGES], capture_output=True, text=True, check=True)
    assert int(small.stdout) >= room
