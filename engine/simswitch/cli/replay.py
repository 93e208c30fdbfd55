"""``simswitch replay``: a scenario under a virtual clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.screen import complain, print_json, show, table

if TYPE_CHECKING:
    from rich.table import Table


def replay(
    scenario: Annotated[Path, typer.Argument(help="The scenario, a TOML file; or the name of one that is shipped.")],
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; - is standard output.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the policies beside each other into this PNG.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Only this policy of the scenario. May be repeated.")
    ] = None,
) -> None:
    """Replay a scenario with every policy that it names, and compare them."""
    from simswitch import twin

    path = scenario
    if not path.exists():
        shipped = Path(twin.__file__).parent / "scenarios" / f"{scenario.name.removesuffix('.toml')}.toml"
        if len(scenario.parts) != 1 or not shipped.exists():
            names = ", ".join(sorted(found.stem for found in shipped.parent.glob("*.toml")))
            raise CommandFailed(Exit.USAGE, f"there is no file {scenario}; scenarios that are shipped: {names}")
        path = shipped
    try:
        result = twin.replay(path, policies=policy)
    except twin.ScenarioError as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
    except twin.ReplayError as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    document = twin.document(result)
    if json is not None and str(json) == "-":
        print_json(document)
    else:
        show(comparison(document))
        if json is not None:
            _write(json, document)
            complain(f"figures: {json}")
    if plot is not None:
        try:
            twin.plot(result, plot)
        except ImportError as error:
            raise CommandFailed(Exit.REFUSED, "--plot needs matplotlib: install simswitch[plot]") from error
        complain(f"picture: {plot}")


def _write(path: Path, result: dict[str, object]) -> None:
    import json

    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, f"{path} can't be written: {error.strerror}") from error


ROWS = (
    ("allocations requested", "allocations_requested", ""),
    ("allocations failed", "allocations_failed", ""),
    ("wait for a SIM, median", "allocation_wait_p50_s", " s"),
    ("wait for a SIM, 99th percentile", "allocation_wait_p99_s", " s"),
    ("wait for a SIM, longest", "allocation_wait_max_s", " s"),
    ("switches done", "swaps_completed", ""),
    ("switches failed", "swaps_failed", ""),
    ("most orders outstanding, one server", "swaps_in_flight_max", ""),
    ("most orders outstanding, all", "swaps_in_flight_total_max", ""),
    ("over after", "swaps_finished_s", " s"),
    ("outage, terminals x seconds", "outage_user_seconds", " s"),
)
"""The lines of the comparison: words, key, unit."""


def comparison(result: dict[str, object], titles: dict[str, str] | None = None) -> Table:
    """The policies of a result beside each other."""
    policies = result["policies"]
    assert isinstance(policies, dict)
    rows = [[words, *(_figure(figures.get(key), unit) for figures in policies.values())] for words, key, unit in ROWS]
    names: list[str] = [(titles or {}).get(str(name), str(name)) for name in policies]
    return table(str(result["scenario"]), ["", *names], rows)


def _figure(value: object, unit: str) -> str:
    if value is None:
        return "not finished"
    if isinstance(value, float):
        return f"{value:,.3f}{unit}" if value < 10 else f"{value:,.1f}{unit}"
    return f"{value:,}{unit}" if isinstance(value, int) else str(value)
