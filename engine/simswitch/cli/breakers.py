"""``simswitch breakers``: where swaps fail."""

from __future__ import annotations

from simswitch.cli.amounts import instant_text
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, show, table


def breakers(
    address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show where swaps fail, and whether more are sent.

    Of banks, lots, classes, carriers and access servers.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.v1 import pool_pb2

    with connected(*target(config, address, actor)) as service:
        response = service.pool.ListBreakers(pool_pb2.ListBreakersRequest(), timeout=CALL_TIMEOUT_S)
        found = [plain(breaker) for breaker in response.breakers]
    if json:
        print_json({"breakers": found})
        return
    if not found:
        show("No circuit breaker is open, and no swap failed lately.")
        return
    rows = [
        [
            each["of"].replace("_", " "),
            each["name"],
            each["state"].replace("_", " "),
            f"{each['failures_count']:,} of {each['failures_count'] + each['successes_count']:,}",
            instant_text(each["changed_ms"]) if each["changed_ms"] else "",
            instant_text(each["retry_ms"]) if each["retry_ms"] else "",
        ]
        for each in found
    ]
    show(table("Circuit breakers", ["of", "name", "state", "failed lately", "since", "tried again"], rows))
