"""The daily operations report: the pool by supplier and lot, what was used, what went wrong and what was done about it,
against the day before.

Everything comes from history: ``lots`` has the pool at the end of each day, the other tables what happened in it. A day
begins as the service's setting ``day_begins_ms`` says, for events as for use; instants are shown in the zone that the
report is asked for, and where its midnight is another one the page says so. Subscribers are shown masked: the meeting
needs to know how heavy the heaviest are, not who.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from simswitch.core import layout
from simswitch.core.roles import Read
from simswitch.history.reading import begin_ms_of, day_begins_ms, day_totals
from simswitch.history.schema import unsigned
from simswitch.masking import hidden, masked
from simswitch.planning.terms import Terms
from simswitch.reports.accident import Span, day_words, duration, minutes, not_on_record, spans
from simswitch.reports.rendering import Cell, Report, Section, Text, Words, both

HEAVY_SHOWN = 10
JOBS_SHOWN = 50
DECISIONS_SHOWN = 200
FIGURES_SHOWN = 200
_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
_BASES: dict[int, Words] = {
    layout.BASIS_CONTRACTUAL: both("契約", "contractual"),
    layout.BASIS_BELIEVED: both("推定", "believed"),
    layout.BASIS_LEARNED: both("学習", "learned"),
}
_DETAILS = ("carrier", "plan", "class", "quota_bytes", "basis", "valid_until_s")
_SUMS = ("sims", "healthy", "low", "throttled", "quarantined", "headroom_bytes")
_WINDOWS = (both("周期", "cycle"), both("日", "day"), both("連続日数", "rolling days"))


@dataclass(frozen=True, slots=True)
class LotRow:
    """One lot at the end of a day."""

    lot: int
    name: str
    supplier: str
    figures: dict[str, int]
    """The columns of the table."""
    detail: dict[str, Any]

    @property
    def fit(self) -> int:
        return self.figures["healthy"] + self.figures["low"]


@dataclass(frozen=True, slots=True)
class CapChange:
    lot: str
    window: int
    before_bytes: int | None
    bytes: int | None
    basis: int


@dataclass(frozen=True, slots=True)
class Heavy:
    subscriber: int
    bytes: int
    month_bytes: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of ``decisions``."""

    at_ms: int
    actor: str
    kind: str
    subject: str
    items: int
    statuses: str
    figures: str
    """The columns of up to 16 items, as JSON: what was decided on."""
    digest: str
    """SHA-256 of the whole run of commands, as the journal has it."""


@dataclass(slots=True)
class Day:
    """What history says of one day."""

    day: date
    lots: list[LotRow] = field(default_factory=list)
    pool: dict[str, int] = field(default_factory=dict)
    """Sums over the lots (``sums``)."""
    at_ms: int = 0
    """When the lots were looked at; 0: there is no snapshot of that day."""
    used_bytes: int = 0
    subscribers: int = 0
    heavy: list[Heavy] = field(default_factory=list)
    swaps: dict[str, int] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    jobs: list[tuple[int, str, int, int, int, int, int]] = field(default_factory=list)
    """Job, reason, state, why, terminals, confirmed, given up: the first ``JOBS_SHOWN``."""
    jobs_count: int = 0
    decisions: list[Decision] = field(default_factory=list)
    """The last ``DECISIONS_SHOWN``."""
    decisions_count: int = 0
    begins_ms: int = 0
    """Its first instant."""
    midnight_ms: int = 0
    """That of the zone's date."""
    unknown: list[Words] = field(default_factory=list)
    """What history does not know of it."""
    rights: frozenset[Read] = frozenset(Read)
    """What of it may be shown (``views``)."""

    @property
    def minutes(self) -> int:
        """In which service was stopped or degraded."""
        return sum(span.seconds for span in self.spans) // 60

    @property
    def stopped_minutes(self) -> int:
        return sum(span.stopped_minutes for span in self.spans)


