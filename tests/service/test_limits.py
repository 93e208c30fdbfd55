"""Published limits and exemptions over a real socket: refused, slowed, told, and explained to the person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from simswitch.client import Client, Holdings, OperatorClient, Result, ServiceError, SessionThread
from simswitch.core import layout
from simswitch.history.projector import Projector
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.plain_text import is_plain
from simswitch.service import definitions, texts
from simswitch.service.directory import Entity
from simswitch.service.errors import Refused
from simswitch.v1 import event_pb2
from simswitch.v1 import inventory_pb2 as inv
from simswitch.v1 import subscriber_pb2 as pb

from tests.service.serving import Serving
from tests.service.test_calls import refusal

MB = 1_000_000
GB = 1_000 * MB
TEXT = "https://example.org/terms#fair-use"
HEAVY = 900


def rule(name: str = "fair use", **fields: Any) -> inv.LimitRule:
    given: dict[str, Any] = {
        "month_bytes": 100 * MB,
        "warn_permille": 800,
        "action": inv.LIMIT_ACTION_SLOW,
        "slow_kbps": 128,
        "text": TEXT,
        "published": str(datetime.now(UTC).date()),
        **fields,
    }
    return inv.LimitRule(name=name, **given)


def limit(operator: OperatorClient, **fields: Any) -> inv.LimitRule:
    request = inv.DefineLimitRuleRequest(limit_rule=rule(**fields))
    return operator.inventory.DefineLimitRule(request).limit_rule


def lease(client: Client, terminal: int = 1, group: str = "") -> int:
    return client.allocate(terminal, "jp", subscriber=HEAVY, subscriber_group=group).epoch


def report(client: Client, epoch: int, total: int, terminal: int = 1) -> int:
    assert client.report_usage([terminal], [epoch], [0], [total]).tolist() == [layout.OK]
    return int(client.allocate_many([terminal], "jp", subscribers=[HEAVY]).slow_kbps[0])


def told(operator: OperatorClient) -> list[event_pb2.Event]:
    request = event_pb2.WatchEventsRequest(
        after=0, kinds=[event_pb2.EVENT_KIND_LIMIT, event_pb2.EVENT_KIND_EXEMPT], once=True
    )
    return [event for response in operator.events.WatchEvents(request) for event in response.events]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"text": " "}, "a limit that is not published holds for nobody"),
        ({"text": "\u034f\u200d\ufe0f"}, "a limit that is not published holds for nobody"),
        ({"text": "\u0301"}, "a limit that is not published holds for nobody"),
        ({"text": "\u3164"}, r"its character 1 is '\u3164'"),
        ({"published": ""}, "published is empty"),
        ({"published": str((datetime.now(UTC) + timedelta(days=2)).date())}, "is after today: publish it first"),
        ({"published": "tomorrow"}, "is a day like"),
        ({"slow_kbps": 0}, "slow_kbps"),
        ({"action": inv.LIMIT_ACTION_UNSPECIFIED}, "action 0"),
        ({"month_bytes": 0}, "month_bytes"),
        ({"warn_permille": 1_000}, "warn_permille"),
    ],
)
def test_what_is_not_published_or_makes_no_sense_is_refused_and_says_what_to_do(
    pool: OperatorClient, fields: dict[str, Any], word: str
) -> None:
    request = inv.DefineLimitRuleRequest(limit_rule=rule(**fields))
    error = refusal(lambda: pool.inventory.DefineLimitRule(request))
    assert error.reason == "INVALID_ARGUMENT"
    assert word in error.text
    assert not pool.inventory.ListLimitRules(inv.ListLimitRulesRequest()).limit_rules


def test_a_stricter_limit_is_published_anew(pool: OperatorClient) -> None:
    today = datetime.now(UTC).date()
    then, earlier = str(today - timedelta(days=1)), str(today - timedelta(days=2))
    limit(pool, published=then)
    harder = {"action": inv.LIMIT_ACTION_REFUSE, "slow_kbps": 0}
    stricter: list[dict[str, Any]] = [{"month_bytes": 99 * MB}, {"day_bytes": 90 * MB}, {"slow_kbps": 127}, harder]
    for fields in stricter:
        error = refusal(partial(limit, pool, published=then, **fields))
        assert "stricter than what was published as the limit" in error.text
    error = refusal(lambda: limit(pool, published=earlier, text="other", month_bytes=99 * MB))
    assert f"on {then}: publish this one on that day or a later one" in error.text
    # A withdrawn one was published too, with the figures that it had.
    for turn in range(2):
        assert limit(pool, published=then, month_bytes=MB, withdrawn=True).month_bytes == 100 * MB, turn
        assert "stricter" in refusal(partial(limit, pool, published=then, month_bytes=MB)).text
    assert limit(pool, published=then, month_bytes=101 * MB, slow_kbps=200).slow_kbps == 200
    assert limit(pool, published=then, text="other", month_bytes=99 * MB).month_bytes == 99 * MB
    error = refusal(partial(limit, pool, published=then, text="other", month_bytes=98 * MB))
    assert "another text, or a later day" in error.text
    assert limit(pool, published=str(today), text="other", month_bytes=98 * MB).month_bytes == 98 * MB


def test_a_withdrawal_changes_no_figure(pool: OperatorClient) -> None:
    """What else it says nobody was told: neither is it too strict for one, nor is what was told too strict after it."""
    day = str(datetime.now(UTC).date())
    given: dict[str, Any] = {"action": inv.LIMIT_ACTION_REFUSE, "slow_kbps": 0, "day_bytes": GB, "published": day}
    limit(pool, text="before", **{**given, "month_bytes": 30 * GB})
    stands = limit(pool, month_bytes=20 * GB, **given)
    stands.withdrawn = True
    unsaid = inv.LimitRule(
        name="fair use", action=inv.LIMIT_ACTION_NOTIFY, text=f" {TEXT} ", published=day, withdrawn=True
    )
    senseless = rule(month_bytes=1, day_bytes=0, action=9, warn_permille=5_000, withdrawn=True)
    for withdrawal in (unsaid, senseless, unsaid):
        request = inv.DefineLimitRuleRequest(limit_rule=withdrawal)
        assert pool.inventory.DefineLimitRule(request).limit_rule == stands
    stands.withdrawn = False
    assert limit(pool, month_bytes=20 * GB, **given) == stands
    for other in ({"text": "senseless"}, {"published": "2026-01-01"}, {"month_bytes": 0, "text": "x"}):
        error = refusal(partial(limit, pool, withdrawn=True, **{**given, "month_bytes": 0, **other}))
        assert f"(to withdraw it, say its day and its text as they stand: {day}, '{TEXT}')" in error.text
    assert "to withdraw it" not in refusal(partial(limit, pool, **{**given, "text": ""})).text


def of_all_and_of_a_brand(pool: OperatorClient) -> tuple[str, str, dict[str, Any]]:
    """20 GB for all and for a group, by one text of yesterday: today, yesterday, and what is said of the group's."""
    today = datetime.now(UTC).date()
    day, then = str(today), str(today - timedelta(days=1))
    group(pool, "brand")
    brand = {"name": "brand's", "subscriber_group": "brand", "published": then, "text": "A"}
    limit(pool, published=then, text="A", month_bytes=20 * GB)
    limit(pool, month_bytes=20 * GB, **brand)
    return day, then, brand


