"""Verbs given where no worker runs, given again, and given where they come to nothing: told, and never lost."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from durable_core.layer import JournalEntry
from durable_core.ports import Batch
from sagas import PayloadError, Retry, Saga, SagaStuck, WrongState, pivot, resource, retriable, saga, step
from tests.kit import BodyFailed, Place, World, end_of, entered, journalled, reaches

ONCE = Retry(attempts=1)


@step
async def first(*, world: World = resource()) -> int:
    return 1


@first.compensate(retry=ONCE)
async def undo_first(_: int) -> None:
    raise BodyFailed("first")


@step
async def second(*, world: World = resource()) -> int:
    return 2


@second.compensate(retry=ONCE)
async def undo_second(_: int) -> None:
    raise BodyFailed("second")


@step
async def doubt() -> int:
    raise TimeoutError


@doubt.compensate
async def undo_doubt(_: int) -> None: ...


@step
async def lose(*, world: World = resource()) -> int:
    raise TimeoutError


@lose.compensate
async def undo_lose(_: int) -> None: ...


@saga("lost-in", version=1)
async def lost_in(s: Saga) -> int:
    return await s.run(lose)


@step
async def naked() -> int:
    return 1


@step(compensation=None, because="it says which code is loaded")
async def loaded() -> int:
    return 1


HIDDEN = {"step": loaded}


@pivot
async def sell() -> int:
    return 1


@retriable
async def mail() -> None: ...


@saga("two-dead", version=1)
async def two_dead(s: Saga) -> None:
    await s.run(first)
    await s.run(second)
    raise BodyFailed


@saga("doubtful", version=1)
async def doubtful(s: Saga) -> int:
    return await s.run(doubt)


@saga("hidden", version=1)
async def hidden(s: Saga) -> None:
    await s.run(HIDDEN["step"])
    await s.run(second)
    await s.sleep(3600)


@saga("child", version=1)
async def child(s: Saga) -> None:
    await s.run(sell)
    await s.run(mail)
    raise BodyFailed("after the pivot")


@saga("parent", version=1)
async def parent(s: Saga) -> str:
    try:
        await s.run(child)
    except BodyFailed:
        return "went on"
    return "done"


async def test_two_verbs_wait_for_one_worker(place: Place):
    """What is stuck stays so until a worker takes a verb up: so the next one is judged; a repeated one is harmless."""
    async with place.orchestrator(two_dead, world=World()) as running:
        handle = await running.start(two_dead, id="one")
        assert (await end_of(handle, running)).status == "stuck"
    async with place.orchestrator(two_dead, world=World(), worker=False) as desk:
        await desk.skip("one", "first", actor="ann")
        await desk.skip("one", "first", actor="ann")
        await desk.skip("one", "second", actor="bob")
        with pytest.raises(WrongState):
            await desk.resolve("one", "first", happened=False)
    async with place.orchestrator(two_dead, world=World()) as running:
        assert (await end_of(await running.get("one"), running)).status == "resolved"
        skips = [entry.actor for entry in await (await running.get("one")).history() if entry.key == "skip"]
        assert skips == ["ann", "bob"]


async def test_a_verb_that_has_been_done_may_be_repeated(place: Place):
    """Whoever did not hear that it was done asks once more, and another question is still refused."""
    async with place.orchestrator(doubtful, world=World()) as running:
        handle = await running.start(doubtful, id="one")
        assert (await end_of(handle, running)).status == "stuck"
        with pytest.raises(PayloadError):
            await running.resolve("one", "doubt", happened=True, result="no number")
        for _ in range(3):
            await running.resolve("one", "doubt", happened=True, result=7, actor="ann")
            assert await handle.result(timeout=20) == 7
        with pytest.raises(WrongState):
            await running.resolve("one", "doubt", happened=True, result=8)
        with pytest.raises(WrongState):
            await running.resolve("one", "doubt", happened=False)
        with pytest.raises(WrongState):
            await running.resolve("one", "doubt", happened=True)
        with pytest.raises(WrongState):
            await running.retry("one")


async def test_a_verb_that_is_taken_up_while_the_next_is_judged_is_not_missed(place: Place):
    """A worker takes the kill up between two looks of the process that judges the rollback: it is not refused."""
    world = World()
    async with place.orchestrator(held_up, world=world, worker=False) as desk:
        handle = await desk.start(held_up, id="o")
        await desk.kill("o")
        load, workers = desk.engine.store.journal.load, [place.orchestrator(held_up, world=world)]

        async def late(nums: Sequence[int]) -> dict[int, list[JournalEntry]]:
            """The journal, read once a worker has come and has taken up what waits."""
            while workers:
                async with workers.pop() as worker:
                    await reaches(await worker.get("o"), worker, "killed")
            return await load(nums)

        vars(desk.engine.store)["load"] = late
        await desk.rollback("o")
        del vars(desk.engine.store)["load"]
        async with place.orchestrator(held_up, world=world) as worker:
            await reaches(handle, worker, "compensated")
        told = [entry.key for entry in await handle.history() if entry.kind == "signalled"]
        assert told == ["kill", "rollback"]


@pytest.mark.parametrize("when", ["no worker", "in flight"])
async def test_a_cancel_is_kept_once(place: Place, when: str):
    """Asked for again before it shows in the saga's status, it has been asked for already."""
    world = World()
    gate = world.gate("enter")
    async with place.orchestrator(held_up, world=world, worker=False) as desk:
        handle = await desk.start(held_up, id="o")
        async with contextlib.AsyncExitStack() as stack:
            if when == "in flight":
                running = await stack.enter_async_context(place.orchestrator(held_up, world=world))
                await entered(gate, running)
            await desk.cancel("o", actor="ann")
            await desk.cancel("o", actor="ann")
            if when == "in flight":
                await journalled(handle, desk, "signalled")
                await desk.cancel("o", actor="bob")
            gate.opened.set()
        async with place.orchestrator(held_up, world=world) as running:
            assert (await end_of(handle, running)).status == "compensated"
        assert [entry.actor for entry in await handle.history() if entry.key == "cancel"] == ["ann"]


