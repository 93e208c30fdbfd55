"""The commands against a real server, as a person or a script calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simswitch.cli.exits import MEANINGS, Exit
from simswitch.cli.status import awaited_servers
from simswitch.demo.processes import Server

from tests.cli.conftest import Run, program
from tests.inventory.card_numbers import iccid, imsi

DEFINITIONS = """
[suppliers.blue]
[plans.hundred]
carrier = "blue"
windows = [{ kind = "cycle", quota_bytes = 100_000_000_000 }]
[classes.nationwide]
[markets.tokyo]
classes = ["nationwide"]
[banks.b1]
[access_servers.as-1]
"""
LOTS = "name,supplier,plan,class\nspring,blue,hundred,nationwide\n"
HEADER = "iccid,imsi,lot,bank,slot,used_cycle_bytes,as_of,terminal,access_server,market"


def card(number: int, terminal: str = "") -> str:
    held = f"{terminal},as-1,tokyo" if terminal else ",,"
    return f"{iccid(number)},{imsi(number)},spring,b1,{number},{number * 1_000},2026-03-01T00:00:00Z,{held}"


def write(folder: Path, *cards: str) -> list[str]:
    (folder / "inventory.toml").write_text(DEFINITIONS, encoding="utf-8")
    (folder / "lots.csv").write_text(LOTS, encoding="utf-8")
    (folder / "sims.csv").write_text("\n".join([HEADER, *cards]) + "\n", encoding="utf-8")
    return ["import", "--definitions", "inventory.toml", "--lots", "lots.csv", "--sims", "sims.csv"]


def counts(run: Run) -> tuple[int, int]:
    summary = json.loads(run("status", "--json").stdout)["summary"]
    return summary["sims_count"], summary["terminals_count"]


def test_an_inventory_is_imported_once_and_the_second_time_nothing_changes(run: Run, tmp_path: Path) -> None:
    words = write(tmp_path, card(1), card(2, "77"), card(3))
    first = run(*words, "--json")
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert report["sims"]["imported_count"] == 3
    assert report["assignments"]["adopted_count"] == 1
    again = json.loads(run(*words, "--json").stdout)
    assert (again["sims"]["imported_count"], again["sims"]["same_count"]) == (0, 3)
    assert again["assignments"]["same_count"] == 1
    assert counts(run) == (3, 1)


def test_a_bad_line_refuses_everything_and_partial_takes_the_rest(run: Run, tmp_path: Path) -> None:
    before = counts(run)
    words = write(tmp_path, card(11), card(12).replace("spring", "autumn"), card(13))
    refused = run(*words)
    assert refused.returncode == Exit.REFUSED
    assert 'sims.csv:3: lot: "autumn": no such lot' in refused.stderr
    assert "nothing was imported" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert counts(run) == before
    partial = run(*words, "--partial")
    assert partial.returncode == 0, partial.stderr
    assert counts(run)[0] == before[0] + 2
    rejected = (tmp_path / "sims.csv.rejected.csv").read_text(encoding="utf-8")
    assert "no such lot" in rejected
    assert card(12).replace("spring", "autumn") in rejected


def test_what_the_service_refuses_is_named_by_line(run: Run, tmp_path: Path) -> None:
    assert run(*write(tmp_path, card(21))).returncode == 0
    before = counts(run)
    other_data = card(21).replace(imsi(21), imsi(22))
    refused = run(*write(tmp_path, card(23), other_data))
    assert refused.returncode == Exit.REFUSED
    assert "sims.csv:3: iccid: the service refused it: ICCID_DIFFERS" in refused.stderr
    assert counts(run) == before


def test_check_changes_nothing(run: Run, tmp_path: Path) -> None:
    before = counts(run)
    checked = run(*write(tmp_path, card(31)), "--check")
    assert checked.returncode == 0, checked.stderr
    assert "nothing imported" in checked.stdout
    assert counts(run) == before


def test_status_shows_tables_and_the_same_as_json(run: Run) -> None:
    shown = run("status")
    assert shown.returncode == 0, shown.stderr
    assert "A lease is expected to need" in shown.stdout
    for words in ("By health", "By occupancy", "Lots", "spring", "Access servers", "as-1", "disconnected"):
        assert words in shown.stdout
    found = json.loads(run("status", "--json").stdout)
    assert found["access_servers"][0]["gate"] == "disconnected"
    assert sum(entry["count"] for entry in found["summary"]["healths"]) == found["summary"]["sims_count"]


def test_jobs_are_ordered_held_and_ended(run: Run, tmp_path: Path) -> None:
    (tmp_path / "terminals.txt").write_text("77\n\n", encoding="ascii")
    created = run("swap", "create", "--reason", "a test", "--terminals", "terminals.txt", "--json")
    assert created.returncode == 0, created.stderr
    job = json.loads(created.stdout)
    number = str(job["number"])
    assert (job["reason"], job["terminals_count"]) == ("a test", 1)
    for word, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        found = json.loads(run("swap", word, number, "--json").stdout)
        assert found["state"] == state
    assert json.loads(run("swap", "show", number, "--json").stdout)["state"] == "cancelled"
    assert [entry["number"] for entry in json.loads(run("swap", "list", "--json").stdout)["jobs"]] == [job["number"]]
    watched = run("swap", "watch", number, "--json")
    assert json.loads(watched.stdout)["state"] == "cancelled"
    assert run("swap", "show", "999").returncode == Exit.REFUSED
    dry = json.loads(run("swap", "create", "--reason", "dry", "--health", "healthy", "--dry-run", "--json").stdout)
    shown = run("swap", "show", str(dry["number"])).stdout
    assert "would move" in shown, "who is to approve a job has to see what its check found"


def test_caps_are_set_now_and_from_an_instant_on_and_shown_with_the_next_reset(run: Run, tmp_path: Path) -> None:
    resets = '[plans.hundred.resets]\nclosing_day = 31\ntime_zone = "Asia/Tokyo"\nlag_seconds = 7_200\n[classes'
    words = write(tmp_path, card(1))
    dated = DEFINITIONS.replace("[classes", resets, 1)
    (tmp_path / "inventory.toml").write_text(dated, encoding="utf-8")
    assert run(*words).returncode == 0
    assert run("caps", "set", "spring", "day", "3GB", "--certainty", "contractual").returncode == 0
    assert "already" in run("caps", "set", "spring", "day", "3GB", "--certainty", "contractual").stdout
    assert run("caps", "set", "spring", "cycle", "plan", "--at", "2099-01-01T00:00+09:00").returncode == 0
    later = ("caps", "set", "spring", "cycle", "80GB", "--at", "2098-01-01T00:00+09:00")
    waits = run(*later)
    assert waits.returncode == Exit.REFUSED
    assert "the plan at 2098-12-31" in waits.stderr, "it is named"
    assert "waits already" in waits.stderr
    assert run(*later, "--replace").returncode == 0
    assert run("caps", "set", "spring", "cycle", "80GB", "--replace").returncode == Exit.USAGE
    refused = run("caps", "set", "nowhere", "day", "3GB")
    assert (refused.returncode, "unknown lot" in refused.stderr) == (Exit.REFUSED, True)
    assert run("caps", "set", "spring", "day", "much").returncode == Exit.USAGE
    assert "with its unit" in run("caps", "set", "spring", "day", "90").stderr
    (lot,) = json.loads(run("caps", "--lot", "spring", "--json").stdout)["lots"]
    cycle, day = lot["windows"]
    assert (day["quota_bytes"], day["certainty"], day["waiting_ms"]) == (3 * 10**9, "contractual", 0)
    assert (cycle["waiting_ms"], cycle["waiting_bytes"]) == (4_039_340_400_000, 80 * 10**9)
    assert all(window["reset_ms"] % 86_400_000 == 17 * 3_600_000 for window in lot["windows"])
    assert "80.0 GB at 20" in run("caps").stdout


def test_a_cap_below_the_plans_marks_is_told_as_what_takes_the_lot_out(run: Run, tmp_path: Path) -> None:
    words = write(tmp_path, card(61).replace("spring", "marked"))
    plan = (
        '[plans.marked]\ncarrier = "blue"\nlow_bytes = 500_000_000\n'
        'windows = [{ kind = "day", quota_bytes = 5_000_000_000 }]\n'
    )
    (tmp_path / "inventory.toml").write_text(DEFINITIONS + plan, encoding="utf-8")
    (tmp_path / "lots.csv").write_text(LOTS + "marked,blue,marked,nationwide\n", encoding="utf-8")
    assert run(*words).returncode == 0
    none = "marked: NONE OF ITS SIMS CAN BE HANDED OUT with a cap of {}: by plan marked they are low or exhausted below"
    later = run("caps", "set", "marked", "day", "300MB", "--at", "2099-01-01T00:00+09:00")
    assert none.format("300.0 MB") in " ".join(later.stdout.split())
    assert "NONE OF ITS" not in run("caps", "set", "marked", "day", "500MB").stdout
    assert json.loads(run("sim", iccid(61), "--json").stdout)["sim"]["health"] == "healthy"
    assert "NONE OF ITS" not in run("caps").stdout
    assert json.loads(run("status", "--json").stdout)["summary"]["unfit_lots"] == []
    assert none.format("499.0 MB") in " ".join(run("caps", "set", "marked", "day", "499MB").stdout.split())
    assert json.loads(run("sim", iccid(61), "--json").stdout)["sim"]["health"] == "low"
    assert none.format("499.0 MB") in " ".join(run("caps").stdout.split())
    assert "SINCE A CAP IS BELOW THE PLAN'S MARKS: marked." in " ".join(run("status").stdout.split())
    assert run("caps", "set", "marked", "day", "5GB").returncode == 0


def test_what_sims_share_is_shown_as_shared_and_once(run: Run, tmp_path: Path) -> None:
    words = write(
        tmp_path, *(card(number, terminal).replace("spring", "pool") for number, terminal in ((71, "71"), (72, "")))
    )
    plan = (
        '[plans.shared]\ncarrier = "blue"\nwindows = [{ kind = "cycle", quota_bytes = 4_000_000_000, pooled = true }]\n'
    )
    (tmp_path / "inventory.toml").write_text(DEFINITIONS + plan, encoding="utf-8")
    (tmp_path / "lots.csv").write_text(LOTS + "pool,blue,shared,nationwide\n", encoding="utf-8")
    imported = run(*words)
    assert "nobody says when the windows of plan shared start anew" in " ".join(imported.stdout.split())
    (lot,) = json.loads(run("caps", "--lot", "pool", "--json").stdout)["lots"]
    used, claimed = 143_000, lot["pool"]["claimed_bytes"]
    assert (lot["windows"][0]["pooled"], lot["windows"][0]["pool_used_bytes"]) == (True, used)
    marks = {"low_bytes": 1 << 30, "exhausted_bytes": 64 << 20}
    assert lot["pool"] == {"left_bytes": 4 * 10**9 - used, "claimed_bytes": claimed, "health": "healthy", **marks}
    assert claimed > 0, "the terminal that was adopted is to use something yet"
    for number in (71, 72):
        shown = json.loads(run("sim", iccid(number), "--json").stdout)
        assert shown["sim"]["headroom_bytes"] == 4 * 10**9 - used - claimed, "no SIM has more than all have"
    told = " ".join(run("sim", iccid(72)).stdout.split())
    assert "4.0 GB, shared" in told
    assert "its SIMs share a quota, 143,000 B of 4.0 GB (cycle, believed) used, 4.0 GB left" in told
    assert "Lots whose SIMs share a quota: 1 healthy." in run("status").stdout
    page = " ".join(run("pool").stdout.split())
    assert "pool, 2 SIMs: its SIMs share a quota, 143,000 B of 4.0 GB (cycle, believed) used, 4.0 GB left" in page
    assert "low below 1.1 GB and exhausted below 67.1 MB" in page
    rows = {row["name"]: row["pools_count"] for row in json.loads(run("pool", "--json").stdout)["rows"]}
    assert (rows["pool"], rows["spring"]) == (1, 0)
    assert "Nobody says when this window starts anew" in run("caps", "set", "pool", "cycle", "0").stdout
    assert "143,000 B of 0 B (cycle, believed) used, 143,000 B over" in " ".join(run("caps").stdout.split())
    assert "what pool shares is exhausted" in run("events", "--kind", "pool").stdout
    assert json.loads(run("sim", iccid(72), "--json").stdout)["sim"]["health"] == "exhausted"


def test_sims_of_lots_that_are_not_valid_are_told_as_such_and_not_as_exhausted(run: Run, tmp_path: Path) -> None:
    def by_health() -> tuple[dict[str, int], int, int]:
        summary = json.loads(run("status", "--json").stdout)["summary"]
        healths = {each["health"]: each["count"] for each in summary["healths"]}
        return healths, summary["not_yet_valid_count"], summary["no_longer_valid_count"]

    healths, not_yet, no_longer = by_health()
    assert (not_yet, no_longer) == (0, 0)
    lots = ("early", "early", "past")
    words = write(tmp_path, *(card(81 + place).replace("spring", lot) for place, lot in enumerate(lots)))
    (tmp_path / "lots.csv").write_text(
        "name,supplier,plan,class,active_from,valid_until\n"
        "early,blue,hundred,nationwide,2090-01-01,\npast,blue,hundred,nationwide,,2020-01-31\n",
        encoding="utf-8",
    )
    imported = run(*words)
    assert imported.returncode == 0, imported.stderr
    assert by_health() == (healths, 2, 1)
    shown = run("status").stdout
    assert "of lots that are not yet valid" in shown
    assert "of lots that are no longer valid" in shown


def test_everything_is_stopped_and_lifted(run: Run) -> None:
    assert run("swap", "stop").returncode == Exit.USAGE
    assert run("swap", "stop", "--all").returncode == 0
    assert "ALL SWAPS ARE STOPPED" in run("status").stdout
    assert run("swap", "lift").returncode == 0
    assert "ALL SWAPS ARE STOPPED" not in run("status").stdout


def test_an_access_server_is_paused_and_resumed(run: Run) -> None:
    assert json.loads(run("access-server", "pause", "as-1", "--json").stdout)["paused"] is True
    assert ", paused" in run("access-server", "list").stdout
    resumed = run("access-server", "resume", "as-1")
    assert "as-1 gets orders again" in resumed.stdout
    assert ", paused" not in run("access-server", "list").stdout
    assert run("access-server", "pause", "as-99").returncode == Exit.REFUSED


def test_a_list_says_which_of_its_terminals_are_not_in_the_job(run: Run, tmp_path: Path) -> None:
    (tmp_path / "terminals.txt").write_text("77\n78\n77\n", encoding="ascii")
    dry = ("swap", "create", "--reason", "a test", "--terminals", "terminals.txt", "--dry-run")
    assert json.loads(run(*dry, "--json").stdout)["left_out"] == {"unknown_terminal": [78], "same": [77]}
    shown = run(*dry).stdout
    assert "1 that nobody knows (such as 78)" in shown


@pytest.mark.parametrize(
    "option",
    ["--deadline=1960-01-01T00:00", "--deadline=0001-01-01", "--announce-ahead=9999999999999999d", "--rate=99999999999",
     "--canary=99999999999", "--headroom-below=99999999TB", "--error-budget=101%", "--quiet=22:00-22:00"],
)  # fmt: skip
def test_what_is_out_of_its_range_is_refused_before_anything_is_sent(run: Run, option: str) -> None:
    refused = run("swap", "create", "--reason", "a test", option)
    assert refused.returncode == Exit.USAGE
    assert "Traceback" not in refused.stderr
    assert option.split("=")[0] in refused.stderr


def test_the_engine_section_of_the_settings_is_taken(server: Server) -> None:
    from simswitch.client import OperatorClient
    from simswitch.v1 import pool_pb2

    with OperatorClient(server.address) as client:
        settings = {
            entry.setting: entry.value for entry in client.pool.GetSettings(pool_pb2.GetSettingsRequest()).settings
        }
    assert settings[pool_pb2.SETTING_COOLING_MS] == 1_234


def test_the_settings_file_reaches_the_service_before_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what it is started with, not what is sent to it later: its first call must find them in place."""
    from simswitch.cli.serve import serve
    from simswitch.core.layout import Setting
    from simswitch.service import server as service
    from simswitch.service.settings import ServerSettings

    started: list[ServerSettings] = []

    async def remember(_folder: Path, settings: ServerSettings, **_words: object) -> None:
        started.append(settings)

    monkeypatch.setattr(service, "serve", remember)
    config = tmp_path / "simswitch.toml"
    config.write_text("[engine]\ncooling_ms = 1_234\n[follower]\nsnapshot_seconds = 17\n", encoding="utf-8")
    serve(tmp_path / "data", config=config)
    assert [settings.engine for settings in started] == [{Setting.COOLING_MS: 1_234}]
    assert started[0].follower_options == (
        *("--snapshot-seconds", "17", "--history-months", "13"),
        *("--history-cache-mib", "64"),
    )