def test_no_group_falls_under_a_stricter_limit_with_the_same_text_and_day(pool: OperatorClient) -> None:
    day, then, brand = of_all_and_of_a_brand(pool)
    assert limit(pool, month_bytes=20 * GB, withdrawn=True, **brand).withdrawn, "no stricter: it falls under the same"
    limit(pool, month_bytes=30 * GB, **brand)
    others: list[dict[str, Any]] = [{}, {"text": "B"}, {"published": day}]
    for other in others:
        error = refusal(partial(limit, pool, month_bytes=30 * GB, withdrawn=True, **{**brand, **other}))
        assert "the group 'brand' would fall under the limit 'fair use', which is stricter" in error.text
        assert "first publish 'fair use' anew, with another text or a later day" in error.text
    # One that holds for nobody is no matter, and does not come back.
    limit(pool, published=then, text="A", withdrawn=True)
    limit(pool, withdrawn=True, **brand)
    assert "stricter" in refusal(partial(limit, pool, published=then, text="A", month_bytes=20 * GB)).text
    limit(pool, month_bytes=30 * GB, **brand)
    limit(pool, published=day, text="A", month_bytes=20 * GB)
    assert limit(pool, withdrawn=True, **brand).withdrawn


def test_a_limit_that_never_changed_comes_back_whatever_took_its_text_elsewhere(pool: OperatorClient) -> None:
    day, then, brand = of_all_and_of_a_brand(pool)
    for turn in range(definitions.TOLD_MAX + 2):
        # Of which one has replaced A, and the last let it be forgotten.
        limit(pool, published=then if turn < 4 else day, text=f"text {turn}", month_bytes=30 * GB)
        if turn in (0, definitions.TOLD_MAX + 1):
            assert limit(pool, withdrawn=True, **brand).withdrawn
            assert refusal(partial(limit, pool, month_bytes=19 * GB, **brand))
            assert not limit(pool, month_bytes=20 * GB, **brand).withdrawn


