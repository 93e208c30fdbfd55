"""What a Python access server imports.

``Client`` and ``AsyncClient`` ask for SIMs, prolong and release leases, and report usage. ``Session`` (asyncio) and
``SessionThread`` receive orders and acknowledge them; they go on while the service is away, come back, and reconcile.
``OperatorClient`` is for those who run the pool.

    holdings = Holdings()
    client = AsyncClient("127.0.0.1:50051", access_server="as-01", holdings=holdings)
    lease = await client.allocate(terminal=17, market="jp")

    async def carry_out(order: Order) -> Result:
        ...
        return Result.DONE

    async with Session("127.0.0.1:50051", "as-01", carry_out, holdings=holdings) as session:
        await session.run()

Importing this package is cheap; gRPC and NumPy come with the first name that is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simswitch.client.allocation import AsyncClient, Client
    from simswitch.client.columns import Grants, Renewals
    from simswitch.client.errors import ServiceError
    from simswitch.client.holdings import Holdings, Lease
    from simswitch.client.operator import OperatorClient
    from simswitch.client.session import Fenced, Order, Reconciliation, Result, Session, SessionState
    from simswitch.client.session_thread import SessionThread

_PLACES = {
    "AsyncClient": "allocation",
    "Client": "allocation",
    "Fenced": "session",
    "Grants": "columns",
    "Holdings": "holdings",
    "Lease": "holdings",
    "OperatorClient": "operator",
    "Order": "session",
    "Reconciliation": "session",
    "Renewals": "columns",
    "Result": "session",
    "ServiceError": "errors",
    "Session": "session",
    "SessionState": "session",
    "SessionThread": "session_thread",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Fenced",
    "Grants",
    "Holdings",
    "Lease",
    "OperatorClient",
    "Order",
    "Reconciliation",
    "Renewals",
    "Result",
    "ServiceError",
    "Session",
    "SessionState",
    "SessionThread",
]


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
