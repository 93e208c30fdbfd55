"""A month of carriers with hidden limits: their arithmetic, what learning changes, and each byte counted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simswitch.core import layout
from simswitch.twin import ReplayError, ScenarioError, document, plot, plot_servers, record, replay
from simswitch.twin.carriers import CYCLE, DAY, ROLLING, Carriers, Tier, passed
from simswitch.twin.month import HOUR_MS, REPORTED_BEFORE_MS, RESET_LAG_MS, RESET_SPREAD_MS, _Run, load

GB = 1e9
SMALL = """
kind = "month"
seed = 7
start = 2020-02-01T00:00:00+09:00
days = 9
policies = ["believed", "learned"]
terminals = 3_000
month_gb = 9
moves_per_day = 1
idle_share = 0.08
weak_share = 0.05
busy_cells_share = 0.1
[[lots]]
name = "unlimited"
sims = 4_500
quota_cycle_gb = 100
[[lots.tiers]]
window = "cycle"
quota_gb = 12.0
speed_kbps = 1_000
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_learning_hands_out_fewer_slowed_sims_and_finds_the_cap(small: Path) -> None:
    found = replay(small)
    believed, learned = found["policies"]["believed"], found["policies"]["learned"]
    assert believed["usage_reports"] == learned["usage_reports"] == 3_000 * 9 * 24
    assert believed["handed_out_slowed"] > 100, believed
    assert learned["handed_out_slowed"] < believed["handed_out_slowed"] / 2, (believed, learned)
    assert learned["slowed_terminal_hours"] < believed["slowed_terminal_hours"] / 2, (believed, learned)
    assert learned["throttle_decisions"] > 10
    assert learned["throttle_decisions_false"] <= 0.1 * learned["throttle_decisions"], learned
    caps = found["caps"]["unlimited, cycle"]
    assert caps["believed"][-1] == 100
    assert caps["true"][-1] == 12
    assert caps["learned"][0] is None
    assert caps["learned"][-1] == pytest.approx(12, rel=0.1)


def test_carriers_figures_bring_our_count_to_theirs_and_stay_out_of_what_was_reported(small: Path) -> None:
    small.write_text(SMALL.replace("quota_cycle_gb = 100", "quota_cycle_gb = 100\ncycle_day = 5"))
    month = load(small)
    assert month is not None
    found: dict[str, Any] = {}
    for policy in ("learned", "corrected"):
        run = _Run(month, policy)
        run.run(None)
        found[policy] = run.figures()
        header = run.cell.machine.header()
        assert header["counted_bytes"] == run.got_bytes
        assert run.cell.machine.check() == []
        taken, aside = found[policy]["carrier_figures"], found[policy]["carrier_figures_set_aside"]
        assert (header["corrections_count"], header["figures_aside_count"]) == (taken or 0, aside or 0)
        run.cell.close()
    learned, corrected = found["learned"], found["corrected"]
    # Eight mornings: that of the day on which the cycle began anew brings a figure of the one before.
    assert corrected["carrier_figures"] == 7 * 4_500, corrected
    assert corrected["carrier_figures_set_aside"] == 4_500, corrected
    assert learned["count_error_share"] > 0.014, learned
    assert corrected["count_error_share"] < learned["count_error_share"] / 2, (learned, corrected)


