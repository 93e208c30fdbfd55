"""The accident report: when service failed, for whom, how long, and what that makes of it by the rules.

What happened comes from history. What only people know (names, equipment, cause, what is done about it) comes from a
TOML file of facts. A minute has

    stopped service     when allocations were refused (``refusals``) or given up at an access server (``waits``)
    degraded service    when terminals held SIMs that the carrier had slowed (``slowed``), a hundredth at least of those
                        with a lease (``DEGRADED_SHARE``): a few of them are every day's work; or when an allocation
                        waited for ``LATE_MS`` (``waits``)

Both count. Such minutes that are no further apart than ``JOIN_MINUTES`` are one span. The duration is the sum of the
spans: an accident of eleven dates does not last while it is not there.

Users are counted, each once however often and on however many terminals: those whose terminals were refused or held
slowed SIMs. A terminal of which nobody said whose it is counts as one user, and the report says how many there are. Of
attempts that were given up at an access server nobody knows whose they were. Where the operator says that users can't
be counted (``basis = "deemed"``), the rule set's deemed figure stands for them if the equipment is fast enough, and
the report says which of both it was. Being told to come back (ADMISSION_WAIT) is no failure.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path

from simswitch.core import layout
from simswitch.history.reading import known
from simswitch.reports.rendering import Cell, Report, Section, Text, Words, both
from simswitch.reports.rules import Fields, RuleSet, Verdict
from simswitch.toml_lines import TomlDocument

JOIN_MINUTES = 10
DEGRADED_SHARE = 0.01
LATE_MS = 5_000
SERVERS_SHOWN = 100
FAILED = (layout.NO_HEALTHY_SIM, layout.TERMINALS_FULL, layout.ORDERS_FULL, layout.HELLOS_AWAITED)
"""Statuses of an allocation that leave a terminal without service."""


@dataclass(slots=True)
class Minute:
    """What went wrong in it. Attempts that failed: refused by the engine, and given up at access servers."""

    refused: int = 0
    given_up: int = 0
    slowed: int = 0
    """Terminals on slowed SIMs; 0 as well while they are fewer than counts."""
    late: bool = False

    @property
    def stopped(self) -> bool:
        return self.refused + self.given_up > 0


@dataclass(frozen=True, slots=True)
class Span:
    """From the beginning of its first minute to the end of its last one, in minutes since 1970-01-01 UTC."""

    first_minute: int
    last_minute: int
    stopped_minutes: int
    """Of these, those in which attempts failed; in the others service was degraded, or all right for a moment."""
    refused: int
    given_up: int
    slowed_max: int
    """Most terminals on slowed SIMs at once."""

    @property
    def seconds(self) -> int:
        return (self.last_minute - self.first_minute + 1) * 60


@dataclass(slots=True)
class ServerShare:
    """What one access server's terminals went through."""

    name: str
    refused: int = 0
    given_up: int = 0
    wait_ms: int = 0
    """The longest wait of an allocation, where it was beyond the target."""
    slowed_minutes: int = 0
    """Of its terminals on slowed SIMs, one after the other, in the hours of the spans."""


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
    terminals_unknown: int
    """How many of those counted are terminals of which nobody knows the user."""
    verdict: Verdict
    zone: tzinfo
    servers: list[ServerShare] = field(default_factory=list)
    """Whose terminals it met."""
    unknown: list[Words] = field(default_factory=list)
    """What history does not know of the time that was asked for."""

    @property
    def seconds(self) -> int:
        return sum(span.seconds for span in self.spans)

    def dates(self) -> list[date]:
        """The local dates; a span over midnight counts to the one on which it began."""
        return sorted({_local(span.first_minute, self.zone).date() for span in self.spans})


def read_facts(path: Path) -> Facts:
    """The facts of a file. Raises ``TomlRefused`` with file and line, and ``OSError``."""
    return parse_facts(TomlDocument.read(path))


def parse_facts(document: TomlDocument) -> Facts:
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


