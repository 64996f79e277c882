"""Steps in flight at several deaths of their process: the guilty one is told from those that were only beside it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_core.engine.isolation import TURN_NS
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing import ManualClock
from sagas import Orchestrator, Saga, SagaCompensated, SagaKilled, StepInfo, resource, saga, step
from tests.kit import End, World, end_of, orchestrator, reaches, within

Make = Callable[[], MemoryStore | SqliteStore]
INNOCENT = 3


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    data = MemoryData()
    return lambda: MemoryStore(data) if request.param == "memory" else SqliteStore(str(tmp_path / "crash.db"))


@step
async def slow(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@step
async def deadly(*, world: World = resource()) -> int:
    await world.act()
    return 0


@slow.compensate
@deadly.compensate
async def undo(result: int, *, world: World = resource()) -> None:
    await world.act()


@saga("innocent", version=1)
async def innocent(s: Saga, number: int) -> int:
    return await s.run(slow, number)


@saga("guilty", version=1)
async def guilty(s: Saga) -> int:
    return await s.run(deadly)


async def dies(running: Orchestrator, died: asyncio.Event) -> None:
    """Wait for the death of this process, and let go of what it had under way."""
    await within(died.wait(), running)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def process(make: Make, world: World, before: Callable[[StepInfo], Coroutine[Any, Any, bool]], do: Any = None) -> bool:
    """Whether one process dies, which does ``do`` or else only recovers: in a step where ``before`` says so."""

    async def main() -> bool:
        died, store = asyncio.Event(), make()

        async def called(info: StepInfo) -> None:
            if died.is_set() or await before(info):
                if not died.is_set():
                    store.crash()
                    died.set()
                await asyncio.Event().wait()

        world.before = called
        running = orchestrator(store, innocent, guilty, resources=[world])
        await running.__aenter__()
        if do is not None:
            doing = asyncio.create_task(do(running))
            dying = asyncio.create_task(died.wait())
            await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not died.is_set():
                await doing
                await running.__aexit__(None, None, None)
                return False
        await dies(running, died)
        return True

    return asyncio.run(main())


async def start(running: Orchestrator) -> None:
    """The innocent sagas first, so that their steps are in flight whenever the deadly one is called."""
    for number in range(INNOCENT):
        await running.start(innocent, number, id=f"innocent-{number}")
    await running.start(guilty, id="guilty")
    await asyncio.Event().wait()


async def ends(running: Orchestrator) -> None:
    """Each innocent saga completes, and the guilty one is stuck on its step."""
    for number in range(INNOCENT):
        assert await end_of(await running.get(f"innocent-{number}"), running) == End("completed", number)
    end = await end_of(await running.get("guilty"), running)
    assert (end.status, end.error[1]) == ("stuck", ("deadly",))


def test_a_slow_step_beside_a_deadly_one_is_not_blamed(make: Make):
    """Whatever is in flight at the first two deaths is attempted one at a time: only the guilty saga gets stuck."""
    world = World()
    calls: Counter[str] = Counter()

    async def before(info: StepInfo) -> bool:
        calls[info.saga_id] += 1
        if info.step == "deadly":
            return True
        if info.attempt <= 2:
            await asyncio.Event().wait()  # in flight until the process dies
        for _ in range(20):
            await asyncio.sleep(0)  # and still so for a while, were the deadly one called at the same time
        return False

    deaths = int(process(make, world, before, start))
    while process(make, world, before, ends):
        deaths += 1
        assert deaths <= 5
    assert deaths == 5
    assert calls == {"guilty": 5, **{f"innocent-{number}": 3 for number in range(INNOCENT)}}


def hit(make: Make, world: World) -> None:
    """Two processes die while the steps of all innocent sagas are in flight."""

    async def before(info: StepInfo) -> bool:
        if info.saga_id != f"innocent-{INNOCENT - 1}":
            await asyncio.Event().wait()
        return True

    async def begin(running: Orchestrator) -> None:
        for number in range(INNOCENT):
            await running.start(innocent, number, id=f"innocent-{number}")
        await asyncio.Event().wait()

    assert process(make, world, before, begin)
    assert process(make, world, before)
    world.calls.clear()


def test_what_hangs_holds_up_the_others_for_one_turn_only(make: Make):
    """A suspect that does not end has its turn to itself; then the next one is attempted beside it."""

    async def main() -> None:
        clock, hang = ManualClock(), asyncio.Event()

        async def before(info: StepInfo) -> None:
            await hang.wait()

        world.before = before
        async with orchestrator(make(), innocent, resources=[world], clock=clock) as running:
            for turn in range(1, INNOCENT + 1):
                await clock.idle()
                assert len(world.calls) == turn
                await clock.advance(timedelta(seconds=TURN_NS / 1e9))
            hang.set()
            for number in range(INNOCENT):
                assert await end_of(await running.get(f"innocent-{number}"), running) == End("completed", number)
        assert [info.attempt for info in world.calls] == [3] * INNOCENT

    world = World()
    hit(make, world)
    asyncio.run(main())


def test_what_waits_for_its_turn_takes_verbs(make: Make):
    """Killed, paused and resumed, or cancelled while it waits for its turn, a suspect ends as it would elsewhere."""

    async def main() -> None:
        first, go_on = asyncio.Event(), asyncio.Event()

        async def before(info: StepInfo) -> None:
            if not info.compensating:
                first.set()
                await go_on.wait()

        world.before = before
        async with orchestrator(make(), innocent, resources=[world]) as running:
            await within(first.wait(), running)
            (turn,) = world.calls
            rest = [id for number in range(INNOCENT) if (id := f"innocent-{number}") != turn.saga_id]
            await running.kill(rest[0], actor="me")
            with pytest.raises(SagaKilled):
                await within((await running.get(rest[0])).result(), running)
            await running.pause(rest[1], actor="me")
            go_on.set()
            assert (await end_of(await running.get(turn.saga_id), running)).status == "completed"
            await reaches(await running.get(rest[1]), running, "waiting", "running", "pending")
            await running.cancel(rest[1])
            await running.resume(rest[1], actor="me")
            with pytest.raises(SagaCompensated):
                await within((await running.get(rest[1])).result(), running)
        assert Counter(info.saga_id for info in world.calls if not info.compensating) == {turn.saga_id: 1, rest[1]: 1}

    world = World()
    hit(make, world)
    asyncio.run(main())


def test_leaving_counts_for_nobody(make: Make):
    """A worker that is left while suspects wait for their turn has announced none of them: the next one goes on."""

    async def main() -> None:
        first, go_on = asyncio.Event(), asyncio.Event()

        async def before(info: StepInfo) -> None:
            first.set()
            await go_on.wait()

        world.before = before
        async with orchestrator(make(), innocent, resources=[world], grace=0.01) as running:
            await within(first.wait(), running)
        go_on.set()
        async with orchestrator(make(), innocent, resources=[world]) as running:
            for number in range(INNOCENT):
                assert await end_of(await running.get(f"innocent-{number}"), running) == End("completed", number)
        assert sorted(info.attempt for info in world.calls) == [3, 3, 3, 4]

    world = World()
    hit(make, world)
    asyncio.run(main())
