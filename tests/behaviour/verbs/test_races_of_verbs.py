"""What happens in one turn of the loop, or on a thread beside it, is taken up as if it had come one by one.

A verb, an answer or a cut from outside meets a run just as that leaves memory, is loaded again, or is about to call.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from durable_core.engine.executor import _ThreadCall
from durable_core.ports import Batch
from durable_core.replay.run import Run
from durable_core.testing.store_rows import in_loop
from sagas import Orchestrator, Retry, Saga, SagaHandle, Unknown, resource, saga, step
from sagas.testing import ManualClock
from tests.kit import (
    DEADLINE_S,
    Gate,
    Place,
    World,
    begun,
    bell,
    entered,
    journalled,
    looking_away,
    reaches,
    rung,
    until,
    watched,
    watched_on_thread,
    within,
    working,
)

a, b, c = watched("a"), watched("b"), watched("c")
once = watched("once", undo="blind", at_most_once=True)
mail_once = watched("mail-once", undo="none", at_most_once=True)
patient = watched("patient", retry=Retry(attempts=5, first=60, jitter=False))
threaded, held_thread = watched_on_thread("threaded"), watched_on_thread("held-thread")


@step(name="fenced")
def fenced(*, watch: World = resource()) -> str:
    watch.act_on_thread()
    return "fenced"


@fenced.compensate
async def undo_or_fence(_: str | Unknown, *, watch: World = resource()) -> None:
    await watch.act()


STEPS: dict[str, Any] = {made.name: made for made in (a, b, c, once, mail_once, patient, threaded, fenced)}


@saga("one", version=1)
async def one(s: Saga, what: str) -> str:
    return str(await s.run(STEPS[what]))


@saga("two", version=1)
async def two(s: Saga, second: str) -> str:
    await s.run(a)
    return str(await s.run(STEPS[second]))


@saga("asks", version=1)
async def asks(s: Saga, what: str) -> str:
    """Waits for an answer once its step has ended."""
    asked = await s.callback("approval", str)
    await s.run(STEPS[what])
    return await asked.result()


@saga("asks-beside", version=1)
async def asks_beside(s: Saga) -> str:
    asked = await s.callback("approval", str)
    async with s.parallel() as p:
        p.run(a)
        p.run(threaded)
    return await asked.result()


@saga("beside", version=1)
async def beside(s: Saga, names: str) -> str:
    async with s.parallel() as p:
        for name in names.split():
            p.run(STEPS[name])
    return "done"


@saga("holder", version=1)
async def holder(s: Saga) -> None:
    """Has the only thread."""
    await s.run(held_thread)


class Build:
    """The program as it is loaded."""

    second = b


@saga("changes", version=1)
async def changes(s: Saga) -> str:
    """Its second branch is another one in another build."""
    async with s.parallel() as p:
        p.run(a)
        p.run(Build.second)
    return "done"


async def goes_on(s: Saga) -> None:
    await s.run(a)
    await s.run(c)


@saga("branches", version=1)
async def branches(s: Saga, second: str) -> str:
    async with s.parallel() as p:
        p.run(goes_on)
        p.run(STEPS[second])
    return "done"


async def goes_wrong(s: Saga) -> None:
    await s.run(a)
    await s.run(123)  # type: ignore[call-overload]  # refused: its saga is parked


@saga("parks", version=1)
async def parks(s: Saga) -> None:
    async with s.parallel() as p:
        p.run(goes_wrong)
        p.run(b)


SAGAS = (one, two, asks, asks_beside, beside, holder, changes, branches, parks, bell)


def driving(worker: Orchestrator, id: str = "o") -> Run:
    """The saga as the worker has it in memory."""
    engine: Any = worker.engine
    found: Run
    (found,) = [run for run in engine._process.worker.runs.values() if run.id == id]
    return found


def cut(worker: Orchestrator, key: str) -> None:
    """Some library of the program cancels the task of an attempt."""
    step: Any = driving(worker).steps[key]
    step.task.cancel()


async def rolled_back(handle: SagaHandle[Any], running: Orchestrator, *, cause: str = "cancelled") -> None:
    """The saga is undone, for that reason."""
    info = await reaches(handle, running, "completed", "compensated", "resolved", "killed", "stuck")
    assert (info.status, info.cause) == ("compensated", cause)


async def thread_taken(worker: Orchestrator, watch: World) -> Gate:
    """Another saga has the only thread, until the gate is opened."""
    gate = watch.gate("held-thread")
    await worker.start(holder, id="holder")
    await entered(gate, worker)
    return gate


async def all_ended(watch: World, running: Orchestrator, *calls: str) -> None:
    """Wait until these calls have returned."""

    async def there() -> bool:
        return {f"end {call}" for call in calls} <= set(watch.timeline)

    await until(there, running)


def in_the_turn_of_a_signal(worker: Orchestrator, do: Callable[[], None]) -> asyncio.Event:
    """In the turn before the worker hears of a signal that the store has for it, ``do`` happens; set once it has."""
    store: Any = worker.engine.store
    ask, hit = store.signals.waiting, asyncio.Event()

    async def signals(nums: Any) -> Any:
        found = await ask(nums)
        if found and not hit.is_set():
            hit.set()
            do()
            await asyncio.sleep(0)  # an attempt that waited for this returns; its body has not gone on
        return found

    store.signals.waiting = signals
    return hit


# -- verbs that come from another process as a step ends ------------------------------------------------------------


@in_loop
async def test_a_verb_that_meets_a_saga_as_it_leaves_memory(place: Place):
    """A cancel is taken up in the turn in which the last attempt has failed for a minute: the saga is rolled back.

    Its worker goes on to find work.
    """
    watch = World()
    watch.plan("patient", "broken", "ok")
    async with working(place, SAGAS, watch) as (worker, desk):
        gate = watch.gate("patient")
        handle = await worker.start(one, "patient", id="o")
        await entered(gate, worker)
        hit = in_the_turn_of_a_signal(worker, gate.open)
        await desk.cancel("o")
        await within(hit.wait(), worker)
        await rolled_back(handle, worker)
        assert watch.timeline == ["begin patient", "end patient"]
        await desk.start(bell, id="later")
        await reaches(await worker.get("later"), worker, "completed")


@in_loop
async def test_an_answer_that_meets_a_saga_as_it_leaves_memory(place: Place):
    """An answer is taken up in the turn in which the last attempt has failed for a minute: it is not lost."""
    watch, clock = World(), ManualClock()
    watch.plan("patient", "broken", "ok")
    async with working(place, SAGAS, watch, clock=clock) as (worker, desk):
        gate = watch.gate("patient")
        handle = await worker.start(asks, "patient", id="o")
        await entered(gate, worker)
        hit = in_the_turn_of_a_signal(worker, gate.open)
        await within(desk.complete_callback(value="yes", saga_id="o", name="approval"), worker)
        assert hit.is_set()
        await journalled(handle, worker, "failed")
        await rung(worker, times=1)
        await clock.advance(61)
        assert await within(handle.result(), worker) == "yes"


@in_loop
async def test_an_answer_in_the_turn_in_which_the_only_step_ends(place: Place):
    """The answer is taken up before the body goes on; catching up with it does not give the saga back amid that."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, desk):
        gate = watch.gate("a")
        handle = await worker.start(asks, "a", id="o")
        await entered(gate, worker)
        hit = in_the_turn_of_a_signal(worker, gate.open)
        await desk.complete_callback(value="yes", saga_id="o", name="approval")
        await within(hit.wait(), worker)
        assert await within(handle.result(), worker) == "yes"
        assert watch.timeline == ["begin a", "end a"]