def minutes(history: sqlite3.Connection, from_ms: int, until_ms: int) -> dict[int, Minute]:
    """The minutes in which service was stopped or degraded, in order of time."""
    between = (from_ms // 60_000, -(-until_ms // 60_000))
    found: dict[int, Minute] = {}
    marks = ", ".join("?" * len(FAILED))
    for minute, count in history.execute(
        f"SELECT minute, sum(count) FROM refusals WHERE minute >= ? AND minute < ? AND status IN ({marks}) "
        "GROUP BY minute",
        (*between, *FAILED),
    ):
        found.setdefault(minute, Minute()).refused = count
    for minute, failed, wait_ms in history.execute(
        "SELECT minute, sum(failed), max(wait_ms) FROM waits WHERE minute >= ? AND minute < ? GROUP BY minute "
        f"HAVING sum(failed) > 0 OR max(wait_ms) >= {LATE_MS}",
        between,
    ):
        entry = found.setdefault(minute, Minute())
        entry.given_up, entry.late = failed, wait_ms >= LATE_MS
    for minute, terminals in history.execute(
        "SELECT minute, terminals FROM slowed WHERE minute >= ? AND minute < ? AND terminals >= ? * leased",
        (*between, DEGRADED_SHARE),
    ):
        found.setdefault(minute, Minute()).slowed = terminals
    return dict(sorted(found.items()))


def users_affected(history: sqlite3.Connection, found: list[Span]) -> tuple[int, int]:
    """Subscribers whose terminals got no SIM or held a slowed one in these spans, each counted once; and terminals of
    which nobody said in them whose they are.

    Whoever was affected in an hour is known with the first and the last time in it.
    """
    marks = ", ".join("?" * len(FAILED))
    hours = "hour BETWEEN first / 60 AND last / 60"
    counted = history.execute(
        f"{_within(found)}, met AS ("
        f"SELECT terminal, subscriber FROM spans JOIN affected ON {hours} AND status IN ({marks}) "
        "AND last_ms >= first * 60000 AND first_ms < (last + 1) * 60000 UNION "
        f"SELECT terminal, subscriber FROM spans JOIN slowed_terminals ON {hours} "
        "AND last_minute >= first AND first_minute <= last) "
        "SELECT (SELECT count(DISTINCT subscriber) FROM met WHERE subscriber != 0), "
        "(SELECT count(*) FROM (SELECT terminal FROM met GROUP BY terminal HAVING max(subscriber != 0) = 0))",
        FAILED,
    )
    subscribers, terminals = counted.fetchone()
    return int(subscribers), int(terminals)


def read_accident(
    history: sqlite3.Connection, from_ms: int, until_ms: int, facts: Facts, rules: RuleSet, zone: tzinfo
) -> Accident:
    """What the records of a time and the facts make of it. Raises as ``judge``."""
    found = spans(minutes(history, from_ms, until_ms))
    subscribers, terminals = users_affected(history, found)
    accident = judge(found, subscribers + terminals, facts, rules, zone, terminals)
    accident.servers.extend(by_server(history, found))
    return accident


def _within(found: list[Span]) -> str:
    """The spans as a table for a statement."""
    those = ", ".join(f"({span.first_minute}, {span.last_minute})" for span in found) or "(0, -1)"
    return f"WITH spans(first, last) AS (VALUES {those})"


def by_server(history: sqlite3.Connection, found: list[Span]) -> list[ServerShare]:
    """What each access server's terminals went through in these spans, the worst first."""
    shares: dict[int, ServerShare] = {}

    def share(server: int) -> ServerShare:
        return shares.setdefault(server, ServerShare(names.get(server, str(server))))

    names = dict(
        history.execute("SELECT entity, name FROM entities WHERE kind = ?", (int(layout.ACCESS_SERVER),)).fetchall()
    )
    within = f"{_within(found)} SELECT access_server,"
    marks = ", ".join("?" * len(FAILED))
    for server, count in history.execute(
        f"{within} sum(count) FROM spans JOIN refusals ON minute BETWEEN first AND last AND status IN ({marks}) "
        "GROUP BY access_server",
        FAILED,
    ):
        share(server).refused = count
    for server, failed, wait_ms in history.execute(
        f"{within} sum(failed), max(wait_ms) FROM spans JOIN waits ON minute BETWEEN first AND last "
        "GROUP BY access_server"
    ):
        share(server).given_up, share(server).wait_ms = failed, wait_ms
    for server, minutes_slowed in history.execute(
        f"{within} sum(minutes) FROM spans JOIN slowed_terminals ON hour BETWEEN first / 60 AND last / 60 "
        "AND last_minute >= first AND first_minute <= last GROUP BY access_server"
    ):
        share(server).slowed_minutes = minutes_slowed
    return sorted(shares.values(), key=lambda each: (-each.refused - each.given_up, -each.slowed_minutes, each.name))


def spans(found: dict[int, Minute]) -> list[Span]:
    """Joins minutes, in order of time."""
    result: list[Span] = []
    for minute, entry in found.items():
        new = Span(minute, minute, int(entry.stopped), entry.refused, entry.given_up, entry.slowed)
        if result and minute - result[-1].last_minute <= JOIN_MINUTES:
            last = result.pop()
            new = Span(
                last.first_minute,
                minute,
                last.stopped_minutes + new.stopped_minutes,
                last.refused + new.refused,
                last.given_up + new.given_up,
                max(last.slowed_max, new.slowed_max),
            )
        result.append(new)
    return result


def judge(
    found: list[Span], users_counted: int, facts: Facts, rules: RuleSet, zone: tzinfo, terminals_unknown: int = 0
) -> Accident:
    """Raises ``ValueError`` when nothing happened, or for what the rule set does not provide for."""
    if not found:
        raise ValueError("service was neither stopped nor degraded in this time: there is nothing to report")
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
    verdict = rules.judge(facts.service_class, seconds, users, occurred)
    return Accident(found, users, users_counted, terminals_unknown, verdict, zone)


def not_on_record(history: sqlite3.Connection, from_ms: int, until_ms: int, zone: tzinfo) -> list[Words]:
    """What history does not know of this time: figures may be too low there, and durations too short."""

    def at(instant_ms: int) -> str:
        return f"{datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(zone):%Y-%m-%d %H:%M}"

    found = []
    state = known(history)
    for _, _, gap_from_ms, gap_until_ms in state.gaps:
        if gap_from_ms < until_ms and gap_until_ms > from_ms:
            since = at(max(gap_from_ms, from_ms)) if max(gap_from_ms, from_ms) else "…"
            until = at(min(gap_until_ms, until_ms))
            found.append(
                both(f"{since}から{until}までの記録はない。", f"There are no records from {since} to {until}.")
            )
    if until_ms > state.at_ms:
        found.append(both(f"記録は{at(state.at_ms)}までである。", f"Records end at {at(state.at_ms)}."))
    # Days keep their totals when what is of people is forgotten.
    first = history.execute("SELECT min(day) FROM use_day").fetchone()[0]
    if (
        first is not None
        and from_ms < first * 86_400_000
        and history.execute("SELECT 1 FROM days WHERE day < ? AND subscribers > 0 LIMIT 1", (first,)).fetchone()
    ):
        day = date(1970, 1, 1) + timedelta(days=first)
        found.append(
            both(
                f"{day}より前の端末ごとの記録は保存期間を過ぎている。",
                f"Records of terminals before {day} are kept no longer.",
            )
        )
    return found


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
    records = f"{source}: refusals, waits and slowed, minutes {first} to {last}"
    of_users = f"{source}: affected and slowed_terminals, in the same spans"
    counted, nobodys = accident.users_counted, accident.terminals_unknown
    on_record = both(f"{counted:,}", f"{counted:,}")
    if nobodys:
        on_record = both(
            f"{counted:,}(うち利用者不明の端末 {nobodys:,})",
            f"{counted:,} (of these {nobodys:,} terminals of which nobody knows the user)",
        )
    users = [on_record]
    if facts.basis == "deemed":
        speed = f"{rules.deemed_above_bits_per_s / 1e9:g}"
        users = [
            both(
                f"{rules.deemed_users:,}以上(伝送速度の総和が{speed} Gbpsを超える設備のため、みなし値)",
                f"{rules.deemed_users:,} or more (deemed: the equipment exceeds {speed} Gbit/s in all)",
            ),
            both(f"記録された利用者数: {on_record['ja']}", f"users on record: {on_record['en']}"),
        ]
    given_up = sum(span.given_up for span in accident.spans)
    if given_up:
        users.append(
            both(
                f"このほかアクセスサーバで断念された割当 {given_up:,} 回(端末は特定できない)",
                f"besides, {given_up:,} attempts were given up at access servers (of terminals that nobody knows)",
            )
        )
    stopped_s = sum(span.stopped_minutes for span in accident.spans) * 60
    stopped, degraded = duration(stopped_s), duration(accident.seconds - stopped_s)
    lasted = [
        duration(accident.seconds),
        both(
            f"うち停止(割当失敗) {stopped['ja']}、品質低下のみ {degraded['ja']}",
            f"of it stopped (attempts failed) {stopped['en']}, only degraded {degraded['en']}",
        ),
    ]
    rows = [
        (both("事業者名", "operators"), Text(facts.operators)),
        (both("発生日時", "dates"), Text([day_words(day) for day in accident.dates()], records)),
        (both("継続時間", "duration"), Text(lasted, records)),
        (both("影響利用者数", "users affected"), Text(users, of_users)),
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
        both("うち停止", "stopped"),
        both("割当拒否(回)", "attempts refused"),
        both("断念(回)", "attempts given up"),
        both("低速SIMの端末(最大)", "terminals on slowed SIMs, at most"),
    ]
    table: list[list[Cell]] = [
        [
            _local(span.first_minute, accident.zone).strftime("%Y-%m-%d"),
            _local(span.first_minute, accident.zone).strftime("%H:%M"),
            _local(span.last_minute + 1, accident.zone).strftime("%H:%M"),
            duration(span.seconds),
            duration(span.stopped_minutes * 60),
            span.refused,
            span.given_up,
            span.slowed_max,
        ]
        for span in accident.spans
    ]
    if accident.unknown:
        rows.append((both("記録の欠落", "not on record"), Text(accident.unknown, f"{source}: gaps, positions")))
    note = both(
        f"記録: {records}; {of_users}。間隔が{JOIN_MINUTES}分以内の分は一続きとする。"
        f"同名の表を `simswitch history` で確認できる。リースを持つ"
        f"端末の{DEGRADED_SHARE:.0%}以上が低速化したSIMにある分、または割当が{LATE_MS // 1000}秒以上待った分を"
        "品質低下とする。",
        f"Records: {records}; {of_users}. Minutes no more than {JOIN_MINUTES} apart are one span. "
        f"`simswitch history` lists these tables. Degraded are minutes in which "
        f"{DEGRADED_SHARE:.0%} or more of the terminals with a lease held slowed SIMs, or an allocation waited for "
        f"{LATE_MS // 1000} s.",
    )
    return Report(
        both("電気通信事故報告", "Telecommunications accident report"),
        [
            Section(both("事故の概要", "The accident"), rows),
            Section(both("発生日時の内訳", "Dates and spans"), head=head, table=table, note=note),
            *([_servers(accident, source)] if accident.servers else []),
        ],
    )


def _servers(accident: Accident, source: str) -> Section:
    head = [
        both("アクセスサーバ", "access server"),
        both("割当拒否(回)", "attempts refused"),
        both("断念(回)", "attempts given up"),
        both("最長の待ち", "longest wait"),
        both("低速SIMにあった延べ時間", "terminals on slowed SIMs, hours in all"),
    ]
    shown = accident.servers[:SERVERS_SHOWN]
    table: list[list[Cell]] = [
        [
            each.name,
            each.refused,
            each.given_up,
            f"{each.wait_ms / 1000:.1f} s" if each.wait_ms else "-",
            f"{each.slowed_minutes / 60:,.1f} h",
        ]
        for each in shown
    ]
    left = len(accident.servers) - len(shown)
    note = both(
        f"記録: {source}: refusals, waits, slowed_terminals(ほか{left:,}台)。端末と利用者ごとの記録は "
        "`simswitch history` の affected と slowed_terminals にある。",
        f"Records: {source}: refusals, waits and slowed_terminals ({left:,} access servers more). Whom it met, one by "
        "one, stands in affected and slowed_terminals of `simswitch history`.",
    )
    return Section(both("アクセスサーバ別の内訳", "By access server"), head=head, table=table, note=note)


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
    occurred = _local(accident.spans[0].first_minute, accident.zone).date()
    if not rules.held_on(occurred):
        lines.append(
            both(
                f"注意: {rules.name}はこの日の規則とは限らない"
                f"({rules.in_force_from}から{rules.in_force_until or '現在'}まで)。当時の規則は --rules で指定。",
                f"Beware: {rules.name} is known to hold from {rules.in_force_from} to {rules.in_force_until or 'now'}, "
                "not on this day: name the rules of that time with --rules.",
            )
        )
    return lines
