"""Who may do what: the one table. The core refuses a command by it (``NOT_PERMITTED``), the service a call, before any
handler sees it.

Roles are bound where that makes sense: an access server may only speak for itself, a supplier only sees its own lots.
That binding is checked beside this table, from the actor's subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from simswitch.core import layout

_SYSTEM = layout.SYSTEM
_OPERATOR = layout.OPERATOR
_ACCESS_SERVER = layout.ROLE_ACCESS_SERVER
_SUPPLIER = layout.ROLE_SUPPLIER
_PROVIDER = layout.TECHNOLOGY_PROVIDER
_AUDITOR = layout.AUDITOR
_LEARNER = layout.LEARNER

_ONLY_SYSTEM = frozenset({_SYSTEM})
_OPERATORS = frozenset({_SYSTEM, _OPERATOR})
# What was observed is said by the learner too: caps that it learned, and healths with their evidence (the core looks).
_OBSERVERS = frozenset({_SYSTEM, _OPERATOR, _LEARNER})
# Whoever runs the engine may hold swaps back in an emergency, but orders none.
_BRAKES = frozenset({_SYSTEM, _OPERATOR, _PROVIDER})
_SERVERS = frozenset({_SYSTEM, _OPERATOR, _ACCESS_SERVER})

COMMAND_ROLES: Mapping[int, frozenset[int]] = {
    layout.TICK: _ONLY_SYSTEM,
    layout.RESTART: _ONLY_SYSTEM,
    layout.FREEZE: _ONLY_SYSTEM,
    layout.GROW: _OPERATORS,
    layout.THAW: _OPERATORS,
    layout.DEFINE: _OPERATORS,
    layout.IMPORT_SIMS: _OPERATORS,
    layout.ADOPT: _OPERATORS,
    layout.SET_HEALTH: _OBSERVERS,
    layout.CARRIER_LIFE: _OPERATORS,
    layout.CONFIGURE: _OPERATORS,
    layout.SET_CAP: _OBSERVERS,
    layout.CAP_CHANGED: _OBSERVERS,
    layout.CARRIER_USAGE: _OPERATORS,
    layout.POOL_USAGE: _OPERATORS,
    layout.SCHEDULE: _OPERATORS,
    layout.MASK: _OPERATORS,
    layout.ALLOCATE: _SERVERS,
    layout.RENEW: _SERVERS,
    layout.RELEASE: _SERVERS,
    layout.REPORT_USAGE: _SERVERS,
    layout.REPORT_ATTACH_FAILURE: _SERVERS,
    layout.SESSION_OPEN: _SERVERS,
    layout.SESSION_HOLDS: _SERVERS,
    layout.SESSION_READY: _SERVERS,
    layout.SESSION_CLOSE: _SERVERS,
    layout.ACKNOWLEDGE: _SERVERS,
    layout.REPORT_LOAD: _SERVERS,
    layout.JOB_CREATE: _OPERATORS,
    layout.JOB_ADD: _OPERATORS,
    layout.JOB_PAUSE: _BRAKES,
    layout.JOB_RESUME: _OPERATORS,
    layout.JOB_CANCEL: _OPERATORS,
    layout.JOB_APPROVE: _OPERATORS,
    layout.GIVEN_UP_RESOLVE: _OPERATORS,
    layout.DECLARE_DEAD: _OPERATORS,
    layout.SERVER_PAUSE: _BRAKES,
    layout.SERVER_RESUME: _OPERATORS,
    layout.SWAPS_STOP: _BRAKES,
    layout.SWAPS_LIFT: _OPERATORS,
    layout.EXEMPT: _OPERATORS,
}


class Read(IntEnum):
    """What can be looked at."""

    TERMS = 1
    """Suppliers, lots and plans: what was bought, and on which terms."""
    PLACES = 2
    """Classes, markets, banks and access servers: how the pool is arranged; and limits, which are public."""
    SIMS = 3
    """Single SIMs, with their numbers."""
    POOL = 4
    """Counts, windows and settings."""
    SWAPS = 5
    """Swap jobs."""
    LOTS = 6
    """Lots with their terms; a supplier sees its own."""
    SUBSCRIBERS = 7
    """People: what they used, what limits did to them, who is exempt."""
    DECISIONS = 8
    """The trail: who decided what, when, on which figures."""
    PARTS = 9
    """What each party sees its own part of, by the rows above."""
    CAPS = 10
    """Caps of lots, and when their windows start anew; a supplier sees its own."""


READ_ROLES: Mapping[Read, frozenset[int]] = {
    Read.TERMS: frozenset({_SYSTEM, _OPERATOR, _AUDITOR}),
    Read.PLACES: frozenset({_SYSTEM, _OPERATOR, _ACCESS_SERVER, _SUPPLIER, _PROVIDER, _AUDITOR}),
    Read.SIMS: frozenset({_SYSTEM, _OPERATOR, _AUDITOR}),
    Read.POOL: frozenset({_SYSTEM, _OPERATOR, _PROVIDER, _AUDITOR}),
    Read.SWAPS: frozenset({_SYSTEM, _OPERATOR, _PROVIDER, _AUDITOR}),
    Read.LOTS: frozenset({_SYSTEM, _OPERATOR, _SUPPLIER, _AUDITOR}),
    Read.SUBSCRIBERS: frozenset({_SYSTEM, _OPERATOR, _AUDITOR}),
    Read.DECISIONS: frozenset({_SYSTEM, _OPERATOR, _AUDITOR}),
    Read.PARTS: frozenset({_SYSTEM, _OPERATOR, _SUPPLIER, _PROVIDER, _AUDITOR}),
    Read.CAPS: frozenset({_SYSTEM, _OPERATOR, _SUPPLIER, _AUDITOR, _LEARNER}),
}

FIELD_READS: Mapping[str, Read] = {
    "subscriber": Read.SUBSCRIBERS,
    "terminal": Read.SUBSCRIBERS,
    "terminals": Read.SUBSCRIBERS,
    "last_target": Read.SIMS,
    "source": Read.SIMS,
    "target": Read.SIMS,
}
"""Fields of answers and columns of history that are left out for who may not see what they name."""

CALL_RIGHTS: Mapping[str, int | Read] = {
    "AccessServerService/Session": layout.SESSION_OPEN,
    "AllocationService/Allocate": layout.ALLOCATE,
    "AllocationService/AllocateSims": layout.ALLOCATE,
    "AllocationService/AllocateStream": layout.ALLOCATE,
    "AllocationService/Renew": layout.RENEW,
    "AllocationService/Release": layout.RELEASE,
    "AllocationService/ReportAttachFailure": layout.REPORT_ATTACH_FAILURE,
    "CapsService/SetCaps": layout.SET_CAP,
    "CapsService/TellCapShifts": layout.CAP_CHANGED,
    "CapsService/ListLotCaps": Read.CAPS,
    "CapsService/ImportCarrierUsage": layout.CARRIER_USAGE,
    "EventService/WatchEvents": Read.SWAPS,
    "HistoryService/ListRows": Read.PARTS,
    "HistoryService/MakeDailyReport": Read.PARTS,
    "HistoryService/MakeAccidentReport": Read.SUBSCRIBERS,
    "HistoryService/MakePlan": Read.TERMS,
    "InventoryService/DefineSupplier": layout.DEFINE,
    "InventoryService/GetSupplier": Read.TERMS,
    "InventoryService/ListSuppliers": Read.TERMS,
    "InventoryService/DefinePlan": layout.DEFINE,
    "InventoryService/GetPlan": Read.TERMS,
    "InventoryService/ListPlans": Read.TERMS,
    "InventoryService/DefineLot": layout.DEFINE,
    "InventoryService/GetLot": Read.LOTS,
    "InventoryService/ListLots": Read.LOTS,
    "InventoryService/DefineSimClass": layout.DEFINE,
    "InventoryService/GetSimClass": Read.PLACES,
    "InventoryService/ListSimClasses": Read.PLACES,
    "InventoryService/DefineMarket": layout.DEFINE,
    "InventoryService/GetMarket": Read.PLACES,
    "InventoryService/ListMarkets": Read.PLACES,
    "InventoryService/DefineBank": layout.DEFINE,
    "InventoryService/GetBank": Read.PLACES,
    "InventoryService/ListBanks": Read.PLACES,
    "InventoryService/DefineAccessServer": layout.DEFINE,
    "InventoryService/GetAccessServer": Read.PLACES,
    "InventoryService/ListAccessServers": Read.PLACES,
    "InventoryService/DefineSubscriberGroup": layout.DEFINE,
    "InventoryService/GetSubscriberGroup": Read.PLACES,
    "InventoryService/ListSubscriberGroups": Read.PLACES,
    "InventoryService/DefineLimitRule": layout.DEFINE,
    "InventoryService/GetLimitRule": Read.PLACES,
    "InventoryService/ListLimitRules": Read.PLACES,
    "InventoryService/ImportSims": layout.IMPORT_SIMS,
    "InventoryService/AdoptTerminals": layout.ADOPT,
    "InventoryService/GetSim": Read.SIMS,
    "InventoryService/ListSims": Read.SIMS,
    "InventoryService/SetSimHealth": layout.SET_HEALTH,
    "InventoryService/RetireSims": layout.SET_HEALTH,
    "InventoryService/TellCarrierLife": layout.CARRIER_LIFE,
    "PoolService/GetSummary": Read.POOL,
    "PoolService/ListRemaining": Read.PARTS,
    "PoolService/GetAccessServerStatus": Read.POOL,
    "PoolService/ListAccessServerStatuses": Read.POOL,
    "PoolService/GetSettings": Read.POOL,
    "PoolService/Configure": layout.CONFIGURE,
    "PoolService/SetMask": layout.MASK,
    "PoolService/ConfirmClock": layout.THAW,
    "PoolService/DeclareDead": layout.DECLARE_DEAD,
    "PoolService/ListBreakers": Read.POOL,
    "PoolService/PauseAccessServer": layout.SERVER_PAUSE,
    "PoolService/ResumeAccessServer": layout.SERVER_RESUME,
    "SimService/ExplainSim": Read.LOTS,
    "SubscriberService/GetSubscriber": Read.SUBSCRIBERS,
    "SubscriberService/ExemptSubscriber": layout.EXEMPT,
    "SubscriberService/EndExemption": layout.EXEMPT,
    "SubscriberService/ListExemptions": Read.SUBSCRIBERS,
    "SwapService/CreateJob": layout.JOB_CREATE,
    "SwapService/AddJobTerminals": layout.JOB_ADD,
    "SwapService/GetJob": Read.SWAPS,
    "SwapService/ListJobs": Read.SWAPS,
    "SwapService/PauseJob": layout.JOB_PAUSE,
    "SwapService/ResumeJob": layout.JOB_RESUME,
    "SwapService/ApproveJob": layout.JOB_APPROVE,
    "SwapService/CancelJob": layout.JOB_CANCEL,
    "SwapService/StopAllSwaps": layout.SWAPS_STOP,
    "SwapService/LiftStop": layout.SWAPS_LIFT,
    "SwapService/WatchJob": Read.SWAPS,
    "SwapService/ListGivenUp": Read.SWAPS,
    "SwapService/ResolveGivenUp": layout.GIVEN_UP_RESOLVE,
    "UsageService/ReportUsage": layout.REPORT_USAGE,
}
"""What a call's actor must be allowed: to give a command, or to look at something. A call without a row here stops the
service from starting, so that none can be forgotten."""


def call_roles(call: str) -> frozenset[int]:
    """Who may make a call, by its ``Service/Method``."""
    right = CALL_RIGHTS.get(call)
    if right is None:
        raise LookupError(
            f"the call {call} has no row in CALL_RIGHTS of simswitch/core/roles.py: say there who may make it"
        )
    return READ_ROLES[right] if isinstance(right, Read) else COMMAND_ROLES[right]


ROLE_WORDS: Mapping[str, int] = {
    "operator": _OPERATOR,
    "access-server": _ACCESS_SERVER,
    "supplier": _SUPPLIER,
    "technology-provider": _PROVIDER,
    "auditor": _AUDITOR,
    "learner": _LEARNER,
}
"""How an actor's name begins: ``operator:alice``. The system speaks only from within."""
