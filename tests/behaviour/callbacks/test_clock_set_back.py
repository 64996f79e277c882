"""The wall clock is set back while sagas wait: in one process, between two, and beside one that has not noticed."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import pytest

from durable_core.engine.clock import SystemClock
from durable_core.model.duration import NS
from sagas import Entry, Retry, Saga, saga
from tests.kit import Place, World, begun, end_of, party

HOUR_NS = 3600 * NS
SPAN = timedelta(milliseconds=200)
booked = party("booked")
tried = party("tried", retry=Retry(attempts=2, first=SPAN, jitter=False))


class Wall:
    """A wall clock that a person sets."""

    def __init__(self, off_ns: int = 0) -> None:
        self.off_ns = off_ns

    def clock(self) -> SystemClock:
        """The clock of a process that looks at it."""
        return SystemClock(wall=lambda: time.time_ns() + self.off_ns)


@saga("napping", version=1)
async def napping(s: Saga) -> str:
    await s.run(booked, "ann")
    await s.sleep(SPAN)
    return "awake"


@saga("asking", version=1)
async def asking(s: Saga) -> str:
    callback = await s.callback("approval", str, timeout=SPAN)
    try:
        return await callback.result()
    except TimeoutError:
        return "awake"


@saga("trying", version=1)
async def trying(s: Saga) -> str:
    await s.run(tried, "ann")
    return "awake"


WAITS = {"sleep": (napping, "sleep"), "callback": (asking, "approval"), "retry": (trying, "tried")}
every_wait = pytest.mark.parametrize("wait", WAITS)


def never_decreasing(history: Sequence[Entry]) -> bool:
    """Whether each time is at or after the one before."""
    return all(one.at <= other.at for one, other in pairwise(history))


@every_wait
async def test_a_wait_ends_after_its_span_though_the_clock_was_set_back(place: Place, wait: str):
    """An hour back amid the wait: it ends after the span that was asked for, not an hour later, in times that rise."""
    body, key = WAITS[wait]

    wall = Wall()
    world = World().plan("tried", "broken", "ok")
    async with place.orchestrator(body, world=world, clock=wall.clock()) as running:
        handle = await running.start(body)
        await begun(handle, running, key)
        wall.off_ns = -HOUR_NS
        assert (await end_of(handle, running)).value == "awake"
        assert never_decreasing(await handle.history())


@every_wait
@pytest.mark.parametrize("end", ["leaves", "dies"])
async def test_a_process_that_begins_after_the_clock_was_set_back(place: Place, wait: str, end: str):
    """It takes up the wait where the last one stood, also one that died, and its own times come after the journal's."""
    body, key = WAITS[wait]

    world = World().plan("tried", "broken", "ok")
    before = place.dying if end == "dies" else place.orchestrator
    async with before(body, world=world, clock=Wall(HOUR_NS).clock()) as running:
        handle = await running.start(body, id="n")
        await begun(handle, running, key)
    async with place.orchestrator(body, world=world, clock=Wall().clock()) as running:
        handle = await running.get("n")
        assert (await end_of(handle, running)).value == "awake"
        assert never_decreasing(await handle.history())
        info = await handle.info()
        assert info.ended_at is not None
        assert info.created_at <= info.updated_at <= info.ended_at


async def test_a_process_that_only_starts_goes_on_from_the_journal_too(place: Place):
    """A saga that is started after the clock was set back does not come before those that have ended."""
    world = World()
    async with place.orchestrator(napping, world=world, clock=Wall(HOUR_NS).clock()) as running:
        first = await running.start(napping, id="first")
        await end_of(first, running)
        ended_at = (await first.info()).ended_at
    async with place.orchestrator(napping, world=world, worker=False, clock=Wall().clock()) as observer:
        second = await observer.start(napping, id="second")
        assert ended_at is not None
        assert (await second.info()).created_at >= ended_at
        assert [info.id for info in await observer.list(since=ended_at)] == ["second"]


async def test_a_worker_takes_over_from_one_whose_clock_is_ahead(place: Place):
    """A living worker whose clock is an hour behind takes a dead one's wait: it ends after its span; times rise."""
    world = World()
    async with place.orchestrator(napping, world=world, clock=Wall().clock()) as behind:
        async with place.dying(napping, world=world, clock=Wall(HOUR_NS).clock()) as ahead:
            handle = await ahead.start(napping, id="n")
            await begun(handle, ahead, "sleep")
        handle = await behind.get("n")
        async with asyncio.timeout(30):
            assert await handle.result() == "awake"
        assert never_decreasing(await handle.history())
