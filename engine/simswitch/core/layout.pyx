# The enums of layout.pxd become Python objects here, and the sizes that its head comment promises are asserted at import.

import numpy as np

_SIZES = {
    "Header": (sizeof(Header), 1088),
    "Entity": (sizeof(Entity), 1024),
    "Sim": (sizeof(Sim), 64),
    "SimCold": (sizeof(SimCold), 32),
    "SimRolling": (sizeof(SimRolling), 128),
    "SimLedger": (sizeof(SimLedger), 128),
    "SimLate": (sizeof(SimLate), 16),
    "Lot": (sizeof(Lot), 1328),
    "Terminal": (sizeof(Terminal), 64),
    "TerminalCold": (sizeof(TerminalCold), 24),
    "EndedLease": (sizeof(EndedLease), 48),
    "Order": (sizeof(Order), 96),
    "Group": (sizeof(Group), 9792),
    "Class": (sizeof(Class), 28944),
    "Market": (sizeof(Market), 608),
    "Server": (sizeof(Server), 632),
    "Job": (sizeof(Job), 512),
    "Sweep": (sizeof(Sweep), 32),
    "Check": (sizeof(Check), 265760),
    "GivenUp": (sizeof(GivenUp), 48),
    "Breaker": (sizeof(Breaker), 40),
    "Subscriber": (sizeof(Subscriber), 24),
    "Exemption": (sizeof(Exemption), 96),
    "EventRow": (sizeof(EventRow), 56),
    "Wheel": (sizeof(Wheel), 8392),
}
for _name, (_actual, _promised) in _SIZES.items():
    if _actual != _promised:
        raise ImportError(f"record {_name} has {_actual} bytes, layout.pxd promises {_promised}")

# The fields of a region's records as the compiler has laid them out: a snapshot carries them, so that a later machine can read it
# field by field. The wheel, its nodes and the tables of indexes are no records.
cdef Check _largest

RECORD_TYPES = {
    "header": np.asarray(<Header[:1]> <Header *> &_largest).dtype,
    "entities": np.asarray(<Entity[:1]> <Entity *> &_largest).dtype,
    "sims": np.asarray(<Sim[:1]> <Sim *> &_largest).dtype,
    "sims_cold": np.asarray(<SimCold[:1]> <SimCold *> &_largest).dtype,
    "sims_rolling": np.asarray(<SimRolling[:1]> <SimRolling *> &_largest).dtype,
    "lots": np.asarray(<Lot[:1]> <Lot *> &_largest).dtype,
    "terminals": np.asarray(<Terminal[:1]> <Terminal *> &_largest).dtype,
    "ended_leases": np.asarray(<EndedLease[:1]> <EndedLease *> &_largest).dtype,
    "terminals_cold": np.asarray(<TerminalCold[:1]> <TerminalCold *> &_largest).dtype,
    "orders": np.asarray(<Order[:1]> <Order *> &_largest).dtype,
    "groups": np.asarray(<Group[:1]> <Group *> &_largest).dtype,
    "classes": np.asarray(<Class[:1]> <Class *> &_largest).dtype,
    "markets": np.asarray(<Market[:1]> <Market *> &_largest).dtype,
    "servers": np.asarray(<Server[:1]> <Server *> &_largest).dtype,
    "jobs": np.asarray(<Job[:1]> <Job *> &_largest).dtype,
    "sweeps": np.asarray(<Sweep[:1]> <Sweep *> &_largest).dtype,
    "check": np.asarray(<Check[:1]> <Check *> &_largest).dtype,
    "given_up": np.asarray(<GivenUp[:1]> <GivenUp *> &_largest).dtype,
    "breakers": np.asarray(<Breaker[:1]> <Breaker *> &_largest).dtype,
    "subscribers": np.asarray(<Subscriber[:1]> <Subscriber *> &_largest).dtype,
    "exemptions": np.asarray(<Exemption[:1]> <Exemption *> &_largest).dtype,
    "sims_ledger": np.asarray(<SimLedger[:1]> <SimLedger *> &_largest).dtype,
    "sims_late": np.asarray(<SimLate[:1]> <SimLate *> &_largest).dtype,
    "events": np.asarray(<EventRow[:1]> <EventRow *> &_largest).dtype,
}

# The members stand at the top level too, as they do in C: Python code says layout.ALLOCATE.
for _enum in (
    Occupancy, Health, CarrierLife, Window, Basis, CapShift, EntityKind, Role, Command, Status, OrderKind, OrderState, Acknowledgement, Priority, Gate, GateReason, WindowReason,
    Unheard,
    WaitsFor,
    JobState, BreakerState, Death, Held, Validity, JobWhy, Infeasible, Without, EventKind, ConfirmedBy, WithdrawnBy, LimitAction, LimitReason, ExemptReason, UnreportedReason, SweepKind, Setting, TimerKind, RegionIndex,
):
    globals().update(_enum.__members__)

# A cpdef enum would give this one to Python through a signed int, as -1.
globals()["NONE_INDEX"] = 0xFFFFFFFF
globals()["OPENING_MAX"] = OPENING_MAX
globals()["POOL_MAX"] = POOL_MAX
