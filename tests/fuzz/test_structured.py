"""Files that are well formed and say odd things: what Hypothesis makes of the settings, SIMs, scenarios and headers.

Random bytes seldom get past the first line of a reader. Here every line is one that its reader knows the form of, so
what is tried is what it makes of the values. Whatever they are, it reads them or refuses them in so many words.
"""

from __future__ import annotations

import csv
import io
import json
import struct
import tomllib
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch.config import SETTINGS
from simswitch.journal.errors import JournalError

from tests.fuzz.readers import TARGETS, tried
from tests.inventory.test_sims import HEADER, line

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64])
)
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "native", "127.0.0.1:0", "0", "-0", "1e400", "nan", "jp", "carrier", "2020-02-30", "24:00"]),
)
VALUES = st.recursive(
    st.one_of(NUMBERS, WORDS, st.booleans(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value) if isinstance(value, str) else str(value)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(SETTINGS), VALUES, max_size=12))
def test_settings_of_any_value(given_values: dict[Any, Any]) -> None:
    sections: dict[str, list[str]] = {}
    for setting, value in given_values.items():
        sections.setdefault(setting.section, []).append(f"{setting.name} = {toml(value)}")
    text = "\n".join(line for section, lines in sections.items() for line in (f"[{section}]", *lines))
    tried("config", text.encode("utf-8", "replace"))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))]


@settings(max_examples=300)
@given(st.data())
def test_scenarios_in_which_something_is_another(data: st.DataObject) -> None:
    """One to three values of a sound scenario are replaced, or left out."""
    document = tomllib.loads(data.draw(st.sampled_from(TARGETS["scenario"].sound())).decode())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([place for place in _places(document) if place]))
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[path[-1]] = data.draw(VALUES)
        else:
            del holder[path[-1]]
    text = "\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in document.items())
    tried("scenario", text.encode("utf-8", "replace"))


@settings(max_examples=300)
@given(st.lists(st.lists(st.one_of(WORDS, NUMBERS.map(str)), min_size=1, max_size=12), max_size=6), st.randoms())
def test_sims_whose_cells_are_anything(rows: list[list[str]], random: Random) -> None:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(HEADER)
    for number, row in enumerate(rows):
        sound = next(csv.reader([line(number)]))
        for cell in row:
            sound[random.randrange(len(sound))] = cell
        writer.writerow(sound)
    tried("sims", written.getvalue().encode("utf-8", "replace"))


@pytest.mark.parametrize("name", ["journal", "snapshot"])
@settings(max_examples=150)
@given(random=st.randoms(use_true_random=False), times=st.integers(1, 4))
def test_headers_of_other_numbers_with_the_right_checksum(name: str, random: Random, times: int) -> None:
    target = TARGETS[name]
    assert target.forge is not None
    data = bytearray(random.choice(target.sound()))
    for _ in range(times):
        # What was forged before may no longer be read, and so can't be forged on.
        with suppress(JournalError, IndexError, struct.error):
            target.forge(data, random)
    tried(name, bytes(data))