async def test_a_process_without_resources_may_resolve(place: Place):
    """It knows the saga, and so the type of the result; what its steps need is the worker's."""
    async with place.orchestrator(lost_in, world=World()) as running:
        handle = await running.start(lost_in, id="one")
        assert (await end_of(handle, running)).status == "stuck"
        async with place.orchestrator(lost_in, world=None, worker=False) as desk:
            with pytest.raises(PayloadError):
                await desk.resolve("one", "lose", happened=True, result="no number")
            await desk.resolve("one", "lose", happened=True, result=7)
        assert await handle.result(timeout=20) == 7


async def test_a_cancel_that_waits_for_the_code_says_so(place: Place, monkeypatch: pytest.MonkeyPatch):
    """A saga whose code no longer fits is undone once it does, or by rollback; whoever looks is told what waits."""
    async with place.orchestrator(hidden, world=World()) as running:
        await running.start(hidden, id="one")
        await reaches(await running.get("one"), running, "waiting")
    monkeypatch.setitem(HIDDEN, "step", naked)
    async with place.orchestrator(hidden, world=World()) as running:
        handle = await running.get("one")
        await handle.cancel("no longer wanted")
        info = await reaches(handle, running, "stuck")
        assert info.reason is not None
        assert "A cancel was asked for" in info.reason
        assert "sagas rollback one" in info.reason


async def test_a_saga_stuck_on_its_own_mistake_can_be_cancelled(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Its code fits its journal, and asks for what no saga may: a cancel comes before that, so all is undone."""
    monkeypatch.setitem(HIDDEN, "step", naked)
    async with place.orchestrator(hidden, world=World()) as running:
        handle = await running.start(hidden, id="one")
        await reaches(handle, running, "stuck")
        await handle.cancel("no longer wanted")
        assert (await reaches(handle, running, "compensated")).cause == "cancelled"


async def test_a_childs_failure_after_the_pivot_names_it(place: Place):
    """Its parent cannot catch it and go on: the whole is stuck, and both message and steps name the child."""
    async with place.orchestrator(parent, world=World()) as running:
        handle = await running.start(parent, id="one")
        with pytest.raises(SagaStuck) as stuck:
            await handle.result(timeout=20)
        assert stuck.value.steps == ("child",)
        assert "its child 'child' raised BodyFailed" in stuck.value.reason
        assert "saga one:" not in str(stuck.value), "the message names it once"
        assert "[DC100]" not in str(stuck.value), "and has one code"


async def test_a_time_beyond_all_time_is_answered(place: Place):
    """Nothing began after the year 2999, and all before the first one, on every store."""
    async with place.orchestrator(doubtful, world=World(), worker=False) as desk:
        await desk.start(doubtful, id="one")
        assert await desk.count(since=datetime(2999, 1, 1, tzinfo=UTC)) == 0
        assert await desk.list(since=datetime(9999, 1, 1, tzinfo=UTC)) == []
        assert await desk.count(since=datetime(1, 1, 1, tzinfo=UTC)) == 1


@saga("held-up", version=1)
async def held_up(s: Saga) -> None:
    await s.run(enter)


@step(compensation=None, because="a test")
async def enter(*, world: World = resource()) -> None:
    await world.act("enter")


async def test_a_verb_is_taken_up_once_however_long_that_takes_to_write(place: Place):
    """While the batch that takes a verb up is being written, a worker that looks again does not take it up again."""
    world = World()
    gate = world.gate("enter")
    async with place.orchestrator(held_up, world=world) as running:
        handle = await running.start(held_up, id="o")
        await entered(gate, running)
        store, loader = running.engine.store, running.engine._process._loader
        assert loader is not None
        commit, writing, go = store.journal.commit, asyncio.Event(), asyncio.Event()

        async def slowly(batch: Batch) -> frozenset[int]:
            if batch.consumed:
                writing.set()
                await go.wait()
            return await commit(batch)

        vars(store.journal)["commit"] = slowly
        async with place.orchestrator(held_up, world=world, worker=False) as elsewhere:
            await elsewhere.cancel("o")
            await writing.wait()
            await loader.look(changed=True)
        go.set()
        gate.opened.set()
        await end_of(handle, running)
        history = await handle.history()
    assert [entry.key for entry in history if entry.kind == "signalled"] == ["cancel"]
