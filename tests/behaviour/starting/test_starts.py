"""Starting, waiting for and leaving sagas: what is durable, what is refused, and what many at once do to each other."""

import asyncio
import logging
from operator import attrgetter
from typing import Any

import attrs
import pytest

from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import (
    DefinitionError,
    Orchestrator,
    PayloadError,
    Saga,
    SagaDef,
    StoreError,
    lookup,
    resource,
    saga,
    step,
)
from tests.kit import End, Place, World, end_of, orchestrator, reaches, until, within


@step
async def act(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@act.compensate
async def undo_act(result: int, *, world: World = resource()) -> None:
    await world.act()


@saga("order", version=1)
async def order(s: Saga, number: int, *, fast: bool = True) -> int:
    return await s.run(act, number)


@saga("order", version=2)
async def order_2(s: Saga, number: int, *, fast: bool = True) -> int:
    return await s.run(act, number) * 2


@saga("other", version=1)
async def other(s: Saga, number: int) -> int:
    return number


def held(world: World) -> tuple[asyncio.Event, asyncio.Event]:
    """Make every call wait: (set once one has begun, to be set that they may go on)."""
    called, go_on = asyncio.Event(), asyncio.Event()

    async def hold(info: Any) -> None:
        called.set()
        await go_on.wait()

    world.before = hold
    return called, go_on


# -- start ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", [True, False])
async def test_the_same_start_twice_gives_the_saga_that_runs_already(worker: bool):  # noqa: FBT001
    """Same id, saga and input: one run, one effect, whether it runs, waits for a worker or has ended."""
    data, world = MemoryData(), World()
    async with orchestrator(MemoryStore(data), order, resources=[world], worker=worker) as running:
        handles = await asyncio.gather(*(running.start(order, 7, id="one") for _ in range(5)))
        assert {handle.id for handle in handles} == {"one"}
        assert await running.count() == 1
        await running.start(order, number=7, id="one")
        await running.start("order", 7, id="one", version=1)
    async with orchestrator(MemoryStore(data), order, resources=[world]) as running:
        assert await within((await running.start(order, 7, id="one")).result(), running) == 7
        assert await within((await running.start(order, 7, id="one")).result(), running) == 7
    assert world.called() == {"act": 1}


async def test_a_version_is_no_part_of_the_comparison():
    """The same id, saga and input under another version is the same start."""
    async with orchestrator("memory://", order, order_2, resources=[World()]) as running:
        first = await running.start(order, 7, id="one")
        again = await running.start(order_2, 7, id="one")
        assert (first.id, await within(again.result(), running)) == ("one", 7)
        assert await within((await running.start("order", 7)).result(), running) == 14
        assert await within((await running.start("order", 7, version=1)).result(), running) == 7


WRONG = [
    pytest.param(order, (), {}, DefinitionError, id="too few"),
    pytest.param(order, (1, 2), {}, DefinitionError, id="too many"),
    pytest.param(order, (1,), {"slow": True}, DefinitionError, id="unknown keyword"),
    pytest.param("nobody", (1,), {}, DefinitionError, id="unknown saga"),
    pytest.param("order", (1,), {"version": 9}, DefinitionError, id="unknown version"),
    pytest.param(print, (1,), {}, DefinitionError, id="no saga"),
    pytest.param(order, (object(),), {}, PayloadError, id="cannot be stored"),
    pytest.param(order, (1,), {"id": ""}, DefinitionError, id="empty id"),
    pytest.param(order, (1,), {"id": "a\nb"}, DefinitionError, id="unprintable id"),
    pytest.param(order, (1,), {"id": "a/b"}, DefinitionError, id="a child's address"),
    pytest.param(order, (1,), {"id": "x" * 501}, DefinitionError, id="endless id"),
    pytest.param(order, (1,), {"trace": "follow"}, DefinitionError, id="trace"),
    pytest.param(order, ("seven",), {}, PayloadError, id="another type"),
    pytest.param(other, ("x" * 2_000_000,), {}, PayloadError, id="too large"),
]


@pytest.mark.parametrize(("what", "args", "kwargs", "error"), WRONG)
@pytest.mark.parametrize("worker", [True, False])
async def test_a_wrong_start_starts_nothing(what: Any, args: Any, kwargs: Any, error: Any, worker: bool):  # noqa: FBT001
    """Wrong arguments, an unknown saga, an unusable id or a value that cannot be stored: no row is written."""
    world = World()
    async with orchestrator("memory://", order, other, resources=[world], worker=worker) as running:
        with pytest.raises(error):
            await running.start(what, *args, **kwargs)
        assert await running.count() == 0
    assert world.calls == []


def test_two_sagas_of_one_name_and_version_are_refused():
    """Else nobody could tell which body a saga in the store has."""

    @saga("order", version=1)
    async def impostor(s: Saga) -> None: ...

    with pytest.raises(DefinitionError, match="order"):
        orchestrator("memory://", order, impostor)


# -- results --------------------------------------------------------------------------------------------------------


async def test_waiting_for_a_result_may_be_limited_and_the_saga_goes_on():
    """After `timeout=` a TimeoutError, in real time; the saga is not touched, and may be waited for again."""
    world = World()
    called, go_on = held(world)
    async with orchestrator("memory://", order, resources=[world]) as running:
        handle = await running.start(order, 7)
        await within(called.wait(), running)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.01)
        go_on.set()
        assert await within(handle.result(), running) == 7


