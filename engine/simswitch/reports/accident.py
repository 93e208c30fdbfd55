"""The accident report: when service failed, for whom, how long, and what that makes of it by the rules.

What happened comes from history: allocations that were refused, by minute, and the terminals that they came from. What
only people know (names, equipment, cause, what is done about it) comes from a TOML file of facts. Minutes with refusals
that are no further apart than ``JOIN_MINUTES`` are one span. The duration is the sum of the spans: an accident of
eleven dates does not last while it is not there.

Users are counted, each once however often. Where the operator says that they can't be (``basis = "deemed"``), the rule
set's deemed figure stands for them if the equipment is fast enough, and the report says which of both it was.

Being told to come back (ADMISSION_WAIT) is no failure. Degraded service is not recorded in history yet.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path

from simswitch.core import layout
from simswitch.reports.rendering import Cell, Report, Section, Text, Words, both
from simswitch.reports.rules import Fields, RuleSet, Verdict
from simswitch.toml_lines import TomlDocument

JOIN_MINUTES = 10
FAILED = (layout.NO_HEALTHY_SIM, layout.TERMINALS_FULL, layout.ORDERS_FULL)
"""Statuses of an allocation that leave a terminal without service."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the beginning of its first minute to the end of its last one, in minutes since 1970-01-01 UTC."""

    first_minute: int
    last_minute: int
    refused: int

    @property
    def seconds(self) -> int:
        return (self.last_minute - self.first_minute + 1) * 60


@dataclass(frozen=True, slots=True)
class Facts:
    """What people know of it."""

    operators: list[Words]
    area: Words
    service_class: int
    basis: str
    equipment_bits_per_s: int
    calls: int | None
    web_forms: int | None
    inquiries_as_of: date | None
    what: Words
    causes: list[Words]
    equipment: Words
    measures: list[Words]
    notices: list[Words]


@dataclass(frozen=True, slots=True)
class Accident:
    """What the records and the facts make of it."""

    spans: list[Span]
    users: int
    users_counted: int
    verdict: Verdict
    zone: tzinfo

    @property
    def seconds(self) -> int:
        return sum(span.seconds for span in self.spans)

    def dates(self) -> list[date]:
        """The local dates; a span over midnight counts to the one on which it began."""
        return sorted({_local(span.first_minute, self.zone).date() for span in self.spans})


def read_facts(path: Path) -> Facts:
    """The facts of a file. Raises ``TomlRefused`` with file and line, and ``OSError``."""
    document = TomlDocument.read(path)
    fields = Fields(document, document.values)
    found = Facts(
        fields.several("operators"),
        fields.words("area"),
        fields.count("service_class"),
        fields.choice("basis", ("counted", "deemed")),
        fields.count("equipment_bits_per_s", 0),
        fields.optional_count("calls"),
        fields.optional_count("web_forms"),
        fields.day("inquiries_as_of"),
        fields.words("what"),
        fields.several("causes"),
        fields.words("equipment"),
        fields.several("measures", may_lack=True),
        fields.several("notices", may_lack=True),
    )
    fields.done()
    return found