def test_a_groups_first_limit_is_of_no_day_before_a_laxer_one_that_touched_it(pool: OperatorClient) -> None:
    today = datetime.now(UTC).date()
    day, then, before = (str(today - timedelta(days=days)) for days in range(3))
    group(pool, "brand", "second")
    limit(pool, published=then, text="A", month_bytes=20 * GB)
    second: dict[str, Any] = {"name": "second's", "subscriber_group": "second", "text": "of second"}
    limit(pool, published=before, month_bytes=20 * GB, **second)
    brand: dict[str, Any] = {"name": "brand's", "subscriber_group": "brand", "text": "of brand"}
    for withdrawn in (False, True):
        error = refusal(partial(limit, pool, published=before, month_bytes=19 * GB, withdrawn=withdrawn, **brand))
        assert f"'fair use' on {then}: publish this one on that day or a later one" in error.text
    # It is its own that touches a group that has one, until that is withdrawn.
    second["text"] = "of second, less"
    limit(pool, published=before, month_bytes=19 * GB, **second)
    limit(pool, published=before, withdrawn=True, **second)
    less = partial(limit, pool, month_bytes=18 * GB, **{**second, "text": "of second, least"})
    assert "the same people" in refusal(partial(less, published=before)).text
    assert less(published=then).published == then
    assert limit(pool, published=then, month_bytes=19 * GB, **brand).published == then
    limit(pool, published=day, text="for all", month_bytes=20 * GB, withdrawn=True)
    group(pool, "third")
    third: dict[str, Any] = {"name": "third's", "subscriber_group": "third", "text": "of third"}
    assert limit(pool, published=before, month_bytes=GB, **third).published == before, "nothing touched it"


def group(operator: OperatorClient, *names: str) -> None:
    for name in names:
        defined = inv.SubscriberGroup(name=name, priority=1)
        operator.inventory.DefineSubscriberGroup(inv.DefineSubscriberGroupRequest(subscriber_group=defined))


def test_neither_another_name_or_group_nor_a_blank_publishes_a_stricter_limit(pool: OperatorClient) -> None:
    group(pool, "second", "third")
    today = str(datetime.now(UTC).date())
    earlier = str(datetime.now(UTC).date() - timedelta(days=1))
    words = "A month has\n100 MB"
    week_day = "{}-W{:02}-{}".format(*datetime.now(UTC).date().isocalendar())
    kept = limit(pool, published=week_day, text=f"  {words} ")
    assert kept.text == words, "kept as it was said, without blanks around"
    assert kept.published == today, "in the spelling that people know"
    limit(pool, published=today, text=words, withdrawn=True)
    less = {"name": "another", "month_bytes": 99 * MB}
    for text in (words, f" {words} ", "A month  has 100 MB"):
        for name in ("", "second"):
            define = partial(limit, pool, published=today, text=text, subscriber_group=name, **less)
            assert "the limit 'fair use'" in refusal(define).text
    assert "the same people" in refusal(partial(limit, pool, published=earlier, text="older", **less)).text
    second = {"name": "second's", "subscriber_group": "second"}
    assert limit(pool, published=today, text=words, **second).month_bytes == 100 * MB
    assert limit(pool, published=earlier, text="older", subscriber_group="third", **less).month_bytes == 99 * MB
    assert limit(pool, published=today, text="other", name="now", month_bytes=98 * MB).month_bytes == 98 * MB


def test_for_a_group_the_day_never_goes_back(pool: OperatorClient) -> None:
    """By no laxer limit in between, by no rule that goes to another group, and by none that comes back."""
    today = datetime.now(UTC).date()
    day, then, before = (str(today - timedelta(days=days)) for days in range(3))
    group(pool, "brand")
    limit(pool, name="older", published=before, text="older", month_bytes=GB, withdrawn=True)
    limit(pool, published=then, text="A", month_bytes=20 * GB)
    for name, text, figure in (("fair use", "B", 30 * GB), ("fair use", "C", GB), ("other", "M", GB)):
        error = refusal(
            partial(limit, pool, name=name, published=before, text=text, month_bytes=figure, withdrawn=True)
        )
        assert f"'fair use' on {then}: publish this one on that day or a later one" in error.text
    error = refusal(partial(limit, pool, published=day, text="N", subscriber_group="brand"))
    assert "give the one for others another name" in error.text
    limit(pool, published=then, text="A", month_bytes=20 * GB, withdrawn=True)
    older = partial(limit, pool, name="older", published=before, text="older", month_bytes=GB)
    assert "the same people" in refusal(older).text
    assert older(withdrawn=True).withdrawn
    assert limit(pool, name="older", published=then, text="older", month_bytes=GB).published == then
    brand = {"name": "brand's", "subscriber_group": "brand", "published": before}
    assert limit(pool, text="no stricter", month_bytes=GB, **brand).published == before


