"""The running shop: four participants, a worker that can be killed, and a counter at which orders are placed."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import httpx

from examples.orders.audit import Books
from examples.orders.domain import Order, Receipt
from examples.orders.manager import Manager
from examples.orders.place_order import place_order
from examples.participants.admin import Admin
from examples.participants.launcher import Launcher
from examples.participants.stage import Stage, start_services
from sagas import Orchestrator, SagaHandle

NAMES = ("inventory", "payments", "shipping", "desk")


@attrs.define
class Shop(Stage):
    """Everything that a scene may use. Leaving ``open_shop`` ends every process."""

    inventory: Admin
    payments: Admin
    shipping: Admin
    manager: Manager

    @property
    def books(self) -> Books:
        """The participants' database files."""
        return books(self.directory)

    async def place(self, order: Order) -> SagaHandle[Receipt]:
        """Place ``order``: its saga is durable on return, and a worker will run it."""
        return await self.counter.start(place_order, order, id=order.id)


def books(directory: Path) -> Books:
    """The participants' database files in ``directory``."""
    inventory, payments, shipping, desk = (directory / f"{name}.db" for name in NAMES)
    return Books(inventory, payments, shipping, desk)


@asynccontextmanager
async def open_shop(directory: Path, store: str, *, workers: int = 1) -> AsyncGenerator[Shop]:
    """Start the participants and the workers; files and logs go to ``directory``, sagas to ``store``."""
    async with AsyncExitStack() as stack:
        launcher = await stack.enter_async_context(Launcher(directory))
        services, admins = await start_services(stack, launcher, "examples.orders.participants", NAMES)
        counter = await stack.enter_async_context(Orchestrator(store, sagas=[place_order], worker=False))
        web = await launcher.start("web", "examples.orders.web", "--store", store)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=web.url, trust_env=False))
        shop = Shop(
            directory,
            store,
            launcher,
            counter,
            services,
            "examples.orders.worker",
            inventory=admins["inventory"],
            payments=admins["payments"],
            shipping=admins["shipping"],
            manager=Manager(admins["desk"].http, http, web.pid),
            size=workers,
        )
        await shop.start_worker()
        yield shop
