"""The definitions of the inventory as the engine keeps them: numbers that it works with, and the rest as a document.

The document of an entity is its own message, serialised without name and number; the engine does not look into it. The
numbers beside it are derived from the message, so that what is shown and what is worked with are one definition.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message import Message

from simswitch.cell import JournalFull
from simswitch.core import layout
from simswitch.plain_text import INVISIBLE, shows_nothing
from simswitch.service.calendar import midnight_ms, zone
from simswitch.service.directory import Directory, Entity
from simswitch.service.errors import INVALID_ARGUMENT, STATUS_REASONS, Refused
from simswitch.v1 import inventory_pb2 as pb

_BYTES_MAX = 2**62

log = logging.getLogger("simswitch.service")

Numbers = dict[int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of definition and its three RPCs."""

    kind: int
    message: type[Message]
    field: str
    """In the Define and Get messages."""
    list_field: str
    plural: str
    """In the name of the List messages."""
    numbers: Callable[[Any, Directory], Numbers]


def _no_numbers(_message: Message, _directory: Directory) -> Numbers:
    return {}


def _bytes(name: str, value: int) -> int:
    if not 0 <= value <= _BYTES_MAX:
        raise Refused(INVALID_ARGUMENT, f"{name} is 0 to {_BYTES_MAX}, not {value}")
    return value


CHANGES_MAX = 255
"""Changes of terminal of one SIM in a day that are counted."""


RESET_SECONDS_MAX = 43_200
_ONE_DAY = datetime.timedelta(days=1)


