"""The figures of the demonstration. All of them are assumed; none comes from the minutes of the incident.

Every duration is in seconds of the story. ``scale`` seconds of the story pass in one second here, so an access server
that does 10 operations a second in the story does 100 here; what is measured here is multiplied before it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simswitch.inventory.digits import luhn_check_digit

SLOWED_LOT = "february"
"""Its SIMs are the ones that the carrier slows."""
HEALTHY_LOT = "march"
MARKET = "tokyo"
ACCESS_SERVERS = ("as-1", "as-2", "as-3")


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens, how much of it and how fast."""

    seed: int = 2020
    scale: int = 10
    terminals_count: int = 1_000
    """Terminals of each access server that hold a SIM when the carrier slows its lot."""
    slowed_count: int = 480
    """Of these, how many are on SIMs that get slowed."""
    operations_per_s: float = 10.0
    """Operations that an access server does: giving a SIM and switching one cost the same."""
    client_timeout_s: float = 30.0
    """How long a terminal waits for a SIM before it gives up."""
    arrivals_per_s: float = 5.0
    """Terminals that turn on, on each access server."""
    stay_s: float = 40.0
    """How long each of these keeps its SIM."""
    attach_least_s: float = 15.0
    attach_most_s: float = 25.0
    """How long a terminal is without a line while it is switched."""
    quiet_s: float = 40.0
    """Before the switch is ordered."""
    watched_s: float = 420.0
    """From the order on."""
    killed_after_share: float = 0.4
    """The server is killed when this share of the switches is done."""

    @property
    def slowed_sims_count(self) -> int:
        """SIMs of the lot that gets slowed. All of them are handed out."""
        return self.slowed_count * len(ACCESS_SERVERS)

    @property
    def healthy_sims_count(self) -> int:
        """Enough for the other terminals, for those that come and go, and to switch to; nothing here is short."""
        moving = int(self.arrivals_per_s * (self.stay_s + self.client_timeout_s)) * 3
        return (self.terminals_count + moving) * len(ACCESS_SERVERS) + 500


STANDARD = Plan()
SHORT = Plan(
    terminals_count=240,
    slowed_count=120,
    client_timeout_s=20.0,
    operations_per_s=4.0,
    arrivals_per_s=2.0,
    quiet_s=10.0,
    watched_s=150.0,
    attach_least_s=5.0,
    attach_most_s=10.0,
)
"""For tests and for the impatient: the same story, smaller."""


def write_sims(path: Path, plan: Plan) -> int:
    """The demonstration's CSV of SIMs; gives their number.

    By what is believed the lot that gets slowed has the most left, so the engine hands it out first.
    """
    rows = ["iccid,imsi,lot,bank,slot,used_cycle_bytes,as_of"]
    for number in range(plan.slowed_sims_count + plan.healthy_sims_count):
        lot = SLOWED_LOT if number < plan.slowed_sims_count else HEALTHY_LOT
        body = f"8981100{number:011d}"
        used = 0 if lot == SLOWED_LOT else 20_000_000_000
        bank = "bank-1" if number % 2 else "bank-2"
        iccid = f"{body}{luhn_check_digit(body)}"
        rows.append(f"{iccid},44010{number:010d},{lot},{bank},{number // 2},{used},2020-03-12T00:00:00+09:00")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return len(rows) - 1