def read_day(history: sqlite3.Connection, day: date, zone: tzinfo) -> Day:
    """What happened on a day, and the pool at its end."""
    number = (day - _EPOCH).days
    begin_ms, end_ms = midnights_ms = [
        round(datetime.combine(at, time(), zone).timestamp() * 1000) for at in (day, day + timedelta(days=1))
    ]
    setting_ms = day_begins_ms(history, number)
    if setting_ms is not None:
        begin_ms, end_ms = begin_ms_of(number, setting_ms), begin_ms_of(number + 1, setting_ms)
    found = Day(day, begins_ms=begin_ms, midnight_ms=midnights_ms[0])
    found.unknown = not_on_record(history, begin_ms, end_ms, zone)
    names = dict(history.execute("SELECT entity, name FROM entities WHERE kind = ?", (layout.LOT,)).fetchall())
    cursor = history.execute("SELECT * FROM lots WHERE day = ? ORDER BY lot", (number,))
    columns = [column[0] for column in cursor.description]
    for row in cursor:
        values = dict(zip(columns, row, strict=True))
        detail = json.loads(values.pop("detail"))
        found.at_ms = values["at_ms"]
        name = names.get(values["lot"], str(values["lot"]))
        found.lots.append(LotRow(values["lot"], name, detail["supplier"], values, detail))
    found.lots.sort(key=lambda lot: (lot.supplier, lot.name))
    found.pool = sums(found.lots)
    found.used_bytes, found.subscribers = day_totals(history, number)
    month = (day.year - 1970) * 12 + day.month - 1
    found.heavy = [
        Heavy(unsigned(subscriber), used, month_used or 0)
        for subscriber, used, month_used in history.execute(
            "SELECT d.subscriber, d.bytes, m.bytes FROM "
            "(SELECT subscriber, bytes FROM use_day WHERE day = ? ORDER BY bytes DESC LIMIT ?) AS d "
            "LEFT JOIN use_month AS m ON m.month = ? AND m.subscriber = d.subscriber ORDER BY d.bytes DESC",
            (number, HEAVY_SHOWN, month),
        )
    ]
    names_of_swaps = ("ordered", "confirmed", "refused", "overdue", "measured", "outage_ms")
    figures = history.execute(
        "SELECT count(*), sum(result = 1), sum(result = 2), sum(result = 3), count(outage_ms), sum(outage_ms) "
        "FROM swaps WHERE ordered_ms >= ? AND ordered_ms < ?",
        (begin_ms, end_ms),
    ).fetchone()
    found.swaps = {name: figure or 0 for name, figure in zip(names_of_swaps, figures, strict=True)}
    found.spans = spans(minutes(history, begin_ms, end_ms))
    found.jobs_count = history.execute(
        "SELECT count(*) FROM jobs WHERE changed_ms >= ? AND changed_ms < ?", (begin_ms, end_ms)
    ).fetchone()[0]
    for job, state, why, text in history.execute(
        "SELECT job, state, why, detail FROM jobs WHERE changed_ms >= ? AND changed_ms < ? ORDER BY job LIMIT ?",
        (begin_ms, end_ms, JOBS_SHOWN),
    ):
        of_job = json.loads(text)
        counts = (of_job.get(name, 0) for name in ("terminals_count", "confirmed_count", "given_up_count"))
        found.jobs.append((job, of_job.get("reason", ""), state, why, *counts))
    found.decisions_count = history.execute(
        "SELECT count(*) FROM decisions WHERE at_ms >= ? AND at_ms < ?", (begin_ms, end_ms)
    ).fetchone()[0]
    found.decisions = [
        Decision(*row)
        for row in history.execute(
            "SELECT at_ms, actor, kind, subject, items, statuses, detail, lower(hex(digest)) FROM decisions "
            "WHERE at_ms >= ? AND at_ms < ? ORDER BY event DESC LIMIT ?",
            (begin_ms, end_ms, DECISIONS_SHOWN),
        )
    ][::-1]
    return found


def sums(lots: Sequence[LotRow]) -> dict[str, int]:
    """Of the columns that the overview shows."""
    return {name: sum(lot.figures[name] for lot in lots) for name in _SUMS}


def last_day(history: sqlite3.Connection) -> date | None:
    """The last day that is over."""
    number = history.execute("SELECT max(day) FROM days").fetchone()[0]
    return None if number is None else _EPOCH + timedelta(days=number)


