"""Both ways in one picture: failed allocations, the wait for a SIM, and the orders outstanding, over the same time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

TITLES = {"unbounded": "as it was done in 2020", "engine": "through the engine"}
_COLOURS = {"unbounded": "#b5382a", "engine": "#1f6f8b"}


def draw(
    result: dict[str, Any], series: dict[str, dict[str, list[float | None]]], notes: dict[str, float], path: Path
) -> None:
    """Draws the picture. ``series`` has for each policy the columns t, failed_per_s, wait_s, outstanding, switched; a
    wait of None leaves a gap, since nobody's wait ended then. Columns called "window of …" come together. ``notes`` has
    instants of the engine's run to be marked, by their words."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = (
        ("failed_per_s", "failed allocations\nper second"),
        ("wait_s", "longest wait for a SIM\n(seconds, of those that\nended at that moment)"),
        ("outstanding", "switches outstanding\n(all access servers)"),
        ("switched", "switches done"),
        (None, "window of each\naccess server"),
    )
    figure, axes = pyplot.subplots(len(panels), 1, sharex=True, figsize=(10, 12), constrained_layout=True)
    for axis, (column, label) in zip(axes, panels, strict=True):
        windows = [
            (name, policy, columns["t"], points)
            for policy, columns in series.items()
            for name, points in columns.items()
            if column is None and name.startswith("window of ")
        ]
        for (name, policy, instants, points), line in zip(windows, itertools.cycle(("-", "--", ":"))):
            label_of = name.removeprefix("window of ")
            axis.plot(instants, points, line, color=_COLOURS[policy], label=label_of, linewidth=1.3)
        for policy, columns in series.items():
            if column is None:
                break
            # A dot shows a value between two gaps too, where there is no line to it.
            axis.plot(
                columns["t"],
                columns[column],
                color=_COLOURS[policy],
                label=TITLES[policy],
                linewidth=1.6,
                marker=".",
                markersize=2.5,
            )
        axis.axvline(0, color="grey", linewidth=0.8, linestyle=":")
        for side, (words, instant) in zip(("right", "left"), notes.items(), strict=False):
            axis.axvline(instant, color=_COLOURS["engine"], linewidth=0.8, linestyle="--")
            if axis is axes[0]:
                axis.annotate(f" {words} ", (instant, axis.get_ylim()[1]), va="top", ha=side, fontsize=8)
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        axis.set_ylim(bottom=0)
    axes[0].legend(loc="upper right")
    if axes[-1].get_legend_handles_labels()[0]:
        axes[-1].legend(loc="lower right")
    axes[-1].set_xlabel("seconds of the story since the switch was ordered")
    figure.suptitle(f"{result['scenario']}: the same switch, two ways")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
