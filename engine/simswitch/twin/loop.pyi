"""The event loop of the twin. See the head of world.pyx for what it models."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simswitch.twin.population import Plan

class Loop:
    def __init__(
        self, plan: Plan, *, numbers: Sequence[int], sessions: Sequence[int], key_first: int, iccid_first: int
    ) -> None:
        """Takes all memory that the scenario needs; queues and timers grow later.

        ``numbers`` and ``sessions`` are, per access server, its number in the engine and its open session. A terminal's
        key is ``key_first`` plus its index; the ICCIDs' digits between the 89 and the check digit count from
        ``iccid_first``.
        """
    @property
    def now_ns(self) -> int:
        """Nanoseconds since the scenario's start; a multiple of the quantum."""
    def gather(self, limit_ns: int) -> bytes:
        """Goes on until something is to be said to the engine and gives its command runs; empty at ``limit_ns``.

        The limit is rounded up to a quantum. ``settle`` has to be given the outcomes before the next call.
        """
    def settle(self, outcomes: bytes) -> None:
        """What the engine answered to the last batch, or to a batch of the caller's own (only its orders are read)."""
    def begin_on(self, terminals: npt.NDArray[np.uint32], off_ns: npt.NDArray[np.int64]) -> None:
        """These are on when the scenario begins: their leases are asked for outside of any queue and not counted."""
    def order_switches(self, terminals: npt.NDArray[np.uint32], per_gap: int | None, gap_ns: int) -> None:
        """A driver's bulk order, straight at the access servers: ``per_gap`` (None: all) at once and after each gap."""
    def slow(self, sims: npt.NDArray[np.uint32], bytes_per_s: int) -> None:
        """The carrier slows these SIMs."""
    def set_speed(self, server: int, service_ns: int) -> None: ...
    def set_stopped(self, server: int, stopped: bool) -> None:
        """Stopped, an access server does nothing and says nothing; its queue stands. It goes on after
        ``disconnect`` or ``take_down`` too, once it is connected."""
    def set_busy(self, server: int, busy: bool) -> None:
        """While it is, an access server answers every switch BUSY."""
    def set_lost(self, server: int, share: float) -> None:
        """The share of its acknowledgements that are lost on their way."""
    def refuse_on(self, sims: npt.NDArray[np.uint32], share: float) -> None:
        """The share of switches to these SIMs that fail."""
    def disconnect(self, server: int) -> None:
        """Its session breaks; it drops the orders that it has not begun."""
    def take_down(self, server: int) -> None:
        """It is gone, with its session and its queue. Terminals keep their lines; who asks there hears nothing."""
    def connect(self, server: int, session: int) -> None:
        """It has a new session."""
    def move_away(self, server: int, others: npt.NDArray[np.uint32]) -> None:
        """Its terminals go to others, and ask there for a SIM within the pause of a retry."""
    def holdings(self, server: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """What its terminals hold: terminals, epochs and SIMs; of one in the middle of a switch, its target."""
    def server_waits_us(self) -> list[int]:
        """Per access server, the longest wait of an allocation since the last sample."""
    def server_failed(self) -> list[int]:
        """Per access server, the requests that failed so far."""
    def terminals_on(self, sims: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        """The terminals that have a line now, on a SIM that is marked in ``sims``."""
    def waits_us(self) -> npt.NDArray[np.uint32]:
        """The wait of every request that was answered or failed, in the order of their ends; a failed one's
        time-out."""
    def sample(self) -> dict[str, int]:
        """Peaks since the last sample: in_flight_total, in_flight_worst, wait_max_us."""
    def counters(self) -> dict[str, int]:
        """Totals so far. requested = granted + failed + withdrawn + told_to_wait + waiting.

        ``on`` and ``well`` stand for now: terminals that are on, and those with a line that the carrier has not slowed.
        """
    def outage_us(self) -> int:
        """Summed over terminals: how long they were on without a line, waiting for one or in a switch."""
    def refusals(self) -> dict[int, int]:
        """What the engine did not accept of reports, releases, acknowledgements and load: count by status."""
