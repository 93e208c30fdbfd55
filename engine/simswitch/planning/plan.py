"""The whole answer: both constraints, the day on which the pool runs dry, what closes the gap, and what would be if."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from simswitch.planning.forecast import (
    Floats,
    Forecast,
    Past,
    Trial,
    backtest,
    forecast,
    growth,
    trials,
    widened,
    widening,
)
from simswitch.planning.limits import OperatingLimit, operating_limit
from simswitch.planning.purchase import advice
from simswitch.planning.simultaneity import MarketPeak, Peak, described
from simswitch.planning.terms import Terms
from simswitch.planning.volume import CapInterval, DryDates, LotState, Supply, run_dry

_BACKTEST_DAYS = 7
_WHAT_IF_LOTS = 5
_CAP_LOWER = 0.8


@dataclass(frozen=True, slots=True)
class MarketUse:
    """What is used in a market, and which part of each lot serves it."""

    name: str
    share: float
    """Of all use."""
    part_by_lot: dict[str, float]
    """As the lot's use of late lay between markets; of one that was not used, as the use of those it serves does."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known on the morning of ``past.next_day``."""

    past: Past
    lots: tuple[LotState, ...]
    share_by_lot: dict[str, float]
    """Of what was used in this cycle, the share that went over each lot's SIMs."""
    month_used_bytes: Floats
    """By subscriber, in this calendar month; empty: not known."""
    habit_bytes: Floats
    """By the same ones over a longer time: how they are taken to go on."""
    terminals: int
    """That may want a SIM at once."""
    sims_fit: int
    """Healthy ones, free or assigned: what can be handed out at once."""
    peak: Peak | None
    """None: no busy hours have been seen yet."""
    markets: tuple[MarketPeak, ...] = ()
    """The same by market, where that is known."""
    use_by_market: tuple[MarketUse, ...] = ()
    """Volume by market, where that is known."""

    @property
    def today(self) -> date:
        return self.past.next_day


@dataclass(frozen=True, slots=True)
class Outlook:
    """The forecast and what the pool makes of it."""

    tried: list[Trial]
    widening: float
    forecast: Forecast
    supplies: tuple[Supply, ...]
    """Those that are still to come. What should be here is in the lots, or is late, and nobody knows by how much."""
    dry: DryDates


@dataclass(frozen=True, slots=True)
class Plan:
    situation: Situation
    terms: Terms
    forecast: Forecast
    dry: DryDates
    """With the supplies that are still to come."""
    document: dict[str, Any]
    """All figures, as JSON."""


def plan(situation: Situation, terms: Terms, *, seed: int) -> Plan:
    """Works everything out. The same situation, terms and seed give the same figures."""
    seen = outlook(situation, terms, seed=seed)
    tried, ahead, supplies, dry = seen.tried, seen.forecast, seen.supplies, seen.dry
    limit = _limit(situation, supplies, ahead, dry)
    per_day = growth(situation.past) if terms.subscribers_by_day is None else terms.subscribers_by_day
    no_growth = widened(
        forecast(
            situation.past,
            terms.horizon_days,
            seed=seed,
            subscribers_by_day=min(0.0, per_day),
            factors=terms.holidays,
        ),
        seen.widening,
    )
    document = {
        "today": situation.today.isoformat(),
        "seed": seed,
        "horizon_days": terms.horizon_days,
        "volume": {
            "sims": sum(lot.sims for lot in situation.lots),
            "left_bytes": {
                "lower_bound": sum(lot.lower_bound(situation.today) for lot in situation.lots),
                "median": sum(
                    float(lot.begins(np.array([lot.cap.middle_bytes]), situation.today)[0]) for lot in situation.lots
                ),
            },
            "forecast": {
                "model": ahead.model,
                "days": [
                    {
                        "day": (ahead.first_day + timedelta(days=day)).isoformat(),
                        "use_p50_bytes": float(middle),
                        "use_p95_bytes": float(high),
                    }
                    for day, (middle, high) in enumerate(zip(ahead.quantile(0.5), ahead.quantile(0.95), strict=True))
                ],
                "backtest": backtest(tried, _BACKTEST_DAYS),
            },
            **_dry_figures(dry),
            "groups": _groups(situation, ahead, seed),
            "supplies_not_counted": [supply.name for supply in terms.supplies if supply not in supplies],
        },
        "simultaneity": (
            described(situation.terminals, situation.sims_fit, situation.peak, terms.blocking_max)
            if situation.peak is not None
            else None
        ),
        "markets": [
            {"market": market.name, **described(market.terminals, market.fit, market.peak, terms.blocking_max)}
            for market in situation.markets
            if market.peak is not None
        ],
        "purchases": (
            [advice(dry, offer, terms.missing_sim_cost, situation.today) for offer in terms.offers]
            if terms.missing_sim_cost is not None
            else []
        ),
        "operating_limit": _limit_figures(limit) if limit is not None else None,
        "no_new_sales": _dry_figures(run_dry(no_growth, situation.lots, supplies, seed=seed)),
        "what_if": _what_if(situation, supplies, ahead, seed),
    }
    return Plan(situation, terms, ahead, dry, document)


def outlook(situation: Situation, terms: Terms, *, seed: int) -> Outlook:
    """The forecast with its bands as wide as past weeks show them to be, and when that is more than the pool has."""
    tried = trials(situation.past, _BACKTEST_DAYS, seed=seed, factors=terms.factors())
    wider = widening(tried)
    ahead = widened(_forecast(situation, terms, seed), wider)
    here = {lot.name for lot in situation.lots}
    supplies = tuple(
        supply for supply in terms.supplies if supply.arrives >= situation.today and supply.name not in here
    )
    return Outlook(tried, wider, ahead, supplies, run_dry(ahead, situation.lots, supplies, seed=seed))


