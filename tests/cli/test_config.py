"""Settings: every one documented, wrong ones named by file and line."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from simswitch.cli.exits import Exit
from simswitch.config import SECTIONS, SETTINGS, default_config, example, parse_config, read_config
from simswitch.core.machine import Machine
from simswitch.toml_lines import TomlDocument, TomlRefused

from tests.cli.conftest import program


def test_the_example_names_every_setting_and_holds_the_defaults() -> None:
    assert parse_config(TomlDocument(example())).values == default_config().values
    lines = example().splitlines()
    for entry in SETTINGS:
        assert any(line.startswith(f"#{entry.name} = ") for line in lines), entry.name


def test_the_example_is_right_when_its_comments_are_taken_off() -> None:
    taken = re.sub(r"^#(\w+ = )", r"\1", example(), flags=re.MULTILINE)
    config = parse_config(TomlDocument(taken))
    assert set(config.values) == {(entry.section, entry.name) for entry in SETTINGS}
    defaults = Machine(64, 64, 64).header()["settings"]
    assert config.engine_settings() == {name: defaults[name] for name in config.engine_settings()}


def test_the_engine_section_has_exactly_the_settings_of_the_contract() -> None:
    from simswitch.v1 import pool_pb2

    names = {name.removeprefix("SETTING_").lower() for name, _ in pool_pb2.Setting.items()} - {"unspecified"}
    assert {entry.name for entry in SETTINGS if entry.section == "engine"} == names
    assert set(SECTIONS) == {entry.section for entry in SETTINGS}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[service]\n\nadress = '127.0.0.1:1'", 3, "no such setting"),
        ("[journal]\nsegment_bytes = 5_000_001", 2, "a multiple of 4,096"),
        ("[journal]\nsegment_bytes = 4096", 2, "from 1,048,576"),
        ("[capacity]\nsims = 'many'", 2, "a whole number"),
        ("[capacity]\nsims = true", 2, "a whole number"),
        ("[follower]\nenabled = 1", 2, "true or false"),
        ("[service]\naddress = ''", 2, "text in quotes"),
        ("[service]\ntransport = 'tcp'", 2, "grpcio or native"),
        ("[colours]\nred = 1", 1, "no such section"),
        ("service = 3", 1, "a table belongs here"),
        ("[service]\naddress = \n", 2, "this is not TOML"),
        ("[engine]\nlease_ms = 1\n", 2, "from 1,000"),
    ],
)
def test_a_wrong_setting_is_refused_with_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "simswitch.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TomlRefused) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


def test_lines_are_found_behind_everything_that_toml_allows() -> None:
    text = '''# a comment
top = """
[not.a.table]
key = 1
"""
[a . "b c"]   # a table
x = [
  1, # ]
  { y = 2 },
]
d.e = 1
"q.r" = 'a # b'
[[list]]
n = 1
[[list]]
n = 2
[list.sub]
m = 3
'''
    document = TomlDocument(text)
    assert [
        document.line(path)
        for path in (("top",), ("a", "b c"), ("a", "b c", "x"), ("a", "b c", "d", "e"), ("a", "b c", "q.r"))
    ] == [2, 6, 7, 11, 12]
    assert [document.line(path) for path in (("list", 0, "n"), ("list", 1, "n"), ("list", 1, "sub", "m"))] == [
        14,
        16,
        18,
    ]
    assert document.line(("a", "b c", "x", 1, "y")) == 7
    assert document.line(("missing",)) == 0


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "simswitch.toml"
    path.write_bytes(b"[service]\n# fr\xfch\n")
    with pytest.raises(TomlRefused, match=":2: this is not UTF-8"):
        read_config(path)


@pytest.mark.skipif(find_spec("scipy") is None, reason="the extra simswitch[caps] is missing")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("[learner]\nenabled = true\n[follower]\nhistory = false\n", "the learner reads history"),
        (
            '[learner]\nenabled = true\n[tls]\ncertificate = "a"\nkey = "b"\n',
            "simswitch token create DIR learner:local",
        ),
    ],
)
def test_a_learner_that_could_not_work_is_refused_at_the_start(tmp_path: Path, settings: str, says: str) -> None:
    config = tmp_path / "simswitch.toml"
    config.write_text(settings, encoding="utf-8")
    ended = program("serve", str(tmp_path / "data"), "--config", str(config))
    assert (ended.returncode, says in ended.stderr) == (Exit.USAGE, True)


def test_proof_without_tls_is_refused_at_the_start(tmp_path: Path) -> None:
    """An access server has no token: none of them could come in."""
    config = tmp_path / "simswitch.toml"
    config.write_text("[access]\nrequired = true\n", encoding="utf-8")
    ended = program("serve", str(tmp_path / "data"), "--config", str(config))
    assert ended.returncode == Exit.USAGE
    assert "set certificate, key and client_ca in the section tls" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


def test_tls_without_an_authority_for_access_servers_is_refused_at_the_start(tmp_path: Path) -> None:
    config = tmp_path / "simswitch.toml"
    config.write_text('[tls]\ncertificate = "a"\nkey = "b"\npeople_address = "127.0.0.1:0"\n', encoding="utf-8")
    ended = program("serve", str(tmp_path / "data"), "--config", str(config))
    assert (ended.returncode, "the section tls has no client_ca" in ended.stderr) == (Exit.USAGE, True), ended.stderr
    assert not (tmp_path / "data").exists()