def test_no_sim_of_a_pool_is_handed_out_after_its_end_once_it_is_said_to_be_one(small: Path) -> None:
    lots = """
[[lots]]
name = "shared"
sims = 300
quota_cycle_gb = 600
pooled = true
[[lots.tiers]]
window = "cycle"
quota_gb = 600
speed_kbps = 128
pooled = true
[[lots]]
name = "own"
sims = 400
quota_cycle_gb = 100
"""
    text = SMALL[: SMALL.index("[[lots]]")].replace("3_000", "300").replace("days = 9", "days = 5") + lots
    found: dict[bool, Any] = {}
    for declared in (True, False):
        small.write_text(text if declared else text.replace("pooled = true\n[[lots.tiers]]", "[[lots.tiers]]"))
        month = load(small)
        assert month is not None
        run = _Run(month, "believed")
        run.run(None)
        found[declared] = run.figures()
        machine = run.cell.machine
        assert machine.check() == []
        lot = machine.lot(run.engine.lots["shared"])
        assert lot["pool_used_bytes"][CYCLE] == (run.lifetime[:300].sum() if declared else 0)
        run.cell.close()
    assert found[False]["handed_out_slowed"] > 200, found
    assert found[True]["handed_out_slowed"] == 0, found
    assert found[True]["slowed_terminal_hours"] < found[False]["slowed_terminal_hours"] / 20, found


def test_each_byte_is_counted_once_and_the_pool_is_sound(small: Path) -> None:
    month = load(small)
    assert month is not None
    run = _Run(month, "learned")
    run.run(None)
    machine = run.cell.machine
    assert machine.header()["counted_bytes"] == run.got_bytes
    columns = machine.sims_columns()
    assert (columns["used_day_bytes"] == run.counted[DAY]).all()
    assert machine.check() == []
    held = columns["occupancy"] == layout.ASSIGNED
    assert sorted(run.sim[run.sim != layout.NONE_INDEX]) == np.flatnonzero(held).tolist()