async def test_a_pending_result_is_told_that_the_orchestrator_was_left():
    """Who waits while the block is left is told so by a StoreError; he is not cancelled."""
    world = World()
    called, _ = held(world)
    async with orchestrator("memory://", order, resources=[world], grace=0.01) as running:
        handle = await running.start(order, 7)
        waiting = asyncio.create_task(handle.result())
        await within(called.wait(), running)
    with pytest.raises(StoreError):
        await waiting
    assert not waiting.cancelled()


async def test_a_result_is_told_wherever_the_saga_ends():
    """A handle's result() returns although the saga left this process's memory meanwhile and another one ended it."""

    @saga("sleepy", version=1)
    async def sleepy(s: Saga) -> int:
        await s.run(act, 1)
        await s.sleep(3600)
        return 7

    data, world = MemoryData(), World()
    called, go_on = held(world)
    async with orchestrator(MemoryStore(data), sleepy, resources=[world]) as first:
        handle = await first.start(sleepy, id="one")
        waiting = asyncio.create_task(handle.result())
        await within(called.wait(), first)
        go_on.set()
        await reaches(handle, first, "waiting")
        async with orchestrator(MemoryStore(data), sleepy, resources=[world], clock=Later()) as second:
            await reaches(await second.get("one"), second, "completed")
            assert await within(asyncio.wait_for(waiting, 5), first) == 7


@attrs.define
class Later:
    """A clock that is two hours ahead, and calls at once what is due."""

    now: int = 10**18 * 2

    def attach(self, engine: object) -> None: ...

    def detach(self, engine: object) -> None: ...

    def now_ns(self) -> int:
        return self.now

    def call_at(self, at_ns: int, call: Any) -> Any:
        return asyncio.get_running_loop().call_later(max(0.0, (at_ns - self.now) / 1e9), call)


# -- leaving --------------------------------------------------------------------------------------------------------


async def test_leaving_waits_for_attempts_in_flight_and_starts_nothing_new():
    """The attempt ends and is recorded; the next step begins in the next process, and nothing is called twice."""

    @saga("double", version=1)
    async def double(s: Saga) -> int:
        return await s.run(act, 1) + await s.run(act, 2)

    data, world = MemoryData(), World()
    called, go_on = held(world)
    running = orchestrator(MemoryStore(data), double, resources=[world], grace=30)

    async def let_end() -> None:
        """Let the attempt end once the orchestrator has begun to leave, which it journals."""

        async def leaving() -> bool:
            return any(entry.kind == "suspended" for entry in data.journals[1].values())

        await until(leaving, running)
        go_on.set()

    async with running:
        await running.start(double, id="one")
        await within(called.wait(), running)
        ending = asyncio.create_task(let_end())
    await ending
    assert world.called() == {"act": 1}
    async with orchestrator(MemoryStore(data), double, resources=[world]) as running:
        assert await within((await running.get("one")).result(), running) == 3
    assert world.called() == {"act": 1, "act#2": 1}


