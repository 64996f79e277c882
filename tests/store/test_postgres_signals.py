"""Signals on PostgreSQL: that some were left is told once, and heeded whatever becomes of the batch that was told."""

import asyncio
from typing import Any

import pytest

from durable_core import StoreError
from durable_core.testing.store_rows import in_loop
from sagas import Orchestrator, Saga, pivot, saga
from tests.kit import World, bell, entered, journalled, looking_away, reaches, watched
from tests.postgres_server import Server

hold, charge = watched("hold"), watched("charge", at=pivot)


@saga("order", version=1)
async def order(s: Saga) -> str:
    await s.run(hold)
    await s.run(charge)
    return "done"


def writer_is_cancelled(store: Any, hit: asyncio.Event) -> None:
    """The writer's task is cancelled from outside after it was told, and before it looks which signals these are."""
    ask = store._database.run

    async def cancelled(what: str, *args: Any, **options: Any) -> Any:
        if what == "look for signals":
            store._database.run = ask
            writer = asyncio.current_task()
            assert writer is not None
            writer.cancel()
            hit.set()
            await asyncio.sleep(0)
        return await ask(what, *args, **options)

    store._database.run = cancelled


def rest_is_refused(store: Any, hit: asyncio.Event) -> None:
    """What is left of the batch once it was told so is refused for good: its runs are then written one by one."""
    commit, tries = store.journal._commit, 0

    async def refused(batch: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 2:
            store.journal._commit = commit
            hit.set()
            raise StoreError("a row of some other run's in this batch cannot be stored", transient=False)
        return await commit(batch)

    store.journal._commit = refused


@pytest.mark.parametrize("trouble", [writer_is_cancelled, rest_is_refused])
@in_loop
async def test_a_signal_is_heeded_whatever_becomes_of_the_batch_that_told_of_it(server: Server, trouble: Any):
    """A cancel returned while a step was in flight; the batch with that step's end is told of it, and meets trouble.

    The pivot does not begin: the saga is rolled back.
    """
    watch, hit, url = World(), asyncio.Event(), server.fresh()
    gate = watch.gate("hold")
    async with (
        Orchestrator(url, sagas=[order, bell], resources=[watch], grace=2) as worker,
        Orchestrator(url, sagas=[order, bell], resources=[watch], worker=False) as desk,
    ):
        handle = await worker.start(order, id="o")
        await entered(gate, worker)
        async with looking_away(worker):
            await desk.cancel("o")
            trouble(worker.engine.store, hit)
            gate.open()
            async with asyncio.timeout(30):
                await hit.wait()
            await journalled(handle, desk, "succeeded")
        info = await reaches(handle, worker, "completed", "compensated", "stuck")
        assert (info.status, info.cause) == ("compensated", "cancelled")
        assert watch.timeline == ["begin hold", "end hold", "begin undo hold", "end undo hold"]
