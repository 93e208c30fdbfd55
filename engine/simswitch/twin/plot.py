"""Draws a replay: the policies side by side over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Distinguishable without colour vision, and by their line styles in grey.
_STYLES = {
    "unbounded": ("#c0392b", "-", "unbounded: all at once"),
    "fixed": ("#d68910", "--", "fixed: n every gap"),
    "engine": ("#1f618d", "-", "through the engine"),
}
_PANELS = (
    ("failed_per_s", "failed allocations\nper second", "symlog"),
    ("wait_max_s", "longest wait for\nan allocation, s", "linear"),
    ("in_flight_worst", "switches in flight,\nworst access server", "symlog"),
    ("well_share", "terminals that are on with a\nline at full speed, share", "linear"),
)


def plot(result: dict[str, Any], path: str | Path) -> None:
    """Writes the picture of what ``replay`` returned as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

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
