"""The running shop: four participants, a worker that can be killed, and a counter at which orders are placed.

The counter only starts and observes sagas (``worker=False``); what it sees survives the worker's death.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import httpx

from examples.orders.admin import Admin
from examples.orders.audit import Books
from examples.orders.domain import Order, Receipt
from examples.orders.launcher import Child, Launcher
from examples.orders.manager import Manager
from examples.orders.place_order import place_order
from sagas import Orchestrator, SagaCompensated, SagaHandle, SagaStuck

NAMES = ("inventory", "payments", "shipping", "desk")
END_S = 30.0
"""How long an order may take to end; only a lost saga takes more than a few seconds."""


class DemoFailedError(Exception):
    """The demo could not continue. The message says where to look."""


@attrs.define
class Shop:
    """Everything that a scene may use. Leaving ``open_shop`` ends every process."""

    directory: Path
    store: str
    launcher: Launcher
    counter: Orchestrator
    services: dict[str, Child]
    inventory: Admin
    payments: Admin
    shipping: Admin
    manager: Manager
    size: int = 1
    """How many workers there are at a time."""
    workers: list[Child] = attrs.field(factory=list[Child])

    @property
    def books(self) -> Books:
        """The participants' database files."""
        return books(self.directory)

    async def start_worker(self, *, patience_s: float = 30) -> Child:
        """Start the missing workers, which wait ``patience_s`` for a service's answer; return the last one."""
        urls = [f"--{name}={self.services[name].url}" for name in NAMES]
        options = ("--store", self.store, *urls, "--patience", str(patience_s))
        while len(self.workers) < self.size:
            self.workers.append(await self.launcher.start("worker", "examples.orders.worker", *options))
        return self.workers[-1]

    async def restart_worker(self, *, patience_s: float = 30) -> None:
        """Stop the workers gracefully and start others."""
        while self.workers:
            await self.workers.pop().stop()
        await self.start_worker(patience_s=patience_s)

    async def kill_worker(self, handle: SagaHandle[Receipt]) -> int:
        """``kill -9`` the worker that runs this order; returns the process id it had."""
        name = (await handle.history())[-1].worker
        for worker in self.workers:
            if worker.facts["worker"] == name:
                self.workers.remove(worker)
                worker.kill()
                return worker.pid
        raise DemoFailedError(f"{handle.id} is run by {name}, which is no worker of this demo")

    async def place(self, order: Order) -> SagaHandle[Receipt]:
        """Place ``order``: its saga is durable on return, and a worker will run it."""
        return await self.counter.start(place_order, order, id=order.id)

    async def ended(self, handle: SagaHandle[Receipt]) -> None:
        """Return once the order's saga is completed or compensated; raises if it is stuck or takes too long."""
        try:
            await handle.result(timeout=END_S)
        except SagaCompensated:
            return  # undone is an end like another; the audit judges whether it is the right one
        except SagaStuck as stuck:
            raise DemoFailedError(f"{handle.id} is stuck, which this scene does not want: {stuck}") from stuck
        except TimeoutError as error:
            raise DemoFailedError(self._overdue(f"{handle.id} did not end")) from error

    async def heard(self, handle: SagaHandle[Receipt], what: str) -> None:
        """Return once the worker has taken up the request ``what`` (such as ``cancel``) for the order's saga."""
        try:
            async with asyncio.timeout(END_S):
                while not any(e.kind == "signalled" and e.key == what for e in await handle.history()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # the worker is another process: its journal can only be looked at
        except TimeoutError as error:
            raise DemoFailedError(self._overdue(f"the worker did not hear of the {what} of {handle.id}")) from error

    async def waiting(self, handle: SagaHandle[Receipt]) -> None:
        """Return once the order's saga waits and is in no process's memory."""
        try:
            async with asyncio.timeout(END_S):
                while (await handle.info()).status != "waiting":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # the worker is another process: its row can only be looked at
        except TimeoutError as error:
            raise DemoFailedError(self._overdue(f"{handle.id} did not come to wait")) from error

    async def stuck(self, handle: SagaHandle[Receipt]) -> SagaStuck:
        """Return why the order's saga is stuck, once it is."""
        try:
            await handle.result(timeout=END_S)
        except SagaStuck as stuck:
            return stuck
        except TimeoutError as error:
            raise DemoFailedError(self._overdue(f"{handle.id} did not get stuck")) from error
        except SagaCompensated:
            pass  # said below, as for a saga that completed
        raise DemoFailedError(f"{handle.id} ended, although a compensation was made to fail; logs: {self.directory}")

    def _overdue(self, what: str) -> str:
        return f"{what} within {END_S:g} s; the processes' logs are in {self.directory}"


def books(directory: Path) -> Books:
    """The participants' database files in ``directory``."""
    inventory, payments, shipping, desk = (directory / f"{name}.db" for name in NAMES)
    return Books(inventory, payments, shipping, desk)


@asynccontextmanager
async def open_shop(directory: Path, store: str, *, workers: int = 1) -> AsyncGenerator[Shop]:
    """Start the participants and the workers; files and logs go to ``directory``, sagas to ``store``."""
    async with AsyncExitStack() as stack:
        launcher = await stack.enter_async_context(Launcher(directory))
        services: dict[str, Child] = {}
        admins: list[Admin] = []
        for name in NAMES:
            database = str(directory / f"{name}.db")
            services[name] = await launcher.start(name, "examples.orders.participants", name, "--database", database)
            http = httpx.AsyncClient(base_url=services[name].url, trust_env=False)
            admins.append(Admin(name, await stack.enter_async_context(http)))
        desk = admins.pop().http
        counter = await stack.enter_async_context(Orchestrator(store, sagas=[place_order], worker=False))
        web = await launcher.start("web", "examples.orders.web", "--store", store)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=web.url, trust_env=False))
        inventory, payments, shipping = admins
        manager = Manager(desk, http, web.pid)
        shop = Shop(directory, store, launcher, counter, services, inventory, payments, shipping, manager, size=workers)
        await shop.start_worker()
        yield shop
