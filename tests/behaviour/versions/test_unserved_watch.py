"""How often a worker asks the store for runs that no worker serves."""

import asyncio
from typing import Any

import pytest

from durable_core.engine.clock import SystemClock
from durable_core.engine.watch import Attention, UnservedWatch
from durable_core.model.run import RunRef
from durable_core.stores.memory.claims import MemoryVersions
from durable_core.stores.memory.store import MemoryStore
from durable_core.testing import ManualClock


class Slow(MemoryVersions):
    """Takes a second for each answer, by the loop's clock, and counts them."""

    asked = 0

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        self.asked += 1
        return await super().unserved(now_ns=now_ns)


def test_an_engine_that_is_entered_again_reports_again():
    """Leaving ends the reports of that time only."""
    reported: list[str] = []

    async def main() -> None:
        both = asyncio.Event()

        async def listener(run_id: str) -> None:
            reported.append(run_id)
            if len(reported) == 2:
                both.set()

        attention = Attention(listener)
        await attention.close()
        attention.ask_for_each(["a", "b"])
        async with asyncio.timeout(30):
            await both.wait()
        await attention.close()

    asyncio.run(main())
    assert reported == ["a", "b"]


async def ignore(run_id: str) -> None:
    """Listens to nothing."""


@pytest.mark.parametrize(("clock", "asked"), [(ManualClock, 3), (SystemClock, 1)])
async def test_a_look_is_put_off_by_the_time_that_the_last_one_took(clock: Any, asked: int):
    """Under the system clock it spends a small share of the time on it. Where a test moves time none is put off."""
    store = MemoryStore()
    slow = store.versions = Slow(store._session)
    await store.open(worker="w")
    watch = UnservedWatch(store, clock(), Attention(ignore), wake=lambda: None)
    asyncio.get_running_loop().time = lambda: float(slow.asked)  # type: ignore[method-assign]
    for _ in range(3):
        watch.notify()
        await watch.look()
    assert slow.asked == asked
    assert watch.busy == (asked == 1)
