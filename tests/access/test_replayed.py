"""What was said once and is said again, by whom it was or by another: over TLS, word by word on the wire."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import pytest
from simswitch.client import Client
from simswitch.client.credentials import Credentials
from simswitch.client.errors import service_error
from simswitch.v1 import access_server_pb2 as pb
from simswitch.v1 import access_server_pb2_grpc, inventory_pb2, status_pb2, swap_pb2

from tests.access.doors import Doors

OK, LATE, STALE = status_pb2.STATUS_OK, status_pb2.STATUS_LATE, status_pb2.STATUS_STALE_SESSION
DONE, REFUSED, BUSY = (
    pb.ACKNOWLEDGEMENT_RESULT_DONE,
    pb.ACKNOWLEDGEMENT_RESULT_REFUSED,
    pb.ACKNOWLEDGEMENT_RESULT_BUSY,
)
NUMBERS = itertools.count(10, 10)


class Spoken:
    """A session in which a test says each word itself."""

    def __init__(self, doors: Doors, name: str, credentials: Credentials) -> None:
        self._channel = credentials.channel(doors.serving.address)
        self._words: queue.SimpleQueue[pb.SessionRequest | None] = queue.SimpleQueue()
        stub = access_server_pb2_grpc.AccessServerServiceStub(self._channel)
        self._replies: Any = stub.Session(iter(self._words.get, None), timeout=60)
        self._words.put(pb.SessionRequest(hello=pb.Hello(access_server=name)))
        self.number = self.next("opened").session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._words.put(None)
        self._channel.close()

    def next(self, wanted: str) -> Any:
        """The next reply of this kind."""
        for reply in self._replies:
            if reply.WhichOneof("message") == wanted:
                return getattr(reply, wanted)
        raise AssertionError(f"the session ended before it said {wanted}")

    def ready(self, terminals: list[int], epochs: list[int], iccids: list[int]) -> None:
        self._words.put(pb.SessionRequest(holds=pb.Holds(terminal=terminals, epoch=epochs, iccid=iccids)))
        self._words.put(pb.SessionRequest(ready=pb.Ready()))
        assert self.next("ready_result").status == OK

    def acknowledge(self, orders: list[int], results: list[Any]) -> list[int]:
        self._words.put(pb.SessionRequest(acknowledgements=pb.Acknowledgements(order=orders, result=results)))
        return list(self.next("acknowledgements_result").status)


class Pool:
    """Two terminals on an access server of its own, and one order to move the first, sent in the session ``one``."""

    def __init__(self, doors: Doors, number: int) -> None:
        self.doors = doors
        self.name, self.other_name = f"as-{number}", f"as-{number}-other"
        self.mine, self.other = doors.server(self.name), doors.server(self.other_name)
        self.keys = [number, number + 1]
        with doors.operator(doors.alice) as alice:
            for name in (self.name, self.other_name):
                server = inventory_pb2.AccessServer(name=name)
                alice.inventory.DefineAccessServer(inventory_pb2.DefineAccessServerRequest(access_server=server))
            with self.client() as client:
                grants = client.allocate_many(self.keys, "jp")
            self.holds = (self.keys, grants.epoch.tolist(), grants.iccid.tolist())
            self.one = Spoken(doors, self.name, self.mine)
            self.one.ready(*self.holds)
            alice.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="moved", terminal=self.keys[:1]))
        (self.order,) = self.one.next("orders").order

    def client(self) -> Client:
        return self.doors.client(self.mine, self.name)

    def books(self) -> dict[str, Any]:
        """What a forged word could change: who has which SIM, and the places at the access server."""

        def read(machine: Any) -> dict[str, Any]:
            terminals = [machine.terminal(machine.find_terminal(key)) for key in self.keys]
            servers = [
                machine.server(machine.server_index(entity["index"]))
                for entity in machine.entities()
                if entity["name"] in (self.name, self.other_name)
            ]
            return {
                "counted_bytes": machine.header()["counted_bytes"],
                "terminals": [{key: row[key] for key in ("epoch", "sim", "order")} for row in terminals],
                "outstanding": [server["outstanding"] for server in servers],
                "window": [server["window"] for server in servers],
                "occupancy": machine.header()["occupancy"],
            }

        found: dict[str, Any] = self.doors.serving.cell.call_read(read)
        return found


@pytest.fixture
def pool(shared: Doors) -> Iterator[Pool]:
    made = Pool(shared, next(NUMBERS))
    with made.one:
        yield made


@pytest.mark.parametrize("again", [DONE, REFUSED, BUSY])
@pytest.mark.parametrize("first", [DONE, REFUSED])
def test_an_acknowledgement_counts_once(pool: Pool, first: Any, again: Any) -> None:
    assert pool.one.acknowledge([pool.order], [first]) == [OK]
    before = pool.books()
    answers = pool.one.acknowledge([pool.order], [again]) + pool.one.acknowledge([pool.order] * 3, [again] * 3)
    assert answers == [LATE] * 4
    assert pool.books() == before


def test_in_one_message_the_first_word_counts(pool: Pool) -> None:
    assert pool.one.acknowledge([pool.order] * 3, [DONE, REFUSED, BUSY]) == [OK, LATE, LATE]


def test_another_access_server_can_not_acknowledge(pool: Pool) -> None:
    with Spoken(pool.doors, pool.other_name, pool.other) as two:
        two.ready([], [], [])
        before = pool.books()
        for result in (DONE, REFUSED, BUSY):
            assert two.acknowledge([pool.order], [result]) == [STALE]
        assert pool.books() == before
    assert pool.one.acknowledge([pool.order], [DONE]) == [OK]


def test_nor_a_later_session_of_the_same_one(pool: Pool) -> None:
    with Spoken(pool.doors, pool.name, pool.mine) as newer:
        assert newer.number > pool.one.number
        before = pool.books()
        assert newer.acknowledge([pool.order], [DONE]) == [STALE]
        assert pool.books() == before
        # And the older one is told, and heard no more.
        with pytest.raises(grpc.RpcError) as caught:
            pool.one.acknowledge([pool.order], [DONE])
        assert service_error(caught.value).reason == "FENCED"
        assert pool.books() == before
        newer.ready(*pool.holds)
        assert newer.acknowledge([pool.order], [DONE]) == [LATE]


def test_nor_after_a_restart(pool: Pool) -> None:
    pool.doors.serving.drain()
    pool.doors.serving.begin()
    with Spoken(pool.doors, pool.name, pool.mine) as newer:
        before = pool.books()
        assert newer.acknowledge([pool.order], [DONE]) == [STALE]
        assert pool.books() == before


def test_an_epoch_that_is_over_counts_for_nothing(pool: Pool) -> None:
    """What was said under the lease before is said again under the one that stands: usage, renewals, the end."""
    with pool.client() as client:
        old = np.array([pool.holds[1][1]], np.uint64)
        assert client.report_usage(pool.keys[1:], old, 10**6, 10**6).tolist() == [OK]
        assert client.release(pool.keys[1:], old).tolist() == [OK]
        new = client.allocate(pool.keys[1], "jp")
        before = pool.books()
        assert client.renew(pool.keys[1:], old).status.tolist() != [OK]
        assert client.release(pool.keys[1:], old).tolist() != [OK]
        assert client.report_usage(pool.keys[1:], old, 10**6, 10**6).tolist() != [OK]
        assert pool.books() == before
        assert client.renew(pool.keys[1:], np.array([new.epoch], np.uint64)).status.tolist() == [OK]
