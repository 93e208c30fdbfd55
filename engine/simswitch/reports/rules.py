"""Which accident is a serious one: dated rule sets, kept as data (``rule_sets/*.toml``), because the rules change.

A set says, for each class of service, the pairs of hours and users from which an accident is serious, what follows by
when, and when users may be deemed rather than counted.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from simswitch.reports.rendering import Words
from simswitch.toml_lines import KeyPath, TomlDocument

FOLDER = Path(__file__).parent / "rule_sets"


@dataclass(frozen=True, slots=True)
class Threshold:
    hours: int
    users: int


@dataclass(frozen=True, slots=True)
class ServiceClass:
    number: int
    title: Words
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an accident is under a rule set."""

    service_class: ServiceClass
    met: Threshold | None
    """The pair that was reached, the one of more users if both were. None: it is no serious accident."""
    report_by: date | None
    """The detailed report; None: none is due."""
    quarterly_by: date | None
    """The quarterly report; None: it is not in one."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    name: str
    title: Words
    first_notice: Words
    report_within_days: int
    quarterly_users: int
    quarterly_hours: int
    quarterly_due_months: int
    deemed_above_bits_per_s: int
    deemed_users: int
    classes: tuple[ServiceClass, ...]
    in_force_from: date | None = None
    """From which day on the set is known to hold. None: from ever."""
    in_force_until: date | None = None
    """Until which day, itself included. None: it still does."""

    def held_on(self, day: date) -> bool:
        after = self.in_force_from is None or self.in_force_from <= day
        return after and (self.in_force_until is None or day <= self.in_force_until)

    def judge(self, number: int, duration_s: float, users: int, occurred: date) -> Verdict:
        """The verdict on an accident that lasted so long in all and met so many users.

        Raises ``ValueError`` for a class that the set does not know.
        """
        found = [entry for entry in self.classes if entry.number == number]
        if not found:
            known = ", ".join(str(entry.number) for entry in self.classes)
            raise ValueError(f"rule set {self.name} has no class {number}; it has {known}")
        hours = duration_s / 3600
        met = [limit for limit in found[0].thresholds if hours >= limit.hours and users >= limit.users]
        quarterly = users >= self.quarterly_users or hours >= self.quarterly_hours
        return Verdict(
            found[0],
            max(met, key=lambda limit: limit.users) if met else None,
            occurred + timedelta(days=self.report_within_days) if met else None,
            _months_after_quarter(occurred, self.quarterly_due_months) if quarterly else None,
        )


def _months_after_quarter(day: date, months: int) -> date:
    """The last day of the month that is so many months after the end of this day's quarter."""
    last = (day.month - 1) // 3 * 3 + 3 + months
    year, month = day.year + (last - 1) // 12, (last - 1) % 12 + 1
    return date(year, month, calendar.monthrange(year, month)[1])


def shipped() -> dict[str, Path]:
    """The sets that come with the program, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_words(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(language), str) for language in ("ja", "en"))


class Fields:
    """One table of a document, from which each key is taken and checked. Raises ``TomlRefused`` with file and line."""

    def __init__(self, document: TomlDocument, values: Mapping[str, Any], path: KeyPath = ()) -> None:
        self._document = document
        self._values = dict(values)
        self._path = path

    def _refuse(self, key: str, text: str) -> Exception:
        return self._document.refuse((*self._path, key), text)

    def count(self, key: str, default: int | None = None) -> int:
        value = self._values.pop(key, default)
        if not is_count(value):
            raise self._refuse(key, "a whole number belongs here" + ("" if value is None else f", not {value!r}"))
        return int(value)

    def optional_count(self, key: str) -> int | None:
        return self.count(key) if key in self._values else None

    def words(self, key: str) -> Words:
        value = self._values.pop(key, None)
        if not is_words(value):
            raise self._refuse(key, 'a text in both languages belongs here: { ja = "…", en = "…" }')
        return {language: value[language] for language in ("ja", "en")}

    def several(self, key: str, *, may_lack: bool = False) -> list[Words]:
        value = self._values.pop(key, [] if may_lack else None)
        if not isinstance(value, list) or not all(map(is_words, value)):
            raise self._refuse(key, 'a list of texts in both languages belongs here: [{ ja = "…", en = "…" }]')
        return [{language: entry[language] for language in ("ja", "en")} for entry in value]

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self._values.pop(key, None)
        if value not in choices:
            raise self._refuse(key, f"{' or '.join(choices)} belongs here, not {value!r}")
        return str(value)

    def day(self, key: str) -> date | None:
        value = self._values.pop(key, None)
        if value is not None and not isinstance(value, date):
            raise self._refuse(key, f"a day such as 2020-05-19 belongs here, not {value!r}")
        return value

    def tables(self, key: str) -> list[Fields]:
        value = self._values.pop(key, None)
        if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
            raise self._refuse(key, "a list of tables belongs here")
        return [Fields(self._document, entry, (*self._path, key, place)) for place, entry in enumerate(value)]

    def done(self) -> None:
        for key in self._values:
            raise self._refuse(key, "there is no such key here")


def read_rules(path: Path) -> RuleSet:
    """A rule set. Raises ``TomlRefused`` with file and line, and ``OSError``."""
    return parse_rules(TomlDocument.read(path))


def parse_rules(document: TomlDocument) -> RuleSet:
    fields = Fields(document, document.values)
    name = document.values.get("name")
    if not isinstance(name, str):
        raise document.refuse(("name",), "the set's name belongs here")
    classes = []
    for entry in fields.tables("class"):
        number, title = entry.count("number"), entry.words("title")
        pairs = [Threshold(pair.count("hours"), pair.count("users")) for pair in entry.tables("thresholds")]
        entry.done()
        classes.append(ServiceClass(number, title, tuple(pairs)))
    held = fields.day("in_force_from"), fields.day("in_force_until")
    return RuleSet(
        name,
        fields.words("title"),
        fields.words("first_notice"),
        fields.count("report_within_days"),
        fields.count("quarterly_users"),
        fields.count("quarterly_hours"),
        fields.count("quarterly_due_months"),
        fields.count("deemed_above_bits_per_s"),
        fields.count("deemed_users"),
        tuple(classes),
        *held,
    )