def test_a_text_that_another_has_replaced_comes_back_with_a_later_day_only(pool: OperatorClient) -> None:
    """Whatever stood in between, and whatever it allows: what was told with it is no longer known."""
    today = datetime.now(UTC).date()
    day, then, before = (str(today - timedelta(days=days)) for days in range(3))
    group(pool, "brand")
    limit(pool, published=then, text="A", month_bytes=20 * GB)
    for between in ({"month_bytes": GB}, {"month_bytes": 30 * GB}, {"withdrawn": True}):
        limit(pool, **{"published": day, "text": f"between {between}", "month_bytes": 40 * GB, **between})
        for published in (then, before):
            for name, of_group in (("fair use", ""), ("another", "brand")):
                for withdrawn in (False, True):
                    back = {"name": name, "subscriber_group": of_group, "withdrawn": withdrawn}
                    error = refusal(partial(limit, pool, published=published, text="A", month_bytes=3 * GB, **back))
                    assert "the same people" in error.text or f"'fair use' on {then}, and another has" in error.text
    assert limit(pool, published=day, text="A", month_bytes=2 * GB).month_bytes == 2 * GB
    # Nor does its day go back, whoever says it.
    of_brand = {"name": "b", "subscriber_group": "brand"}
    for published in (then, before):
        error = refusal(partial(limit, pool, published=published, text="A", month_bytes=2 * GB, **of_brand))
        assert f"'fair use' on {day}, and stands for what that allows: say that day" in error.text
    assert limit(pool, name="b", published=day, text="A", month_bytes=3 * GB, subscriber_group="brand").number
    # Who has it keeps it, also where it allows more elsewhere.
    assert limit(pool, published=day, text="A", month_bytes=2 * GB, warn_permille=0).warn_permille == 0
    # Where it stood today, a later day is tomorrow's.
    limit(pool, published=day, text="a mistake", month_bytes=2 * GB)
    error = refusal(partial(limit, pool, published=day, text="A", month_bytes=2 * GB))
    assert "publish it anew on a later day, and say that day then, or say another text" in error.text


def test_another_spelling_of_a_text_or_its_url_makes_no_other_text(pool: OperatorClient) -> None:
    day = str(datetime.now(UTC).date())
    limit(pool, published=day, text="before")
    url = "See https://Example.net/Limits/caf\u00e9 for it"
    found = limit(pool, published=day, text=url)
    again = inv.DefineLimitRuleRequest(limit_rule=rule(published=day, text=url))
    assert pool.inventory.DefineLimitRule(again).limit_rule == found
    assert (found.text, len(found.told_before)) == (url, 1)
    for spelling in (
        "See HTTPS://example.NET/Limits/caf\u00e9 for it",
        "See  https://example.net//Limits/caf\u00e9 for it ",
        "See https://example.net:443/Limits/caf\u00e9 for it",
        "See https://example.net:0443/Limits/caf\u00e9 for it",
        "See https://example.net./Limits/caf\u00e9 for it",
        "See https://example.net.:/Limits/caf\u00e9 for it",
        "See https://@example.net/Limits/caf\u00e9 for it",
        "See https://us%20:@example.net/Limits/caf\u00e9 for it",
        "See https://%65xample.net/%4Cimits/caf\u00e9 for it",
        "See https://example.net/./Limits/caf\u00e9 for it",
        "See https://example.net/x/%2E%2e/Limits/caf\u00e9 for it",
        "See https://Example.net/Limits/cafe\u0301 for it",
        "Se\u200ce https://Example.net/Limits/caf\u200d\u00e9 for\ufe0f it",
    ):
        assert "stricter" in refusal(partial(limit, pool, published=day, text=spelling, month_bytes=99 * MB)).text
    plain = definitions._plain
    for same in ("//x#2", "//x?", "//x/", "//x/.", "//x/..", "//X", "//x."):
        assert plain(f"https:{same}") == "https://x"
    assert plain("http://x:80/%7ea/b%2fc?%3d") == "http://x/~a/b%2Fc?%3D"
    for other in ("//x:80", "//x/A", "//x/a%2Fb", "//x?a", "//[::1]:8443", "//[::1]", "//[x"):
        assert plain(f"https:{other}") == f"https:{other}"
    other_url = "See https://example.net/limits/caf\u00e9 for it"
    assert limit(pool, published=day, text=other_url, month_bytes=99 * MB).month_bytes == 99 * MB