# -- attempts that are cut from outside -----------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [False, True], ids=["goes on", "is cancelled"])
@in_loop
async def test_what_is_cut_from_outside_had_been_called(place: Place, cancelled: bool):  # noqa: FBT001
    """An at_most_once step is cut while it runs: nothing says it was withheld, and what it may have done is undone."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, _):
        gate = watch.gate("once")
        handle = await worker.start(one, "once", id="o")
        await entered(gate, worker)
        if cancelled:
            await worker.cancel("o")
        cut(worker, "once")
        await rolled_back(handle, worker, cause="cancelled" if cancelled else "failed")
        assert watch.timeline == ["begin once", "end once", "begin undo once", "end undo once"]
        kinds = {entry.kind for entry in await handle.history() if entry.key == "once"}
        assert kinds == {"started", "failed"}


@pytest.mark.parametrize("names", ["b a", "a b"])
@in_loop
async def test_a_saga_parked_for_one_step_keeps_what_the_other_returns(place: Place, names: str):
    """One step is cut too often and its saga is parked; the other, in flight all the time, is not called again."""
    watch = World()
    async with working(place, SAGAS, watch, max_crashes=1) as (worker, _):
        gates = {name: watch.gate(name) for name in "ab"}
        handle = await worker.start(beside, names, id="o")
        for gate in gates.values():
            await entered(gate, worker)
        cut(worker, "b")
        await reaches(handle, worker, "stuck")
        gates["a"].open()
        await journalled(handle, worker, "noted")
        gates["b"].open()
        await worker.retry("o")
        assert await within(handle.result(), worker) == "done"
        assert (watch.count("a"), watch.count("b"), watch.beside) == (1, 2, [])


@in_loop
async def test_a_saga_parked_for_its_code_keeps_what_is_in_flight(place: Place, monkeypatch: pytest.MonkeyPatch):
    """It is loaded again while a step is in flight, by a build that asks for something else, and is parked.

    What the step returns is in the journal; with the old build back it is not called again.
    """
    watch = World()
    async with working(place, SAGAS, watch) as (worker, _):
        gate, other = watch.gate("a"), watch.gate("b")
        handle = await worker.start(changes, id="o")
        await entered(gate, worker)
        await entered(other, worker)
        with monkeypatch.context() as newer:
            newer.setattr(Build, "second", c)
            cut(worker, "b")
            info = await reaches(handle, worker, "stuck")
            assert "DC101" in str(info.reason)
        gate.open()
        await journalled(handle, worker, "noted")
        other.open()
        await worker.retry("o")
        assert await within(handle.result(), worker) == "done"
        assert (watch.count("a"), watch.count("b"), watch.count("c")) == (1, 2, 0)


@in_loop
async def test_what_lingers_is_not_overwritten(place: Place):
    """Of three in flight the middle one parks the saga as it recovers: neither of the others is called beside itself.

    One of them returns before the retry, the other after it.
    """
    watch = World()
    async with working(place, SAGAS, watch, max_crashes=1) as (worker, _):
        gates = {name: watch.gate(name) for name in "abc"}
        handle = await worker.start(beside, "a b c", id="o")
        for gate in gates.values():
            await entered(gate, worker)
        cut(worker, "b")
        await reaches(handle, worker, "stuck")
        gates["a"].open()
        await journalled(handle, worker, "noted")
        gates["b"].open()
        await worker.retry("o")
        await begun(handle, worker, "b", "succeeded")
        assert watch.under_way
        gates["c"].open()
        assert await within(handle.result(), worker) == "done"
        assert [watch.count(name) for name in "abc"] == [1, 2, 1]
        assert watch.beside == []


# -- attempts that were never called --------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["b", "once"])
@in_loop
async def test_what_was_given_up_uncalled_stays_so_when_its_batch_is_not_written(place: Place, second: str):
    """A cancel gives up an attempt that was announced and not called; a pause overtakes the batch that says so.

    Once the saga is resumed, that attempt is neither called nor in doubt.
    """
    watch = World()
    async with working(place, SAGAS, watch) as (worker, desk):
        store: Any = worker.engine.store
        write, hit = store.journal.commit, asyncio.Event()

        async def commit(batch: Batch) -> Any:
            refused = await write(batch)
            if any((entry.kind, entry.key) == ("started", second) for entry in batch.entries):
                store.journal.commit = write  # it is durable now, and the worker has not heard so
                await desk.pause("o")
                driving(worker).tell("cancel", b"{}")
                hit.set()
            return refused

        async with looking_away(worker):
            store.journal.commit = commit
            handle = await worker.start(two, second, id="o")
            await within(hit.wait(), worker)
            await journalled(handle, desk, "signalled")
        await journalled(handle, desk, "signalled", times=2)
        await worker.resume("o")
        await rolled_back(handle, worker)
        assert watch.timeline == ["begin a", "end a", "begin undo a", "end undo a"]


@in_loop
async def test_leaving_writes_nothing_for_a_start_that_was_refused(place: Place, caplog: pytest.LogCaptureFixture):
    """A start whose id is taken waits for its turn as the worker leaves: its sagas are given back, and none is doubled.

    The next worker ends them.
    """
    watch = World()
    gate = watch.gate("a")
    async with place.orchestrator(*SAGAS, world=watch, concurrency=1, grace=0) as leaving:
        await leaving.start(one, "a", id="first")
        await entered(gate, leaving)
        await leaving.start(one, "b", id="o")
        await leaving.start(one, "b", id="o")
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    gate.open()
    async with working(place, SAGAS, watch) as (worker, _):
        for id in ("first", "o"):
            await within((await worker.get(id)).result(), worker)
    assert watch.count("b") == 1


@in_loop
async def test_a_body_that_parks_its_saga_as_the_worker_leaves(place: Place):
    """The worker leaves in the turn in which steps of two sagas return, whose bodies then go wrong: it leaves well.

    Both sagas are stuck, and say on what.
    """
    watch = World()
    gate, other = watch.gate("goes_wrong/a"), watch.gate("b")
    leaving = place.orchestrator(*SAGAS, world=watch)
    await leaving.__aenter__()
    for id in ("o", "p"):
        await leaving.start(parks, id=id)

    async def all_in_flight() -> bool:
        return (gate.times, other.times) == (2, 2)

    await until(all_in_flight, leaving)
    gate.open()
    going = asyncio.create_task(leaving.__aexit__(None, None, None))
    await all_ended(watch, leaving, "goes_wrong/a")
    other.open()
    await going
    async with place.orchestrator(*SAGAS, world=watch, worker=False) as desk:
        for id in ("o", "p"):
            info = await (await desk.get(id)).info()
            assert info.status == "stuck"
            assert "123" in str(info.reason)


@in_loop
async def test_a_killed_saga_is_not_purged_while_its_attempt_is_in_flight(place: Place):
    """A purge leaves it until that has returned: what it returned is in the journal first, and goes with it."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, _):
        gate = watch.gate("a")
        handle = await worker.start(one, "a", id="o")
        await entered(gate, worker)
        await worker.kill("o")
        assert (await worker.purge(older_than=0)).runs == 0
        assert (await handle.info()).status == "killed"
        gate.open()
        await journalled(handle, worker, "noted")

        async def purged() -> bool:
            return (await worker.purge(older_than=0, saga="one")).runs == 1

        await until(purged, worker)
        assert [info.id for info in await worker.list() if info.id == "o"] == []