def cap_changes(today: Day, yesterday: Day) -> list[CapChange]:
    """Caps in force at the end of the day that were not at the end of the one before, of lots that were there."""
    before = {lot.lot: lot.detail for lot in yesterday.lots}
    result = []
    for lot in today.lots:
        then = before.get(lot.lot)
        if then is None:
            continue
        for window, (was, now) in enumerate(zip(then["quota_bytes"], lot.detail["quota_bytes"], strict=True)):
            if was != now or then["basis"][window] != lot.detail["basis"][window]:
                result.append(CapChange(lot.name, window, was, now, lot.detail["basis"][window]))
    return result


def shortfall_text(
    history: sqlite3.Connection, day: date, cycle_day: int, terms: Terms, rights: frozenset[Read]
) -> Text:
    """When the pool runs dry, as the planner says on the morning after the day; nothing, and no work, for who may not
    see it."""
    from simswitch.planning import observed

    source = "days, lots; `simswitch plan`"
    if Read.POOL not in rights:
        return Text([])
    try:
        from simswitch.planning.plan import outlook

        situation = observed.read_situation(
            history, cycle_day=cycle_day, until=day + timedelta(days=1), by_subscriber=False
        )
        dry = outlook(situation, terms, seed=1).dry
    except observed.NotEnough as error:
        return Text([both(f"算出できない: {error}", f"not known: {error}")], source)
    except ImportError:
        return Text([both("算出には simswitch[plan] が必要", "not known: install simswitch[plan]")], source)
    middle, early = dry.date_at(0.5), dry.date_at(0.05)
    none = both(f"{terms.horizon_days}日以内にはない", f"not within {terms.horizon_days} days")
    p50, p95 = (none if at is None else day_words(at) for at in (middle, early))
    return Text([both(f"P50: {p50['ja']}、P95: {p95['ja']}", f"P50: {p50['en']}; P95: {p95['en']}")], source)


# ------------------------------------------------------------------------------------------------------- the page


def report(today: Day, yesterday: Day, shortfall: Text, zone: tzinfo, source: str) -> Report:
    """The page, of two days that one party sees. ``shortfall``: what the planner says (``shortfall_text``)."""
    day = day_words(today.day)
    sections = [_overview(today, yesterday, shortfall, zone, source)]
    if today.lots:
        sections.append(_pool(today, yesterday, zone, source))
    changes = cap_changes(today, yesterday)
    if changes:
        sections.append(_caps(changes, source))
    if today.spans:
        sections.append(_service(today, zone, source))
    if today.jobs:
        sections.append(_jobs(today, source))
    if today.heavy:
        sections.append(_heavy(today, source))
    if today.decisions:
        sections.append(_decisions(today, zone, source))
    return Report(both(f"日次運用報告 {day['ja']}", f"Daily operations report, {day['en']}"), sections)


