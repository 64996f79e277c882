"""The running processes of a demo: services, workers that can be killed, and an observer of the sagas.

The observer only starts sagas and looks at them (``worker=False``); what it sees survives a worker's death.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import httpx

from examples.participants.admin import Admin
from examples.participants.launcher import Child, Launcher
from sagas import Orchestrator, SagaCompensated, SagaHandle, SagaStuck

END_S = 30.0
"""How long a saga may take to end; only a lost saga takes more than a few seconds."""


class DemoFailedError(Exception):
    """The demo could not continue. The message says where to look."""


@attrs.define
class Stage:
    """What every scene may use. The launcher ends every process."""

    directory: Path
    store: str
    launcher: Launcher
    counter: Orchestrator
    services: dict[str, Child]
    worker_module: str
    size: int = attrs.field(default=1, kw_only=True)
    """How many workers there are at a time."""
    workers: list[Child] = attrs.field(factory=list[Child], kw_only=True)

    async def start_worker(self, *, patience_s: float = 30, options: Sequence[str] = ()) -> Child:
        """Start the missing workers, which wait ``patience_s`` for a service's answer; return the last one."""
        urls = [f"--{name}={child.url}" for name, child in self.services.items()]
        all_options = ("--store", self.store, *urls, "--patience", str(patience_s), *options)
        while len(self.workers) < self.size:
            self.workers.append(await self.launcher.start("worker", self.worker_module, *all_options))
        return self.workers[-1]

    async def stop_workers(self) -> None:
        """Stop the workers gracefully."""
        while self.workers:
            await self.workers.pop().stop()

    async def restart_worker(self, *, patience_s: float = 30) -> None:
        """Stop the workers gracefully and start others."""
        await self.stop_workers()
        await self.start_worker(patience_s=patience_s)

    async def kill_worker(self, handle: SagaHandle[Any]) -> int:
        """``kill -9`` the worker that runs this saga; returns the process id it had."""
        name = (await handle.history())[-1].worker
        for worker in self.workers:
            if worker.facts["worker"] == name:
                self.workers.remove(worker)
                worker.kill()
                return worker.pid
        raise DemoFailedError(f"{handle.id} is run by {name}, which is no worker of this demo")

    async def ended(self, handle: SagaHandle[Any]) -> None:
        """Return once the saga is completed or compensated; raises if it is stuck or takes too long."""
        try:
            await handle.result(timeout=END_S)
        except SagaCompensated:
            return  # undone is an end like another; the audit judges whether it is the right one
        except SagaStuck as stuck:
            raise DemoFailedError(f"{handle.id} is stuck, which this scene does not want: {stuck}") from stuck
        except TimeoutError as error:
            raise DemoFailedError(self._overdue(f"{handle.id} did not end")) from error

    async def heard(self, handle: SagaHandle[Any], what: str) -> None:
        """Return once the worker has taken up the request ``what`` (such as ``cancel``) for the saga."""

        async def taken_up() -> bool:
            return any(e.kind == "signalled" and e.key == what for e in await handle.history())

        await self.until(taken_up, f"the worker did not hear of the {what} of {handle.id}")

    async def waiting(self, handle: SagaHandle[Any]) -> None:
        """Return once the saga waits and is in no process's memory."""

        async def waits() -> bool:
            return (await handle.info()).status == "waiting"

        await self.until(waits, f"{handle.id} did not come to wait")

    async def until(self, holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        """Return once ``holds()``. The workers are other processes, so what they did can only be polled."""
        try:
            async with asyncio.timeout(END_S):
                while not await holds():  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise DemoFailedError(self._overdue(otherwise)) from error

    async def stuck(self, handle: SagaHandle[Any]) -> SagaStuck:
        """Return why the saga is stuck, once it is."""
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


async def start_services(
    stack: AsyncExitStack, launcher: Launcher, module: str, names: Sequence[str]
) -> tuple[dict[str, Child], dict[str, Admin]]:
    """Start ``python -m module NAME`` for each service, with a database of its own; also their admin endpoints."""
    services = {
        name: launcher.spawn(name, module, name, "--database", str(launcher.directory / f"{name}.db")) for name in names
    }
    admins: dict[str, Admin] = {}
    for name, child in services.items():
        await launcher.ready(child)
        http = httpx.AsyncClient(base_url=child.url, trust_env=False)
        admins[name] = Admin(name, await stack.enter_async_context(http))
    return services, admins
