"""The file of terms: what is wrong in it is named by file and line."""

from __future__ import annotations

from datetime import date

import pytest
from simswitch.planning import terms
from simswitch.planning.terms import parse_terms
from simswitch.toml_lines import TomlDocument, TomlRefused

WHOLE = terms.__doc__.split("A TOML file.\n")[1] if terms.__doc__ else ""


def example() -> str:
    """The example of the module's head, without its explanations: what is documented is what is read."""
    lines = []
    for line in WHOLE.splitlines():
        text = line.strip()
        lines.append(text.split("   ")[0] if not text.startswith("[[") else text.split("]]")[0] + "]]" if text else "")
    return "\n".join(lines)


def test_the_example_of_the_documentation_is_taken() -> None:
    found = parse_terms(TomlDocument(example()))
    assert found.horizon_days == 40
    assert found.missing_sim_cost == 9000
    assert found.factors()[date(2026, 12, 31)] == 1.3
    assert found.factors()[date(2026, 12, 14)] == 1.1
    assert found.supplies[0].sims == 5000
    assert found.offers[0].cap.low_bytes == 80e9


def test_who_comes_with_a_campaign_comes_evenly_and_stays() -> None:
    found = parse_terms(TomlDocument(example()))
    come = found.subscribers_who_come(date(2026, 11, 30), 17)
    assert come[0] == 0
    assert come[1] == pytest.approx(4000 / 14)
    assert come[14] == come[16] == pytest.approx(4000)
    # Those of the campaign's days that are over are among the subscribers already.
    assert found.subscribers_who_come(date(2026, 12, 8), 20)[-1] == pytest.approx(2000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[aim]\nhorizon_days = 0", ":2: aim.horizon_days: takes 1 to 400 days, not 0"),
        ("[aim]\n\nhorizont = 3", ":3: aim.horizont: there is no such setting"),
        ("[[holiday]]\ndate = 2026-01-01", ":1: holiday.factor: is missing"),
        ("[[holiday]]\ndate = 2026-01-01T00:00:00\nfactor = 1.0", ":2: holiday.date: takes a day"),
        ("[[campaign]]\nfrom = 2026-02-01\nto = 2026-01-01", ":3: campaign.to: 2026-01-01 is before it begins"),
        ('[[supply]]\nname = "a"\narrives = 2026-01-01\nsims = 1\ncap = "80"', ":5: supply.cap: takes an amount"),
        ('[[supply]]\nname = "a"\narrives = 2026-01-01\nsims = true\ncap = "80GB"', ":4: supply.sims: takes a number"),
        ("[holiday]\ndate = 2026-01-01", ":1: holiday: is a list"),
        ("[[offers]]\nname = 'a'", ":1: offers: there is no such table"),
        ('[[offer]]\nname = "a"\ncap = "1GB"\nprice = 1\nlead_days = 1', "what a missing SIM costs"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    with pytest.raises(TomlRefused) as refused:
        parse_terms(TomlDocument(text, "terms.toml"))
    assert says in str(refused.value)