def test_the_transport_is_that_of_the_option_then_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simswitch.cli.serve import Transport, serve
    from simswitch.service import server as service
    from simswitch.service.settings import ServerSettings

    started: list[str] = []

    async def remember(_folder: Path, settings: ServerSettings, **_words: object) -> None:
        started.append(settings.transport)

    monkeypatch.setattr(service, "serve", remember)
    config = tmp_path / "simswitch.toml"
    config.write_text("[service]\ntransport = 'native'\n", encoding="utf-8")
    serve(tmp_path / "data")
    serve(tmp_path / "data", config=config)
    serve(tmp_path / "data", config=config, transport=Transport.GRPCIO)
    serve(tmp_path / "data", transport=Transport.NATIVE)
    assert started == ["grpcio", "native", "grpcio", "native"]


def test_a_setting_that_the_engine_refuses_stops_the_server(tmp_path: Path) -> None:
    config = tmp_path / "simswitch.toml"
    config.write_text("[journal]\nfree_mark_bytes = 0\n[engine]\norder_deadline_ms = 500\n", encoding="utf-8")
    refused = program("serve", str(tmp_path / "data"), "--address", "127.0.0.1:0", "--config", str(config))
    assert refused.returncode == Exit.USAGE
    assert "order_deadline_ms" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_second_server_on_the_folder_is_refused(run: Run, server: Server) -> None:
    refused = run("serve", str(server.folder), "--address", "127.0.0.1:0")
    assert refused.returncode == Exit.REFUSED
    assert str(server.process_id) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_inspect_shows_the_folder_of_a_running_server(run: Run, server: Server) -> None:
    found = json.loads(run("inspect", str(server.folder), "--json").stdout)
    assert found["lock"]["pid"] == server.process_id
    assert "Segments" in run("inspect", str(server.folder)).stdout


