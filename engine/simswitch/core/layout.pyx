# The enums of layout.pxd become Python objects here, and the sizes that its head comment promises are asserted at import.

_SIZES = {
    "Header": (sizeof(Header), 1024),
    "Entity": (sizeof(Entity), 1024),
    "Sim": (sizeof(Sim), 64),
    "SimCold": (sizeof(SimCold), 32),
    "SimRolling": (sizeof(SimRolling), 64),
    "Lot": (sizeof(Lot), 320),
    "Terminal": (sizeof(Terminal), 64),
    "TerminalCold": (sizeof(TerminalCold), 24),
    "Order": (sizeof(Order), 96),
    "Group": (sizeof(Group), 9792),
    "Class": (sizeof(Class), 19640),
    "Market": (sizeof(Market), 64),
    "Server": (sizeof(Server), 576),
    "Job": (sizeof(Job), 512),
    "Sweep": (sizeof(Sweep), 32),
    "Check": (sizeof(Check), 265752),
    "GivenUp": (sizeof(GivenUp), 48),
    "Breaker": (sizeof(Breaker), 40),
    "Subscriber": (sizeof(Subscriber), 24),
    "Wheel": (sizeof(Wheel), 8392),
}
for _name, (_actual, _promised) in _SIZES.items():
    if _actual != _promised:
        raise ImportError(f"record {_name} has {_actual} bytes, layout.pxd promises {_promised}")

# The members stand at the top level too, as they do in C: Python code says layout.ALLOCATE.
for _enum in (
    Occupancy, Health, Window, Basis, CapShift, EntityKind, Role, Command, Status, OrderKind, OrderState, Acknowledgement, Priority, Gate, GateReason, WindowReason,
    WaitsFor,
    JobState, BreakerState, Death, JobWhy, Infeasible, Without, EventKind, ConfirmedBy, WithdrawnBy, SweepKind, Setting, TimerKind, RegionIndex,
):
    globals().update(_enum.__members__)

# A cpdef enum would give this one to Python through a signed int, as -1.
globals()["NONE_INDEX"] = 0xFFFFFFFF
