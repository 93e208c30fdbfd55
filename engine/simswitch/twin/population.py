"""Draws the terminals' lives of a scenario: who is on when, who uses how much. The same for every policy.

All randomness of a replay is drawn here, before it begins, from generators that are spawned from the scenario's seed,
one a purpose: so adding an event does not change the terminals. Vectorised; O(sessions × log sessions) for the sorting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simswitch.twin.scenario import AccessServers, Scenario, Slow, Terminals

SECOND_NS = 1_000_000_000
DRAWS_COUNT = 1 << 16
# Between two sessions of a terminal, so that it has left before it comes back.
GAP_NS = 60 * SECOND_NS

Column = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Everything that the event loop is told before it begins. Instants in nanoseconds from the scenario's start."""

    quantum_ns: int
    end_ns: int
    load_interval_ns: int
    sims_count: int
    terminal_server: npt.NDArray[np.uint32]
    terminal_market: npt.NDArray[np.uint32]
    """Entity index of the market."""
    terminal_bytes_per_s: Column
    terminal_report_ns: Column
    session_on_ns: Column
    """Ascending."""
    session_off_ns: Column
    session_terminal: npt.NDArray[np.uint32]
    on_at_start: npt.NDArray[np.uint32]
    on_at_start_off_ns: Column
    service_ns: list[int]
    timeout_ns: list[int]
    pause_ns: list[int]
    outage_ns: list[int]
    outage_spread_ns: list[int]
    refused_below: list[int]
    """Of 2**32."""
    busy_above: list[int]
    """-1: never busy."""
    asks_first: list[bool]
    draws: npt.NDArray[np.uint32]
    """For outages and refusals."""
    first_sim: dict[str, tuple[int, int]]
    """Of each lot: its first SIM, and how many."""
    slowed: list[npt.NDArray[np.uint32]]
    """The SIMs of each slow event, in the order of the scenario's events."""


def nanoseconds(seconds: float) -> int:
    return round(seconds * SECOND_NS)


def service_ns(operations_per_s: float) -> int:
    return max(round(SECOND_NS / operations_per_s), 1)


def purposes(scenario: Scenario) -> list[np.random.SeedSequence]:
    """What randomness is for: terminals, events, switches, the engine's seeds. A new purpose is appended."""
    return np.random.SeedSequence(scenario.seed).spawn(4)


def engine_seeds(scenario: Scenario) -> list[int]:
    """The seeds of the engine's commands, used in turn."""
    drawn: list[int] = np.random.default_rng(purposes(scenario)[3]).integers(0, 2**63, 4096).tolist()
    return drawn


def _arrivals(group: Terminals, scenario: Scenario, random: np.random.Generator) -> Column:
    """The beginnings of all sessions of a group: one row a terminal, ascending within it."""
    shape = (group.count, group.sessions_count)
    begin, span = group.arrival_from_s, group.arrival_until_s - group.arrival_from_s
    if group.arrival == "uniform":
        seconds = begin + span * random.random(shape)
    elif group.arrival == "peak":
        seconds = random.triangular(begin, group.arrival_peak_s, group.arrival_until_s, shape)
    else:
        # The inverse of the summed density, tabulated by the minute.
        midnight = scenario.start.hour * 3600 + scenario.start.minute * 60 + scenario.start.second
        grid = np.linspace(begin, group.arrival_until_s, max(int(span / 60), 2) + 1)
        phase = 2 * np.pi * (midnight + grid - 16.5 * 3600) / 86400
        density = 1 + 0.8 * np.cos(phase)
        summed = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
        seconds = np.interp(random.random(shape) * summed[-1], summed, grid)
    arrivals: Column = np.sort((seconds * SECOND_NS).astype(np.int64), axis=1)
    return arrivals


def _lengths(group: Terminals, shape: tuple[int, ...], random: np.random.Generator) -> Column:
    return np.maximum(random.exponential(group.session_mean_s * SECOND_NS, shape), SECOND_NS).astype(np.int64)


