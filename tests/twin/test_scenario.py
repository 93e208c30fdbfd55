"""Scenarios are refused with file and line; lines are found as people see them."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from simswitch.toml_lines import KeyPath, TomlDocument
from simswitch.twin.scenario import ScenarioError, load, parse

TINY = (resources.files("simswitch.twin") / "scenarios" / "tiny.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tiny", "incident-2020", "million-day", "troubles", "bad-lot", "storm-200k"])
def test_shipped_scenarios_are_valid(name: str) -> None:
    scenario = load(Path(str(resources.files("simswitch.twin") / "scenarios" / f"{name}.toml")))
    assert scenario.name == name
    assert scenario.events


def test_the_incident_marks_what_is_assumed() -> None:
    text = (resources.files("simswitch.twin") / "scenarios" / "incident-2020.toml").read_text(encoding="utf-8")
    for key in ("operations_per_s", "client_timeout_s", "share", "sims", "count", "observed_after_s"):
        for line in re.findall(rf"^{key} = .*$", text, re.MULTILINE):
            assert "assumed" in line, line


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed = 7", "seed = -1", "seed is a whole number"),
        ("seed = 7", "seed = true", "seed is a whole number"),
        ("seed = 7", "seed = 7\ncolour = 1", "no key 'colour'"),
        ("start = 2020-02-21T12:00:00+09:00", "start = 2020-02-21T12:00:00", "with its offset"),
        ("duration_s = 900", "duration_s = nan", "duration_s is a number"),
        ("n = 20", "n = 0", "n is a whole number"),
        ("n = 20", "m = 20", "no key 'm'"),
        ('plan = "unlimited"', 'plan = "limited"', "plan is one of unlimited"),
        ('classes = ["standard"]', 'classes = [\n  "standard",\n  "other",\n]', "may name standard"),
        ('name = "spare"', 'name = "first"', "a second lot is called 'first'"),
        ("operations_per_s = 5", "operations_per_s = 0", "operations_per_s is a number from 0.01"),
        ("share = 0.6", "share = 1.5", "share is a number from 0 to 1"),
        ("share = 0.6", "share = 0.6\ncount = 3", "either share or count"),
        ('kind = "switch"', 'kind = "swap"', "kind is one of slow, speed, switch"),
        ("at_s = 120", "at_s = 901", "at_s is a number from 0 to 900"),
        ("report_interval_s = 60", "report_interval_s = 60\narrival_peak_s = 5", "arrival_peak_s goes with"),
        ("duration_s = 900", "duration_s = = 900", "this is not TOML"),
        ('name = "japan"', 'name = "japan', "this is not TOML"),
    ],
)
def test_a_bad_scenario_is_refused_with_its_line(old: str, new: str, says: str) -> None:
    assert TINY.count(old + "\n") >= 1
    at = TINY.index(old + "\n")
    text = TINY[:at] + new + TINY[at + len(old) :]
    line = TINY[:at].count("\n") + 1
    if "colour" in new or "arrival_peak" in new:
        line += 1
    if says == "either share or count":
        # The table lacks or has too much: its header is named.
        line = TINY[:at].splitlines().index("[[events]]") + 1
    with pytest.raises(ScenarioError, match=re.escape(says)) as refusal:
        parse(text, "bad", "bad.toml")
    assert refusal.value.line == line
    assert str(refusal.value).startswith(f"bad.toml:{line}: ")


def test_a_missing_key_is_named_with_its_table() -> None:
    with pytest.raises(ScenarioError, match="lacks 'sims'") as refusal:
        parse(TINY.replace("sims = 600\n", "", 1), "bad")
    assert TINY.splitlines()[refusal.value.line - 1] == "[[lots]]"


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(b"seed = 1\n# caf\xe9\n")
    with pytest.raises(ScenarioError, match=r"bad\.toml:2: this is not UTF-8"):
        load(file)


def test_lines_of_keys_in_every_form() -> None:
    text = """\
a = 1
b = [  # ] not yet
  "[x]",
  2,
]
'c d' = \"""
[not.a.table]
e = 5
\"""
[t.u]
x.y = { z = 1 }
[[v]]
k = '#'
[[v]]
k = 2
[v.w]
m = 3
"""
    expected: dict[KeyPath, int] = {
        ("a",): 1,
        ("b",): 2,
        ("c d",): 6,
        ("t", "u"): 10,
        ("t", "u", "x"): 11,
        ("t", "u", "x", "y"): 11,
        ("v",): 12,
        ("v", 0): 12,
        ("v", 0, "k"): 13,
        ("v", 1): 14,
        ("v", 1, "k"): 15,
        ("v", 1, "w"): 16,
        ("v", 1, "w", "m"): 17,
    }
    document = TomlDocument(text)
    assert {path: document.line(path) for path in expected} == expected


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ('kind = "switch"\ncanary = 0', "canary is a whole number from 1"),
        ('kind = "switch"\nlot = "third"', "lot is one of first, spare"),
        ('kind = "stop"\naccess_servers = "as"', "lacks 'for_s'"),
        ('kind = "lose"\naccess_servers = "as"\nfor_s = 9', "lacks 'share'"),
        ('kind = "busy"\naccess_servers = "as"\nfor_s = 9\nserver = 3', "server is a whole number from 1 to 2"),
        ('kind = "bad"\nlot = "third"\nfor_s = 9', "lot is one of first, spare"),
        ('kind = "dead"\naccess_servers = "as"\ndeclared_after_s = 9', "dead names one server"),
        ('kind = "switch"\n[[events]]\nat_s = 130\nkind = "switch"', "only the engine, or none, can be given two"),
    ],
)
def test_a_bad_event_is_refused(event: str, says: str) -> None:
    text = TINY.replace('kind = "switch"', event)
    assert text != TINY
    with pytest.raises(ScenarioError, match=re.escape(says)):
        parse(text, "bad", "bad.toml")
