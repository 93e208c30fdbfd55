"""A session for programs without asyncio: its own thread runs the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from simswitch.client.holdings import Holdings
from simswitch.client.session import Order, Reconciliation, Result, Session

ORDERS_AT_ONCE = 32
LEFT_WITHIN_S = 5.0
"""How long the loop waits for what is left of its calls before it closes."""


class SessionThread:
    """``Session`` behind blocking calls. ``on_order`` is called on up to 32 threads at a time and may block."""

    def __init__(
        self,
        address: str,
        access_server: str,
        on_order: Callable[[Order], Result],
        *,
        holdings: Holdings | None = None,
        **options: Any,
    ) -> None:
        self.holdings = holdings if holdings is not None else Holdings()
        self._on_order = on_order
        self._executor = ThreadPoolExecutor(ORDERS_AT_ONCE, thread_name_prefix="simswitch-order")
        self._ready = threading.Event()
        self._finished: Future[None] = Future()
        self._arguments = (address, access_server, options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._serve, name="simswitch-session", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        address, access_server, options = self._arguments

        async def carry_out(order: Order) -> Result:
            begun = self._executor.submit(self._on_order, order)
            try:
                return await asyncio.wrap_future(begun)
            except asyncio.CancelledError:
                # The connection broke. What has not begun is dropped; what has begun is finished, so that the
                # holdings say what is really so before they are told to the service.
                if begun.cancelled():
                    raise
                return await asyncio.wrap_future(self._executor.submit(begun.result))

        self._loop = asyncio.get_running_loop()
        self._session = Session(address, access_server, carry_out, holdings=self.holdings, **options)
        task = self._session.start()
        self._ready.set()
        try:
            await task
            self._finished.set_result(None)
        except asyncio.CancelledError:
            self._finished.set_result(None)
        except Exception as error:
            self._finished.set_exception(error)
        # grpc.aio hands what comes for the calls of all loops to whichever loop looks first. Of a call that was given
        # up an end still comes: to a loop that is closed by then it can't be passed on, and what came behind it for
        # the other loops of this process waits.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=LEFT_WITHIN_S)

    @property
    def session(self) -> Session:
        """To look at: ``state`` and ``reconciliation`` may be read from any thread."""
        assert self._session is not None
        return self._session

    def serving(self, timeout_s: float | None = None) -> Reconciliation:
        """Waits until the service knows what is held and orders may come."""
        found: Reconciliation = self._wait(self.session.serving(timeout_s))
        return found

    def report_load(
        self,
        queue_wait_us: int,
        service_us: int,
        waiting: int | None = None,
        allocation_wait_us: int | None = None,
        failed_count: int = 0,
    ) -> None:
        """How busy the access server is: ``Session.report_load``."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(
            self.session.report_load, queue_wait_us, service_us, waiting, allocation_wait_us, failed_count
        )

    def report_usage(
        self,
        terminals: npt.ArrayLike,
        epochs: npt.ArrayLike,
        up_bytes: npt.ArrayLike,
        down_bytes: npt.ArrayLike,
        **fared: npt.ArrayLike,
    ) -> npt.NDArray[Any]:
        """Bytes of each lease since it began; gives a status for each."""
        result: npt.NDArray[Any] = self._wait(
            self.session.report_usage(terminals, epochs, up_bytes, down_bytes, **fared)
        )
        return result

    def _wait(self, coroutine: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def result(self, timeout_s: float | None = None) -> None:
        """Waits for the end; raises ``Fenced`` or ``ServiceError`` if that was the reason."""
        self._finished.result(timeout_s)

    def close(self) -> None:
        """Ends the session; what is held stays held."""
        if self._loop is not None and self._thread.is_alive():
            # The thread's loop may end by itself in the meantime.
            with suppress(RuntimeError, CancelledError):
                asyncio.run_coroutine_threadsafe(self.session.close(), self._loop).result(10)
        self._thread.join(10)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
