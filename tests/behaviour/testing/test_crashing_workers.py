"""`Faults` takes workers down: nothing more of them is written, and their orchestrator opens the next one at once."""

import asyncio
import threading

import pytest

from sagas import Saga, SagaGraph, SagaStuck, current, saga, step
from sagas.blocking import Orchestrator as BlockingOrchestrator
from sagas.testing import Faults
from tests.kit import Place, World, end_of, steps, until, watched, watched_on_thread, within

room = watched("room")
seat = watched_on_thread("seat")
refused = watched("refused")


@saga("trip", version=1)
async def trip(s: Saga) -> str:
    await s.run(room)
    await s.run(seat)
    return "booked"


@saga("failing", version=1)
async def failing(s: Saga) -> None:
    await s.run(room)
    await s.run(seat)
    await s.run(refused)


@pytest.mark.parametrize("name", ["room", "seat"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_worker_dies_in_a_step_and_another_one_takes_over(place: Place, name: str, side: str):
    """The step, on the loop or a thread, is called again under its key by another worker; an old handle has its end."""
    world, faults = World(), Faults()
    (faults.crash_before if side == "before" else faults.crash_after)(name)
    async with place.orchestrator(trip, world=world, faults=faults) as running:
        handle = await running.start(trip, id="one")
        assert await within(handle.result(), running) == "booked"
        history = await handle.history()
    faults.assert_used()
    assert world.called()[name] == (1 if side == "before" else 2)
    assert all(len(keys) == 1 for keys in world.keys().values())
    assert world.kept() == ["room", "seat"]
    assert [entry.attempt for entry in history if entry.kind == "succeeded" and entry.key == name] == [2]
    assert [entry.kind for entry in history if entry.key == name] == ["started", "retried", "succeeded"]


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_worker_dies_in_a_compensation(place: Place, side: str):
    """It is named `undo room`, and is called again like a step; the next worker goes on with the rollback."""
    world, faults = World().plan("refused", "refused"), Faults()
    (faults.crash_before if side == "before" else faults.crash_after)("undo room")
    async with place.orchestrator(failing, world=world, faults=faults) as running:
        handle = await running.start(failing, id="one")
        end = await end_of(handle, running)
    faults.assert_used()
    assert (end.status, end.undone) == ("compensated", ("seat", "room"))
    assert world.called(compensating=True) == {"seat": 1, "room": 1 if side == "before" else 2}
    assert world.kept() == []


async def test_what_was_in_flight_beside_it_is_cut(place: Place):
    """Another step of the block is cut with its worker, and called again; its late result is not journalled."""
    world, faults = World(), Faults()
    faults.crash_after("room")
    late: list[str] = []
    left = asyncio.Event()

    @step(compensation=None, because="a test")
    async def stubborn(*, world_given: int = 0) -> str:
        info = current()
        late.append(f"begun {info.attempt}")
        if info.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.02)  # it swallows its cancellation, and returns once it is late
            late.append("returned late")
            left.set()
            return "late"
        late.append("in time")
        return "in time"

    @saga("block", version=1)
    async def block(s: Saga) -> str:
        async with s.parallel() as p:
            other = p.run(stubborn)
            p.run(room)
        return other.result()

    async with place.orchestrator(block, world=world, faults=faults) as running:
        handle = await running.start(block, id="one")
        assert await within(handle.result(), running) == "in time"
        history = await handle.history()
    assert late == ["begun 1", "returned late", "begun 2", "in time"], "nothing of the dead worker runs beside the next"
    assert [entry.kind for entry in history if entry.key.endswith("stubborn")] == ["started", "retried", "succeeded"]
    assert not [entry for entry in history if entry.kind == "noted"]


async def test_a_thread_that_was_in_flight_is_ignored(place: Place):
    """A thread cannot be cut: the next worker waits for it, and what it returns is not the outcome."""
    world, faults = World(), Faults()
    faults.crash_after("room")
    begun, go_on = threading.Event(), threading.Event()
    attempts: list[int] = []

    @step(compensation=None, because="a test")
    def slow() -> int:
        attempts.append(current().attempt)
        if len(attempts) == 1:
            begun.set()
            go_on.wait(5)
        return len(attempts)

    @saga("threads", version=1)
    async def threads(s: Saga) -> int:
        async with s.parallel() as p:
            other = p.run(slow)
            p.run(room)
        return other.result()

    async def before(_: object) -> None:
        await until(begun.is_set)
        asyncio.get_running_loop().call_later(0.02, go_on.set)

    world.before = before
    async with place.orchestrator(threads, world=world, faults=faults) as running:
        handle = await running.start(threads, id="one")
        assert await within(handle.result(), running) == 2
    assert attempts == [1, 2]


async def test_many_calls_are_under_way_when_it_dies(place: Place):
    """Starts, cancels and answers that callers wait for are not lost with the worker: each call returns."""
    world, faults = World(), Faults()
    faults.crash_after("room", times=3)

    @saga("asked", version=1)
    async def asked(s: Saga) -> str:
        answer = await s.callback("answer", str)
        return await answer.result()

    async with place.orchestrator(trip, asked, world=world, faults=faults, max_crashes=10) as running:
        waiting = [await running.start(asked, id=f"asked-{each}") for each in range(4)]
        calls = [
            *(running.start(trip, id=f"trip-{each}") for each in range(20)),
            *(running.complete_callback(saga_id=f"asked-{each}", name="answer", value="yes") for each in range(2)),
            *(handle.cancel() for handle in waiting[2:]),
        ]
        handles = (await within(asyncio.gather(*calls), running))[:20]
        assert await within(asyncio.gather(*(handle.result() for handle in handles)), running) == ["booked"] * 20
        assert [(await end_of(handle, running)).status for handle in waiting] == [
            "completed",
            "completed",
            "compensated",
            "compensated",
        ]
    faults.assert_used()
    assert world.beside == []


async def test_a_step_that_kills_its_worker_too_often(place: Place):
    """After five crashes in one step its saga is stuck and says so; another saga of the worker goes on."""
    world, faults = World(), Faults()
    faults.crash_before("seat", times=5)
    other = watched("other")

    @saga("bystander", version=1)
    async def bystander(s: Saga) -> None:
        await s.run(other)

    async with place.orchestrator(trip, bystander, world=world, faults=faults) as running:
        handle = await running.start(trip, id="one")
        beside = await running.start(bystander, id="two")
        with pytest.raises(SagaStuck, match="5 times"):
            await within(handle.result(), running)
        await within(beside.result(), running)
        await running.retry("one")
        assert await within(handle.result(), running) == "booked"


async def test_graphs_and_children_are_taken_over_too(place: Place):
    """A node of a graph, and a step of a child by its own key, crash like a step of a coded saga."""
    world, faults = World(), Faults()
    g = SagaGraph("graph", version=1)
    booked = g.step(room)
    g.returns(g.step(seat, after=[booked]))

    @saga("parent", version=1)
    async def parent(s: Saga) -> str:
        await s.run(trip)
        return await s.run(seat)

    faults.crash_after("trip/seat")
    async with place.orchestrator(parent, g, world=world, faults=faults) as running:
        handle = await running.start(parent, id="one")
        assert await within(handle.result(), running) == "seat"
        assert world.called() == {"trip/room": 1, "trip/seat": 2, "seat": 1}
        faults.crash_before("room")
        node = await running.start(g, id="two")
        assert await within(node.result(), running) == "seat"
        assert steps(await node.info()) == {"room": "succeeded", "seat": "succeeded"}
    faults.assert_used()


async def test_an_end_that_was_written_but_not_announced(place: Place):
    """A worker that dies right after the commit of an end: whoever waits for the result is told by the next one."""
    world = World()
    async with place.orchestrator(trip, world=world) as running:
        handle = await running.start(trip, id="one")
        waiting = asyncio.create_task(handle.result())
        journal = running.engine.store.journal
        write = journal.commit

        async def commit(batch: object) -> object:
            left_out = await write(batch)  # type: ignore[arg-type]
            if any(entry.kind == "ended" for entry in batch.entries):  # type: ignore[attr-defined]
                running.engine.die()
            return left_out

        journal.commit = commit  # type: ignore[assignment, method-assign]
        assert await within(waiting, running) == "booked"


def test_a_blocking_orchestrator(place: Place):
    """It takes `faults=` as well."""
    world, faults = World(), Faults()
    faults.crash_after("seat")
    kept = {"url": place.url} if place.data is None else {"store": place.store}
    with BlockingOrchestrator(sagas=[trip], resources=[world], faults=faults, **kept) as running:
        assert running.start(trip, id="one").result(timeout=30) == "booked"
    faults.assert_used()
    assert world.called() == {"room": 1, "seat": 2}


async def test_it_dies_just_as_it_was_about_to_look_for_work(place: Place):
    """Between two workers nothing is looked for, and the look that was asked for lets the next one open."""
    world = World()
    async with place.orchestrator(trip, world=world) as running:
        for _ in range(3):
            await until(lambda: not running.engine.working())
            running.engine._process.woken.set()
            running.engine.die()
            handle = await within(running.start(trip), running)
            assert await within(handle.result(), running) == "booked"


async def test_leaving_right_after_a_crash(place: Place):
    """The block can be left while the next worker is being opened; another process goes on."""
    world, faults = World(), Faults()
    faults.crash_before("seat")
    async with place.orchestrator(trip, world=world, faults=faults) as running:
        handle = await running.start(trip, id="one")
        await until(lambda: faults._declared[0].used, running)
    async with place.orchestrator(trip, world=world) as again:
        assert await within((await again.get(handle.id)).result(), again) == "booked"