@pytest.mark.parametrize("second", ["b", "mail-once"])
@in_loop
async def test_what_returned_before_a_saga_was_loaded_again_outlives_its_worker(place: Place, second: str):
    """A pause overtook what a step returned, another step returned too, and the worker leaves before it loads the saga.

    The next worker has both from the journal: neither step is called again, nor in doubt.
    """
    watch = World()
    gates = [watch.gate("goes_on/a"), watch.gate(second)]
    leaving = place.orchestrator(*SAGAS, world=watch)
    await leaving.__aenter__()
    await leaving.start(branches, second, id="o")
    for gate in gates:
        await entered(gate, leaving)
    async with looking_away(leaving), place.orchestrator(*SAGAS, world=watch, worker=False) as desk:
        await desk.pause("o")
        gates[0].open()
        await journalled(await desk.get("o"), desk, "succeeded")
        gates[1].open()
        await all_ended(watch, leaving, second)
        await leaving.__aexit__(None, None, None)
    async with working(place, SAGAS, watch) as (worker, _):
        handle = await worker.get("o")
        await journalled(handle, worker, "signalled")
        await worker.resume("o")
        assert await within(handle.result(), worker) == "done"
        assert [call.what for call in watch.calls] == ["goes_on/a", second, "goes_on/c"]


