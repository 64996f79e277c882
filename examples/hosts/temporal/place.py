"""``python -m examples.hosts.temporal.place order-17``: places an order and waits for its end."""

import asyncio
import sys

from temporalio.client import Client

from examples.hosts.temporal.worker import TASK_QUEUE
from examples.orders.domain import Order
from examples.orders.place_order import place_order
from sagas import SagaCompensated
from sagas.hosts import temporal


async def main(id: str) -> None:
    orders = temporal.Client(await Client.connect("localhost:7233"), task_queue=TASK_QUEUE, sagas=[place_order])
    order = Order(id=id, sku="teapot", quantity=1, amount=4200, address="7 Mill Lane")
    handle = await orders.start(place_order, order, id=id)
    try:
        print(await handle.result())
    except SagaCompensated as end:
        print("undone:", end.compensated)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
