"""The example: the order saga of ``examples.orders``, unchanged, on Temporal."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from examples.orders.clients import DeskClient, InventoryClient, ShippingClient
from examples.orders.domain import Approval, NoCourier, Order, Receipt
from examples.orders.place_order import LARGE, place_order
from examples.participants.clients import PaymentsClient
from sagas import SagaCompensated
from tests.hosts.temporal.stage import environment, needs_temporal
from tests.kit import until, within

pytestmark = needs_temporal
ANSWERS: dict[str, dict[str, Any]] = {
    "reserve": {"id": 1, "sku": "teapot", "quantity": 1},
    "charge": {"id": 2, "amount": LARGE},
    "book": {"id": 3},
    "sell": {"reservation_id": 1},
    "ask": {"id": 4},
}


def participants(calls: list[str], asked: list[str], *, courier: bool) -> list[Any]:
    """The four participants, answered from memory."""

    async def call(_: Any, operation: str, _key: str, **body: Any) -> dict[str, Any]:
        calls.append(operation)
        if operation == "ask":
            asked.append(body["token"])
        if operation == "book" and not courier:
            raise NoCourier("none today")
        return ANSWERS.get(operation, {})

    kinds = (InventoryClient, PaymentsClient, ShippingClient, DeskClient)
    return [type(kind.__name__, (kind,), {"__init__": lambda _: None, "call": call})() for kind in kinds]


@pytest.mark.parametrize("courier", [True, False])
def test_an_order(tmp_path: Path, *, courier: bool):
    """A manager approves it by the token; then it is sent, or undone where there is no courier."""
    from examples.hosts.temporal.worker import TASK_QUEUE, order_worker
    from sagas.hosts import temporal

    calls: list[str] = []
    asked: list[str] = []

    async def main() -> None:
        async with environment(tmp_path) as env, order_worker(env.client, participants(calls, asked, courier=courier)):
            orders = temporal.Client(env.client, task_queue=TASK_QUEUE, sagas=[place_order])
            order = Order(id="17", sku="teapot", quantity=1, amount=LARGE, address="7 Mill Lane")
            handle = await orders.start(place_order, order, id="order-17")
            await until(lambda: asked)
            await orders.complete_callback(asked[0], Approval(by="ann"))
            if courier:
                assert await within(handle.result()) == Receipt("17", 2, 3)
            else:
                with pytest.raises(SagaCompensated) as end:
                    await within(handle.result())
                assert isinstance(end.value.__cause__, NoCourier)

    asyncio.run(main())
    forward = ["reserve", "ask", "charge", "book"]
    assert calls == [*forward, *(["sell", "dispatch"] if courier else ["refund", "withdraw", "release"])]
