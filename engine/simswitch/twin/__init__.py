"""The twin: the same engine under a virtual clock, with simulated terminals, access servers and carriers.

``replay(scenario_path)`` gives the figures of each policy, ``document`` what of it is published as JSON, ``plot`` and
``plot_servers`` the pictures; ``record`` writes a history. A file is a scenario, event by event
(``simswitch.twin.scenario`` has the schema), or a month, hour by hour (``simswitch.twin.month``); ``scenarios/`` has
those that are shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from simswitch.twin import month as months
from simswitch.twin.plot import plot, plot_servers
from simswitch.twin.replay import Progress, ReplayError, document, record_scenario, replay_scenario
from simswitch.twin.scenario import ScenarioError, load

__all__ = ["ReplayError", "ScenarioError", "document", "plot", "plot_servers", "record", "replay"]


def replay(
    scenario_path: str | Path, policies: Iterable[str] | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Replays a file, once per policy; ``policies`` overrides those that it names.

    ``progress`` is called with the policy and the share of it that is done. The result has the keys of the published
    JSON (``document``), and what ``plot`` draws: ``series`` per policy, ``servers`` per access server. ``state_hash``
    is that of the machine of the policy engine (of a month: learned), or of the last policy's when that is not among
    them, as 16 hexadecimal digits. Raises ``ScenarioError`` and ``ReplayError``.
    """
    month = months.load(scenario_path)
    if month is not None:
        return months.replay(month, policies, progress)
    return replay_scenario(load(scenario_path), policies, progress)


def record(
    scenario_path: str | Path, policy: str, folder: Path, said: Callable[[str], object] = lambda _: None
) -> dict[str, dict[str, int | float | None]]:
    """Replays a scenario on each of its dates, or a month, and writes a history of it.

    Returns the figures of each date (of a month: the first), and says when one is over. Raises ``ScenarioError``,
    ``ReplayError`` and ``HistoryRefused``.
    """
    month = months.load(scenario_path)
    if month is None:
        return record_scenario(load(scenario_path), policy, folder, said)
    figures = {f"{month.start:%Y-%m-%d}": months.record(month, policy, folder)}
    said(f"the month of {month.start:%Y-%m-%d}")
    return figures