def test_a_text_of_any_length_is_looked_at_in_a_time_that_goes_by_its_length(pool: OperatorClient) -> None:
    error = refusal(partial(limit, pool, text="x" * 16_000))
    assert "text has 16000 bytes, and the whole definition at most 824: publish it where it has room" in error.text
    for text in ("x" * 17_000, "\x1b" * 17_000):
        error = refusal(partial(limit, pool, text=text))
        assert "bytes, and a request at most 16,384; 824 of them fit" in error.text
    dots, zeros = "." * 60_000, "0" * 60_000
    assert definitions._plain(f"https://a{dots}:{zeros}z") == f"https://a{dots}:{zeros}z"
    assert definitions._plain(f"https://a{dots}:{zeros}80") == "https://a:80"
    for letters in ("a" * 1_000_000, "a://" * 60_000, "%61" * 60_000):
        assert definitions._plain(letters)


def test_so_many_texts_are_remembered_and_none_of_the_days_of_those_forgotten_is_new(pool: OperatorClient) -> None:
    today = datetime.now(UTC).date()
    day, then, before = (str(today - timedelta(days=days)) for days in range(3))
    group(pool, "brand")
    limit(pool, published=before, text="A", month_bytes=20 * GB)
    for turn in range(definitions.TOLD_MAX):
        found = limit(pool, published=then, text=f"text {turn}", month_bytes=20 * GB)
    places = {"fair use": "", "b": "brand"}.items()
    b = {"name": "b", "subscriber_group": "brand", "month_bytes": 20 * GB}
    error = refusal(partial(limit, pool, published=before, text="A", **b))
    assert f"'fair use' on {before}, and another has taken its place" in error.text
    # One more, and A and the first are forgotten; what was published on their days is not new.
    found = limit(pool, published=day, text="the last", month_bytes=20 * GB)
    assert len(found.told_before) == definitions.TOLD_MAX
    for name, of_group in places:
        for published, text in ((before, "A"), (then, "text 0"), (then, "one more")):
            back = {"name": name, "subscriber_group": of_group, "published": published, "text": text}
            error = refusal(partial(limit, pool, month_bytes=30 * GB, **back))
            assert (
                "the same people" in error.text
                or f"'fair use' had up to {then} are remembered, and this may be one of them" in error.text
            )
    # Texts that come back, with a later day, make no room in which others would be forgotten.
    assert limit(pool, published=day, text="text 5", month_bytes=20 * GB).published == day
    found = limit(pool, published=day, text="text 6", month_bytes=20 * GB)
    assert len(found.told_before) == definitions.TOLD_MAX
    for name, of_group in places:
        back = {"name": name, "subscriber_group": of_group}
        assert refusal(partial(limit, pool, published=then, text="text 5", month_bytes=30 * GB, **back))
    for text in ("A", "text 0", "never said"):
        assert f"had up to {then} are" in refusal(partial(limit, pool, published=then, text=text, **b)).text
    assert limit(pool, published=day, text="new", **b).published == day


def test_a_new_text_leaves_room_for_what_is_remembered(pool: OperatorClient) -> None:
    """So corrections of a long text never make a day of which nothing is new."""
    day = str(datetime.now(UTC).date())
    error = refusal(partial(limit, pool, published=day, text="x" * 700))
    assert "text has 700 bytes, and at most about" in error.text
    assert "publish it where it has room, and say its URL" in error.text
    room = int(error.text.partition("at most about ")[2].partition(" ")[0])
    assert 600 < room < 700
    assert "have room" in refusal(partial(limit, pool, published=day, text="x" * (room + 1))).text
    most = 2**62 - 1
    figures: dict[str, Any] = {"month_bytes": most, "day_bytes": most, "slow_kbps": 2**32 - 2, "warn_permille": 999}
    for turn in range(definitions.TOLD_MAX):
        limit(pool, published=day, text=f"{turn:x}".ljust(room, "x"), **figures)
    assert len(limit(pool, published=day, text="f".ljust(room, "x"), withdrawn=True).told_before) == 15
    found = limit(pool, published=day, text="g".ljust(room, "x"), withdrawn=True, **figures)
    assert len(found.told_before) == definitions.TOLD_MAX
    # Another spelling of it has no more room.
    assert "have room" in refusal(partial(limit, pool, published=day, text=f"g {'x' * (room - 1)}", **figures)).text
    assert "have room" in refusal(partial(limit, pool, published=day, text=f"{found.text}\u200c", **figures)).text