def draw(scenario: Scenario, market_index: dict[str, int]) -> Plan:
    """Draws a scenario's terminals, sessions and events. ``market_index`` gives each market's entity index."""
    of_terminals, of_events, of_switches, _ = purposes(scenario)
    first_server: dict[str, tuple[int, int]] = {}
    servers: list[AccessServers] = []
    for group in scenario.access_servers:
        first_server[group.name] = (len(servers), group.count)
        servers += [group] * group.count

    columns: dict[str, list[npt.NDArray[np.int64]]] = {}
    first = 0
    for terminals, of_group in zip(scenario.terminals, of_terminals.spawn(len(scenario.terminals)), strict=True):
        random = np.random.default_rng(of_group)
        index = first + np.arange(terminals.count, dtype=np.int64)
        first += terminals.count
        server, count = first_server[terminals.access_servers]
        rate = terminals.bytes_per_hour / 3600 * np.exp(terminals.bytes_sigma * random.standard_normal(terminals.count))
        # No line carries more than 1 Gbit/s.
        rate = np.minimum(rate, 125_000_000)
        on_start = np.flatnonzero(random.random(terminals.count) < terminals.on_at_start_share)
        off_start = _lengths(terminals, on_start.shape, random)
        on = _arrivals(terminals, scenario, random)
        off = on + _lengths(terminals, on.shape, random)
        # A session ends before the next begins; one that would begin while the first is on falls away.
        off[:, :-1] = np.minimum(off[:, :-1], on[:, 1:] - GAP_NS)
        busy_until = np.zeros(terminals.count, np.int64)
        busy_until[on_start] = off_start + GAP_NS
        keep = (off - on >= SECOND_NS) & (on > busy_until[:, None])
        owner = np.broadcast_to(index[:, None], on.shape)
        for name, column in (
            ("server", server + np.arange(terminals.count, dtype=np.int64) % count),
            ("market", np.full(terminals.count, market_index[terminals.market], np.int64)),
            ("rate", np.rint(rate).astype(np.int64)),
            ("report", np.full(terminals.count, nanoseconds(terminals.report_interval_s), np.int64)),
            ("on_start", index[on_start]),
            ("off_start", off_start),
            ("on", on[keep]),
            ("off", off[keep]),
            ("owner", owner[keep]),
        ):
            columns.setdefault(name, []).append(column)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    order = np.argsort(joined["on"], kind="stable")

    slowed = []
    first_sim: dict[str, tuple[int, int]] = {}
    sims_count = 0
    for lot in scenario.lots:
        first_sim[lot.name] = (sims_count, lot.sims)
        sims_count += lot.sims
    slow_events = [event for event in scenario.events if isinstance(event, Slow)]
    for event, of_event in zip(slow_events, of_events.spawn(len(slow_events)), strict=True):
        begin, lot_sims = first_sim[event.lot]
        chosen = round((event.share or 0.0) * lot_sims) if event.count is None else event.count
        sims = np.random.default_rng(of_event).permutation(lot_sims)[:chosen]
        slowed.append(np.sort(begin + sims).astype(np.uint32))
    return Plan(
        quantum_ns=scenario.quantum_ms * 1_000_000,
        end_ns=nanoseconds(scenario.duration_s),
        load_interval_ns=SECOND_NS,
        sims_count=sims_count,
        terminal_server=joined["server"].astype(np.uint32),
        terminal_market=joined["market"].astype(np.uint32),
        terminal_bytes_per_s=joined["rate"],
        terminal_report_ns=joined["report"],
        session_on_ns=joined["on"][order],
        session_off_ns=joined["off"][order],
        session_terminal=joined["owner"][order].astype(np.uint32),
        on_at_start=joined["on_start"].astype(np.uint32),
        on_at_start_off_ns=joined["off_start"],
        service_ns=[service_ns(server.operations_per_s) for server in servers],
        timeout_ns=[nanoseconds(server.client_timeout_s) for server in servers],
        pause_ns=[nanoseconds(server.retry_pause_s) for server in servers],
        outage_ns=[nanoseconds(server.switch_outage_s) for server in servers],
        outage_spread_ns=[nanoseconds(server.switch_outage_spread_s) for server in servers],
        refused_below=[round(server.switch_refused_share * 2**32) for server in servers],
        busy_above=[-1 if server.busy_queue_operations is None else server.busy_queue_operations for server in servers],
        asks_first=[server.asks_first for server in servers],
        draws=np.random.default_rng(of_switches).integers(0, 2**32, DRAWS_COUNT, dtype=np.uint32),
        first_sim=first_sim,
        slowed=slowed,
    )
