"""``simswitch subscriber``: everything about one person, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_text, instant_text
from simswitch.cli.limit import EXEMPTION, SUBSCRIBER_MAX, exemption_row, rule_text
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show, table

_STEPS = {
    "warned": "warned",
    "passed": "limit reached, told",
    "slowed": "limit reached, slowed",
    "refused": "limit reached, refused",
    "lifted": "lifted",
}


def subscriber(
    number: Annotated[int, typer.Argument(help="The subscriber's number.", min=1, max=SUBSCRIBER_MAX)],
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Explain a subscriber: what was used, and which limit holds.

    The limit as it was published, what it did when, and exemptions with who gave them and why.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.v1 import subscriber_pb2

    with connected(*target(config, address, actor)) as service:
        request = subscriber_pb2.GetSubscriberRequest(subscriber=number)
        found = plain(service.subscribers.GetSubscriber(request, timeout=CALL_TIMEOUT_S))
    if json:
        print_json(found)
        return
    show(f"Subscriber {number}" + (f", of the group {found['subscriber_group']}" if found["subscriber_group"] else ""))
    show(f"Used on {found['day']}: {bytes_text(found['day_bytes'])}; in its month: {bytes_text(found['month_bytes'])}")
    _show_rule(found)
    if not (found["month_bytes"] or found["months"] or found["taken"] or found["exemptions"]):
        show("No use, limit or exemption of this subscriber is known.")
    if found["taken"]:
        show(table("What limits did", ["when", "step", "used", "limit", "rule", "published"], _taken(found)))
    if found["exemptions"]:
        show(table("Exemptions", ["subscriber", *EXEMPTION], [exemption_row(each) for each in found["exemptions"]]))
    for title, entries in (("By month", found["months"]), ("By day", found["days"])):
        if entries:
            rows = [[each["span"], bytes_text(each["bytes"])] for each in entries]
            show(table(title, ["", "used"], rows))
    missing = found["history_missing"]
    show(f"History: {missing}" if missing else f"History is as of {instant_text(found['history_ms'])}.")


def _show_rule(found: dict[str, Any]) -> None:
    rule, exemption = found["rule"], found["exemption"]
    if rule is None:
        show("No limit holds.")
        return
    show(f"Limit {rule['name']}: {rule_text(rule)}")
    show(f"Its text: {rule['text']}")
    if exemption is not None:
        until = instant_text(exemption["until_ms"])
        show(f"It does not touch this subscriber until {until}: {exemption['reason']} ({exemption['actor']})")
    elif found["action"]:
        show(f"It is reached: {found['action']}, until {instant_text(found['ends_ms'])}.")
    else:
        show("It is not reached.")


def _taken(found: dict[str, Any]) -> list[list[str]]:
    return [
        [
            instant_text(each["at_ms"]),
            _STEPS.get(each["step"], each["step"]),
            f"{bytes_text(each['used_bytes'])} in the {'day' if each['of_day'] else 'month'}",
            bytes_text(each["limit_bytes"]) if each["limit_bytes"] else "",
            each["rule"]["name"] if each["rule"] else "",
            each["rule"]["published"] if each["rule"] else "",
        ]
        for each in found["taken"]
    ]
