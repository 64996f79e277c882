"""``python -m examples.orders.worker``: runs the orders' sagas until SIGTERM, including those of an earlier worker."""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from examples.orders.clients import DeskClient, InventoryClient, ShippingClient
from examples.orders.place_order import place_order
from examples.participants import traces
from examples.participants.clients import PaymentsClient
from examples.participants.working import connection, work
from sagas import Orchestrator


def main(
    *,
    store: Annotated[str, typer.Option(help="Where the sagas are kept, such as sqlite:///orders.db.")],
    inventory: Annotated[str, typer.Option(help="URL of the inventory service.")],
    payments: Annotated[str, typer.Option(help="URL of the payments service.")],
    shipping: Annotated[str, typer.Option(help="URL of the shipping service.")],
    desk: Annotated[str, typer.Option(help="URL of the manager's desk.")],
    patience: Annotated[float, typer.Option(help="Seconds to wait for an answer before its outcome is unknown.")] = 30,
    parent_fd: Annotated[int | None, typer.Option(help="Set by the launcher.", hidden=True)] = None,
) -> None:
    """Run orders until SIGTERM or Ctrl-C."""
    traces.begin("shop")
    asyncio.run(_work(store, (inventory, payments, shipping, desk), patience=patience, parent_fd=parent_fd))


async def _work(store: str, urls: tuple[str, str, str, str], *, patience: float, parent_fd: int | None) -> None:
    async with AsyncExitStack() as stack:
        inventory, payments, shipping, desk = [
            await stack.enter_async_context(connection(url, patience)) for url in urls
        ]
        resources = [
            InventoryClient(inventory),
            PaymentsClient(payments),
            ShippingClient(shipping),
            DeskClient(desk),
        ]
        # On PostgreSQL a lease tells who has died; on a file nobody waits for one.
        await work(Orchestrator(store, sagas=[place_order], resources=resources, lease=3), parent_fd)


if __name__ == "__main__":
    typer.run(main)
