"""Plain functions run on a bounded number of threads, and what waits for one has not begun."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from sagas import DefinitionError, Orchestrator, Saga, saga, step
from sagas.testing import ManualClock
from tests.kit import Place, reaches, until, within


class Shop:
    """A participant whose calls wait until the test lets them go on."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.opened = threading.Event()

    def call(self, what: str) -> str:
        self.calls.append(what)
        assert self.opened.wait(30)
        return what


SHOP: list[Shop] = []


@step(compensation=None, because="a test", timeout=timedelta(minutes=10))
def slow(what: str) -> str:
    return SHOP[-1].call(what)


@step(compensation=None, because="a test", timeout=1)
def brisk(what: str) -> str:
    SHOP[-1].calls.append(what)
    return what


@saga("slow", version=1)
async def slowly(s: Saga, what: str) -> str:
    return await s.run(slow, what)


@saga("brisk", version=1)
async def briskly(s: Saga, what: str) -> str:
    return await s.run(brisk, what)


@pytest.fixture(autouse=True)
def shop():
    """A shop of each test's own; its threads are let go in the end."""
    SHOP.append(Shop())
    yield SHOP[-1]
    SHOP.pop().opened.set()


async def called(running: Orchestrator, shop: Shop, what: str) -> None:
    """Wait until the step is being called."""

    async def there() -> bool:
        return what in shop.calls

    await until(there, running)


async def announced(running: Orchestrator, saga_id: str) -> None:
    """Wait until the step's intent is in the journal."""

    async def there() -> bool:
        return any(entry.kind == "started" for entry in await (await running.get(saga_id)).history())

    await until(there, running)


async def test_waiting_for_a_thread_is_no_part_of_the_timeout(place: Place, shop: Shop):
    """The timeout runs from when the step's own code runs: one that waits ten seconds for a thread has its second."""
    clock = ManualClock()
    async with Orchestrator("memory://", sagas=[slowly, briskly], threads=1, clock=clock) as running:
        first = await running.start(slowly, "first", id="first")
        await called(running, shop, "first")
        second = await running.start(briskly, "second", id="second")
        await announced(running, "second")
        clock._ring(clock.now_ns() + 10_000_000_000)
        assert "second" not in shop.calls
        shop.opened.set()
        assert await within(second.result(), running) == "second"
        assert await within(first.result(), running) == "first"
        kinds = [entry.kind for entry in await second.history()]
        assert "timed_out" not in kinds


async def test_where_no_thread_can_begin_nothing_is_attempted(place: Place, shop: Shop):
    """As while Python ends, or where the system has no thread left: no failure of the step, which is called later."""
    shop.opened.set()
    async with place.orchestrator(briskly, world=None) as running:
        engine: Any = running.engine
        executor = engine._process.worker.executor
        spent = executor.threads = ThreadPoolExecutor(1)
        spent.shutdown()
        handle = await running.start(briskly, "tea", id="one")
        await announced(running, "one")
        executor.threads = None  # there are threads again
        assert await within(handle.result(), running) == "tea"
        assert shop.calls == ["tea"]
        assert [entry.attempt for entry in await handle.history() if entry.kind == "succeeded"] == [1]


async def test_what_waits_for_a_thread_can_still_be_cancelled(place: Place, shop: Shop):
    """Its function has not been called: a cancel leaves it out, and no thread calls it later."""
    async with place.orchestrator(slowly, briskly, world=None, threads=1) as running:
        first = await running.start(slowly, "first", id="first")
        await called(running, shop, "first")
        second = await running.start(briskly, "second", id="second")
        await announced(running, "second")
        await second.cancel()
        assert (await reaches(second, running, "compensated")).cause == "cancelled"
        shop.opened.set()
        assert await within(first.result(), running) == "first"
        third = await running.start(briskly, "third", id="third")
        assert await within(third.result(), running) == "third"
        assert shop.calls == ["first", "third"]


async def test_what_waits_for_a_thread_at_leaving_is_no_attempt(place: Place, shop: Shop):
    """Leaving does not begin it: the next process calls it, and that is its first attempt."""
    leaving = place.orchestrator(slowly, briskly, world=None, threads=1)
    await leaving.__aenter__()
    await leaving.start(slowly, "first", id="first")
    await called(leaving, shop, "first")
    await leaving.start(briskly, "second", id="second")
    await announced(leaving, "second")
    threading.Timer(0.05, shop.opened.set).start()
    await leaving.__aexit__(None, None, None)
    assert shop.calls == ["first"]
    async with place.orchestrator(slowly, briskly, world=None, threads=1) as running:
        second = await running.get("second")
        assert await within(second.result(), running) == "second"
        assert [state.attempts for state in (await second.info()).steps] == [1]


@pytest.mark.parametrize("threads", [0, -1, True, 2.5, "many"])
def test_a_number_of_threads_that_is_none(threads: object):
    """It is refused when the orchestrator is made."""
    with pytest.raises(DefinitionError):
        Orchestrator("memory://", threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("definition", [slowly, briskly])
async def test_the_lease_is_looked_at_right_before_the_steps_own_code(place: Place, shop: Shop, definition: object):
    """A worker that froze after an attempt was made ready does not begin it: it looks again in the task or thread."""
    shop.opened.set()
    running = place.orchestrator(definition, world=None)  # type: ignore[arg-type]
    safe, asked = [True], list[bool]()

    def lease_is_safe() -> bool:
        asked.append(safe[0])
        if len(asked) == 1:
            safe[0] = False  # it was safe when the attempt was made ready, and is no more when it would begin
        elif len(asked) == 4:
            assert shop.calls == []
            safe[0] = True
        return asked[-1]

    running.engine.store.lease_is_safe = lease_is_safe  # type: ignore[method-assign]
    async with running:
        handle = await running.start(definition, "first", id="first")  # type: ignore[call-overload]
        assert await within(handle.result(), running) == "first"
        assert False in asked
        assert shop.calls == ["first"]
