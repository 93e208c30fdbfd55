"""The Python face of the state machine. One machine is used by one thread at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

HASH_PIECE_BYTES: int

class MalformedBatch(ValueError):
    """The batch's bytes are not a sequence of well-formed runs. Nothing was applied."""

class Outcome:
    """What one apply gave."""

    data: bytes
    """Outcome runs in the order of the command runs, then those of orders and events (``commands.outcome_runs``)."""
    hash: int
    """XXH64 of ``data``: replay must reproduce it (I10)."""
    orders_count: int
    events_count: int

class Machine:
    def __init__(self, sims_max: int = 1024, terminals_max: int = 1024, orders_max: int = 1024) -> None:
        """Takes all memory. These bounds only matter for the first record: ``GROW`` changes them later."""
    def apply(self, batch: Buffer, now_ms: int, seed: int) -> Outcome:
        """Applies a batch of command runs at one instant; releases the GIL.

        ``now_ms`` is Unix milliseconds, never before the last apply's (``ValueError``). Raises ``MalformedBatch``
        before anything is applied. Every other refusal is a per-item status.
        """
    def allocate_one(self, terminal: int, market: int, now_ms: int, seed: int) -> tuple[int, int, int]:
        """``apply`` of an ALLOCATE for one terminal that is its own subscriber: its status, SIM and epoch.

        For machines without a journal, such as a model of a pool: the outcome's bytes and hash are not kept. It keeps
        the GIL. Errors are those of ``apply``.
        """
    @property
    def sequence(self) -> int: ...
    @property
    def now_ms(self) -> int: ...
    @property
    def next_due_ms(self) -> int | None:
        """When a TICK is next wanted: a timer, pacing, or work in progress (then: now). None: nothing is due."""
    def state_hash(self) -> int:
        """XXH64 over all regions (I10): each in pieces of ``HASH_PIECE_BYTES``, the hashes of the pieces folded into
        that of the region (seed 0), and those into one (seed: the machine version). To fold is to hash the 8 bytes of
        the next hash with what came before as the seed."""
    def check(self, pause: Callable[[], object] = ...) -> list[str]:
        """Verifies I1 to I5 and I8 by a full walk. Each line names the invariant and the records; empty is sound.

        ``pause`` is called every few thousand items, about once in a millisecond. What it raises ends the walk.
        """
    def snapshot_regions(self) -> Iterator[tuple[str, int, int, memoryview]]:
        """(name, item bytes, count, read-only bytes) of each region, in order. Valid until the next apply."""
    @staticmethod
    def index_table(keys: npt.NDArray[np.uint64], slots: int) -> npt.NDArray[np.uint32]:
        """A table of so many slots that finds the index of each of these keys, none of which comes twice."""

    @classmethod
    def restore(cls, regions: Iterable[tuple[str, int, int, Buffer | Callable[[memoryview], object]]]) -> Machine:
        """The machine of a snapshot. Raises ``ValueError`` when a region is missing, of another size or impossible.

        A region other than the first may come as a function that writes its bytes where it is told, so that a large one
        exists only once. What it raises goes through, and there is no machine.
        """
    @classmethod
    def region_sizes(cls, header: Buffer) -> list[tuple[str, int, int]]:
        """(name, item bytes, count) of each region that belongs to a snapshot's header. Raises ``ValueError`` as
        ``restore`` does."""
    def raise_incarnation(self, at_ms: int, lineage: int) -> None:
        """Fences every epoch and every number of an order, event or job handed out so far, also by what else came of
        an earlier state of this machine, by the instant, and sessions by ``lineage``, which is drawn (32 bits). For
        restore and promotion, never while serving. Raises ``OverflowError``."""
    def header(self) -> dict[str, Any]:
        """Counters, settings and totals by name; occupancy and health counts as dicts by name."""
    def entities(self, kind: int = 0) -> list[dict[str, Any]]:
        """Entities of a kind (0: all): index, kind, name, numbers (list of 16), document (bytes)."""
    def entity_index(self, kind: int, name: str) -> int | None: ...
    def server_index(self, entity: int) -> int | None:
        """The number of an access server (``access_server`` in runs) by its entity index."""
    def find_sim(self, iccid: int) -> int | None: ...
    def find_sim_by_imsi(self, imsi: int) -> int | None: ...
    def find_terminal(self, key: int) -> int | None: ...
    def sim_uses(self, sims: Any) -> dict[str, Any]:
        """Of SIMs by their index (uint32 array), as NumPy arrays: iccid, lot, health, trusted (False: on probation),
        and used_bytes with a row a window; -1 where a SIM's plan does not roll."""
    def sim_counts(self, sims: Any) -> tuple[Any, Any]:
        """ICCIDs and lifetime counts of SIMs by their index (uint32 array), as NumPy arrays."""
    def use_places(self, terminals: Any, sims: Any) -> tuple[Any, Any]:
        """The markets in which these terminals (keys, uint64 array) were last, 0 where one is gone, and the lots of
        these SIMs (indexes, uint32 array): entity indexes as NumPy arrays."""
    def throttled_holders(self) -> tuple[Any, Any, Any]:
        """Keys of the terminals that hold a throttled SIM, their subscribers and the numbers of their access servers,
        as NumPy arrays. It walks over the SIMs."""
    def lots_pool(self) -> dict[str, Any]:
        """By a lot's entity index (rows): SIMs by ``Health`` (``healths``) and ``Occupancy`` (``occupancies``), those
        ``unlimited``, ``headroom_bytes`` of the other healthy and low ones, ``used_cycle_bytes`` of those that are
        healthy, low or exhausted, ``counted_bytes`` of all, those on ``probation``. It walks over the SIMs."""
    def markets_pool(self) -> tuple[Any, Any]:
        """By a market's entity index: terminals that were last in it, and those of them with a lease. It walks over the
        terminals."""
    def markets(self) -> list[dict[str, Any]]:
        """Of each market its ``entity``, the ``expected_bytes`` that hold, the ``learned_bytes`` (None: too little is
        known) and the ``leases_count`` that this stands on: those of today, and half of those up to each day before."""
    def sim(self, index: int) -> dict[str, Any]:
        """iccid, imsi, lot, bank, slot, occupancy, health, headroom_bytes, used by window, terminal key or None …

        ``tier``: where it stands in the selection index, or None; ``tier_bytes``: the smallest headroom of its tier.
        """
    def terminal(self, index: int) -> dict[str, Any]:
        """Key, subscriber, lease, SIM, market …; ``expected_bytes``: what every SIM has left that it may be given."""
    def server(self, index: int) -> dict[str, Any]:
        """Window, gate, why each last changed, outstanding, queue, load figures."""
    def subscriber(self, key: int) -> dict[str, int] | None:
        """What a subscriber has used on the local day and in the month of the last apply; None: nothing, ever."""
    def subscriber_now(self, key: int) -> dict[str, Any]:
        """What its limit makes of a subscriber at the instant of the last apply: the figures, group and rule (0: none),
        ``action`` and when it ends by itself, and the exemption that holds."""
    def exemption(self, subscriber: int) -> dict[str, Any] | None:
        """A subscriber's exemption, also one that has ended and whose place nobody has taken (``holds``)."""
    def exemptions(self) -> list[dict[str, Any]]:
        """The same of all, by subscriber."""
    def order(self, index: int) -> dict[str, Any]: ...
    def job(self, job_id: int) -> dict[str, Any]: ...
    def given_up(self) -> list[dict[str, Any]]: ...
    def events(self) -> npt.NDArray[Any]:
        """A copy of the events that are remembered, at most the last EVENTS_KEPT, as ``RECORD_TYPES["events"]``,
        oldest first, without a gap."""
    def breakers(self) -> list[dict[str, Any]]:
        """Those that are not closed, and those that counted a failure lately."""
    def job_ids(self) -> list[int]:
        """Of the jobs that have a slot, in the order in which they were created."""
    def find_sims(
        self,
        first: int,
        end: int,
        most: int,
        *,
        lot: int | None = None,
        bank: int | None = None,
        health: int | None = None,
        occupancy: int | None = None,
        trusted: bool | None = None,
    ) -> tuple[list[int], int]:
        """At most ``most`` indexes, from ``first`` to before ``end``, of SIMs that are so (None: however they are), and
        the index at which the look has ended. Without an object for those that are not."""
    def sims_columns(self) -> dict[str, Any]:
        """Copies of the SIM columns as NumPy arrays (iccid, imsi, health, occupancy, headroom_bytes, counted_bytes,
        lot, bank, slot, terminal): for lists, exports, reports and tests."""
    def terminals_columns(self) -> dict[str, Any]: ...
    def totals(self) -> dict[str, Any]:
        """Sums over access servers (``sessions``, ``paused``, ``window``, ``outstanding``, ``queued``, ``announced``,
        ``confirmed`` and ``waits``, both ever), counts by the number of a state (``gates``, ``jobs``, ``breakers``),
        and of each market its name, the SIMs that it could be given now, and since when it is short (0: it is not). As
        long with many SIMs as with few."""
    def groups(self) -> list[dict[str, Any]]: ...
    def lot(self, entity: int) -> dict[str, Any]:
        """The caps of a lot, lists with an entry a window. IndexError: that entity is no lot."""

def xxh64(data: Buffer, seed: int = 0) -> int:
    """XXH64 of the bytes, as specified by its author (Yann Collet). Used for every checksum."""