# -- suspects -------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_suspect_whose_turn_comes_amid_a_pause_gets_it_later(place: Place):
    """Two steps of a saga were in flight at two deaths, and are attempted one at a time.

    The turn of the second comes while the saga is paused and the first in flight; it is attempted after the resume.
    """
    watch = World()
    gates = [watch.gate("a"), watch.gate("b")]

    async def calls(times: int, worker: Orchestrator) -> None:
        async def there() -> bool:
            return sum(gate.times for gate in gates) == times

        await until(there, worker)

    for death in (1, 2):
        async with place.dying(*SAGAS, world=watch, clock=ManualClock()) as dying:
            if death == 1:
                await dying.start(beside, "a b", id="o")
            await calls(2 * death, dying)
    clock = ManualClock()
    async with working(place, SAGAS, watch, clock=clock) as (worker, _):
        handle = await worker.get("o")
        await calls(5, worker)
        await worker.pause("o")
        await clock.advance(61)
        await rung(worker)
        assert sum(gate.times for gate in gates) == 5, "it was attempted although its saga was paused"
        await worker.resume("o")
        await calls(6, worker)
        for gate in gates:
            gate.open()
        assert await within(handle.result(), worker) == "done"


# -- threads --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Stop:
    """A point that a thread is held at until the test lets it go on; it goes on by itself once its test has failed."""

    reached: threading.Event = attrs.field(factory=threading.Event)
    go: threading.Event = attrs.field(factory=threading.Event)

    def here(self) -> None:
        """The thread is at the point."""
        if threading.current_thread() is not threading.main_thread():
            self.reached.set()
            self.go.wait(DEADLINE_S)

    async def until_reached(self, running: Orchestrator) -> None:
        """Wait for the thread."""

        async def there() -> bool:
            return self.reached.is_set()

        await until(there, running)


