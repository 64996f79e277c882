"""A store object instead of an address: `store=` of both layers and of the blocking orchestrator."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from durable_core import Context, DefinitionError, Engine, StoreError, durable
from durable_core.layer import open_store
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import Orchestrator, Saga, SagaHandle, lookup, saga
from sagas.blocking import Orchestrator as BlockingOrchestrator


@lookup
def double(number: int) -> int:
    return 2 * number


@saga("doubling", version=1)
async def doubling(s: Saga, number: int) -> int:
    return await s.run(double, number)


def add_one(number: int) -> int:
    return number + 1


@durable("adding", version=1)
async def adding(ctx: Context, number: int) -> int:
    return await ctx.step(add_one, number)


MAKERS: list[Callable[..., Any]] = [Orchestrator, Engine, BlockingOrchestrator]
each_maker = pytest.mark.parametrize("make", MAKERS, ids=["sagas", "core", "blocking"])


@each_maker
@pytest.mark.parametrize(
    ("args", "options", "why"),
    [
        (("memory://",), {"store": open_store("memory://")}, "an address and a store are given"),
        ((), {}, "no store is given"),
        ((None,), {}, "no store is given"),
        ((open_store("memory://"),), {}, "address is a text, not a MemoryStore"),
    ],
    ids=["both", "neither", "none", "a store as the address"],
)
def test_a_program_gives_an_address_or_a_store(make: Callable[..., Any], args: Any, options: Any, why: str):
    """Both, neither, or a store in the address's place is a definition error, before anything is opened."""
    with pytest.raises(DefinitionError, match=why) as refused:
        make(*args, **options)
    assert "store=" in refused.value.advice


@pytest.mark.parametrize("opened", [False, True], ids=["not opened", "open"])
def test_sagas_run_on_the_store_that_was_given(opened: bool):  # noqa: FBT001
    """Whether it was open or not; leaving closes it, and what it holds stays for the next orchestrator on it."""

    async def main() -> None:
        store = MemoryStore(MemoryData())
        if opened:
            await store.open(worker=None)
        async with Orchestrator(store=store, sagas=[doubling]) as running:
            assert running.engine.store is store
            assert await (await running.start(doubling, 4, id="a")).result() == 8
        with pytest.raises(StoreError, match="not open"):
            await store.runs.find(["a"])
        async with Orchestrator(store=store, sagas=[doubling]) as running:
            assert await (await running.get("a")).result() == 8

    asyncio.run(main())


def test_runs_of_the_core_and_blocking_calls_take_a_store_too(tmp_path: Any):
    """The same option, with the same meaning."""
    url = f"sqlite:///{tmp_path}/runs.db"

    async def main() -> int:
        async with Engine(functions=[adding], store=open_store(url)) as engine:
            return await (await engine.start(adding, 4)).result()

    assert asyncio.run(main()) == 5
    with BlockingOrchestrator(store=open_store(url), sagas=[doubling]) as running:
        handle: SagaHandle[int] | Any = running.start(doubling, 4, id="a")
        assert handle.result() == 8
    with BlockingOrchestrator(url) as running:
        assert running.info("a").status == "completed"


def test_one_store_object_serves_one_engine():
    """Another engine is refused while the first is open, and does not disturb it."""

    async def main() -> None:
        store = MemoryStore(MemoryData())
        async with Orchestrator(store=store, sagas=[doubling]) as running:
            with pytest.raises(StoreError, match="open already, in an engine"):
                await Orchestrator(store=store, sagas=[doubling]).__aenter__()
            with pytest.raises(StoreError, match="open already, in an engine"):
                await running.__aenter__()
            assert await (await running.start(doubling, 4)).result() == 8

    asyncio.run(main())
