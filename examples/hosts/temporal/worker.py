"""``python -m examples.hosts.temporal.worker``: runs the orders' sagas on Temporal until Ctrl-C.

The saga is that of ``examples.orders.place_order``, unchanged.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from temporalio.client import Client
from temporalio.worker import Worker

from examples.orders.clients import DeskClient, InventoryClient, ShippingClient
from examples.orders.place_order import place_order
from examples.participants.clients import PaymentsClient
from examples.participants.working import connection
from sagas.hosts import temporal

TASK_QUEUE = "orders"


def order_worker(client: Client, resources: list[object]) -> Worker:
    """The worker of the orders' task queue."""
    return temporal.worker(client, task_queue=TASK_QUEUE, sagas=[place_order], resources=resources)


def main(
    *,
    inventory: Annotated[str, typer.Option(help="URL of the inventory service.")],
    payments: Annotated[str, typer.Option(help="URL of the payments service.")],
    shipping: Annotated[str, typer.Option(help="URL of the shipping service.")],
    desk: Annotated[str, typer.Option(help="URL of the manager's desk.")],
    address: Annotated[str, typer.Option(help="Temporal's frontend.")] = "localhost:7233",
    namespace: Annotated[str, typer.Option(help="Temporal's namespace.")] = "default",
) -> None:
    """Run orders until Ctrl-C."""
    asyncio.run(_work((inventory, payments, shipping, desk), address=address, namespace=namespace))


async def _work(urls: tuple[str, str, str, str], *, address: str, namespace: str) -> None:
    client = await Client.connect(address, namespace=namespace)
    async with AsyncExitStack() as stack:
        inventory, payments, shipping, desk = [await stack.enter_async_context(connection(url, 30)) for url in urls]
        resources: list[object] = [
            InventoryClient(inventory),
            PaymentsClient(payments),
            ShippingClient(shipping),
            DeskClient(desk),
        ]
        await order_worker(client, resources).run()


if __name__ == "__main__":
    typer.run(main)