@contextmanager
def stopping() -> Generator[Stop]:
    """A point that nobody is held at beyond the block."""
    stop = Stop()
    try:
        yield stop
    finally:
        stop.go.set()


def decided(monkeypatch: pytest.MonkeyPatch, key: str) -> Callable[[], None]:
    """Holds up its caller until a thread has called the step at ``key``, or found that it may not."""
    over = threading.Event()
    call = _ThreadCall.__call__

    def on_thread(self: _ThreadCall) -> Any:
        try:
            return call(self)
        finally:
            if self.step.key == key:
                over.set()

    def wait() -> None:
        assert over.wait(DEADLINE_S), f"no thread has come to {key}"

    monkeypatch.setattr(_ThreadCall, "__call__", on_thread)
    return wait


@in_loop
async def test_a_thread_that_decides_between_a_pause_and_its_resume(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Both are taken up in one look, and in between a thread finds the saga held: its step is called all the same."""
    watch = World()
    wait = decided(monkeypatch, "threaded")
    async with working(place, SAGAS, watch, threads=1) as (worker, desk):
        gate = await thread_taken(worker, watch)
        handle = await worker.start(one, "threaded", id="o")
        await begun(handle, worker, "threaded")
        tell = Run.tell

        def interrupted(run: Run, name: str, payload: bytes) -> bool:
            told = tell(run, name, payload)
            if name == "pause":
                gate.open()
                wait()  # the loop does not get the processor
            return told

        monkeypatch.setattr(Run, "tell", interrupted)
        async with looking_away(worker):
            await desk.pause("o")
            await desk.resume("o")
        assert await within(handle.result(), worker) == "threaded"
        assert watch.count("threaded") == 1


@in_loop
async def test_a_thread_that_decides_amid_a_catching_up(place: Place, monkeypatch: pytest.MonkeyPatch):
    """A thread comes to its step while the loop catches up with an answer: the step is called, and the saga goes on."""
    watch = World()
    wait = decided(monkeypatch, "threaded")
    take_up = Run._take_up
    async with working(place, SAGAS, watch, threads=1) as (worker, desk):
        gate, other = await thread_taken(worker, watch), watch.gate("a")
        handle = await worker.start(asks_beside, id="o")
        await entered(other, worker)
        await begun(handle, worker, "threaded")

        def interrupted(self: Run, told: Any) -> None:
            if self.id == "o":
                gate.open()
                wait()  # the loop does not get the processor
            take_up(self, told)

        monkeypatch.setattr(Run, "_take_up", interrupted)
        hit = in_the_turn_of_a_signal(worker, other.open)
        await desk.complete_callback(value="yes", saga_id="o", name="approval")
        await within(hit.wait(), worker)
        assert await within(handle.result(), worker) == "yes"
        assert watch.count("threaded") == 1


@in_loop
async def test_a_kill_between_a_threads_ticket_and_its_call(place: Place):
    """A thread has decided to call its step and has not begun: a kill and a rollback then wait for it to return.

    The compensation does not run beside the step.
    """
    watch = World()
    gate = watch.gate("fenced")
    with stopping() as about_to_call:
        async with working(place, SAGAS, watch) as (worker, _):
            engine: Any = worker.engine
            attempts = engine._process.worker.executor
            lease_is_safe = attempts.lease_is_safe

            def preempted() -> bool:
                about_to_call.here()
                return bool(lease_is_safe())

            attempts.lease_is_safe = preempted
            handle = await worker.start(one, "fenced", id="o")
            await about_to_call.until_reached(worker)
            await worker.kill("o")
            about_to_call.go.set()
            await entered(gate, worker)
            rollback = asyncio.create_task(worker.rollback("o"))
            await rung(worker)
            assert watch.timeline == ["begin fenced"], "it was undone beside itself"
            gate.open()
            await asyncio.wait_for(rollback, DEADLINE_S)
            info = await reaches(handle, worker, "compensated", "resolved", "stuck")
            assert (info.status, watch.live, watch.undone) == ("compensated", {}, ["fenced"])
            assert watch.beside == []


@in_loop
async def test_what_is_withheld_after_its_block_was_closed_is_not_attempted(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """A thread has its ticket as the saga is cancelled, and right behind that paused, so it does not call its step.

    Once the saga is resumed, it is rolled back, and the step is not attempted.
    """
    watch = World()
    take = _ThreadCall._take
    with stopping() as has_ticket:

        def preempted(self: _ThreadCall) -> bool:
            taken = take(self)
            if taken:
                has_ticket.here()
            return taken

        monkeypatch.setattr(_ThreadCall, "_take", preempted)
        async with working(place, SAGAS, watch) as (worker, desk):
            handle = await worker.start(one, "threaded", id="o")
            await has_ticket.until_reached(worker)
            await worker.cancel("o")
            await desk.pause("o")
            await journalled(handle, worker, "signalled", times=2)
            has_ticket.go.set()
            await journalled(handle, worker, "withheld")
            await worker.resume("o")
            await rolled_back(handle, worker)
            assert watch.timeline == []
