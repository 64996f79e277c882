"""The connection of a process that only starts, answers and cancels is cut anywhere: repeated, each happens once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import pytest

from durable_core import StoreError
from sagas import Orchestrator, Saga, SagaCompensated, saga
from tests.crash.proxy import Proxy, proxy
from tests.postgres_server import Server
from tests.sagas_for_tests import until

pytestmark = pytest.mark.slow

T = TypeVar("T")

POSITIONS = range(0, 40, 3)


@saga("asking", version=1)
async def asking(s: Saga, number: int) -> int:
    asked = await s.callback("more", int, timeout=timedelta(hours=1))
    return number + await asked.result()


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """What it returns; called again while the error may pass or nobody knows what became of it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except StoreError as error:
                if not error.transient:
                    raise


async def play(at: Proxy, starter: Orchestrator, id: str, *, cancels: bool) -> None:
    """One saga, started, answered or cancelled, and asked for its end through the proxy."""
    handle = await repeated(lambda: starter.start(asking, 1, id=id))
    if cancels:
        await repeated(lambda: handle.cancel("no"))
        with pytest.raises(SagaCompensated):
            await repeated(handle.result)
    else:

        async def armed() -> bool:
            return "more" in [step.name for step in (await repeated(handle.info)).steps]

        await until(armed, starter)
        await repeated(lambda: starter.complete_callback(saga_id=id, name="more", value=2))
        assert await repeated(handle.result) == 3
    at.disarm()
    kinds = [entry.kind for entry in await repeated(handle.history)]
    assert kinds.count("answered") == (0 if cancels else 1)
    assert kinds.count("ended") == 1


@pytest.mark.parametrize("cancels", [False, True])
def test_each_happens_once_wherever_the_connection_is_cut(server: Server, *, cancels: bool):
    """Start, answer, cancel and result, with the connection cut at ever later messages both ways."""

    async def main() -> None:
        schema = server.fresh().rpartition("=")[2]
        async with proxy(server.port) as between, Orchestrator(server.url(schema=schema), sagas=[asking]) as worker:
            through = server.url(schema=schema, port=between.port)
            async with Orchestrator(through, sagas=[asking], worker=False) as starter:
                for after in POSITIONS:
                    for direction in ("to server", "to client"):
                        between.cut(direction, after)
                        await play(between, starter, f"{direction} {after}", cancels=cancels)
                assert between.cuts > len(POSITIONS)
                assert await worker.count() == 2 * len(POSITIONS)

    asyncio.run(main())
