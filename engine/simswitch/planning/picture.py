"""The plan as a picture: use by day, what the pool has left, and the day on which that is not enough."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np

from simswitch.planning.plan import Plan

_USE = "#1f618d"
_LEFT = "#1e8449"
_DRY = "#c0392b"


def draw(plan: Plan, path: Path) -> None:
    """Writes a PNG. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    ahead, dry, past = plan.forecast, plan.dry, plan.situation.past
    days = [ahead.first_day + timedelta(days=day) for day in range(ahead.paths.shape[1])]
    before = [past.first_day + timedelta(days=day) for day in range(past.days)][-28:]
    figure, (use, left, chance) = pyplot.subplots(3, 1, sharex=True, figsize=(10, 9), layout="constrained")

    use.plot(before, past.used_bytes[-28:] / 1e12, color="#333333", label="used")
    use.plot(days, ahead.quantile(0.5) / 1e12, color=_USE, label="forecast, median")
    use.fill_between(
        days, ahead.quantile(0.05) / 1e12, ahead.quantile(0.95) / 1e12, color=_USE, alpha=0.2, label="5 % to 95 %"
    )
    use.set_ylabel("use, TB a day")

    low, middle, high = np.quantile(dry.left_bytes, (0.05, 0.5, 0.95), axis=0) / 1e12
    left.plot(days, middle, color=_LEFT, label="left on the evening, median")
    left.fill_between(days, low, high, color=_LEFT, alpha=0.2, label="5 % to 95 %")
    left.set_ylabel("left in the pool, TB")

    reached = [float(np.mean(dry.dry_on <= day)) for day in range(dry.days)]
    chance.step(days, reached, where="post", color=_DRY, label="dry on or before this day")
    chance.set_ylabel("probability")
    chance.set_ylim(0, 1.02)
    for share, words in ((0.05, "P95"), (0.5, "P50")):
        day = dry.date_at(share)
        if day is not None:
            for axes in (left, chance):
                axes.axvline(day, color=_DRY, linewidth=0.9, linestyle="--" if share < 0.5 else "-")
            # On either side of both lines, however near they stand.
            side = "right" if share < 0.5 else "left"
            chance.annotate(f" dry, {words}: {day} ", (day, 0.83), fontsize=9, color=_DRY, ha=side)
    for axes in (use, left, chance):
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_ylim(bottom=0)
        axes.legend(loc="best", fontsize=9)
    figure.autofmt_xdate()
    figure.suptitle(f"The pool on {plan.situation.today}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
