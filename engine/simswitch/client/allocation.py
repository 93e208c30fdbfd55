"""Asking for SIMs: the same calls for threads (``Client``) and for asyncio (``AsyncClient``).

Every call here may be repeated after a failure: asking again gives the same lease, a report counts once. A call that
is refused as a whole raises ``ServiceError``; the items of a batch have their own status. After OVERLOADED the same
calls are refused here, unsent, until the service may be asked again (``held_back``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

import grpc
import numpy as np
import numpy.typing as npt

from simswitch import contract
from simswitch.client import columns
from simswitch.client.columns import Column, Grants, Renewals
from simswitch.client.credentials import PLAIN, Credentials
from simswitch.client.errors import service_error
from simswitch.client.held_back import HeldBack
from simswitch.client.holdings import Holdings, Lease
from simswitch.core import layout
from simswitch.core.commands import decode_iccid
from simswitch.core.wire import Table
from simswitch.v1 import allocation_pb2, usage_pb2

TIMEOUT_S = 10.0

_SERVICE = "/simswitch.v1.AllocationService/"
_USAGE = "/simswitch.v1.UsageService/"


class _Calls:
    """Requests and responses, without the waiting between them.

    ``actor`` is ``access-server:NAME`` unless given or proven.
    With ``holdings`` the client notes what it was given, and to what speed a lease's subscriber is to be slowed.
    """

    _OF_ASYNCIO: ClassVar[bool]

    def __init__(
        self,
        address: str,
        *,
        access_server: str,
        actor: str | None = None,
        credentials: Credentials = PLAIN,
        timeout_s: float = TIMEOUT_S,
        holdings: Holdings | None = None,
    ) -> None:
        self.access_server = access_server
        self.holdings = holdings
        self.held_back = HeldBack()
        self.timeout_s = timeout_s
        self.metadata = credentials.metadata(address, actor, f"access-server:{access_server}")
        self._channel: Any = (credentials.aio_channel if self._OF_ASYNCIO else credentials.channel)(address)
        self._methods: dict[str, Callable[..., Any]] = {}

    def _method(self, path: str) -> Callable[..., Any]:
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = self._channel.unary_unary(path)
        return method

    def allocate_one_request(
        self, terminal: int, market: str, subscriber: int, expected_bytes: int, subscriber_group: str
    ) -> bytes:
        return allocation_pb2.AllocateRequest(
            access_server=self.access_server,
            market=market,
            terminal=terminal,
            subscriber=subscriber,
            expected_bytes=expected_bytes,
            subscriber_group=subscriber_group,
        ).SerializeToString()

    def allocated_one(self, data: bytes) -> Lease:
        answer = allocation_pb2.AllocateResponse.FromString(data)
        lease = answer.lease
        held = Lease(lease.terminal, lease.epoch, lease.iccid, lease.expires_ms, answer.slow_kbps)
        if self.holdings is not None:
            self.holdings.hold(held)
        return held

    def allocate_request(
        self,
        terminals: npt.ArrayLike,
        market: str | Sequence[str],
        market_index: npt.ArrayLike,
        subscribers: npt.ArrayLike,
        expected_bytes: npt.ArrayLike,
        subscriber_group: str,
    ) -> bytes:
        names = [market] if isinstance(market, str) else list(market)
        texts = allocation_pb2.AllocateSimsRequest(
            access_server=self.access_server, markets=names, subscriber_group=subscriber_group
        )
        values = {
            "terminal": terminals,
            "subscriber": subscribers,
            "expected_bytes": expected_bytes,
            "market": market_index,
        }
        return columns.request(layout.ALLOCATE, contract.ALLOCATE_REQUEST, values, texts)

    def granted(self, kind: int, table: Table, terminals: npt.ArrayLike, data: bytes) -> Grants:
        grants = Grants(columns.outcome(kind, table, data))
        if self.holdings is not None:
            keys = np.atleast_1d(np.asarray(terminals, np.uint64))
            for row in np.flatnonzero(grants.granted).tolist():
                self.holdings.hold(
                    Lease(
                        int(keys[row]),
                        int(grants.epoch[row]),
                        decode_iccid(int(grants.iccid[row])),
                        int(grants.expires_ms[row]),
                        int(grants.slow_kbps[row]),
                    )
                )
        return grants

    def leases_request(
        self, kind: int, table: Table, texts: Any, terminals: npt.ArrayLike, epochs: npt.ArrayLike
    ) -> bytes:
        return columns.request(kind, table, {"terminal": terminals, "epoch": epochs}, texts)

    def renew_request(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> bytes:
        texts = allocation_pb2.RenewRequest(access_server=self.access_server)
        return self.leases_request(layout.RENEW, contract.RENEW_REQUEST, texts, terminals, epochs)

    def release_request(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> bytes:
        texts = allocation_pb2.ReleaseRequest(access_server=self.access_server)
        return self.leases_request(layout.RELEASE, contract.RELEASE_REQUEST, texts, terminals, epochs)

    def released(self, terminals: npt.ArrayLike, data: bytes) -> Column:
        statuses: Column = columns.outcome(layout.RELEASE, contract.RELEASE_RESPONSE, data)["status"]
        if self.holdings is not None:
            keys = np.atleast_1d(np.asarray(terminals, np.uint64))
            for row in np.flatnonzero(statuses == layout.OK).tolist():
                self.holdings.drop(int(keys[row]))
        return statuses

    def attach_failure_request(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> bytes:
        texts = allocation_pb2.ReportAttachFailureRequest(access_server=self.access_server)
        return self.leases_request(
            layout.REPORT_ATTACH_FAILURE, contract.ATTACH_FAILURE_REQUEST, texts, terminals, epochs
        )

    def usage_request(
        self,
        terminals: npt.ArrayLike,
        epochs: npt.ArrayLike,
        up_bytes: npt.ArrayLike,
        down_bytes: npt.ArrayLike,
        **fared: npt.ArrayLike,
    ) -> bytes:
        texts = usage_pb2.ReportUsageRequest(access_server=self.access_server)
        values = {"terminal": terminals, "epoch": epochs, "up_bytes": up_bytes, "down_bytes": down_bytes, **fared}
        return columns.request(layout.REPORT_USAGE, contract.USAGE_REQUEST, values, texts)

    def reported(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike, data: bytes) -> Column:
        outcome = columns.outcome(layout.REPORT_USAGE, contract.USAGE_RESPONSE, data)
        if self.holdings is not None:
            self.holdings.slow(terminals, epochs, outcome["slow_kbps"])
        statuses: Column = outcome["status"]
        return statuses

    def renewed(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike, data: bytes) -> Renewals:
        renewals = Renewals(columns.outcome(layout.RENEW, contract.RENEW_RESPONSE, data))
        if self.holdings is not None:
            self.holdings.slow(terminals, epochs, renewals.slow_kbps)
        return renewals


class Client(_Calls):
    """Calls of one access server, for threads. One client may be used by several of them."""

    _OF_ASYNCIO = False

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, path: str, request: bytes) -> bytes:
        asked = self.held_back.enter(path)
        refused = None
        try:
            return bytes(self._method(path)(request, timeout=self.timeout_s, metadata=self.metadata))
        except grpc.RpcError as error:
            refused = service_error(error)
            raise refused from error
        finally:
            self.held_back.leave(path, asked, refused)

    def allocate(
        self, terminal: int, market: str, *, subscriber: int = 0, expected_bytes: int = 0, subscriber_group: str = ""
    ) -> Lease:
        """A SIM for one terminal; the lease that stands if it has a usable one.

        Raises ``ServiceError``: the reasons ``NO_HEALTHY_SIM``, ``ADMISSION_WAIT`` and ``HELLOS_AWAITED`` say when to
        try again.
        """
        request = self.allocate_one_request(terminal, market, subscriber, expected_bytes, subscriber_group)
        return self.allocated_one(self._call(_SERVICE + "Allocate", request))

    def allocate_many(
        self,
        terminals: npt.ArrayLike,
        market: str | Sequence[str],
        *,
        market_index: npt.ArrayLike = 0,
        subscribers: npt.ArrayLike = 0,
        expected_bytes: npt.ArrayLike = 0,
        subscriber_group: str = "",
    ) -> Grants:
        """SIMs for up to 65,536 terminals. With several markets, ``market_index`` says which each terminal is in."""
        request = self.allocate_request(terminals, market, market_index, subscribers, expected_bytes, subscriber_group)
        data = self._call(_SERVICE + "AllocateSims", request)
        return self.granted(layout.ALLOCATE, contract.ALLOCATE_RESPONSE, terminals, data)

    def renew(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> Renewals:
        """Prolongs leases."""
        data = self._call(_SERVICE + "Renew", self.renew_request(terminals, epochs))
        return self.renewed(terminals, epochs, data)

    def release(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> Column:
        """Ends leases; gives a status for each."""
        return self.released(terminals, self._call(_SERVICE + "Release", self.release_request(terminals, epochs)))

    def report_attach_failure(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> Grants:
        """These terminals could not attach with the SIM that they have: gives each another one."""
        data = self._call(_SERVICE + "ReportAttachFailure", self.attach_failure_request(terminals, epochs))
        return self.granted(layout.REPORT_ATTACH_FAILURE, contract.ATTACH_FAILURE_RESPONSE, terminals, data)

    def report_usage(
        self,
        terminals: npt.ArrayLike,
        epochs: npt.ArrayLike,
        up_bytes: npt.ArrayLike,
        down_bytes: npt.ArrayLike,
        **fared: npt.ArrayLike,
    ) -> Column:
        """Bytes of each lease since it began; gives a status for each.

        ``fared``: the columns ``span_ms``, ``goodput_kbps``, ``demand_permille`` and ``radio``, as far as known.
        """
        data = self._call(_USAGE + "ReportUsage", self.usage_request(terminals, epochs, up_bytes, down_bytes, **fared))
        return self.reported(terminals, epochs, data)


class AsyncClient(_Calls):
    """Calls of one access server, for asyncio."""

    _OF_ASYNCIO = True

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, path: str, request: bytes) -> bytes:
        asked = self.held_back.enter(path)
        refused = None
        try:
            return bytes(await self._method(path)(request, timeout=self.timeout_s, metadata=self.metadata))
        except grpc.aio.AioRpcError as error:
            refused = service_error(error)
            raise refused from error
        finally:
            self.held_back.leave(path, asked, refused)

    async def allocate(
        self, terminal: int, market: str, *, subscriber: int = 0, expected_bytes: int = 0, subscriber_group: str = ""
    ) -> Lease:
        """A SIM for one terminal; the lease that stands if it has a usable one.

        Raises ``ServiceError``: the reasons ``NO_HEALTHY_SIM``, ``ADMISSION_WAIT`` and ``HELLOS_AWAITED`` say when to
        try again.
        """
        request = self.allocate_one_request(terminal, market, subscriber, expected_bytes, subscriber_group)
        return self.allocated_one(await self._call(_SERVICE + "Allocate", request))

    async def allocate_many(
        self,
        terminals: npt.ArrayLike,
        market: str | Sequence[str],
        *,
        market_index: npt.ArrayLike = 0,
        subscribers: npt.ArrayLike = 0,
        expected_bytes: npt.ArrayLike = 0,
        subscriber_group: str = "",
    ) -> Grants:
        """SIMs for up to 65,536 terminals. With several markets, ``market_index`` says which each terminal is in."""
        request = self.allocate_request(terminals, market, market_index, subscribers, expected_bytes, subscriber_group)
        data = await self._call(_SERVICE + "AllocateSims", request)
        return self.granted(layout.ALLOCATE, contract.ALLOCATE_RESPONSE, terminals, data)

    async def renew(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> Renewals:
        """Prolongs leases."""
        data = await self._call(_SERVICE + "Renew", self.renew_request(terminals, epochs))
        return self.renewed(terminals, epochs, data)

    async def release(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> Column:
        """Ends leases; gives a status for each."""
        return self.released(terminals, await self._call(_SERVICE + "Release", self.release_request(terminals, epochs)))

    async def report_attach_failure(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike) -> Grants:
        """These terminals could not attach with the SIM that they have: gives each another one."""
        data = await self._call(_SERVICE + "ReportAttachFailure", self.attach_failure_request(terminals, epochs))
        return self.granted(layout.REPORT_ATTACH_FAILURE, contract.ATTACH_FAILURE_RESPONSE, terminals, data)

    async def report_usage(
        self,
        terminals: npt.ArrayLike,
        epochs: npt.ArrayLike,
        up_bytes: npt.ArrayLike,
        down_bytes: npt.ArrayLike,
        **fared: npt.ArrayLike,
    ) -> Column:
        """Bytes of each lease since it began; gives a status for each.

        ``fared``: the columns ``span_ms``, ``goodput_kbps``, ``demand_permille`` and ``radio``, as far as known.
        """
        data = await self._call(
            _USAGE + "ReportUsage", self.usage_request(terminals, epochs, up_bytes, down_bytes, **fared)
        )
        return self.reported(terminals, epochs, data)
