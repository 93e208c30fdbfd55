"""The demonstration itself, in its short form: a real server, real clients, and a kill -9 in the middle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = {
    "allocations_requested",
    "allocations_failed",
    "allocation_wait_p50_s",
    "allocation_wait_p99_s",
    "allocation_wait_max_s",
    "swaps_completed",
    "swaps_failed",
    "swaps_in_flight_max",
    "swaps_in_flight_total_max",
    "swaps_finished_s",
    "outage_user_seconds",
}


@pytest.mark.timeout(300)
def test_the_story_is_told_and_the_crash_loses_nothing(tmp_path: Path) -> None:
    """I6: every lease that the access servers hold after a SIGKILL is known to the server that comes back."""
    told = subprocess.run(
        [sys.executable, "-m", "simswitch", "demo", "--short", "--output", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr + told.stdout
    assert "kill -9" in told.stdout
    assert "0 leases were lost" in told.stdout
    assert "1 second here stands for 10 seconds" in told.stdout
    assert "status --address 127.0.0.1:" in told.stdout
    paths = re.findall(r"the window of as-\d+: ([\d →]+)", told.stdout)
    assert len(paths) == 3
    assert all(path.startswith("20 → 40") for path in paths), paths

    result = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert list(result) == ["scenario", "seed", "state_hash", "policies", "crash"]
    by_hand, engine = result["policies"]["unbounded"], result["policies"]["engine"]
    assert set(by_hand) == set(engine) == KEYS
    assert by_hand["allocations_failed"] > 0
    # How long the killed server takes to come back is the machine's affair: who got no answer meanwhile is told apart,
    # and what is left failed in the access servers' queues, as all did in 2020.
    in_queues = engine["allocations_failed"] - result["crash"]["failed_meanwhile"]
    assert in_queues < by_hand["allocations_failed"]
    assert engine["allocation_wait_p50_s"] <= engine["allocation_wait_p99_s"] <= engine["allocation_wait_max_s"] <= 20
    assert by_hand["swaps_completed"] == engine["swaps_completed"] == 360
    assert by_hand["swaps_in_flight_max"] == 120
    assert 0 < engine["swaps_in_flight_max"] <= 200
    # The picture shows the waits that the table counts, the longest one included; and it is said what is in them.
    assert "The engine's waits include the time in which its server was killed" in told.stdout
    points = json.loads((tmp_path / "demo" / "picture.json").read_text(encoding="utf-8"))
    for policy, figures in result["policies"].items():
        longest_s = max(wait_s for wait_s in points[policy]["wait_s"] if wait_s is not None)
        assert round(longest_s, 3) == figures["allocation_wait_max_s"], policy
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    # Nothing is left running on either folder.
    for name in ("unbounded", "engine"):
        assert not (tmp_path / "demo" / name / "data" / "address").exists()
