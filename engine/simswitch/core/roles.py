"""Who may do what: the one table. The core refuses a command by it (``NOT_PERMITTED``), the service a call.

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

_ONLY_SYSTEM = frozenset({_SYSTEM})
_OPERATORS = frozenset({_SYSTEM, _OPERATOR})
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
    layout.SET_HEALTH: _OPERATORS,
    layout.CONFIGURE: _OPERATORS,
    layout.RESET_WINDOW: _OPERATORS,
    layout.SET_CAP: _OPERATORS,
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
}


class Read(IntEnum):
    """What can be looked at."""

    TERMS = 1
    """Suppliers, lots and plans: what was bought, and on which terms."""
    PLACES = 2
    """Classes, markets, banks and access servers: how the pool is arranged."""
    SIMS = 3
    """Single SIMs, with their numbers."""
    POOL = 4
    """Counts, windows and settings."""
    SWAPS = 5
    """Swap jobs."""


READ_ROLES: Mapping[Read, frozenset[int]] = {
    Read.TERMS: frozenset({_SYSTEM, _OPERATOR, _AUDITOR}),
    Read.PLACES: frozenset({_SYSTEM, _OPERATOR, _ACCESS_SERVER, _SUPPLIER, _PROVIDER, _AUDITOR}),
    Read.SIMS: frozenset({_SYSTEM, _OPERATOR, _AUDITOR}),
    Read.POOL: frozenset({_SYSTEM, _OPERATOR, _PROVIDER, _AUDITOR}),
    Read.SWAPS: frozenset({_SYSTEM, _OPERATOR, _PROVIDER, _AUDITOR}),
}

ROLE_WORDS: Mapping[str, int] = {
    "operator": _OPERATOR,
    "access-server": _ACCESS_SERVER,
    "supplier": _SUPPLIER,
    "technology-provider": _PROVIDER,
    "auditor": _AUDITOR,
}
"""How an actor's name begins: ``operator:alice``. The system speaks only from within."""