def test_windows_start_anew_by_the_calendar_of_their_lot(small: Path) -> None:
    """Each day some minutes after midnight, spread over SIMs, and over before the first reports come."""
    small.write_text(SMALL.replace("days = 9", "days = 4").replace("sims = 4_500", "sims = 4_500\ncycle_day = 2"))
    month = load(small)
    assert month is not None
    run = _Run(month, "believed")
    run.run(None)
    lot = run.engine.lots["unlimited"]
    events = run.cell.machine.events()
    resets = events[(events["kind"] == layout.EVENT_RESET) & (events["a"] & 0xFFFF == lot)]
    day_ms = 24 * HOUR_MS
    wanted = [(1, layout.WINDOW_DAY), (2, layout.WINDOW_DAY), (2, layout.WINDOW_CYCLE), (3, layout.WINDOW_DAY)]
    came = [(int(at_ms - run.engine.start_ms) // day_ms, int(a) >> 16) for at_ms, a in resets[["at_ms", "a"]]]
    assert sorted(came) == sorted((day, int(window)) for day, window in wanted)
    after_midnight_ms = (resets["at_ms"] - run.engine.start_ms) % day_ms
    assert (after_midnight_ms >= RESET_LAG_MS + RESET_SPREAD_MS).all()
    assert (after_midnight_ms < HOUR_MS - REPORTED_BEFORE_MS).all()
    assert resets["b"].tolist() == [4_500] * len(resets)


def test_the_same_seed_gives_the_same_state(small: Path) -> None:
    text = SMALL.replace("days = 9", "days = 2").replace("terminals = 3_000", "terminals = 300")
    small.write_text(text)
    first, again = replay(small), replay(small)
    assert document(first) == document(again)
    small.write_text(text.replace("seed = 7", "seed = 8"))
    assert replay(small)["state_hash"] != first["state_hash"]


def test_a_sim_is_slowed_from_its_quota_on_until_its_window_begins_anew() -> None:
    tiers = [
        Tier(lot=0, window=DAY, quota_bytes=2 * GB, speed_kbps=1_000, from_day=0, until_day=9),
        Tier(lot=0, window=DAY, quota_bytes=3 * GB, speed_kbps=128, from_day=0, until_day=9),
        Tier(lot=1, window=ROLLING, quota_bytes=4 * GB, speed_kbps=384, from_day=0, until_day=9),
        Tier(lot=2, window=CYCLE, quota_bytes=4 * GB, speed_kbps=200, from_day=1, until_day=9),
    ]
    carriers = Carriers(tiers, [slice(0, 1), slice(1, 2), slice(2, 3)], [0, 0, 3], 3, seed=1)

    def use(gigabytes: float, hour: int) -> list[float]:
        carriers.begin_hour(hour)
        carriers.use(np.full(3, gigabytes * GB, np.float32), hour // 24)
        return [float(speed) for speed in carriers.speed]

    none = float("inf")
    assert use(1.8, 5) == [none, none, none]
    assert use(0.5, 6) == [1_000, none, none], "the noise of the carrier's count is 2 %"
    assert use(0.9, 7) == [128, none, none]
    # The day is over, at the latest two hours after midnight: 3.2 GB stay in the rolling window and in the cycle.
    for hour in (24, 25):
        carriers.begin_hour(hour)
    assert use(1.0, 26) == [none, 384, 200], "a tier that holds from the second day on finds what was used before"
    for hour in range(48, 76):
        carriers.begin_hour(hour)
    assert use(0.1, 76) == [none, none, none], (
        "three days later only the second day is in the window, and the cycle is new"
    )
    assert carriers.quota_bytes(0, DAY, 0) == 2 * GB
    assert carriers.quota_bytes(2, CYCLE, 0) is None


@pytest.mark.parametrize(
    ("wanted", "line", "speed", "room", "next_speed", "got", "seconds"),
    [
        (1e6, 8_000, np.inf, np.inf, np.inf, 1e6, 1.0),
        (9e9, 8_000, np.inf, np.inf, np.inf, 3.6e9, 3_600.0),  # more than the line carries in an hour
        (1e9, 8_000, 1_000, np.inf, np.inf, 0.95 * 125e3 * 3_600, 3_600.0),  # slowed from the beginning
        (1e6, 8_000, 1_000, np.inf, np.inf, 1e6, 1e6 / (0.95 * 125e3)),
        (6e6, 8_000, np.inf, 5e6, 1_000, 6e6, 5.0 + 1e6 / (0.95 * 125e3)),  # reaches its limit within the hour
    ],
)
def test_what_passes_in_an_hour(
    wanted: float, line: float, speed: float, room: float, next_speed: float, got: float, seconds: float
) -> None:
    columns = [np.array([value], np.float32) for value in (wanted, line, speed, room, next_speed)]
    bytes_, took, slowed = passed(*columns)
    assert float(bytes_[0]) == pytest.approx(got, rel=1e-5)
    assert float(took[0]) == pytest.approx(seconds, rel=1e-5)
    assert bool(slowed[0]) == bool(np.isfinite(speed))


def test_a_month_is_drawn_and_recorded(small: Path, tmp_path: Path) -> None:
    small.write_text(SMALL.replace("days = 9", "days = 2").replace("terminals = 3_000", "terminals = 300"))
    found = replay(small)
    plot(found, tmp_path / "month.png")
    assert (tmp_path / "month.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="no picture of access servers"):
        plot_servers(found, tmp_path / "servers.png")
    figures = record(small, "believed", tmp_path / "history")
    assert figures == {"2020-02-01": found["policies"]["believed"]}
    assert (tmp_path / "history" / "history.sqlite").exists()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("terminals = 3_000", "terminal = 3_000", "lacks 'terminals'"),
        ("seed = 7", "seed = 7\nweather = 3", "there is no key 'weather'"),
        ('window = "cycle"', 'window = "week"', "window is one of cycle, day, rolling"),
        ("quota_gb = 12.0", "quota_gb = 0", "quota_gb is a number"),
        ('kind = "month"', 'kind = "year"', "kind is one of month"),
    ],
)
def test_a_month_that_is_wrong_is_refused_by_file_and_line(small: Path, before: str, after: str, message: str) -> None:
    small.write_text(SMALL.replace(before, after))
    with pytest.raises(ScenarioError, match=message) as refused:
        replay(small)
    assert refused.value.file == str(small)


def test_policies_of_a_scenario_are_none_of_a_month(small: Path) -> None:
    with pytest.raises(ReplayError, match="believed, learned, corrected, not engine"):
        replay(small, policies=["engine"])
