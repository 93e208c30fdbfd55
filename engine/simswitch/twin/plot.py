"""Draws a replay: the policies side by side over time, and each access server as the engine saw it; a month's caps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simswitch.core import layout

# Distinguishable without colour vision, and by their line styles in grey.
_STYLES = {
    "unbounded": ("#c0392b", "-", "unbounded: all at once"),
    "fixed": ("#d68910", "--", "fixed: so many, a pause, the next"),
    "engine": ("#1f618d", "-", "through the engine"),
    "none": ("#7f8c8d", ":", "none: nobody is switched"),
}
_PANELS = (
    ("failed_per_s", "failed allocations\nper second", "symlog"),
    ("wait_max_s", "longest wait for\nan allocation, s", "linear"),
    ("in_flight_worst", "orders outstanding,\nworst access server", "symlog"),
    ("well_share", "terminals that are on with a\nline at full speed, share", "linear"),
)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot(result: dict[str, Any], path: str | Path) -> None:
    """Writes the picture of what ``replay`` returned as PNG."""
    if result.get("kind") == "month":
        _plot_month(result, path)
        return
    pyplot = _pyplot()
    series = result["series"]
    figure, panels = pyplot.subplots(len(_PANELS), 1, sharex=True, figsize=(11, 11), layout="constrained")
    for axes, (name, label, scale) in zip(panels, _PANELS, strict=True):
        for policy, columns in series.items():
            colour, line, title = _STYLES.get(policy, ("#555555", "-", policy))
            minutes = [at_s / 60 for at_s in columns["at_s"]]
            axes.plot(minutes, columns[name], line, color=colour, label=title, linewidth=1.5)
        axes.set_ylabel(label)
        if scale == "symlog":
            axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        if name == "in_flight_worst":
            axes.axhline(200, color="#555555", linewidth=0.8, linestyle=":")
            axes.annotate("200", (1, 200), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        if result.get("ordered_s") is not None:
            axes.axvline(result["ordered_s"] / 60, color="#555555", linewidth=0.8, linestyle="-.")
    panels[-1].set_ylim(0, 1.05)
    panels[-1].set_xlabel("minutes of virtual time (dash-dotted: the bulk switch is ordered)")
    panels[0].legend(loc="upper right", framealpha=0.9)
    failed = ", ".join(
        f"{policy} {figures['allocations_failed']:,} of {figures['allocations_requested']:,}"
        for policy, figures in result["policies"].items()
    )
    figure.suptitle(f"{result['scenario']} (seed {result['seed']})\nfailed allocations: {failed}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_month(result: dict[str, Any], path: str | Path) -> None:
    """Each cap as it is believed, true and learned; below, what of slowed SIMs the policies came to."""
    pyplot = _pyplot()
    caps, series = result["caps"], result["series"]
    across = max(len(caps), 1)
    figure = pyplot.figure(figsize=(13, 9), layout="constrained")
    grid = figure.add_gridspec(3, across, height_ratios=(2, 1.6, 1.6))
    for column, (name, values) in enumerate(caps.items()):
        axes = figure.add_subplot(grid[0, column])
        days = [(hour + 1) / 24 for hour in range(len(values["true"]))]
        styles = (("believed", "#d68910", "-."), ("true", "#222222", "-"), ("learned", "#c0392b", "-"))
        for kind, colour, line in styles:
            shown = [float("nan") if value is None else value for value in values[kind]]
            axes.plot(days, shown, line, color=colour, linewidth=1.6, label=kind)
        axes.set_title(name, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    figure.axes[0].set_ylabel("cap, GB")
    figure.axes[0].legend(fontsize=8, framealpha=0.9, loc="lower left")
    colours = {"believed": "#d68910", "learned": "#c0392b"}
    panels = (("handed_out_slowed", "slowed SIMs\nhanded out a day"), ("slowed_terminals", "terminals on\nslowed SIMs"))
    for row, (column_name, label) in enumerate(panels, 1):
        axes = figure.add_subplot(grid[row, :])
        for policy, columns in series.items():
            values = columns[column_name]
            days = [at_s / 86_400 for at_s in columns["at_s"]]
            if row == 1:
                values = [sum(values[begin : begin + 24]) for begin in range(0, len(values), 24)]
                days = days[23::24]
            axes.plot(days, values[: len(days)], color=colours[policy], linewidth=1.4, label=f"caps as {policy}")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.legend(fontsize=8, framealpha=0.9, loc="upper left")
    figure.axes[-1].set_xlabel("day")
    handed = ", ".join(
        f"{policy} {figures['handed_out_slowed']:,} of {figures['handed_out']:,}"
        for policy, figures in result["policies"].items()
    )
    figure.suptitle(f"{result['scenario']} (seed {result['seed']})\nslowed SIMs handed out: {handed}")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def plot_servers(result: dict[str, Any], path: str | Path) -> None:
    """Writes how the engine saw the first access servers, a row each, as PNG. ``ValueError``: it was not replayed."""
    servers = result["servers"]
    if not servers:
        if result.get("kind") == "month":
            raise ValueError("a month has no picture of access servers: they carry out what they are told at once")
        raise ValueError('the picture of the access servers is of the policy "engine", which was not replayed')
    pyplot = _pyplot()
    minutes = [at_s / 60 for at_s in result["series"]["engine"]["at_s"]]
    longest_s = 1.2 * max(max(columns["allocation_wait_s"] + columns["queue_wait_s"]) for columns in servers.values())
    figure, rows = pyplot.subplots(
        len(servers), 2, sharex=True, sharey="col", squeeze=False, figsize=(13, 1.7 * len(servers) + 1.6),
        layout="constrained",
    )  # fmt: skip
    for (orders, waits), (name, columns) in zip(rows, servers.items(), strict=True):
        orders.plot(minutes, columns["window"], color="#1f618d", linewidth=1.3, label="window")
        orders.fill_between(minutes, columns["outstanding"], color="#aed6f1", label="outstanding orders")
        shut = [gate != layout.GATE_OPEN for gate in columns["gate"]]
        orders.fill_between(
            minutes, 0, 1, where=shut, transform=orders.get_xaxis_transform(), color="#f5b7b1", alpha=0.5,
            label="gate not open",
        )  # fmt: skip
        orders.set_ylabel(name)
        waits.plot(minutes, columns["allocation_wait_s"], color="#c0392b", linewidth=1.0, label="longest allocation")
        waits.plot(minutes, columns["queue_wait_s"], color="#1f618d", linewidth=1.0, linestyle="--", label="queue wait")
        waits.set_yscale("symlog", linthresh=0.1)
        waits.set_ylim(0, longest_s)
        orders.set_ylim(0, 210)
        for axes in (orders, waits):
            axes.grid(visible=True, color="#dddddd", linewidth=0.6)
            if result.get("ordered_s") is not None:
                axes.axvline(result["ordered_s"] / 60, color="#555555", linewidth=0.8, linestyle="-.")
    rows[0][0].set_title("orders of each access server")
    rows[0][1].set_title("seconds waited there")
    for axes in rows[-1]:
        axes.set_xlabel("minutes of virtual time (dash-dotted: the first switch is ordered)")
    rows[0][0].legend(loc="center right", fontsize=8, framealpha=0.9)
    rows[0][1].legend(loc="upper right", fontsize=8, framealpha=0.9)
    figure.suptitle(f"{result['scenario']} (seed {result['seed']}): access servers as the engine sees them")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
