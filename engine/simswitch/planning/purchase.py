"""How many SIMs to buy, and by when.

A missing SIM costs what its users' failures cost; one that is bought costs its price, whether it is needed or spare. So
with D missing and n bought the cost is price x n + missing x max(0, D - n), and its expectation is least where the
chance that no more than n are missing reaches (missing - price) / missing: the newsvendor's rule, with what is saved by
one SIM more on one side and its price on the other (F. Y. Edgeworth, 1888; K. J. Arrow and others, 1951). Where a SIM
costs more than its failures none is bought.

How many SIMs a path would have taken: of a SIM that is ordered today nothing can be had before it is there; from then
on it serves its cap in every month. So it is the month after that in which most is missing that counts, not the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from simswitch.planning.forecast import Floats
from simswitch.planning.volume import CapInterval, DryDates, monthly


@dataclass(frozen=True, slots=True)
class Offer:
    """What a supplier would sell."""

    name: str
    cap: CapInterval
    price: float
    """Of one SIM, for as long as it is planned for."""
    lead_days: int
    """From the order to its first use."""
    sims_max: int | None = None
    supplier: str = ""
    carrier: str = ""


def critical_share(missing_cost: float, price: float) -> float:
    """The quantile that costs least; 0: it is cheaper to miss them. Both are of one SIM and above 0."""
    if missing_cost <= 0 or price <= 0:
        raise ValueError(f"costs of a SIM must be above 0, not {missing_cost:g} (missing) and {price:g} (its price)")
    return max(0.0, (missing_cost - price) / missing_cost)


def sims_needed(dry: DryDates, cap: CapInterval, arrives: date) -> Floats:
    """By path: how many SIMs that are there from this day on would have served all, each at its cap's lower bound."""
    months = [max((day - dry.first_day).days, 0) for day in monthly(arrives)]
    short = [dry.short_by_day[:, begin:end].sum(axis=1) for begin, end in pairwise(months)]
    return np.asarray(np.ceil(np.max(short, axis=0) / cap.low_bytes))


def sims_to_buy(needed: Floats, share: float) -> int:
    """The least number that is enough in this share of the paths."""
    return int(np.quantile(needed, share, method="inverted_cdf")) if share > 0 else 0


def advice(dry: DryDates, offer: Offer, missing_cost: float, today: date) -> dict[str, Any]:
    """What to order of this offer, by when, and whether that is in time."""
    share = critical_share(missing_cost, offer.price)
    arrives = today + timedelta(days=offer.lead_days)
    wanted = sims_to_buy(sims_needed(dry, offer.cap, arrives), share)
    sims = wanted if offer.sims_max is None else min(wanted, offer.sims_max)
    dry_early = dry.date_at(0.05)
    order_by = dry_early - timedelta(days=offer.lead_days) if dry_early else None
    return {
        "offer": offer.name,
        "supplier": offer.supplier,
        "carrier": offer.carrier,
        "critical_share": share,
        "sims": sims,
        "sims_wanted": wanted,
        "cost": sims * offer.price,
        "order_by": order_by.isoformat() if order_by else None,
        "arrives": arrives.isoformat(),
        "days_too_late": max(0, (today - order_by).days) if order_by else 0,
        "short_before_p50_bytes": float(np.median(dry.short_by_day[:, : offer.lead_days].sum(axis=1))),
    }
