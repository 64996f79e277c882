"""Worker processes that follow each other while the processes beside them live on: one dies at its n-th commit.

Invariant: nothing of a process runs after its death: each task that it made, directly or not, is known by its context.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, Self

import attrs

from durable_core.ports import Batch
from durable_core.stores.postgres.store import PostgresStore
from sagas import Orchestrator
from tests.crash.mortal import Side
from tests.postgres_server import crash


@attrs.define(eq=False)
class _Process:
    """What runs in one process."""

    tasks: "set[asyncio.Task[Any]]" = attrs.field(factory=set["asyncio.Task[Any]"])
    dead: bool = False

    def die(self) -> None:
        """Nothing of it runs on, and what its tasks make while they are torn down never begins."""
        self.dead = True
        for task in self.tasks:
            task.cancel()


_PROCESS: ContextVar[_Process | None] = ContextVar("_PROCESS", default=None)
"""The process that the running code belongs to; None in the test's own."""


def _task_of_a_process(
    loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **more: Any
) -> "asyncio.Task[Any]":
    """A new task, which dies with the process that makes it."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context, **more)
    process = _PROCESS.get() if context is None else context.get(_PROCESS)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
        if process.dead:
            task.cancel()
    return task


@attrs.define
class Successors:
    """Workers made by ``make``, one after the other; the first dies right before or right after its n-th commit."""

    make: Callable[[], Orchestrator]
    commit: int
    side: Side
    deaths: int = 0
    _leave: asyncio.Event = attrs.field(factory=asyncio.Event)
    _serving: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_task_factory(_task_of_a_process)
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        """The worker that lives leaves in good order; what went wrong in any of them is raised here."""
        self._leave.set()
        assert self._serving is not None
        await self._serving
        asyncio.get_running_loop().set_task_factory(None)

    async def _serve(self) -> None:
        while True:
            process, context = _Process(), copy_context()
            context.run(_PROCESS.set, process)
            life = asyncio.create_task(self._live(process), context=context)
            await asyncio.wait({life})
            if not process.dead:
                return life.result()
            while process.tasks:
                await asyncio.wait(process.tasks)

    async def _live(self, process: _Process) -> None:
        """One process; that it dies is no end in good order."""
        worker = self.make()
        if not self.deaths:
            self._make_mortal(worker.engine.store, process)
        await worker.__aenter__()
        await self._leave.wait()
        await worker.__aexit__(None, None, None)

    def _make_mortal(self, store: Any, process: _Process) -> None:
        commit = store.journal.commit

        async def commit_or_die(batch: Batch) -> frozenset[int]:
            self.commit -= 1
            if self.commit:
                written: frozenset[int] = await commit(batch)
                return written
            if self.side == "after":
                await commit(batch)
            if isinstance(store, PostgresStore):
                crash(store)
            else:
                store.crash()
            self.deaths += 1
            process.die()
            await asyncio.Event().wait()
            raise AssertionError

        store.journal.commit = commit_or_die