async def test_what_was_admitted_but_not_begun_is_begun_by_the_next_process():
    """Sagas beyond `concurrency=` wait; leaving before their turn loses none of them."""
    data, world = MemoryData(), World()
    called, _ = held(world)
    async with orchestrator(MemoryStore(data), order, resources=[world], concurrency=2, grace=0.01) as running:
        for number in range(5):
            await running.start(order, number, id=str(number))
        await within(called.wait(), running)
        assert len(world.calls) == 2
    world.before = None
    async with orchestrator(MemoryStore(data), order, resources=[world]) as running:
        for number in range(5):
            assert await within((await running.get(str(number))).result(), running) == number
    assert len(world.live) == 5


async def test_a_saga_that_was_started_without_a_worker_runs_where_there_is_one():
    """`worker=False` only starts; a worker on the same store, there already or coming later, runs it once."""
    data, world = MemoryData(), World()
    async with (
        orchestrator(MemoryStore(data), order, worker=False) as starter,
        orchestrator(MemoryStore(data), order, resources=[world]) as worker,
    ):
        handle = await starter.start(order, 7, id="one")
        assert await within(handle.result(), worker) == 7
    assert world.called() == {"act": 1}
    assert [info.attempt for info in world.calls] == [1]


# -- many -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2, 7])
async def test_more_sagas_than_may_run_at_once_all_end(concurrency: int):
    """Those beyond `concurrency=` wait their turn; never more are under way, and each ends as it should."""
    world, active, most = World(), [0], [0]

    async def enter(info: Any) -> None:
        active[0] += 1
        most[0] = max(most[0], active[0])
        await asyncio.sleep(0)

    async def leave(info: Any) -> None:
        active[0] -= 1

    world.before, world.after = enter, leave
    async with orchestrator("memory://", order, resources=[world], concurrency=concurrency) as running:
        handles = [await running.start(order, number) for number in range(20)]
        assert [await end_of(handle, running) for handle in handles] == [
            End("completed", number) for number in range(20)
        ]
    assert most[0] <= concurrency


async def test_two_thousand_sagas_at_once_all_complete():
    """Started in one breath, beyond the default concurrency: each completes once, with its own result."""
    world = World()
    async with orchestrator("memory://", order, resources=[world]) as running:
        handles = await within(
            asyncio.wait_for(asyncio.gather(*(running.start(order, number) for number in range(2_000))), 30),
            running,
            deadline_s=31,
        )
        results = await within(
            asyncio.wait_for(asyncio.gather(*(handle.result() for handle in handles)), 30), running, deadline_s=31
        )
        assert results == list(range(2_000))
        assert await running.count(status="completed") == 2_000
    assert len(world.calls) == len(world.live) == 2_000


# -- a store in trouble, and neighbours ------------------------------------------------------------------------------


def troubled(data: MemoryData, failing: str) -> tuple[MemoryStore, list[str]]:
    """A store of which one method fails once, for a moment; and what has failed."""
    store = MemoryStore(data)
    part = attrgetter(failing.rpartition(".")[0])(store) if "." in failing else store
    name = failing.rpartition(".")[2]
    works = getattr(part, name)

    async def fails(*_args: Any, **_options: Any) -> Any:
        setattr(part, name, works)
        failed.append(failing)
        raise StoreError("a moment's trouble", transient=True)

    failed: list[str] = []
    setattr(part, name, fails)
    return store, failed


