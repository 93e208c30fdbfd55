"""What only people know: holidays, campaigns, SIMs that are on their way, offers and costs. A TOML file.

[aim]
horizon_days = 40                    how far to look
blocking_max = 0.001                 attempts in the busiest hour that may find no SIM
missing_sim_cost = 9000              what the failures cost that one missing SIM makes (in the currency of the offers)
subscribers_by_day = 50              more subscribers each day; without it the past fortnight goes on

[[holiday]]
date = 2026-12-31
factor = 1.3                         that day's use, against one like it

[[campaign]]
name = "winter"
from = 2026-12-01
to = 2026-12-14
factor = 1.1                         use on these days
subscribers = 4000                   who come with it, evenly over its days

[[supply]]                           bought, not here yet
name = "lot-2026-12"
arrives = 2026-12-05
sims = 5000
cap = "80GB"                         a SIM's lower bound in a cycle; it begins anew each month after it is there

[[offer]]
name = "carrier-a 100 GB"
supplier = "supplier-1"
carrier = "carrier-a"
cap = "80GB"
price = 2800
lead_days = 14
sims_max = 20000                     without it: any number
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from simswitch.planning.purchase import Offer
from simswitch.planning.volume import CapInterval, Supply
from simswitch.toml_lines import KeyPath, TomlDocument

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_HORIZON_DAYS_MAX = 400


@dataclass(frozen=True, slots=True)
class Campaign:
    name: str
    first: date
    last: date
    factor: float
    subscribers: float


@dataclass(frozen=True, slots=True)
class Terms:
    horizon_days: int = 40
    blocking_max: float = 0.001
    missing_sim_cost: float | None = None
    subscribers_by_day: float | None = None
    holidays: dict[date, float] = field(default_factory=dict)
    campaigns: tuple[Campaign, ...] = ()
    supplies: tuple[Supply, ...] = ()
    offers: tuple[Offer, ...] = ()

    def factors(self) -> dict[date, float]:
        """How much more or less is used on days that are unlike others."""
        result = dict(self.holidays)
        for campaign in self.campaigns:
            for day in range((campaign.last - campaign.first).days + 1):
                at = campaign.first + timedelta(days=day)
                result[at] = result.get(at, 1.0) * campaign.factor
        return result

    def subscribers_who_come(self, first: date, days: int) -> list[float]:
        """By campaigns, in all until the evening of each day from ``first`` on."""
        result = []
        for day in range(days):
            at = first + timedelta(days=day)
            whole = 0.0
            for campaign in self.campaigns:
                length = (campaign.last - campaign.first).days + 1
                begun = max(campaign.first, first)
                passed = min((at - begun).days + 1, (campaign.last - begun).days + 1)
                whole += campaign.subscribers * max(0, passed) / length
            result.append(whole)
        return result


class _Reader:
    """One table of the document: each key once, with its bounds; what is left over is a mistake."""

    def __init__(self, document: TomlDocument, path: KeyPath, values: Any) -> None:
        self._document = document
        self._path = path
        if not isinstance(values, dict):
            raise document.refuse(path, "a table is expected here")
        self._values = dict(values)

    def take(self, key: str, check: Callable[[Any], Any], wanted: str, default: Any = ...) -> Any:
        if key not in self._values:
            if default is ...:
                raise self._document.refuse((*self._path, key), f"is missing; it takes {wanted}")
            return default
        value = self._values.pop(key)
        try:
            found = check(value)
        except (ValueError, TypeError, KeyError):
            found = None
        if found is None:
            raise self._document.refuse((*self._path, key), f"takes {wanted}, not {value!r}")
        return found

    def done(self) -> None:
        for key in self._values:
            raise self._document.refuse(
                (*self._path, key), "there is no such setting here; see examples/plan/terms.toml"
            )


def _number(low: float, high: float = float("inf")) -> Callable[[Any], float | None]:
    def check(value: Any) -> float | None:
        good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        return float(value) if good else None

    return check


def _whole(low: int, high: int = 10**9) -> Callable[[Any], int | None]:
    def check(value: Any) -> int | None:
        return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None

    return check


def _day(value: Any) -> date | None:
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 64 else None


def _cap(value: Any) -> CapInterval | None:
    if not isinstance(value, str):
        return None
    amount = float(value[:-2]) * _UNITS[value[-2:]]
    return CapInterval.exactly(amount) if 0 < amount < float("inf") else None


_FACTOR = "a factor from 0.01 to 100"
_DAY = "a day such as 2026-12-31"
_CAP = 'an amount such as "80GB"'


def read_terms(path: Path | None) -> Terms:
    """The terms of a file; without one, the defaults. Raises ``TomlRefused`` with file and line, and ``OSError``."""
    return Terms() if path is None else parse_terms(TomlDocument.read(path))


def parse_terms(document: TomlDocument) -> Terms:
    """The terms of a document. Raises ``TomlRefused``."""
    values = dict(document.values)
    aim = _Reader(document, ("aim",), values.pop("aim", {}))
    horizon = aim.take("horizon_days", _whole(1, _HORIZON_DAYS_MAX), f"1 to {_HORIZON_DAYS_MAX} days", 40)
    blocking = aim.take("blocking_max", _number(1e-9, 0.5), "a share from 1e-9 to 0.5", 0.001)
    missing = aim.take("missing_sim_cost", _number(1e-9), "a cost above 0", None)
    per_day = aim.take("subscribers_by_day", _number(-1e9), "a number of subscribers", None)
    aim.done()

    def tables(name: str) -> list[_Reader]:
        found = values.pop(name, [])
        if not isinstance(found, list):
            raise document.refuse((name,), f"is a list: write [[{name}]]")
        return [_Reader(document, (name, place), entry) for place, entry in enumerate(found)]

    holidays: dict[date, float] = {}
    for entry in tables("holiday"):
        holidays[entry.take("date", _day, _DAY)] = entry.take("factor", _number(0.01, 100), _FACTOR)
        entry.take("name", _name, "a name", "")
        entry.done()
    campaigns = []
    for place, entry in enumerate(tables("campaign")):
        first, last = entry.take("from", _day, _DAY), entry.take("to", _day, _DAY)
        if last < first:
            raise document.refuse(("campaign", place, "to"), f"{last} is before it begins, on {first}")
        campaigns.append(
            Campaign(
                entry.take("name", _name, "a name of up to 64 characters", f"campaign {place + 1}"),
                first,
                last,
                entry.take("factor", _number(0.01, 100), _FACTOR, 1.0),
                entry.take("subscribers", _number(0), "a number of subscribers", 0.0),
            )
        )
        entry.done()
    supplies = []
    for entry in tables("supply"):
        supplies.append(
            Supply(
                entry.take("name", _name, "a name of up to 64 characters"),
                entry.take("arrives", _day, _DAY),
                entry.take("sims", _whole(1), "a number of SIMs"),
                entry.take("cap", _cap, _CAP),
            )
        )
        entry.done()
    offers = []
    for entry in tables("offer"):
        offers.append(
            Offer(
                entry.take("name", _name, "a name of up to 64 characters"),
                entry.take("cap", _cap, _CAP),
                entry.take("price", _number(1e-9), "a price above 0"),
                entry.take("lead_days", _whole(0, 1000), "a number of days up to 1000"),
                entry.take("sims_max", _whole(1), "a number of SIMs", None),
                entry.take("supplier", _name, "a name", ""),
                entry.take("carrier", _name, "a name", ""),
            )
        )
        entry.done()
    for name in values:
        raise document.refuse((name,), "there is no such table here; see examples/plan/terms.toml")
    if offers and missing is None:
        raise document.refuse(("offer",), "how many to buy depends on what a missing SIM costs: set missing_sim_cost")
    return Terms(horizon, blocking, missing, per_day, holidays, tuple(campaigns), tuple(supplies), tuple(offers))
