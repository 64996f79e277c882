"""``python -m examples.orders.worker``: runs the orders' sagas until SIGTERM, including those of an earlier worker."""

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Annotated

import httpx
import typer

from examples.orders import traces
from examples.orders.child import report_ready
from examples.orders.clients import DeskClient, InventoryClient, PaymentsClient, ShippingClient
from examples.orders.place_order import place_order
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
    stop = asyncio.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(asked, stop.set)
    async with AsyncExitStack() as stack:
        # No proxy of the environment's has a place between the services of one shop: trust_env=False.
        clients = [httpx.AsyncClient(base_url=url, timeout=patience, trust_env=False) for url in urls]
        inventory, payments, shipping, desk = [await stack.enter_async_context(client) for client in clients]
        resources = [
            InventoryClient(inventory),
            PaymentsClient(payments),
            ShippingClient(shipping),
            DeskClient(desk),
        ]
        # On PostgreSQL a lease tells who has died; on a file nobody waits for one.
        running = Orchestrator(store, sagas=[place_order], resources=resources, lease=3)
        await stack.enter_async_context(running)
        report_ready(parent_fd, worker=running.engine.name)
        await stop.wait()


if __name__ == "__main__":
    typer.run(main)