@pytest.mark.parametrize("failing", ["claims.claim", "journal.load", "signals.waiting", "runs.next_wake_ns", "changed"])
async def test_a_moments_trouble_while_claiming_loses_no_saga(failing: str):
    """Whatever question to the store fails once, a saga that waits to be claimed is claimed and ends."""
    data, world = MemoryData(), World()
    async with orchestrator(MemoryStore(data), order, worker=False) as starter:
        await starter.start(order, 7, id="one")
    store, failed = troubled(data, failing)
    async with orchestrator(store, order, resources=[world]) as running:

        async def completed() -> bool:
            return data.runs[1].status == "completed"

        await until(completed, running)
        assert failed == [failing]
    assert world.called() == {"act": 1}


async def test_a_due_saga_that_nobody_serves_hides_no_other():
    """A worker wakes its own sagas on time although one of another definition lies in the store unserved."""

    @saga("sleepy", version=1)
    async def sleepy(s: Saga) -> int:
        await s.sleep(6)
        return 7

    data = MemoryData()
    clock = Later()
    async with orchestrator(MemoryStore(data), sleepy, clock=clock) as running:
        await reaches(await running.start(sleepy, id="one"), running, "waiting")
    async with orchestrator(MemoryStore(data), other, worker=False, clock=clock) as running:
        await running.start(other, 1, id="unserved")
    data.runs[1] = attrs.evolve(data.runs[1], wake_at_ns=clock.now + 10_000_000)
    async with orchestrator(MemoryStore(data), sleepy, clock=clock) as running:
        asyncio.get_running_loop().call_later(0.005, lambda: setattr(clock, "now", clock.now + 7_000_000_000))

        async def woken() -> bool:
            return data.runs[1].status == "completed"

        await until(woken, running)


def definition_of(name: str) -> SagaDef[..., Any]:
    @saga(name, version=1)
    async def body(s: Saga, number: int) -> int:
        return await s.run(act, number)

    return body


async def test_workers_take_only_what_they_serve():
    """Two workers on one store with different sagas: each saga runs where it is known."""
    data, worlds = MemoryData(), {name: World() for name in ("a", "b")}
    definitions = {name: definition_of(name) for name in worlds}

    def worker(name: str) -> Orchestrator:
        return orchestrator(MemoryStore(data), definitions[name], resources=[worlds[name]])

    async with orchestrator(MemoryStore(data), *definitions.values(), worker=False) as starter:
        for name in worlds:
            for number in range(3):
                await starter.start(definitions[name], number, id=f"{name}-{number}")
        async with worker("a") as first, worker("b") as second:
            for name, running in (("a", first), ("b", second)):
                for number in range(3):
                    assert await within((await running.get(f"{name}-{number}")).result(), running) == number
    assert all({info.saga for info in world.calls} == {name} for name, world in worlds.items())


# -- what a start logs -----------------------------------------------------------------------------------------------


@lookup
async def look() -> int:
    return 1


@saga("talker", version=1)
async def talker(s: Saga, about: str) -> int:
    s.log.warning("begins with %s", about)
    try:
        int(about)
    except ValueError:
        s.log.exception("caught")
    found = await s.run(look)
    s.log.warning("found %s", found)
    return found


async def test_a_start_that_finds_its_run_logs_nothing(place: Place, caplog: pytest.LogCaptureFixture):
    """Each line is logged once, with its place and its exception, however often the same saga is started."""
    with caplog.at_level(logging.WARNING):
        async with place.orchestrator(talker, world=None) as running:
            first = await running.start(talker, "tea", id="one")
            assert await first.result(timeout=20) == 1
            for _ in range(3):
                again = await running.start(talker, "tea", id="one")
                assert await again.result(timeout=20) == 1
    said = [record for record in caplog.records if record.name.startswith("durable_core.run")]
    assert [record.getMessage() for record in said] == ["begins with tea", "caught", "found 1"]
    assert {record.filename for record in said} == {"test_starts.py"}
    assert {record.funcName for record in said} == {"talker"}
    assert said[1].exc_info is not None
    assert said[1].exc_info[0] is ValueError
    first = talker.body.__code__.co_firstlineno
    assert [record.lineno - first for record in said] == [2, 6, 8]