def _plan_numbers(plan: pb.Plan, _directory: Directory) -> Numbers:
    places = {
        pb.CAP_WINDOW_KIND_CYCLE: layout.PLAN_QUOTA_CYCLE,
        pb.CAP_WINDOW_KIND_DAY: layout.PLAN_QUOTA_DAY,
        pb.CAP_WINDOW_KIND_ROLLING: layout.PLAN_QUOTA_ROLLING,
    }
    numbers: Numbers = {}
    for window in plan.windows:
        place = places.get(window.kind)
        if place is None or place in numbers:
            raise Refused(INVALID_ARGUMENT, "windows have a kind each, and no kind comes twice")
        rolling = window.kind == pb.CAP_WINDOW_KIND_ROLLING
        if rolling != (1 <= window.days <= 366):
            raise Refused(INVALID_ARGUMENT, "days is 1 to 366 for a rolling window, otherwise 0")
        numbers[place] = _bytes("quota_bytes", window.quota_bytes)
        position = place - layout.PLAN_QUOTA_CYCLE
        if window.pooled:
            numbers[layout.PLAN_POOLED] = numbers.get(layout.PLAN_POOLED, 0) | 1 << position
        if window.certainty:
            numbers[layout.PLAN_BASIS_CYCLE + position] = window.certainty
        if window.speed_after_bits_per_s:
            kbps = min(-(-window.speed_after_bits_per_s // 1_000), _BYTES_MAX)
            numbers[layout.PLAN_SPEED_CYCLE_KBPS + position] = kbps
        if rolling:
            numbers[layout.PLAN_ROLLING_DAYS] = window.days
    if plan.HasField("low_bytes"):
        numbers[layout.PLAN_LOW_BYTES] = _bytes("low_bytes", plan.low_bytes)
    if plan.HasField("exhausted_bytes"):
        numbers[layout.PLAN_EXHAUSTED_BYTES] = _bytes("exhausted_bytes", plan.exhausted_bytes)
    if plan.changes_per_day_max > CHANGES_MAX:
        raise Refused(INVALID_ARGUMENT, f"changes_per_day_max is at most {CHANGES_MAX}, not {plan.changes_per_day_max}")
    if plan.changes_per_day_max:
        numbers[layout.PLAN_CHANGES_PER_DAY] = plan.changes_per_day_max
    _check_resets(plan.resets)
    return numbers


def _check_resets(rule: pb.ResetRule) -> None:
    _closing_day(rule.closing_day)
    try:
        zone(rule.time_zone)
    except ValueError as error:
        raise Refused(INVALID_ARGUMENT, f"time_zone: {error}") from error
    for name, seconds in (("lag_seconds", rule.lag_seconds), ("spread_seconds", rule.spread_seconds)):
        if seconds > RESET_SECONDS_MAX:
            raise Refused(INVALID_ARGUMENT, f"{name} is at most {RESET_SECONDS_MAX:,} (half a day), not {seconds:,}")


def _closing_day(day: int) -> None:
    if day > 31:
        raise Refused(INVALID_ARGUMENT, f"closing_day is a day of the month, 1 to 31, not {day}")


def _lot_numbers(lot: pb.Lot, directory: Directory) -> Numbers:
    plan = directory.get(layout.PLAN, lot.plan)
    time_zone = pb.Plan.FromString(plan.document).resets.time_zone
    _day(lot, "purchase_date")
    active_from, valid_until = _day(lot, "active_from"), _day(lot, "valid_until")
    _closing_day(lot.closing_day)
    currency = lot.currency
    if currency and not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise Refused(INVALID_ARGUMENT, f"currency is three capital letters (ISO 4217), not {currency!r}")
    return {
        layout.LOT_SUPPLIER: directory.get(layout.SUPPLIER, lot.supplier).index,
        layout.LOT_PLAN: plan.index,
        layout.LOT_CLASS: directory.get(layout.SIM_CLASS, lot.sim_class).index,
        layout.LOT_CHECK_DIGIT_EXEMPT: int(lot.check_digit_exempt),
        layout.LOT_ACTIVE_FROM_S: -1 if active_from is None else _begins_s(active_from, time_zone),
        layout.LOT_VALID_UNTIL_S: -1 if valid_until is None else _begins_s(valid_until + _ONE_DAY, time_zone),
        layout.LOT_PREPAID: 1 if lot.payment == pb.PAYMENT_PREPAID else -1,
    }


async def count_prepaid(directory: Directory) -> None:
    """Lots of before machine version 14 say only in their documents that they are prepaid: they are defined anew, so
    that none of their SIMs that have used their quota up is tried. It changes nothing else, and is done once."""
    for lot in directory.all(layout.LOT):
        prepaid = pb.Lot.FromString(lot.document).payment == pb.PAYMENT_PREPAID
        if prepaid and lot.numbers[layout.LOT_PREPAID] != 1:
            numbers = dict(enumerate(lot.numbers)) | {layout.LOT_PREPAID: 1}
            try:
                await directory.define(layout.LOT, lot.name, numbers, lot.document, actor=0)
            except (Refused, JournalFull) as error:
                log.error(
                    "the lot %s is prepaid, but its slowed SIMs are tried until the next start or import: %s",
                    lot.name,
                    error,
                )


def _day(message: pb.Lot | pb.LimitRule, name: str) -> datetime.date | None:
    """ISO 8601 has other spellings of a day; it is kept in the one that people know."""
    text = getattr(message, name)
    try:
        day = datetime.date.fromisoformat(text) if text else None
        if day is not None and (len(text) != 10 or not 1970 < day.year < 2100):
            raise ValueError(text)
    except ValueError as error:
        raise Refused(INVALID_ARGUMENT, f"{name} is a day like 2026-11-30, not {text!r}") from error
    if day is not None:
        setattr(message, name, str(day))
    return day


def _begins_s(day: datetime.date, time_zone: str) -> int:
    return midnight_ms(day, time_zone) // 1_000


def _class_numbers(sim_class: pb.SimClass, directory: Directory) -> Numbers:
    numbers: Numbers = {layout.CLASS_RESERVE: sim_class.reserve_count}
    if sim_class.carrier:
        numbers[layout.CLASS_CARRIER] = directory.get(layout.CARRIER, sim_class.carrier).index
    return numbers


def _market_numbers(market: pb.Market, directory: Directory) -> Numbers:
    names = list(market.sim_classes)
    if not 1 <= len(names) <= layout.MARKET_CLASSES or len(set(names)) != len(names):
        raise Refused(
            INVALID_ARGUMENT, f"sim_classes has 1 to {layout.MARKET_CLASSES} different names, not {len(names)} of them"
        )
    numbers: Numbers = {}
    if market.HasField("expected_bytes"):
        numbers[layout.MARKET_EXPECTED_BYTES] = _bytes("expected_bytes", market.expected_bytes)
    for place, name in enumerate(names):
        numbers[layout.MARKET_FIRST_CLASS + place] = directory.get(layout.SIM_CLASS, name).index
    return numbers


def _group_numbers(group: pb.SubscriberGroup, _directory: Directory) -> Numbers:
    if not 1 <= group.priority <= layout.ADMISSION_LANES:
        raise Refused(INVALID_ARGUMENT, f"priority is 1 to {layout.ADMISSION_LANES}, not {group.priority}")
    return {layout.GROUP_PRIORITY: group.priority}


MONTH_BYTES = 25_000_000_000
"""What a limit rule allows in a month when it says neither that nor what in a day."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://[A-Za-z0-9._~:/?#@$&*+=%\[\]-]*")
_PORTS = {"http": "80", "https": "443"}
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
TOLD_MAX = 16
"""Entries of texts that a limit rule had before: each its digest, the form of that and its last day."""
_DAY_BITS = 22
_FORM_BITS = 2
_FORM = 1
"""What ``_plain`` and ``_told`` make of a text: another number when they make something else of it, since digests are
kept. What older services wrote has 0, and so has an entry of texts that are forgotten."""
WARN_PERMILLE = 800
"""At which share of a limit is warned when its rule doesn't say: nobody is to meet it unwarned."""


def _rule_numbers(rule: pb.LimitRule, directory: Directory) -> Numbers:
    rule.text = rule.text.strip()
    stored = {other.name: pb.LimitRule.FromString(other.document) for other in directory.all(layout.LIMIT_RULE)}
    before = stored.get(rule.name)
    try:
        return _numbers_of_rule(rule, stored, directory)
    except Refused as error:
        if not rule.withdrawn or before is None or (rule.text, rule.published) == (before.text, before.published):
            raise
        stands = f"{before.published}, {before.text!r}"
        said = f"{error.what} (to withdraw it, say its day and its text as they stand: {stands})"
        raise Refused(error.reason, said) from error


def _numbers_of_rule(rule: pb.LimitRule, stored: Mapping[str, pb.LimitRule], directory: Directory) -> Numbers:
    if shows_nothing(rule.text):
        raise Refused(
            INVALID_ARGUMENT, "text is empty: a limit that is not published holds for nobody. Say its text, or its URL"
        )
    if len(rule.text.encode()) > layout.DOCUMENT_BYTES:
        raise Refused(
            INVALID_ARGUMENT,
            f"text has {len(rule.text.encode())} bytes, and the whole definition at most {layout.DOCUMENT_BYTES}: "
            "publish it where it has room, and say its URL",
        )
    published = _day(rule, "published")
    if published is None:
        raise Refused(INVALID_ARGUMENT, "published is empty: publish the limit, and say on which day that was")
    before = stored.get(rule.name)
    if before is not None and _withdraws(rule, before):
        # Its figures are published as they stand; what else a withdrawal says of them nobody was told.
        name = rule.name
        rule.CopyFrom(before)
        rule.name, rule.withdrawn = name, True
    else:
        _check_figures(rule)
    group = rule.subscriber_group
    index = directory.get(layout.SUBSCRIBER_GROUP, group).index if group else -1
    for name, other in stored.items():
        holds = not other.withdrawn and other.subscriber_group == group
        if holds and name != rule.name and not rule.withdrawn:
            raise Refused(
                STATUS_REASONS[layout.WRONG_STATE],
                f"the limit {name!r} holds for the same group. Withdraw it, or define it anew",
            )
    _check_published(rule, stored)
    if rule.withdrawn and len(document(rule)) > layout.DOCUMENT_BYTES:
        # Of what holds no more nobody is warned, and the word that it is withdrawn takes less.
        rule.ClearField("warn_permille")
    while len(rule.told_before) > 1 and len(document(rule)) > layout.DOCUMENT_BYTES:
        rule.told_before[:] = _last(list(rule.told_before), len(rule.told_before) - 1)
    return {
        layout.RULE_GROUP: index,
        layout.RULE_MONTH_BYTES: rule.month_bytes if rule.HasField("month_bytes") else -1,
        layout.RULE_DAY_BYTES: rule.day_bytes if rule.HasField("day_bytes") else -1,
        layout.RULE_WARN_PERMILLE: rule.warn_permille,
        layout.RULE_ACTION: rule.action,
        layout.RULE_SLOW_KBPS: rule.slow_kbps,
        layout.RULE_TEXT_BYTES: len(rule.text.encode()),
        layout.RULE_PUBLISHED_DAY: (published - datetime.date(1970, 1, 1)).days,
        layout.RULE_WITHDRAWN: int(rule.withdrawn),
    }


def _withdraws(rule: pb.LimitRule, before: pb.LimitRule) -> bool:
    return rule.withdrawn and before.subscriber_group == rule.subscriber_group and _told(before) == _told(rule)


def _check_figures(rule: pb.LimitRule) -> None:
    if not rule.HasField("month_bytes") and not rule.HasField("day_bytes"):
        rule.month_bytes = MONTH_BYTES
    for name in ("month_bytes", "day_bytes"):
        if rule.HasField(name) and not 1 <= getattr(rule, name) < _BYTES_MAX:
            raise Refused(INVALID_ARGUMENT, f"{name} is 1 to {_BYTES_MAX - 1}, not {getattr(rule, name)}")
    if not rule.HasField("warn_permille"):
        rule.warn_permille = WARN_PERMILLE
    if not 0 <= rule.warn_permille < 1_000:
        raise Refused(INVALID_ARGUMENT, f"warn_permille is below 1,000, not {rule.warn_permille}")
    if rule.action not in (pb.LIMIT_ACTION_NOTIFY, pb.LIMIT_ACTION_SLOW, pb.LIMIT_ACTION_REFUSE):
        raise Refused(INVALID_ARGUMENT, f"action {rule.action} does not exist")
    if (rule.action == pb.LIMIT_ACTION_SLOW) != (1 <= rule.slow_kbps < layout.NONE_INDEX):
        raise Refused(INVALID_ARGUMENT, "slow_kbps is at least 1 where the action is to slow, otherwise 0")


def _plain(text: str) -> str:
    """Neither blanks nor what nobody sees, nor what makes no other address of a URL, make another text."""
    seen = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
    return " ".join(_URL.sub(_plain_url, seen).split())


def _plain_url(url: re.Match[str]) -> str:
    """Without what makes no other address of it (RFC 3986, 6.2): capitals and dots at the end of its host, who asks,
    its scheme's port, letters that need no escape, steps in place and back, slashes that repeat or end it, a query with
    nothing in it, a place in its page."""
    try:
        scheme, place, path, query, _ = urlsplit(_ESCAPED.sub(_unescaped, url[0]))
    except ValueError:
        return url[0]
    place = place.rpartition("@")[2].lower()
    host, colon, port = place.rpartition(":")
    if not colon or port.strip("0123456789"):
        host, port = place, ""
    port = port.lstrip("0")
    steps: list[str] = []
    for step in path.split("/"):
        if step == "..":
            del steps[-1:]
        elif step not in ("", "."):
            steps.append(step)
    at_port = f":{port}" if port and port != _PORTS.get(scheme) else ""
    return f"{scheme}://{host.rstrip('.')}{at_port}{''.join(f'/{step}' for step in steps)}{'?' * bool(query)}{query}"


def _unescaped(escape: re.Match[str]) -> str:
    code = int(escape[1], 16)
    return chr(code) if code in _UNRESERVED else escape[0].upper()


def _told(rule: pb.LimitRule) -> int:
    """What was published as the rule, and when: a digest of its text, the form of that, and the day."""
    form = _digest(rule.text) << _FORM_BITS | _FORM
    return form << _DAY_BITS | datetime.date.fromisoformat(rule.published).toordinal()


@functools.lru_cache(maxsize=16_384)
def _digest(text: str) -> int:
    """Remembered, since each definition asks it of all rules that there are."""
    return int.from_bytes(hashlib.blake2b(_plain(text).encode(), digest_size=5).digest(), "little")


def _day_of(told: int) -> int:
    return told & ((1 << _DAY_BITS) - 1)


def _date_of(told: int) -> str:
    return str(datetime.date.fromordinal(_day_of(told)))


def _same_text(told: int, other: int) -> bool:
    return told >> _DAY_BITS == other >> _DAY_BITS


def _unknown(told: int) -> bool:
    """Whether it may be any text of its day, and stand for others of days before."""
    return (told >> _DAY_BITS) % (1 << _FORM_BITS) != _FORM


def _check_published(rule: pb.LimitRule, stored: Mapping[str, pb.LimitRule]) -> None:
    """A text and its day stand for what people were told with them: for no less, and for no earlier day.

    That is asked of all rules that there are, of any name and group, withdrawn ones too. A text that stands in one may
    come to allow more on its day, or be published again on a later one; a text that another has replaced comes back
    with a later day only, since what it allowed is no longer known. For a group the day never goes back, also not from
    that of the limit for all to a stricter one of its own, and a rule stays its group's. One that keeps its text, its
    day and what it allows is asked no more when it does not begin to hold again, and when it does, not whether it was
    replaced elsewhere. None is withdrawn from a group that would fall under a stricter one with the same text and day.
    """
    now = _told(rule)
    before = stored.get(rule.name)
    unchanged = before is not None and _told(before) == now and not _allows_less(rule, before)
    if before is None or _told(before) != now or len(rule.text.encode()) > len(before.text.encode()):
        _check_room(rule)
    del rule.told_before[:]
    if before is not None:
        if before.subscriber_group != rule.subscriber_group:
            whom = before.subscriber_group
            raise Refused(
                INVALID_ARGUMENT,
                f"the limit {rule.name!r} was published for {f'the group {whom!r}' if whom else 'all that have none'}: "
                "give the one for others another name",
            )
        rule.told_before.extend(_told_before(before, now))
        if rule.withdrawn and not before.withdrawn:
            _check_falls_under(rule.name, before, stored)
        if unchanged and (rule.withdrawn or not before.withdrawn):
            return
    begins = not unchanged and (before is None or before.withdrawn)
    for name, other in stored.items():
        was = _told(other)
        if now == was and _allows_less(rule, other):
            raise Refused(
                INVALID_ARGUMENT,
                f"it is stricter than what was published as the limit {name!r} on {other.published}. Publish it, and "
                "say its text and the day of that: another text, or a later day",
            )
        last = max((was, *other.told_before), key=_day_of)
        touches = begins and not other.subscriber_group and not other.withdrawn and _allows_less(rule, other)
        if (other.subscriber_group == rule.subscriber_group or touches) and _day_of(now) < _day_of(last):
            raise Refused(
                INVALID_ARGUMENT,
                f"what holds for the same people was published as the limit {name!r} on {_date_of(last)}: publish "
                "this one on that day or a later one, and say that day",
            )
        if _same_text(now, was) and now < was:
            raise Refused(
                INVALID_ARGUMENT,
                f"its text was published as the limit {name!r} on {other.published}, and stands for what that allows: "
                "say that day, or publish it anew and say a later one, or say another text",
            )
        if unchanged:
            continue
        replaced = max((each for each in other.told_before if _same_text(each, now)), default=-1)
        if now <= replaced:
            raise Refused(
                INVALID_ARGUMENT,
                f"its text was published as the limit {name!r} on {_date_of(replaced)}, and another has taken its "
                "place since: publish it anew on a later day, and say that day then, or say another text",
            )
        unknown = max((_day_of(each) for each in other.told_before if _unknown(each)), default=0)
        if _day_of(now) <= unknown:
            raise Refused(
                INVALID_ARGUMENT,
                f"not all texts that the limit {name!r} had up to {_date_of(unknown)} are remembered, and this may be "
                "one of them: publish it on a later day, and say that day",
            )


def _check_falls_under(name: str, before: pb.LimitRule, stored: Mapping[str, pb.LimitRule]) -> None:
    """The limit for all, which holds for a group whose own is withdrawn, is no stricter under the same text and day."""
    for all_name, for_all in stored.items():
        falls_under = before.subscriber_group and not for_all.subscriber_group and not for_all.withdrawn
        if falls_under and _told(for_all) == _told(before) and _allows_less(for_all, before):
            raise Refused(
                INVALID_ARGUMENT,
                f"the group {before.subscriber_group!r} would fall under the limit {all_name!r}, which is stricter "
                f"than what was published as {name!r} with the same text on {before.published}: first publish "
                f"{all_name!r} anew, with another text or a later day",
            )


def _check_room(rule: pb.LimitRule) -> None:
    """A new text leaves room for all that is to be remembered beside it, whatever its figures come to be."""
    most = pb.LimitRule(
        subscriber_group=rule.subscriber_group,
        month_bytes=_BYTES_MAX,
        day_bytes=_BYTES_MAX,
        warn_permille=999,
        action=pb.LIMIT_ACTION_SLOW,
        slow_kbps=layout.NONE_INDEX,
        text=rule.text,
        published=rule.published,
        withdrawn=True,
        told_before=[0] * TOLD_MAX,
    )
    over = most.ByteSize() - layout.DOCUMENT_BYTES
    if over > 0:
        count = len(rule.text.encode())
        raise Refused(
            INVALID_ARGUMENT,
            f"text has {count} bytes, and at most about {count - over} have room beside what is remembered of texts "
            "before it: publish it where it has room, and say its URL",
        )


def _allows_less(rule: pb.LimitRule, before: pb.LimitRule) -> bool:
    return (
        any(
            rule.HasField(field) and (not before.HasField(field) or getattr(rule, field) < getattr(before, field))
            for field in ("month_bytes", "day_bytes")
        )
        or rule.action > before.action
        or (rule.action == before.action == pb.LIMIT_ACTION_SLOW and rule.slow_kbps < before.slow_kbps)
    )


def _told_before(before: pb.LimitRule, now: int) -> list[int]:
    """What the rule that takes this one's place had before: each text with its last day, the last days last."""
    told, was = list(before.told_before), _told(before)
    if not _same_text(was, now):
        last = max([was, *(each for each in told if _same_text(each, was))])
        told = sorted([*(each for each in told if not _same_text(each, was)), last], key=_day_of)
    return _last(told, TOLD_MAX)


def _last(told: list[int], count: int) -> list[int]:
    """So many entries, of which the first stands for all that there were of its day and before, if there were more."""
    more = len(told) - count
    return [_day_of(told[more]), *told[more + 1 :]] if more > 0 else told


def unpublished(rule: pb.LimitRule, what: str) -> str:
    """Of a limit rule whose numbers were good (``_rule_numbers``), the engine refuses nothing but its day."""
    return f"{what}: published {rule.published} is after today: publish it first, and define it on that day or later"


KINDS: Mapping[str, Kind] = {
    "limit_rule": Kind(layout.LIMIT_RULE, pb.LimitRule, "limit_rule", "limit_rules", "LimitRules", _rule_numbers),
    "subscriber_group": Kind(
        layout.SUBSCRIBER_GROUP,
        pb.SubscriberGroup,
        "subscriber_group",
        "subscriber_groups",
        "SubscriberGroups",
        _group_numbers,
    ),
    "supplier": Kind(layout.SUPPLIER, pb.Supplier, "supplier", "suppliers", "Suppliers", _no_numbers),
    "plan": Kind(layout.PLAN, pb.Plan, "plan", "plans", "Plans", _plan_numbers),
    "lot": Kind(layout.LOT, pb.Lot, "lot", "lots", "Lots", _lot_numbers),
    "sim_class": Kind(layout.SIM_CLASS, pb.SimClass, "sim_class", "sim_classes", "SimClasses", _class_numbers),
    "market": Kind(layout.MARKET, pb.Market, "market", "markets", "Markets", _market_numbers),
    "bank": Kind(layout.BANK, pb.Bank, "bank", "banks", "Banks", _no_numbers),
    "access_server": Kind(
        layout.ACCESS_SERVER, pb.AccessServer, "access_server", "access_servers", "AccessServers", _no_numbers
    ),
}


def document(message: Message) -> bytes:
    """What is kept beside name and number."""
    kept = type(message)()
    kept.CopyFrom(message)
    kept.ClearField("name")
    kept.ClearField("number")
    return kept.SerializeToString(deterministic=True)


def message_of(kind: Kind, entity: Entity) -> Message:
    """The definition as its message."""
    parsed: Any = kind.message.FromString(entity.document)
    parsed.name = entity.name
    parsed.number = entity.index
    message: Message = parsed
    return message