def _overview(today: Day, yesterday: Day, shortfall: Text, zone: tzinfo, source: str) -> Section:
    number = (today.day - _EPOCH).days
    lots, use = f"lots, day {number}", f"use_day, day {number}"
    rows: list[tuple[Words, Text]] = []

    def add(ja: str, en: str, figure: Callable[[Day], int], records: str, unit: str = "") -> None:
        now, then = figure(today), figure(yesterday)
        shown, change = _amount(now, unit), _change(now - then, unit)
        line = both(f"{shown}(前日比 {change})", f"{shown} ({change})")
        if records == lots and not yesterday.at_ms:
            line = both(f"{shown}(前日の記録なし)", f"{shown} (no record of the day before)")
        text = Text([line], f"{source}: {records}")
        rows.append((both(ja, en), text))

    rights = today.rights
    add("SIM枚数", "SIMs", lambda day: day.pool["sims"], lots)
    add("使用可能なSIM", "SIMs fit for use", lambda day: day.pool["healthy"] + day.pool["low"], lots)
    add("残容量(下限)", "headroom, lower bound", lambda day: day.pool["headroom_bytes"], lots, "B")
    add("低速化したSIM", "throttled SIMs", lambda day: day.pool["throttled"], lots)
    add("隔離したSIM", "quarantined SIMs", lambda day: day.pool["quarantined"], lots)
    if Read.POOL in rights:
        add("使用量", "used", lambda day: day.used_bytes, use, "B")
        add("使用した利用者", "subscribers with use", lambda day: day.subscribers, use)
    if Read.SWAPS in rights:
        add("切替え(指示)", "swaps ordered", lambda day: day.swaps["ordered"], "swaps")
        add("切替え(完了)", "swaps confirmed", lambda day: day.swaps["confirmed"], "swaps")
        add("切替え(拒否)", "swaps refused", lambda day: day.swaps["refused"], "swaps")
        add("切替え(応答なし)", "swaps overdue", lambda day: day.swaps["overdue"], "swaps")
        add("回線断(秒)", "outage, seconds", lambda day: day.swaps["outage_ms"] // 1000, "swaps")
    if Read.POOL in rights:
        service = "refusals, waits and slowed"
        add("割当失敗のあった分", "minutes with failed attempts", lambda day: day.stopped_minutes, service)
        add("停止・品質低下の分", "minutes stopped or degraded", lambda day: day.minutes, service)
        rows.append((both("容量不足の見込み", "when it runs dry"), shortfall))
    if Read.DECISIONS in rights:
        add("人による決定", "decisions of people", lambda day: day.decisions_count, "decisions")
    notes = list(today.unknown)
    if not today.at_ms:
        notes.append(
            both(
                "この日のプールの記録はない。フォロワーが毎時書く。",
                "There is no record of the pool on this day: the follower writes one every hour.",
            )
        )
    if today.begins_ms != today.midnight_ms:
        begins = datetime.fromtimestamp(today.begins_ms / 1000, UTC).astimezone(zone)
        wanted = today.midnight_ms % _DAY_MS
        notes.append(
            both(
                f"日はこの時間帯の0時ではなく{begins:%m-%d %H:%M}に始まる(設定 `day_begins_ms`)。"
                f"0時に合わせるには `day_begins_ms = {wanted}` とするか、--zone を合わせる。",
                f"Days begin at {begins:%d %b %H:%M} of this zone, not at its midnight (the setting `day_begins_ms`): "
                f"set `day_begins_ms = {wanted}`, or name another --zone.",
            )
        )
    note = both(*("".join(each["ja"] for each in notes), " ".join(each["en"] for each in notes))) if notes else None
    return Section(both("概要", "Overview"), rows, note=note)


def _pool(today: Day, yesterday: Day, zone: tzinfo, source: str) -> Section:
    before = {lot.lot: lot.figures for lot in yesterday.lots}
    head = [
        both("供給元", "supplier"), both("ロット", "lot"), both("条件", "terms"), both("SIM", "SIMs"),
        both("使用可能", "fit"), both("残容量", "headroom"), both("前日比", "change"),
        both("低速化", "throttled"), both("隔離", "quarantined"), both("その他", "others"), both("割当中", "assigned"),
    ]  # fmt: skip
    table: list[list[Cell]] = []
    for supplier in dict.fromkeys(lot.supplier for lot in today.lots):
        of = [lot for lot in today.lots if lot.supplier == supplier]
        table += [[supplier, lot.name, _terms(lot.detail, zone), *_cells([lot], before)] for lot in of]
        if len(of) > 1:
            table.append([supplier, both("計", "all"), "", *_cells(of, before)])
    at = datetime.fromtimestamp(today.at_ms / 1000, UTC).astimezone(zone)
    note = both(
        f"記録: {source}: lots ({at:%Y-%m-%d %H:%M}時点)。残容量は有効な上限(下限値)による。",
        f"Records: {source}: lots, as of {at:%Y-%m-%d %H:%M}. Headroom is under the caps in force, their lower bounds.",
    )
    return Section(both("供給元とロット", "Suppliers and lots"), head=head, table=table, note=note)


def _cells(lots: Sequence[LotRow], before: dict[int, dict[str, int]]) -> list[Cell]:
    def whole(column: str) -> int:
        return sum(lot.figures[column] for lot in lots)

    headroom = whole("headroom_bytes")
    then = sum(before[lot.lot]["headroom_bytes"] for lot in lots if lot.lot in before)
    unlimited = whole("unlimited")
    shown: Cell = _amount(headroom, "B")
    if unlimited:
        shown = both(f"{shown}(上限なし {unlimited:,}枚)", f"{shown} ({unlimited:,} without a cap)")
    others = whole("exhausted") + whole("not_valid") + whole("retired") + whole("others")
    return [
        whole("sims"), sum(lot.fit for lot in lots), shown, _change(headroom - then, "B"), whole("throttled"),
        whole("quarantined"), others, whole("assigned"),
    ]  # fmt: skip


def _terms(detail: dict[str, Any], zone: tzinfo) -> Words:
    ja, en = [detail["plan"]], [detail["plan"]]
    for window, quota in enumerate(detail["quota_bytes"]):
        if quota is not None:
            basis = _BASES.get(detail["basis"][window], both("", ""))
            ja.append(f"{_WINDOWS[window]['ja']} {_amount(quota, 'B')} {basis['ja']}")
            en.append(f"{_amount(quota, 'B')} a {_WINDOWS[window]['en']}, {basis['en']}")
    if detail["valid_until_s"] > 0:
        # The instant is the end of its last day.
        until = datetime.fromtimestamp(detail["valid_until_s"] - 1, UTC).astimezone(zone)
        ja.append(f"{until:%Y-%m-%d}まで")
        en.append(f"until {until:%Y-%m-%d}")
    return both("、".join(filter(None, ja)), "; ".join(filter(None, en)))


def _caps(changes: Sequence[CapChange], source: str) -> Section:
    head = [
        both("ロット", "lot"), both("期間", "window"), both("変更前", "before"), both("変更後", "now"),
        both("根拠", "basis"),
    ]  # fmt: skip
    none = both("なし", "none")
    table: list[list[Cell]] = [
        [
            change.lot,
            _WINDOWS[change.window],
            none if change.before_bytes is None else _amount(change.before_bytes, "B"),
            none if change.bytes is None else _amount(change.bytes, "B"),
            _BASES.get(change.basis, none),
        ]
        for change in changes
    ]
    note = both(f"記録: {source}: lots (前日との差)", f"Records: {source}: lots, the day's against the day's before.")
    return Section(both("上限の学習・変更", "Caps learned or changed"), head=head, table=table, note=note)


def _service(today: Day, zone: tzinfo, source: str) -> Section:
    head = [
        both("開始", "from"), both("終了", "to"), both("継続時間", "duration"), both("うち停止", "stopped"),
        both("割当拒否(回)", "attempts refused"), both("断念(回)", "attempts given up"),
        both("低速SIMの端末(最大)", "terminals on slowed SIMs, at most"),
    ]  # fmt: skip

    def clock(minute: int) -> str:
        return f"{datetime.fromtimestamp(minute * 60, UTC).astimezone(zone):%H:%M}"

    table: list[list[Cell]] = [
        [
            clock(span.first_minute), clock(span.last_minute + 1), duration(span.seconds),
            duration(span.stopped_minutes * 60), span.refused, span.given_up, span.slowed_max,
        ]
        for span in today.spans
    ]  # fmt: skip
    note = both(f"記録: {source}: refusals, waits, slowed", f"Records: {source}: refusals, waits and slowed.")
    return Section(both("停止・品質低下", "Stopped or degraded service"), head=head, table=table, note=note)


def _jobs(today: Day, source: str) -> Section:
    head = [
        both("番号", "job"), both("理由", "reason"), both("状態", "state"), both("端末", "terminals"),
        both("完了", "moved"), both("断念", "given up"),
    ]  # fmt: skip
    table: list[list[Cell]] = []
    for job, reason, state, why, terminals, confirmed, given_up in today.jobs:
        shown = layout.JobState(state).name.removeprefix("JOB_").lower().replace("_", " ")
        if why:
            shown += f" ({layout.JobWhy(why).name.removeprefix('WHY_').lower()})"
        table.append([str(job), reason, shown, terminals, confirmed, given_up])
    left = today.jobs_count - len(today.jobs)
    note = both(f"記録: {source}: jobs(ほか{left:,}件)。", f"Records: {source}: jobs ({left:,} more).")
    return Section(both("切替えジョブ", "Swap jobs"), head=head, table=table, note=note)


def _heavy(today: Day, source: str) -> Section:
    head = [
        both("利用者", "subscriber"), both("当日", "this day"), both("全体に占める割合", "share of all"),
        both("当月", "this month"),
    ]  # fmt: skip
    table: list[list[Cell]] = [
        [
            hidden(each.subscriber),
            _amount(each.bytes, "B"),
            f"{each.bytes / max(today.used_bytes, 1):.2%}",
            _amount(each.month_bytes, "B"),
        ]
        for each in today.heavy
    ]
    note = both(
        f"記録: {source}: use_day, use_month。利用者番号は伏せてある。",
        f"Records: {source}: use_day and use_month. Subscribers are masked.",
    )
    return Section(both("ヘビーユーザー", "Heavy users"), head=head, table=table, note=note)


def _decisions(today: Day, zone: tzinfo, source: str) -> Section:
    head = [
        both("時刻", "at"), both("決定者", "who"), both("内容", "what"), both("対象", "of"), both("件数", "items"),
        both("結果", "answers"), both("根拠の値", "figures"), both("記録の照合値", "digest"),
    ]  # fmt: skip
    table: list[list[Cell]] = [
        [
            f"{datetime.fromtimestamp(row.at_ms / 1000, UTC).astimezone(zone):%H:%M:%S}", row.actor, row.kind,
            row.subject, row.items, row.statuses, masked(row.figures[:FIGURES_SHOWN]), row.digest[:16],
        ]
        for row in today.decisions
    ]  # fmt: skip
    left = today.decisions_count - len(today.decisions)
    note = both(
        f"記録: {source}: decisions(ほか{left:,}件)。全文は `simswitch history` で確認できる。",
        f"Records: {source}: decisions ({left:,} more). `simswitch history` has them whole.",
    )
    return Section(both("決定の記録", "The trail of decisions"), head=head, table=table, note=note)


def _amount(value: int, unit: str) -> str:
    if unit != "B":
        return f"{value:,}"
    for size, name in ((10**15, "PB"), (10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if abs(value) >= size:
            return f"{value / size:,.1f} {name}"
    return f"{value:,} B"


def _change(value: int, unit: str) -> str:
    return f"{'+' if value > 0 else '±' if value == 0 else '-'}{_amount(abs(value), unit)}"


def document(today: Day, yesterday: Day, shortfall: Text) -> dict[str, Any]:
    """The same as JSON."""

    def of(at: Day) -> dict[str, Any]:
        return {
            "day": at.day.isoformat(),
            "at_ms": at.at_ms,
            "lots": [
                {
                    "lot": lot.name,
                    "supplier": lot.supplier,
                    **{name: value for name, value in lot.figures.items() if name not in ("lot", "day", "at_ms")},
                    **{name: lot.detail[name] for name in _DETAILS},
                }
                for lot in at.lots
            ],
            "used_bytes": at.used_bytes,
            "subscribers": at.subscribers,
            "heavy": [
                {"subscriber": hidden(each.subscriber), "bytes": each.bytes, "month_bytes": each.month_bytes}
                for each in at.heavy
            ],
            "swaps": at.swaps,
            "service": [
                {
                    "first_minute": span.first_minute, "last_minute": span.last_minute,
                    "stopped_minutes": span.stopped_minutes, "refused": span.refused, "given_up": span.given_up,
                    "slowed_max": span.slowed_max,
                }
                for span in at.spans
            ],
            "begins_ms": at.begins_ms,
            "not_on_record": [line["en"] for line in at.unknown],
            "jobs_count": at.jobs_count,
            "jobs": [
                dict(zip(("job", "reason", "state", "why", "terminals", "moved", "given_up"), job, strict=True))
                for job in at.jobs
            ],
            "decisions_count": at.decisions_count,
            "decisions": [asdict(row) for row in at.decisions],
        }  # fmt: skip

    changes = [
        {"lot": change.lot, "window": _WINDOWS[change.window]["en"], "before_bytes": change.before_bytes,
         "quota_bytes": change.bytes, "basis": _BASES.get(change.basis, both("", ""))["en"] or None}
        for change in cap_changes(today, yesterday)
    ]  # fmt: skip
    return {
        "today": of(today),
        "yesterday": of(yesterday),
        "caps_changed": changes,
        "shortfall": [line["en"] for line in shortfall.lines] if Read.POOL in today.rights else [],
    }
