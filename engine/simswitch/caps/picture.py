"""Draws what is known of one cap: the evidence, the survival curve by both estimates, and the caps beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simswitch.caps.survival import turnbull
from simswitch.caps.throttle import Column
from simswitch.caps.tiers import Change, LearnedCap

GIGABYTE = 1e9


def plot(
    title: str, cap: LearnedCap, changes: tuple[Change, ...], believed_bytes: int | None, path: str | Path
) -> None:
    """Writes a PNG. ``believed_bytes`` is what the plan says; None: it says nothing."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    evidence = cap.evidence
    slowed = evidence.upper_bytes > 0
    near = slowed & (evidence.upper_bytes > cap.median_bytes / 2) & (evidence.lower_bytes < cap.median_bytes * 2)
    low, high = cap.median_bytes * 0.7 / GIGABYTE, cap.median_bytes * 1.25 / GIGABYTE
    if believed_bytes is not None:
        low, high = min(low, believed_bytes * 0.95 / GIGABYTE), max(high, believed_bytes * 1.05 / GIGABYTE)
    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(9, 7), layout="constrained", height_ratios=(3, 2)
    )

    used = np.linspace(low, high, 400)
    above.plot(used, cap.posterior.survival(np.log(used * GIGABYTE)), color="#1f618d", label="lognormal, predictive")
    lower = np.log(np.maximum(evidence.lower_bytes, 1))
    upper = np.where(slowed, np.log(np.maximum(evidence.upper_bytes, 1)), np.inf)
    which = near | ~slowed
    ends, survival = turnbull(lower[which], upper[which])
    above.step(
        *stairs(np.exp(ends) / GIGABYTE, survival, high), where="post", color="#7f8c8d", linestyle="--",
        label="Turnbull, of no shape",
    )  # fmt: skip
    _mark(above, cap.quota_bytes, "#c0392b", "-", f"decided upon, 5 %: {cap.quota_bytes / GIGABYTE:.2f} GB")
    _mark(above, cap.median_bytes, "#1f618d", ":", f"median: {cap.median_bytes / GIGABYTE:.2f} GB")
    if believed_bytes is not None:
        _mark(above, believed_bytes, "#d68910", "-.", f"believed: {believed_bytes / GIGABYTE:.2f} GB")
    above.axvspan(cap.low_bytes / GIGABYTE, cap.high_bytes / GIGABYTE, color="#aed6f1", alpha=0.5)
    above.set_ylabel("share of SIMs not slowed yet")
    above.set_ylim(0, 1.02)
    above.legend(loc="lower left", framealpha=0.9, fontsize=9)

    order = np.flatnonzero(near)
    order = order[np.argsort(evidence.lower_bytes[order])]
    rows = np.arange(len(order))
    below.hlines(
        rows, evidence.lower_bytes[order] / GIGABYTE, evidence.upper_bytes[order] / GIGABYTE, color="#1f618d",
        linewidth=1.2,
    )  # fmt: skip
    quiet = np.sort(evidence.lower_bytes[~slowed])[-len(order) - 1 :] / GIGABYTE
    below.plot(quiet, np.arange(len(quiet)), ">", color="#7f8c8d", markersize=3)
    below.set_ylabel("SIM-days: slowed between (lines),\nnot slowed at (arrows)")
    below.set_xlabel(f"GB used in the {cap.window.name.lower()}")
    below.set_xlim(low, high)
    for axes in (above, below):
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    told = "; ".join(
        f"{change.kind} from {change.before_bytes / GIGABYTE:.2f} to {change.after_bytes / GIGABYTE:.2f} GB"
        for change in changes
        if change.window == cap.window and change.speed_kbps == cap.speed_kbps
    )
    figure.suptitle(
        f"{title}: {cap.speed_kbps} kbit/s after a cap of the {cap.window.name.lower()}, "
        f"{cap.throttled} SIMs slowed, {cap.unthrottled} not" + (f"\n{told}" if told else "")
    )
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def stairs(ends: Column, survival: Column, until: float) -> tuple[Column, Column]:
    """The corners of a survival function that falls at ``ends``: from one, where nothing is used, up to ``until``."""
    finite = np.isfinite(ends)
    at, share = np.append(0.0, ends[finite]), np.append(1.0, survival[finite])
    return np.append(at, max(until, float(at[-1]))), np.append(share, share[-1])


def _mark(axes: Any, at_bytes: int, colour: str, line: str, label: str) -> None:
    axes.axvline(at_bytes / GIGABYTE, color=colour, linestyle=line, linewidth=1.4, label=label)