@pytest.mark.parametrize("count", [0, 1, 8])
def test_a_longer_text_of_before_is_kept_and_withdrawn(count: int) -> None:
    """Also where the word that it is withdrawn has no room: it is not warned of then, and all else is as it was."""
    before = rule(published="2026-01-02", told_before=[1 << 24] * count)
    before.text += "x" * (layout.DOCUMENT_BYTES - len(definitions.document(before)) - 1)
    assert len(definitions.document(before)) == layout.DOCUMENT_BYTES
    asked = rule(published=before.published, text=before.text)
    numbers = definitions._rule_numbers(asked, kept(before))
    assert (asked, numbers[layout.RULE_WARN_PERMILLE]) == (before, 800)
    asked.withdrawn = True
    numbers = definitions._rule_numbers(asked, kept(before))
    assert (len(definitions.document(asked)) <= layout.DOCUMENT_BYTES, numbers[layout.RULE_WITHDRAWN]) == (True, 1)
    before.withdrawn = True
    before.ClearField("warn_permille")
    assert asked == before
    again = rule(published=before.published, text=before.text)
    definitions._rule_numbers(again, kept(before))
    assert (again.warn_permille, list(again.told_before)) == (800, list(before.told_before))


def kept(limit_rule: inv.LimitRule) -> Any:
    """A directory of it alone."""
    entity = Entity(0, layout.LIMIT_RULE, limit_rule.name, (), definitions.document(limit_rule))
    return SimpleNamespace(all=lambda _: [entity])


def test_texts_are_looked_at_once_and_letter_by_letter_only_for_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    definitions._digest.cache_clear()
    for _ in range(3):
        definitions._rule_numbers(rule(month_bytes=GB), kept(rule()))
    assert definitions._digest.cache_info().misses == 1
    look = Mock(side_effect=is_plain)
    monkeypatch.setattr(texts, "is_plain", look)
    texts.check_texts(rule(text="x" * 100))
    assert look.call_count == 3
    with pytest.raises(Refused, match="its character 4 is"):
        texts.check_texts(rule(text="a\nb\x1bc\x1b"))


def test_two_definitions_at_once_forget_no_text(pool: OperatorClient) -> None:
    day = str(datetime.now(UTC).date())
    limit(pool, published=day, text="A")
    calls = [
        pool.inventory.DefineLimitRule.future(
            inv.DefineLimitRuleRequest(limit_rule=rule(published=day, text=f"{turn}", month_bytes=200 * MB))
        )
        for turn in range(definitions.TOLD_MAX - 1)
    ]
    counts = [len(call.result().limit_rule.told_before) for call in calls]
    assert sorted(counts) == list(range(1, definitions.TOLD_MAX))


def test_a_limit_of_before_texts_were_remembered_is_kept_and_withdrawn() -> None:
    """What older services wrote says no texts, or some whose digests were made in another way: each is any text."""
    older = rule(text="A", published="2026-01-02")
    a_later = 0x123456789A << 24 | datetime(2026, 3, 2).toordinal()
    for told_before in ([], [a_later]):
        older.told_before[:] = told_before
        asked = rule(text="A", published="2026-01-02", withdrawn=True)
        definitions._check_published(asked, {older.name: older})
        assert list(asked.told_before) == told_before
    for published in ("2026-03-02", "2026-02-02"):
        asked = rule("b", text="B", published=published, month_bytes=200 * MB, subscriber_group="brand")
        with pytest.raises(Refused, match="had up to 2026-03-02 are remembered, and this may be one of them"):
            definitions._check_published(asked, {older.name: older})
    definitions._check_published(rule(text="B", published="2026-03-03"), {older.name: older})


def test_what_follows_a_url_without_a_blank_is_text(pool: OperatorClient) -> None:
    day = str(datetime.now(UTC).date())
    limits = (("（1日3GBまで）をご覧ください。", 3), ("（1日1GBまで）をご覧ください。", 2), ("(1日1GBまで)", 1))  # noqa: RUF001
    for words, gigabytes in limits:
        text = f"詳しくはhttps://example.jp/limits#nagoya{words}"
        assert limit(pool, published=day, text=text, month_bytes=gigabytes * GB).month_bytes == gigabytes * GB
    other = "詳しくはhttps://EXAMPLE.jp/limits/#top(1日1GBまで)"
    assert "stricter" in refusal(partial(limit, pool, published=day, text=other, month_bytes=GB - 1)).text


def test_an_exemption_has_a_reason_and_an_end_that_comes(pool: OperatorClient) -> None:
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    for until_ms, reason, word in (
        (now_ms + 1_000_000, "  ", "is not blank"),
        (now_ms + 1_000_000, "\u200d", "is not blank"),
        (now_ms + 1_000_000, " \ufe0f\u0301", "is not blank"),
        (now_ms - 1_000_000, "a fault of ours", "until_ms is later than now"),
        (1 << 43, "a fault of ours", "below 8,796,093,022,208"),
    ):
        request = pb.ExemptSubscriberRequest(subscriber=HEAVY, until_ms=until_ms, reason=reason)
        assert word in refusal(partial(pool.subscribers.ExemptSubscriber, request)).text


