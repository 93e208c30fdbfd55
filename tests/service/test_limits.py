"""Published limits and exemptions over a real socket: refused, slowed, told, and explained to the person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest
from simswitch.client import Client, Holdings, OperatorClient, Result, ServiceError, SessionThread
from simswitch.core import layout
from simswitch.history.projector import Projector
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.service import definitions
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
    assert "stricter" in refusal(lambda: limit(pool, published=earlier, text="other", month_bytes=99 * MB)).text
    # A withdrawn one was published too.
    limit(pool, published=then, withdrawn=True)
    assert "stricter" in refusal(lambda: limit(pool, published=then, month_bytes=99 * MB)).text
    assert limit(pool, published=then, month_bytes=101 * MB, slow_kbps=200).slow_kbps == 200
    assert limit(pool, published=then, text="other", month_bytes=99 * MB).month_bytes == 99 * MB
    assert limit(pool, published=str(today), text="other", month_bytes=98 * MB).month_bytes == 98 * MB


def test_another_name_or_a_blank_publishes_no_stricter_limit(pool: OperatorClient) -> None:
    """Not of whom it touches: those of its group, and of all others where either is for them."""
    for name in ("second", "third"):
        group = inv.SubscriberGroup(name=name, priority=1)
        pool.inventory.DefineSubscriberGroup(inv.DefineSubscriberGroupRequest(subscriber_group=group))
    today = str(datetime.now(UTC).date())
    earlier = str(datetime.now(UTC).date() - timedelta(days=1))
    words = "A month has\n100 MB"
    assert limit(pool, published=today, text=f"  {words} ").text == words, "kept as it was said, without blanks around"
    limit(pool, published=today, text=words, withdrawn=True)
    less = {"name": "another", "month_bytes": 99 * MB}
    for text in (words, f" {words} ", "A month  has 100 MB"):
        for name in ("", "second"):
            define = partial(limit, pool, published=today, text=text, subscriber_group=name, **less)
            assert "the limit 'fair use'" in refusal(define).text
    assert "stricter" in refusal(partial(limit, pool, published=earlier, text="older", **less)).text
    assert limit(pool, published=today, text=words, name="second's", subscriber_group="second").month_bytes == 100 * MB
    assert limit(pool, published=earlier, text="older", subscriber_group="third", **less).month_bytes == 99 * MB
    assert limit(pool, published=today, text="other", name="now", month_bytes=98 * MB).month_bytes == 98 * MB


def test_neither_a_laxer_text_in_between_nor_another_spelling_of_its_url_publishes_a_stricter_limit(
    pool: OperatorClient,
) -> None:
    today = datetime.now(UTC).date()
    day, earlier = str(today), str(today - timedelta(days=1))
    for between in (day, earlier):
        limit(pool, published=day, text="A")
        limit(pool, published=between, text="B", month_bytes=200 * MB)
        assert "stricter" in refusal(partial(limit, pool, published=day, text="A", month_bytes=99 * MB)).text
        other = {"name": "another", "subscriber_group": "", "month_bytes": 99 * MB}
        limit(pool, published=between, text="B", month_bytes=200 * MB, withdrawn=True)
        assert "stricter" in refusal(partial(limit, pool, published=day, text="A", **other)).text
        limit(pool, published=day, text=f"new after {between}")
    url = "See https://Example.net/Limits/ for it"
    found = limit(pool, published=day, text=url)
    again = inv.DefineLimitRuleRequest(limit_rule=rule(published=day, text=url))
    assert pool.inventory.DefineLimitRule(again).limit_rule == found
    assert (found.text, len(found.told_before)) == (url, 4)
    for spelling in (
        "See HTTPS://example.NET/Limits for it",
        "See https://example.net/Limits//  for it",
        "See https://example.net:443/Limits for it",
        "See https://example.net/Limits#2 for it",
        "See https://example.net/Limits? for it",
    ):
        assert "stricter" in refusal(partial(limit, pool, published=day, text=spelling, month_bytes=99 * MB)).text
    other_url = "See https://example.net/limits for it"
    assert limit(pool, published=day, text=other_url, month_bytes=99 * MB).month_bytes == 99 * MB


def test_two_texts_that_take_turns_push_no_third_one_out(pool: OperatorClient) -> None:
    day = str(datetime.now(UTC).date())
    limit(pool, published=day, text="A")
    for turn in range(10):
        found = limit(pool, published=day, text=("B", "C")[turn % 2], month_bytes=(200 + turn) * MB)
    assert len(found.told_before) == 2
    assert "stricter" in refusal(partial(limit, pool, published=day, text="A", month_bytes=99 * MB)).text


def test_a_text_that_was_told_is_not_new_on_an_earlier_day_either(pool: OperatorClient) -> None:
    today = datetime.now(UTC).date()
    day, between, before = (str(today - timedelta(days=days)) for days in range(3))
    limit(pool, published=day, text="A")
    limit(pool, published=before, text="B", month_bytes=200 * MB)
    assert "stricter" in refusal(partial(limit, pool, published=between, text="A", month_bytes=99 * MB)).text
    # It is remembered with its last day, also when it is said again with an earlier one.
    limit(pool, published=between, text="A", month_bytes=300 * MB)
    limit(pool, published=before, text="B", month_bytes=400 * MB)
    assert "stricter" in refusal(partial(limit, pool, published=day, text="A", month_bytes=99 * MB)).text


def test_many_laxer_texts_make_no_new_one_of_a_text_of_that_day(pool: OperatorClient) -> None:
    today = datetime.now(UTC).date()
    day, earlier = str(today), str(today - timedelta(days=1))
    limit(pool, published=earlier, text="before")
    for turn in range(definitions.TOLD_MAX):
        limit(pool, published=day, text=f"text {turn}")
    found = limit(pool, published=day, text="the last")
    assert len(found.told_before) == definitions.TOLD_MAX
    for published in (day, earlier):
        error = refusal(partial(limit, pool, published=published, text="one more", month_bytes=200 * MB))
        assert "publish this one on a later day" in error.text
    assert "stricter" in refusal(partial(limit, pool, published=day, text="text 0", month_bytes=99 * MB)).text


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
