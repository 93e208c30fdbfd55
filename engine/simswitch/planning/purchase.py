"""How many SIMs to buy, and by when.

A missing SIM costs what its users' failures cost; a spare one costs what it costs. The number that makes the expected
cost of both least is the quantile of what will be missing at missing / (missing + spare): the newsvendor's rule
(F. Y. Edgeworth, 1888; K. J. Arrow and others, 1951).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from simswitch.planning.forecast import Floats
from simswitch.planning.volume import CapInterval, DryDates


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


def critical_share(missing_cost: float, spare_cost: float) -> float:
    """The quantile that costs least. Both costs are of one SIM and above 0."""
    if missing_cost <= 0 or spare_cost <= 0:
        raise ValueError(f"costs of a SIM must be above 0, not {missing_cost:g} (missing) and {spare_cost:g} (spare)")
    return missing_cost / (missing_cost + spare_cost)


def sims_to_buy(short_bytes: Floats, cap: CapInterval, share: float) -> int:
    """The quantile of how many SIMs what is missing would have taken, each at the lower bound of its cap."""
    return int(np.ceil(np.quantile(short_bytes / cap.low_bytes, share)))


def advice(dry: DryDates, offer: Offer, missing_cost: float, today: date) -> dict[str, Any]:
    """What to order of this offer, by when, and whether that is in time."""
    share = critical_share(missing_cost, offer.price)
    wanted = sims_to_buy(dry.short_bytes, offer.cap, share)
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
        "arrives": (today + timedelta(days=offer.lead_days)).isoformat(),
        "days_too_late": max(0, (today - order_by).days) if order_by else 0,
    }