def test_a_damaged_folder_is_told_by_its_exit_code(tmp_path: Path) -> None:
    config = tmp_path / "simswitch.toml"
    config.write_text(
        "[journal]\nsegment_bytes = 1_048_576\nfree_mark_bytes = 0\n[follower]\nenabled = false\n", encoding="utf-8"
    )
    running = Server(tmp_path / "data", config, tmp_path / "server.log")
    running.start()
    for word in (("stop", "--all"), ("lift",)):
        assert program("swap", *word, address=running.address).returncode == 0
    running.kill()
    segment = next(path for path in sorted((tmp_path / "data").iterdir()) if path.stat().st_size >= 1_048_576)
    data = bytearray(segment.read_bytes())
    data[4_096 + 100] ^= 1  # inside the first of several records
    segment.write_bytes(data)
    for words in (("inspect", str(tmp_path / "data")), ("serve", str(tmp_path / "data"), "--address", "127.0.0.1:0")):
        found = program(*words)
        assert found.returncode == Exit.DAMAGED, found.stderr
        assert segment.name in found.stderr
        assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status", "--address", "127.0.0.1:9"], Exit.UNREACHABLE),
        (["nonsense"], Exit.USAGE),
        (["import"], Exit.USAGE),
        (["import", "--sims", "missing.csv"], Exit.USAGE),
        (["serve", "data", "--address", "nowhere"], Exit.USAGE),
        (["serve", "data", "--address", "0.0.0.0:0"], Exit.USAGE),
        (["status", "--config", "missing.toml"], Exit.USAGE),
        (["swap", "create", "--reason", ""], Exit.USAGE),
        (["replay", "no-such-scenario"], Exit.USAGE),
        (["config", "--example"], Exit.OK),
    ],
)
def test_exit_codes_mean_what_they_say_and_nobody_sees_a_traceback(
    tmp_path: Path, words: list[str], code: Exit
) -> None:
    found = program(*words, folder=tmp_path)
    assert found.returncode == code, found.stderr
    assert "Traceback" not in found.stderr
    assert code in MEANINGS