def test_a_group_has_one_limit_and_25_gb_a_month_with_a_warning_is_what_is_meant(pool: OperatorClient) -> None:
    usual = inv.LimitRule(
        name="usual", action=inv.LIMIT_ACTION_NOTIFY, text=TEXT, published=str(datetime.now(UTC).date())
    )
    found = pool.inventory.DefineLimitRule(inv.DefineLimitRuleRequest(limit_rule=usual)).limit_rule
    assert (found.month_bytes, found.warn_permille) == (25 * GB, 800)
    error = refusal(lambda: limit(pool, name="another"))
    assert (error.reason, "Withdraw it" in error.text) == ("WRONG_STATE", True)
    found.withdrawn = True
    pool.inventory.DefineLimitRule(inv.DefineLimitRuleRequest(limit_rule=found))
    assert limit(pool, name="another", text="another", warn_permille=0).warn_permille == 0
    assert [each.withdrawn for each in pool.inventory.ListLimitRules(inv.ListLimitRulesRequest()).limit_rules] == [
        True,
        False,
    ]


def test_a_limit_warns_slows_is_told_and_an_exemption_lifts_it(serving: Serving, pool: OperatorClient) -> None:
    limit(pool)
    with Client(serving.address, access_server="as-01") as client:
        epoch = lease(client)
        assert report(client, epoch, 79 * MB) == 0
        assert report(client, epoch, 80 * MB) == 0
        assert report(client, epoch, 101 * MB) == 128
        until_ms = round(datetime.now(UTC).timestamp() * 1000) + 3_600_000
        request = pb.ExemptSubscriberRequest(subscriber=HEAVY, until_ms=until_ms, reason="a fault of ours")
        exemption = pool.subscribers.ExemptSubscriber(request).exemption
        assert (exemption.until_ms, exemption.actor) == (until_ms, "operator:local")
        assert report(client, epoch, 102 * MB) == 0
        assert pool.subscribers.ListExemptions(pb.ListExemptionsRequest()).exemptions == [exemption]
        pool.subscribers.EndExemption(pb.EndExemptionRequest(subscriber=HEAVY))
        assert report(client, epoch, 103 * MB) == 128
    steps = [(event.kind, event.limit_step, event.exempt) for event in told(pool)]
    of_limit, of_exemption = event_pb2.EVENT_KIND_LIMIT, event_pb2.EVENT_KIND_EXEMPT
    assert steps == [
        (of_limit, event_pb2.LIMIT_STEP_WARNED, False),
        (of_limit, event_pb2.LIMIT_STEP_SLOWED, False),
        (of_exemption, 0, True),
        (of_limit, event_pb2.LIMIT_STEP_LIFTED, False),
        (of_exemption, 0, False),
        (of_limit, event_pb2.LIMIT_STEP_SLOWED, False),
    ]
    slowed = told(pool)[1]
    assert (slowed.subscriber, slowed.terminal, slowed.access_server) == (HEAVY, 1, "as-01")
    assert (slowed.limit_rule, slowed.used_bytes, slowed.quota_bytes) == ("fair use", 101 * MB, 100 * MB)
    assert (slowed.slow_kbps, slowed.of_day) == (128, False)


def test_whoever_keeps_holdings_finds_there_whom_to_slow(serving: Serving, pool: OperatorClient) -> None:
    """By a call's answer, by a session's, and by a lease that begins when the limit is reached already."""
    limit(pool)
    holdings = Holdings()
    exempt = pb.ExemptSubscriberRequest(
        subscriber=HEAVY, until_ms=round(datetime.now(UTC).timestamp() * 1000) + 3_600_000, reason="a fault of ours"
    )

    def slow_kbps(terminal: int = 1) -> int:
        held = holdings.get(terminal)
        assert held is not None
        return held.slow_kbps

    with (
        Client(serving.address, access_server="as-01", holdings=holdings) as client,
        SessionThread(serving.address, "as-01", lambda _: Result.DONE, holdings=holdings) as session,
    ):
        session.serving(20)
        epoch = lease(client)
        client.report_usage([1], [epoch], 0, [79 * MB])
        assert slow_kbps() == 0
        client.report_usage([1], [epoch], 0, [101 * MB])
        assert slow_kbps() == 128
        pool.subscribers.ExemptSubscriber(exempt)
        assert session.report_usage([1], [epoch], 0, [102 * MB]).tolist() == [layout.OK]
        assert slow_kbps() == 0
        pool.subscribers.EndExemption(pb.EndExemptionRequest(subscriber=HEAVY))
        session.report_usage([1], [epoch], 0, [103 * MB])
        assert slow_kbps() == 128
        # Who renews and reports nothing learns it too.
        pool.subscribers.ExemptSubscriber(exempt)
        assert client.renew([1], [epoch]).slow_kbps.tolist() == [slow_kbps()] == [0]
        pool.subscribers.EndExemption(pb.EndExemptionRequest(subscriber=HEAVY))
        assert client.renew([1], [epoch]).slow_kbps.tolist() == [slow_kbps()] == [128]
        client.release([1], [epoch])
        lease(client)
        assert slow_kbps() == 128
        lease(client, terminal=2)
        assert slow_kbps(2) == 128