def _forecast(situation: Situation, terms: Terms, seed: int) -> Forecast:
    return forecast(
        situation.past,
        terms.horizon_days,
        seed=seed,
        subscribers_by_day=terms.subscribers_by_day,
        more=np.array(terms.subscribers_who_come(situation.today, terms.horizon_days)),
        factors=terms.factors(),
    )


def _days_left_in_month(today: date) -> int:
    following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (following - today).days


def _dry_figures(dry: DryDates) -> dict[str, Any]:
    """``dry_p95``: with 95 % certainty it is not dry before that day."""
    middle, early = dry.date_at(0.5), dry.date_at(0.05)
    last = dry.first_day + timedelta(days=dry.days - 1)
    return {
        "dry_p50": middle.isoformat() if middle else None,
        "dry_p95": early.isoformat() if early else None,
        "dry_within_horizon": dry.probability_by(last),
        "short_p50_bytes": float(np.median(dry.short_bytes)),
        "short_p95_bytes": float(np.quantile(dry.short_bytes, 0.95)),
    }


def _limit(situation: Situation, supplies: Sequence[Supply], ahead: Forecast, dry: DryDates) -> OperatingLimit | None:
    """What the rest of the month would need, against what it can be given: use at its 95 % quantile, caps at their
    lower bound. None: it is not known what each subscriber has used."""
    days = min(_days_left_in_month(situation.today), ahead.paths.shape[1])
    whole = float(situation.habit_bytes.sum())
    if not whole:
        return None
    if dry.probability_by(dry.first_day + timedelta(days=days - 1)) <= 0.05:
        return OperatingLimit(None, 0, 0, len(situation.month_used_bytes), 0.0, True)
    sums = ahead.paths[:, :days].sum(axis=1)
    wanted = float(np.quantile(sums, 0.95))
    by_day = ahead.paths[:, :days].mean(axis=0)
    certain = Forecast(ahead.first_day, (by_day * wanted / by_day.sum())[np.newaxis, :], ahead.model)
    lowest = [replace(lot, cap=CapInterval.exactly(lot.cap.low_bytes)) for lot in situation.lots]
    short = float(run_dry(certain, lowest, supplies, seed=0).short_bytes[0])
    return operating_limit(situation.month_used_bytes, situation.habit_bytes * (wanted / whole), wanted - short)


def _limit_figures(limit: OperatingLimit) -> dict[str, Any]:
    return {
        "limit_bytes": limit.limit_bytes,
        "touched": limit.touched,
        "touched_already": limit.touched_already,
        "subscribers": limit.subscribers,
        "saved_bytes": limit.saved_bytes,
        "enough": limit.enough,
    }


def _groups(situation: Situation, ahead: Forecast, seed: int) -> dict[str, list[dict[str, Any]]]:
    """By lot, class, carrier, supplier and market: what is left, and when that is dry if each keeps its share of the
    use."""

    def share(lots: Sequence[LotState]) -> float:
        return sum(situation.share_by_lot.get(lot.name, 0.0) for lot in lots)

    result: dict[str, list[dict[str, Any]]] = {}
    for way, attribute in (("lot", "name"), ("class", "sim_class"), ("carrier", "carrier"), ("supplier", "supplier")):
        by_name: dict[str, list[LotState]] = {}
        for lot in situation.lots:
            by_name.setdefault(getattr(lot, attribute), []).append(lot)
        result[way] = [_group(name, share(lots), lots, ahead, seed) for name, lots in by_name.items()]
    result["market"] = [
        _group(
            market.name,
            market.share,
            [lot.part(market.part_by_lot[lot.name]) for lot in situation.lots if market.part_by_lot.get(lot.name)],
            ahead,
            seed,
        )
        for market in situation.use_by_market
    ]
    return result


def _group(name: str, share: float, lots: Sequence[LotState], ahead: Forecast, seed: int) -> dict[str, Any]:
    dry = run_dry(replace(ahead, paths=ahead.paths * share), lots, seed=seed)
    return {
        "name": name,
        "sims": sum(lot.sims for lot in lots),
        "left_lower_bound_bytes": sum(lot.lower_bound(ahead.first_day) for lot in lots),
        "share_of_use": share,
        **_dry_figures(dry),
    }


def _what_if(situation: Situation, supplies: Sequence[Supply], ahead: Forecast, seed: int) -> list[dict[str, Any]]:
    def row(name: str, lots: Sequence[LotState], arriving: Sequence[Supply]) -> dict[str, Any]:
        return {"if": name, **_dry_figures(run_dry(ahead, lots, arriving, seed=seed))}

    rows = [row("it goes on as it is", situation.lots, supplies)]
    if supplies:
        rows.append(row("supply stops", situation.lots, ()))
    for carrier in dict.fromkeys(lot.carrier for lot in situation.lots):
        lower = [
            replace(lot, cap=lot.cap.scaled(_CAP_LOWER)) if lot.carrier == carrier else lot for lot in situation.lots
        ]
        rows.append(row(f"the caps of {carrier or 'the carrier'} are 20 % lower", lower, supplies))
    largest = sorted(situation.lots, key=lambda lot: -lot.lower_bound(situation.today))
    for recalled in largest[:_WHAT_IF_LOTS]:
        rest = [lot for lot in situation.lots if lot is not recalled]
        rows.append(row(f"lot {recalled.name} is recalled", rest, supplies))
    return rows
