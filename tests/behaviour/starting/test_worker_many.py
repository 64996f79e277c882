"""Many sagas on one worker: those that wait, those that fall due and those that are new share it fairly."""

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest

from durable_core.engine import slots
from durable_core.engine.slots import Queued, Slots
from durable_core.model.run import RunRecord
from durable_core.replay.run import Run
from durable_core.stores.memory.claims import MemoryClaims
from durable_core.stores.memory.store import MemoryStore
from durable_core.testing import ManualClock
from sagas import Orchestrator, Saga, lookup, saga
from tests.kit import orchestrator, within


class Place:
    """As much of a run as admission asks for."""

    def __init__(self) -> None:
        self.dead = False


def place() -> Run:
    return cast("Run", Place())


def test_new_and_due_runs_take_turns():
    """While both wait for a place, each gets every second one that becomes free."""
    places = Slots(1)
    running = place()
    places.enter(running)
    queue = [place() for _ in range(3)]
    places.queue.extend(Queued(run, (), {}) for run in queue)
    assert places.claimable() == 0
    turns: list[str] = []
    for _ in range(4):
        if places.leave(running):
            assert places.next() is None
            assert places.claimable() == 1
            running = place()
            places.enter(running)
            places.claimed(1)
            assert places.claimable() == 0
            turns.append("due")
        else:
            queued = places.next()
            assert queued is not None
            running = queued.run
            places.enter(running)
            turns.append("new")
    assert turns == ["due", "new", "due", "new"]


def test_a_kept_place_is_anybodys_once_nothing_is_due():
    """A place that was kept for what is due is given to a new run where the store has nothing."""
    places = Slots(1)
    running, new = place(), place()
    places.enter(running)
    places.queue.append(Queued(new, (), {}))
    assert places.claimable() == 0
    assert places.leave(running)
    assert places.next() is None
    assert places.claimable() == 1
    places.claimed(0)
    queued = places.next()
    assert queued is not None
    assert queued.run is new
    places.enter(new)
    assert not places.leave(new)


def test_no_more_are_claimed_than_there_are_places():
    """Neither kept places nor a long queue let more than the concurrency in."""
    places = Slots(3)
    running = [place() for _ in range(3)]
    for run in running:
        places.enter(run)
        places.enter(run)
    assert places.active == 3
    places.queue.append(Queued(place(), (), {}))
    assert places.claimable() == 0
    assert [places.leave(run) for run in running] == [True, False, True]
    assert not places.leave(running[0])
    assert places.claimable() == 2


ORDER: list[str] = []


@lookup
async def note(what: str) -> None:
    ORDER.append(what)
    await asyncio.sleep(0)


@saga("sleeper", version=1)
async def sleeper(s: Saga, span_s: float) -> None:
    await s.sleep(timedelta(seconds=span_s))
    await s.run(note, "due")


@saga("newcomer", version=1)
async def newcomer(s: Saga) -> None:
    await s.run(note, "new")


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_due_sagas_and_new_ones_do_not_keep_each_other_out(url: str, concurrency: int):
    """Twenty are started while forty fall due, with one place or two: all of them come to their turn."""
    ORDER.clear()
    clock = ManualClock()
    async with orchestrator(url, sleeper, newcomer, clock=clock, concurrency=concurrency) as running:
        for _ in range(40):
            await running.start(sleeper, 60)
        await clock.idle()
        assert ORDER == []
        new = [asyncio.create_task(running.start(newcomer)) for _ in range(20)]
        advancing = asyncio.create_task(clock.advance(61))
        for started in new:
            handle = await started
            await within(handle.result(), running)
        await advancing
        assert sorted(ORDER) == ["due"] * 40 + ["new"] * 20


def in_memory(running: Orchestrator) -> int:
    """How many sagas the worker keeps in memory."""
    held = running.engine._process.worker
    assert held is not None
    return len(held.runs)


async def test_only_few_sagas_that_wait_briefly_stay_in_memory(url: str, monkeypatch: pytest.MonkeyPatch):
    """Beyond a bound a short wait costs a row too, and all of them go on when it is over."""
    monkeypatch.setattr(slots, "MOST_LINGERING", 5)
    ORDER.clear()
    clock = ManualClock()
    async with orchestrator(url, sleeper, clock=clock) as running:
        handles = [await running.start(sleeper, 3) for _ in range(12)]
        await clock.idle()
        assert in_memory(running) == 5
        assert await running.count(status="waiting") == 7
        await clock.advance(4)
        for handle in handles:
            await within(handle.result(), running)
    assert ORDER == ["due"] * 12


async def test_a_saga_that_waits_longer_is_not_kept_in_memory(url: str):
    """A wait beyond the lingering time costs a row: nothing of it is in memory, and it goes on when it is over."""
    async with orchestrator(url, sleeper, clock=(clock := ManualClock())) as running:
        handle = await running.start(sleeper, 3600)
        await clock.idle()
        assert in_memory(running) == 0
        await clock.advance(3601)
        await within(handle.result(), running)


async def test_a_saga_that_falls_due_while_others_are_claimed_is_not_forgotten():
    """Time passes while the store is asked: what falls due between the last claim and the next wake goes on too."""
    clock = ManualClock()

    class Slow(MemoryClaims):
        slow = False

        async def claim(self, *args: Any, **options: Any) -> list[RunRecord]:
            found = await super().claim(*args, **options)
            if self.slow and not found:
                clock._now_ns += 1_000_000_000
            return found

    ORDER.clear()
    store = MemoryStore()
    claims = store.claims = Slow(store._session)
    async with orchestrator(store, sleeper, clock=clock) as running:
        handles = [await running.start(sleeper, span_s) for span_s in (60, 60.5)]
        await clock.idle()
        claims.slow = True
        await clock.advance(60)
        for handle in handles:
            await within(handle.result(), running)
    assert ORDER == ["due", "due"]
