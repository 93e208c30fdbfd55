"""``simswitch replay``: a scenario under a virtual clock."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.screen import Table, complain, print_json, show, table

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Those of glibc's ``malloc.h``."""


def replay(
    scenario: Annotated[
        Path | None, typer.Argument(help="The scenario, a TOML file; or the name of one that is shipped.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; - is standard output.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the policies beside each other into this PNG.")
    ] = None,
    plot_servers: Annotated[
        Path | None,
        typer.Option("--plot-servers", help="Draw orders and waits of access servers into this PNG."),
    ] = None,
    list_shipped: Annotated[bool, typer.Option("--list", help="List the scenarios that are shipped.")] = False,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Only this policy of the scenario. May be repeated.")
    ] = None,
) -> None:
    """Replay a scenario with every policy that it names, and compare them."""
    from simswitch import twin

    if list_shipped:
        rows = [[name, _about(path)] for name, path in shipped().items()]
        show(table("scenarios", ["name", "what it shows"], rows))
        return
    if scenario is None:
        raise CommandFailed(Exit.USAGE, f"which scenario? A file, or one that is shipped: {', '.join(shipped())}")
    path = scenario_file(scenario)
    _keep_freed_memory()
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
    for option, draw, picture in (("--plot", twin.plot, plot), ("--plot-servers", twin.plot_servers, plot_servers)):
        if picture is None:
            continue
        try:
            draw(result, picture)
        except ImportError as error:
            raise CommandFailed(Exit.REFUSED, f"{option} needs matplotlib: install simswitch[plot]") from error
        except ValueError as error:
            raise CommandFailed(Exit.USAGE, str(error)) from error
        complain(f"picture: {picture}")


def _keep_freed_memory() -> None:
    """A month takes and frees the columns of each hour: that glibc gives them back each time costs a fifth of it."""
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)


def shipped() -> dict[str, Path]:
    """The scenarios that come with the program, by name."""
    from simswitch import twin

    return {found.stem: found for found in sorted((Path(twin.__file__).parent / "scenarios").glob("*.toml"))}


def scenario_file(scenario: Path) -> Path:
    """The file that was named, or the shipped one of that name."""
    if scenario.exists():
        return scenario
    name = scenario.name.removesuffix(".toml")
    if len(scenario.parts) != 1 or name not in shipped():
        raise CommandFailed(Exit.USAGE, f"there is no file {scenario}; shipped are {', '.join(shipped())}")
    return shipped()[name]


def _about(path: Path) -> str:
    """The first sentence of a scenario's opening comment."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines).split(". ")[0].rstrip(".")


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
MONTH_ROWS = (
    ("usage reports", "usage_reports", ""),
    ("SIMs handed out", "handed_out", ""),
    ("of them slowed", "handed_out_slowed", ""),
    ("allocations refused", "allocations_refused", ""),
    ("switches done", "swaps_completed", ""),
    ("hours of terminals on slowed SIMs", "slowed_terminal_hours", ""),
    ("share of what was wanted that did not come", "wanted_bytes_not_got_share", ""),
    ("our count of a cycle, off the carrier's by", "count_error_share", ""),
    ("carriers' figures taken", "carrier_figures", ""),
    ("of a cycle that was over, set aside", "carrier_figures_set_aside", ""),
    ("SIMs found slowed", "throttle_decisions", ""),
    ("of them wrongly", "throttle_decisions_false", ""),
)
"""The same of a month."""


def comparison(result: dict[str, object], titles: dict[str, str] | None = None) -> Table:
    """The policies of a result beside each other."""
    policies = result["policies"]
    assert isinstance(policies, dict)
    month = any("handed_out" in figures for figures in policies.values())
    rows = [
        [words, *(_figure(figures.get(key), unit, "-" if month else "not finished") for figures in policies.values())]
        for words, key, unit in (MONTH_ROWS if month else ROWS)
        # What a month doesn't have, such as carriers' figures, has no line.
        if not month or any(figures.get(key) is not None for figures in policies.values())
    ]
    names: list[str] = [(titles or {}).get(str(name), str(name)) for name in policies]
    return table(str(result["scenario"]), ["", *names], rows)


def _figure(value: object, unit: str, nothing: str) -> object:
    if value is None:
        return nothing
    if isinstance(value, float):
        return f"{value:,.3f}{unit}" if value < 10 else f"{value:,.1f}{unit}"
    return f"{value:,}{unit}" if isinstance(value, int) and unit else value
