"""What an access server's program sees of the client apart from its session."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import grpc
import numpy as np
import pytest
from simswitch.client import AsyncClient, Client, Holdings, Lease, OperatorClient, ServiceError

from tests.service.serving import Serving


def test_import_is_cheap() -> None:
    program = (
        "import sys, simswitch.client; "
        "heavy = {'grpc', 'numpy', 'google.protobuf'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_name_is_there() -> None:
    import simswitch.client as package

    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        package.__getattr__("Nothing")


def test_unreachable_is_said_so() -> None:
    with Client("127.0.0.1:1", access_server="as-01", timeout_s=2) as client:
        with pytest.raises(ServiceError) as caught:
            client.allocate(1, "jp")
        assert caught.value.unreachable
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.reason == ""


def test_columns_of_different_length_are_not_sent(serving: Serving) -> None:
    with Client(serving.address, access_server="as-01") as client, pytest.raises(ValueError, match="differ in length"):
        client.renew([1, 2], [1])


def test_asyncio_and_threads_give_the_same(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    holdings = Holdings()
    terminals = np.arange(1, 21)

    async def scenario() -> list[int]:
        async with AsyncClient(serving.address, access_server="as-01", holdings=holdings) as client:
            first = await client.allocate_many(terminals, "jp")
            one = await client.allocate(100, "jp", expected_bytes=1 << 20)
            assert holdings.get(100) == one
            await client.renew(terminals, first.epoch)
            await client.report_usage(terminals, first.epoch, 1, 1)
            moved = await client.report_attach_failure([1], first.epoch[:1])
            assert moved.granted.tolist() == [True]
            released = await client.release([2], first.epoch[1:2])
            assert released.tolist() == [1]
            return [int(epoch) for epoch in first.epoch]

    epochs = asyncio.run(scenario())
    assert 2 not in holdings
    assert len(holdings) == 20
    with Client(serving.address, access_server="as-01") as client:
        again = client.allocate_many(terminals[2:], "jp")
    assert again.epoch.tolist() == epochs[2:]


def test_an_older_lease_does_not_replace_a_newer_one() -> None:
    holdings = Holdings()
    newer = Lease(terminal=1, epoch=5, iccid="8901000000000000000")
    holdings.hold(newer)
    holdings.hold(Lease(terminal=1, epoch=4, iccid="8901000000000000001"))
    assert holdings.get(1) == newer
    assert not holdings.drop(1, "8901000000000000001")
    assert holdings.drop(1, newer.iccid)
    assert not holdings.drop(1)
