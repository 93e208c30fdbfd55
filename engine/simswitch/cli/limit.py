"""``simswitch limit``: published limits on what subscribers may use, and who is exempt from them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_of, bytes_text, instant_ms, instant_text, share_ppm
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show, table

app = typer.Typer(
    help="Limits on what subscribers may use, as published, and who is exempt.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SUBSCRIBER_MAX = (1 << 64) - 1
Name = Annotated[str, typer.Argument(help="The limit's name.")]
Who = Annotated[int, typer.Argument(help="The subscriber's number.", min=1, max=SUBSCRIBER_MAX)]


class Action(StrEnum):
    """What follows when a limit is reached."""

    NOTIFY = "notify"
    SLOW = "slow"
    REFUSE = "refuse"


@app.command("set")
def set_limit(
    name: Name,
    text: Annotated[str, typer.Option("--text", help="The text as published, or its URL.")],
    published: Annotated[str, typer.Option("--published", help="The day of publication, such as 2026-11-01.")],
    action: Annotated[Action, typer.Option("--action", help="What follows when it is reached.")],
    month: Annotated[str, typer.Option("--month", help="In a month, such as 25GB. Default without --day: 25GB.")] = "",
    day: Annotated[str, typer.Option("--day", help="In a day, such as 3GB.")] = "",
    warn: Annotated[str, typer.Option("--warn", help="The share at which is warned; 0: it is not.")] = "80%",
    slow_kbps: Annotated[int, typer.Option("--slow-kbps", help="With --action slow: the speed, kbit/s.", min=0)] = 0,
    group: Annotated[str, typer.Option("--group", help="Only for this subscriber group.")] = "",
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Set a limit, or replace it. It has to be published: without a text, or before its day, it is refused."""
    from simswitch.v1 import inventory_pb2

    rule = inventory_pb2.LimitRule(
        name=name,
        subscriber_group=group,
        month_bytes=bytes_of("--month", month) if month else None,
        day_bytes=bytes_of("--day", day) if day else None,
        warn_permille=share_ppm("--warn", warn) // 1_000,
        action=inventory_pb2.LimitAction.Value(f"LIMIT_ACTION_{action.name}"),
        slow_kbps=slow_kbps,
        text=text,
        published=published,
    )
    _define(rule, target(config, address, actor), json)


@app.command("withdraw")
def withdraw(
    name: Name,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Let a limit hold no more. Whom it touches is free of it when it is next met."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S
    from simswitch.v1 import inventory_pb2

    where = target(config, address, actor)
    with connected(*where) as service:
        request = inventory_pb2.GetLimitRuleRequest(name=name)
        rule = service.inventory.GetLimitRule(request, timeout=CALL_TIMEOUT_S).limit_rule
    rule.withdrawn = True
    _define(rule, where, json)


def _define(rule: Any, where: Any, json: bool) -> None:
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.v1 import inventory_pb2

    with connected(*where) as service:
        request = inventory_pb2.DefineLimitRuleRequest(limit_rule=rule)
        found = plain(service.inventory.DefineLimitRule(request, timeout=CALL_TIMEOUT_S).limit_rule)
    if json:
        print_json(found)
    else:
        show(f"{found['name']}: {rule_text(found)}")


@app.command("list")
def list_limits(
    address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show all limits, withdrawn ones too."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import inventory_pb2

    with connected(*target(config, address, actor)) as service:
        request = inventory_pb2.ListLimitRulesRequest
        found = [plain(rule) for rule in pages(service.inventory.ListLimitRules, request, "limit_rules")]
    if json:
        print_json({"limits": found})
        return
    rows = [[each["name"], each["subscriber_group"] or "all others", rule_text(each), each["text"]] for each in found]
    show(
        table("Limits", ["name", "group", "limit", "text"], rows)
        if rows
        else "There is no limit: `simswitch limit set` publishes one."
    )


@app.command("exempt")
def exempt(
    subscriber: Who,
    until: Annotated[str, typer.Option("--until", help="When it ends: 30d, or such as 2026-12-01T00:00+09:00.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, up to 64 bytes. It is kept, with who said so.")],
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make a subscriber exempt from all limits until an instant."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.service.subscribers import UNTIL_MS_MAX
    from simswitch.v1 import subscriber_pb2

    now = datetime.now().astimezone()
    until_ms = instant_ms("--until", until, now)
    if until_ms <= now.timestamp() * 1000:
        raise CommandFailed(Exit.USAGE, f"--until: {instant_text(until_ms)} is past; say when it is to end")
    if until_ms >= UNTIL_MS_MAX:
        raise CommandFailed(Exit.USAGE, f"--until: {instant_text(until_ms)} is too far ahead; an exemption has an end")
    request = subscriber_pb2.ExemptSubscriberRequest(subscriber=subscriber, until_ms=until_ms, reason=reason)
    with connected(*target(config, address, actor)) as service:
        found = plain(service.subscribers.ExemptSubscriber(request, timeout=CALL_TIMEOUT_S).exemption)
    if json:
        print_json(found)
    else:
        show(f"Subscriber {subscriber} is exempt until {instant_text(found['until_ms'])}: {found['reason']}")


@app.command("end-exemption")
def end_exemption(
    subscriber: Who,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """End an exemption now. By itself it ends at its instant."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S
    from simswitch.v1 import status_pb2, subscriber_pb2

    with connected(*target(config, address, actor)) as service:
        request = subscriber_pb2.EndExemptionRequest(subscriber=subscriber)
        status = service.subscribers.EndExemption(request, timeout=CALL_TIMEOUT_S).status
    if status == status_pb2.STATUS_SAME:
        raise CommandFailed(Exit.REFUSED, f"subscriber {subscriber} is not exempt: see `simswitch limit exemptions`")
    if json:
        print_json({"subscriber": subscriber, "status": "ok"})
    else:
        show(f"Subscriber {subscriber} is no longer exempt.")


@app.command("exemptions")
def exemptions(
    address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show who is exempt now. The past is in history: `simswitch history FOLDER exemptions`."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import subscriber_pb2

    with connected(*target(config, address, actor)) as service:
        request = subscriber_pb2.ListExemptionsRequest
        found = [plain(each) for each in pages(service.subscribers.ListExemptions, request, "exemptions")]
    if json:
        print_json({"exemptions": found})
        return
    rows = [exemption_row(each) for each in found]
    show(table("Exempt", ["subscriber", *EXEMPTION], rows) if rows else "Nobody is exempt.")


EXEMPTION = ["since", "until", "by", "reason"]


def exemption_row(each: dict[str, Any]) -> list[str]:
    return [
        str(each["subscriber"]),
        instant_text(each["since_ms"]),
        instant_text(each["until_ms"]),
        each["actor"],
        each["reason"],
    ]


def rule_text(rule: dict[str, Any]) -> str:
    """A limit in words."""
    amounts = [
        f"{bytes_text(rule[field])} a {span}"
        for field, span in (("month_bytes", "month"), ("day_bytes", "day"))
        if rule[field] is not None
    ]
    warned = f", warned at {rule['warn_permille'] / 10:g} %" if rule["warn_permille"] else ", not warned"
    to_speed = f" to {rule['slow_kbps']:,} kbit/s" if rule["slow_kbps"] else ""
    state = "; withdrawn" if rule["withdrawn"] else ""
    return f"{' and '.join(amounts)}{warned}, then {rule['action']}{to_speed}; published {rule['published']}{state}"
