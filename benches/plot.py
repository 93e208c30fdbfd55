"""Cost against size, one panel an operation: ours beside the loop that only touches memory."""

from __future__ import annotations

from pathlib import Path

from benches.report import Result

PANELS = ("allocate", "renew", "release", "report_usage", "swap")
OURS, ONE_TIER, LOOP = "#1f5fbf", "#d9730d", "#8a8a8a"


def plot(path: Path, results: list[Result], heading: str) -> None:
    """Draws the core's rows. Raises ``ValueError`` when none was measured in more than one size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {(result.name, result.size): result for result in results if result.value is not None}
    sizes = sorted({size for name, size in found if name == "core.allocate"})
    if len(sizes) < 2:
        raise ValueError("a plot of cost against size needs core.allocate in two sizes or more")
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 3.6), layout="constrained")
    for panel, axis in zip(PANELS, axes, strict=True):
        for name, label, colour, style in (
            (f"core.{panel}", "ours, headroom spread", OURS, "o-"),
            (f"core.{panel}.one_tier", "ours, all in one tier", ONE_TIER, "s--"),
        ):
            points = [(size, found[name, size].value) for size in sizes if (name, size) in found]
            if points:
                axis.plot(*zip(*points, strict=True), style, color=colour, label=label, linewidth=1.8, markersize=4)
        loop = [(size, found[f"core.{panel}", size].reference) for size in sizes if (f"core.{panel}", size) in found]
        if loop:
            axis.plot(*zip(*loop, strict=True), ".-", color=LOOP, label="the loop: an allocation's lines, no logic")
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_title(panel.replace("_", " "), loc="left", fontsize=11)
        axis.set_xlabel("SIMs")
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("ns an item, batches of 1,000")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=9, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