def test_a_limit_that_refuses_says_when_it_ends(serving: Serving, pool: OperatorClient) -> None:
    limit(pool, action=inv.LIMIT_ACTION_REFUSE, slow_kbps=0, day_bytes=10 * MB)
    with Client(serving.address, access_server="as-01") as client:
        epoch = lease(client)
        assert client.report_usage([1], [epoch], [0], [11 * MB]).tolist() == [layout.OK]
        assert client.renew([1], [epoch]).status.tolist() == [layout.LIMIT_REACHED]
        with pytest.raises(ServiceError) as refused:
            lease(client)
        assert refused.value.reason == "LIMIT_REACHED"
        now = datetime.now(UTC)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        assert abs(refused.value.retry_after_ms / 1000 - (midnight - now).total_seconds()) < 30
        many = client.allocate_many([1, 2], "jp", subscribers=[HEAVY, HEAVY + 1])
        assert many.status.tolist() == [layout.LIMIT_REACHED, layout.OK]
        found = pool.subscribers.GetSubscriber(pb.GetSubscriberRequest(subscriber=HEAVY))
        assert (found.action, found.ends_ms) == (inv.LIMIT_ACTION_REFUSE, round(midnight.timestamp() * 1000))
        # Her brand has another limit: it holds from her next allocation on.
        pool.inventory.DefineSubscriberGroup(
            inv.DefineSubscriberGroupRequest(subscriber_group=inv.SubscriberGroup(name="brand", priority=2))
        )
        limit(pool, name="brand", subscriber_group="brand", action=inv.LIMIT_ACTION_NOTIFY, slow_kbps=0)
        assert lease(client, group="brand") == epoch


def test_each_person_is_told_rule_text_day_figures_and_what_was_done(serving: Serving, pool: OperatorClient) -> None:
    limit(pool)
    first = pool.subscribers.GetSubscriber(pb.GetSubscriberRequest(subscriber=HEAVY))
    assert (first.month_bytes, first.rule.text, len(first.taken)) == (0, TEXT, 0)
    assert "no history yet" in first.history_missing
    with Client(serving.address, access_server="as-01") as client:
        epoch = lease(client)
        report(client, epoch, 90 * MB)
        report(client, epoch, 110 * MB)
        # The rule changes, which is told at once; what was done before still shows the one that held.
        limit(pool, month_bytes=500 * MB, text="The new terms")
        report(client, epoch, 120 * MB)
    request = pb.ExemptSubscriberRequest(subscriber=HEAVY, until_ms=2**42, reason="a promise")
    pool.subscribers.ExemptSubscriber(request)
    settings = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9)
    following = Follower(RealDisk(serving.folder), settings=settings, readers=[lambda: Projector(serving.folder)])
    following.finish(read_on=True)
    following.close()
    found = pool.subscribers.GetSubscriber(pb.GetSubscriberRequest(subscriber=HEAVY))
    assert (found.rule.month_bytes, found.rule.text) == (500 * MB, "The new terms")
    assert (found.day_bytes, found.month_bytes, found.action) == (120 * MB, 120 * MB, 0)
    today = str(np.datetime64("today", "D"))
    assert [(use.span, use.bytes) for use in found.days] == [(today, 120 * MB)]
    assert [(use.span, use.bytes) for use in found.months] == [(today[:7], 120 * MB)]
    assert [(each.step, each.used_bytes, each.limit_bytes, each.rule.text) for each in found.taken] == [
        (event_pb2.LIMIT_STEP_LIFTED, 110 * MB, 500 * MB, "The new terms"),
        (event_pb2.LIMIT_STEP_SLOWED, 110 * MB, 100 * MB, TEXT),
        (event_pb2.LIMIT_STEP_WARNED, 90 * MB, 100 * MB, TEXT),
    ]
    assert [(each.reason, each.actor) for each in found.exemptions] == [("a promise", "operator:local")]
    assert (found.exemption.reason, found.history_missing) == ("a promise", "")
    assert found.history_ms > 0