def test_a_wrong_setting_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "simswitch.toml").write_text("[service]\nport = 3\n", encoding="utf-8")
    found = program("status", "--config", "simswitch.toml", folder=tmp_path)
    assert found.returncode == Exit.USAGE
    assert "simswitch.toml:2: service.port: no such setting" in found.stderr


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "complete -o"), ("zsh", "#compdef simswitch"), ("fish", "complete --command")]
)
def test_completion_is_printed_also_where_no_shell_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, words: str
) -> None:
    monkeypatch.setenv("_SIMSWITCH_COMPLETE", f"source_{shell}")
    found = program(folder=tmp_path)
    assert found.returncode == 0
    assert words in found.stdout
    assert f"_SIMSWITCH_COMPLETE=complete_{shell}" in found.stdout


def test_a_shipped_scenario_is_replayed_into_files(tmp_path: Path) -> None:
    found = program("replay", "tiny", "--policy", "engine", "--json", "out.json", "--plot", "out.png", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(result) == ["scenario", "seed", "state_hash", "policies"]
    assert list(result["policies"]) == ["engine"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    refused = program("replay", "tiny", "--policy", "hope", folder=tmp_path)
    assert refused.returncode == Exit.REFUSED
    assert "Traceback" not in refused.stderr


def test_a_wrong_scenario_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("colour = 3\n", encoding="utf-8")
    found = program("replay", "mine.toml", folder=tmp_path)
    assert found.returncode == Exit.USAGE
    assert "mine.toml:1" in found.stderr


def test_whoever_is_awaited_after_a_restore_is_told_with_how_far_it_is() -> None:
    servers = [
        {"name": "as-1", "unheard": True, "session": 0, "reconciled": False, "gate": "disconnected", "dead_ms": None},
        {"name": "as-2", "unheard": True, "session": 3, "reconciled": False, "gate": "disconnected", "dead_ms": None},
        {"name": "as-3", "unheard": True, "session": 4, "reconciled": True, "gate": "open", "dead_ms": None},
        {"name": "as-4", "unheard": True, "session": 0, "reconciled": False, "gate": "dead", "dead_ms": 1},
        # Declared dead before the backup: that counts no more.
        {"name": "as-5", "unheard": True, "session": 0, "reconciled": False, "gate": "dead", "dead_ms": None},
        {"name": "as-6", "unheard": False, "session": 5, "reconciled": True, "gate": "open", "dead_ms": None},
    ]
    assert awaited_servers(servers) == [
        "as-1 (not connected)",
        "as-2 (connected, not ready)",
        "as-3 (connected)",
        "as-4 (declared dead)",
        "as-5 (not connected)",
    ]
