"""What an import knows of the service and of its own files before it reads its SIMs."""

from __future__ import annotations

from datetime import datetime

from simswitch.inventory.definitions import Definitions, Plan, Resets, Window
from simswitch.inventory.importer import Catalogue
from simswitch.inventory.lots import Lot


def test_an_import_knows_when_the_cycle_of_a_lot_began_and_of_how_many_days_its_rolling_window_is() -> None:
    """By the plan, or the lot's own closing day; of a lot that nothing resets nobody says."""
    rolling = (Window("cycle", 10**11), Window("rolling", 10**10, days=3))
    resets = Resets(closing_day=31, time_zone="Asia/Tokyo", lag_seconds=7_200)
    plans = (Plan("monthly", "x", rolling, resets=resets), Plan("never", "x"))
    others = ("supplier", "class", "x", 1, None, "", "", "", "", False, "")
    lots = [
        Lot("spring", others[0], "monthly", *others[1:]),
        Lot("own", others[0], "monthly", *others[1:], closing_day=20),
        Lot("odd", others[0], "never", *others[1:]),
    ]
    catalogue = Catalogue()
    catalogue.extend(Definitions(plans=list(plans)), lots)
    known = catalogue.known(datetime.fromisoformat("2026-03-02T12:00:00Z"))
    begun = {name: datetime.fromtimestamp(at_s).astimezone() for name, at_s in known.cycle_begun_s.items()}
    assert begun == {
        "spring": datetime.fromisoformat("2026-03-01T02:00:00+09:00"),
        "own": datetime.fromisoformat("2026-02-21T02:00:00+09:00"),
    }
    assert known.rolling_days == {"spring": 3, "own": 3, "odd": 0}
