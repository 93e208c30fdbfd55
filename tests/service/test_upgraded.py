"""What the service does at its start with what an older one left."""

from __future__ import annotations

import numpy as np
import pytest
from simswitch.client import OperatorClient
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.service.directory import Directory
from simswitch.service.errors import OVERLOADED, Refused
from simswitch.v1 import inventory_pb2 as inv

from tests.service.serving import Serving


def lots(serving: Serving) -> dict[str, tuple[dict[int, int], bytes]]:
    """Numbers and document of each."""

    def read(machine: Machine) -> dict[str, tuple[dict[int, int], bytes]]:
        found = [each for each in machine.entities() if each["kind"] == layout.LOT]
        return {each["name"]: (dict(enumerate(each["numbers"])), bytes(each["document"])) for each in found}

    return serving.cell.call_read(read)


def leave_older(serving: Serving, pool: OperatorClient) -> dict[str, tuple[dict[int, int], bytes]]:
    """Lots as before machine version 14, when only its document said that one is prepaid; gives what is right."""
    lot = pool.inventory.GetLot(inv.GetLotRequest(name="lot")).lot
    lot.valid_until, lot.check_digit_exempt = "2090-02-28", True
    for name, payment in (("lot", inv.PAYMENT_PREPAID), ("postpaid", inv.PAYMENT_POSTPAID)):
        lot.name, lot.payment = name, payment
        pool.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    right = lots(serving)
    numbers, document = right["lot"]
    assert numbers[layout.LOT_PREPAID] == 1
    older = commands.definition(layout.LOT, "lot", numbers | {layout.LOT_PREPAID: -1}, document)
    serving.cell.call(commands.run(layout.DEFINE, definition=np.frombuffer(older, "V1024")))
    assert lots(serving) != right
    return right


def test_prepaid_lots_that_an_older_service_left_count_as_prepaid_from_the_start_on(
    serving: Serving, pool: OperatorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = leave_older(serving, pool)
    serving.drain()
    serving.begin()
    assert lots(serving) == right
    # Once: what is right is left alone.
    serving.drain()
    with monkeypatch.context() as patched:
        patched.delattr(Directory, "define")
        serving.begin()
    assert lots(serving) == right


def test_where_that_can_not_be_written_the_service_starts_and_says_what_to_do(
    serving: Serving, pool: OperatorClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def define(*_: object, **__: object) -> None:
        raise Refused(OVERLOADED)

    right = leave_older(serving, pool)
    serving.drain()
    monkeypatch.setattr(Directory, "define", define)
    serving.begin()
    assert lots(serving) != right
    assert "the lot lot is prepaid, but its slowed SIMs are tried until the next start or import" in caplog.text