def refusals(history: sqlite3.Connection, from_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """Minute and refused attempts, in order of time."""
    marks = ", ".join("?" * len(FAILED))
    found = history.execute(
        f"SELECT minute, sum(count) FROM refusals WHERE minute >= ? AND minute < ? AND status IN ({marks}) "
        "GROUP BY minute ORDER BY minute",
        (from_ms // 60_000, -(-until_ms // 60_000), *FAILED),
    )
    return [(int(minute), int(count)) for minute, count in found]


def terminals_refused(history: sqlite3.Connection, from_ms: int, until_ms: int) -> int:
    """How many terminals got no SIM, each counted once."""
    marks = ", ".join("?" * len(FAILED))
    found = history.execute(
        f"SELECT count(DISTINCT terminal) FROM affected WHERE hour BETWEEN ? AND ? AND status IN ({marks}) "
        "AND last_ms >= ? AND first_ms < ?",
        (from_ms // 3_600_000, until_ms // 3_600_000, *FAILED, from_ms, until_ms),
    )
    return int(found.fetchone()[0])


def spans(minutes: Iterable[tuple[int, int]]) -> list[Span]:
    """Joins minutes, given with their refused attempts in order of time."""
    result: list[Span] = []
    for minute, refused in minutes:
        if result and minute - result[-1].last_minute <= JOIN_MINUTES:
            last = result.pop()
            result.append(Span(last.first_minute, minute, last.refused + refused))
        else:
            result.append(Span(minute, minute, refused))
    return result


def judge(found: list[Span], users_counted: int, facts: Facts, rules: RuleSet, zone: tzinfo) -> Accident:
    """Raises ``ValueError`` when nothing happened, or for what the rule set does not provide for."""
    if not found:
        raise ValueError("no allocation failed in this time: there is nothing to report")
    users = users_counted
    if facts.basis == "deemed":
        if facts.equipment_bits_per_s <= rules.deemed_above_bits_per_s:
            raise ValueError(
                f"users are deemed only for equipment of more than {rules.deemed_above_bits_per_s / 1e9:g} Gbit/s, "
                f'and equipment_bits_per_s is {facts.equipment_bits_per_s / 1e9:g} Gbit/s: say basis = "counted"'
            )
        users = max(users_counted, rules.deemed_users)
    occurred = _local(found[0].first_minute, zone).date()
    seconds = sum(span.seconds for span in found)
    return Accident(found, users, users_counted, rules.judge(facts.service_class, seconds, users, occurred), zone)


def _local(minute: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC).astimezone(zone)


def duration(seconds: int) -> Words:
    """Hours and minutes."""
    hours, minutes = divmod(seconds // 60, 60)
    return both(f"{hours}時間{minutes:02d}分", f"{hours} h {minutes:02d} min")


def day_words(day: date) -> Words:
    """Japanese dates by era, as the authority writes them (Reiwa began on 1 May 2019)."""
    year = f"{day.year}年"
    if day >= date(2019, 5, 1):
        year = "令和元年" if day.year == 2019 else f"令和{day.year - 2018}年"
    return both(f"{year}{day.month}月{day.day}日", f"{day.day} {day:%B %Y}")


def report(accident: Accident, facts: Facts, rules: RuleSet, source: str) -> Report:
    """The table of the minutes, then the spans that its figures were counted from. ``source`` names the data folder."""
    first, last = accident.spans[0].first_minute, accident.spans[-1].last_minute
    records = f"{source}: refusals of the minutes {first} to {last}"
    counted = both(f"{accident.users_counted:,}(端末数)", f"{accident.users_counted:,} (terminals)")
    users = [counted]
    if facts.basis == "deemed":
        speed = f"{rules.deemed_above_bits_per_s / 1e9:g}"
        users = [
            both(
                f"{rules.deemed_users:,}以上(伝送速度の総和が{speed} Gbpsを超える設備のため、みなし値)",
                f"{rules.deemed_users:,} or more (deemed: the equipment exceeds {speed} Gbit/s in all)",
            ),
            both(f"記録された端末数: {accident.users_counted:,}", f"terminals on record: {accident.users_counted:,}"),
        ]
    rows = [
        (both("事業者名", "operators"), Text(facts.operators)),
        (both("発生日時", "dates"), Text([day_words(day) for day in accident.dates()], records)),
        (both("継続時間", "duration"), Text([duration(accident.seconds)], records)),
        (both("影響利用者数", "users affected"), Text(users, f"{source}: affected, in the same time")),
        (both("影響地域", "area"), Text([facts.area])),
        (both("事業者への問合せ件数", "inquiries"), Text(_inquiries(facts))),
        (both("障害内容", "what happened"), Text([facts.what])),
        (
            both("電気通信役務の区分", "class of service, verdict"),
            Text(_verdict(accident, rules), f"rules {rules.name}"),
        ),
        (both("発生原因", "cause"), Text(_numbered(facts.causes))),
        (both("機器構成", "equipment"), Text([facts.equipment])),
        (both("再発防止策", "what is done about it"), Text(_numbered(facts.measures))),
        (both("情報周知", "how users were told"), Text(facts.notices)),
    ]
    head = [
        both("日付", "date"),
        both("開始", "from"),
        both("終了", "to"),
        both("継続時間", "duration"),
        both("割当失敗(回)", "attempts refused"),
    ]
    table: list[list[Cell]] = [
        [
            _local(span.first_minute, accident.zone).strftime("%Y-%m-%d"),
            _local(span.first_minute, accident.zone).strftime("%H:%M"),
            _local(span.last_minute + 1, accident.zone).strftime("%H:%M"),
            duration(span.seconds),
            span.refused,
        ]
        for span in accident.spans
    ]
    note = both(
        f"記録: {records}。`simswitch history` の refusals と affected で確認できる。",
        f"Records: {records}. `simswitch history` lists them: tables refusals and affected.",
    )
    return Report(
        both("電気通信事故報告", "Telecommunications accident report"),
        [
            Section(both("事故の概要", "The accident"), rows),
            Section(both("発生日時の内訳", "Dates and spans"), head=head, table=table, note=note),
        ],
    )


def _numbered(texts: list[Words]) -> list[Words]:
    return [both(f"{number}. {text['ja']}", f"{number}. {text['en']}") for number, text in enumerate(texts, 1)]


def _inquiries(facts: Facts) -> list[Words]:
    lines = []
    if facts.calls is not None:
        lines.append(both(f"電話 {facts.calls:,} 件", f"calls: {facts.calls:,}"))
    if facts.web_forms is not None:
        lines.append(both(f"Webフォーム {facts.web_forms:,} 件", f"web forms: {facts.web_forms:,}"))
    if lines and facts.inquiries_as_of is not None:
        as_of = day_words(facts.inquiries_as_of)
        lines.append(both(f"({as_of['ja']}時点)", f"(as of {as_of['en']})"))
    return lines


def _verdict(accident: Accident, rules: RuleSet) -> list[Words]:
    verdict = accident.verdict
    service_class = verdict.service_class
    lines = [
        both(
            f"区分{service_class.number}: {service_class.title['ja']}",
            f"class {service_class.number}: {service_class.title['en']}",
        )
    ]
    if verdict.met is None or verdict.report_by is None:
        lines.append(both("重大な事故に該当しない。", "Not a serious accident."))
    else:
        by, met = day_words(verdict.report_by), verdict.met
        lines.append(
            both(
                f"重大な事故に該当する({met.hours}時間以上かつ{met.users:,}人以上)。"
                f"第一報は{rules.first_notice['ja']}、詳細報告は{by['ja']}まで。",
                f"A serious accident ({met.hours} h or more and {met.users:,} users or more). "
                f"First notice {rules.first_notice['en']}, detailed report by {by['en']}.",
            )
        )
    if verdict.quarterly_by is not None:
        by = day_words(verdict.quarterly_by)
        lines.append(both(f"四半期報告の対象({by['ja']}まで)。", f"In the quarterly report, by {by['en']}."))
    return lines
