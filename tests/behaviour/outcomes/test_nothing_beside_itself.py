"""Nothing runs beside itself: while an attempt has not returned, neither another one nor its undo begins.

Issue 11 part B, and what random sagas with random verbs showed of it. The run is killed, parked, dropped or revived
meanwhile; the attempt goes on, and everybody waits for it.
"""

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest

from sagas import Orchestrator, Retry, Saga, SagaHandle, SagaInfo, StoreError, Unknown, pivot, resource, saga, step
from sagas.testing import ManualClock
from tests.kit import (
    Place,
    World,
    bell,
    entered,
    journalled,
    reaches,
    rung,
    until,
    watched,
    watched_on_thread,
    within,
    working,
)

hold, late, quick, fails = watched("hold"), watched("late"), watched("quick"), watched("fails")
blind = watched("blind", undo="blind")
mail = watched("mail", undo="none")
threaded = watched_on_thread("threaded")
charge = watched("charge", at=pivot)
SECOND: dict[str, Any] = {"late": late, "blind": blind, "threaded": threaded, "mail": mail}
ENDS = ("completed", "compensated", "resolved", "killed")
NEXT_NS = 500_000_000
FOREIGN = {"awaits": True}
"""Whether the code loaded just now awaits something foreign."""


@saga("two-steps", version=1)
async def two_steps(s: Saga, second: str) -> None:
    await s.run(hold)
    await s.run(SECOND[second])
    await s.run(charge)


@saga("undoes", version=1)
async def undoes(s: Saga) -> None:
    await s.run(hold)
    await s.run(late)
    await s.run(fails)


async def foreign(s: Saga) -> None:
    await s.run(quick)
    if FOREIGN["awaits"]:
        await asyncio.sleep(0)


@saga("parked", version=1)
async def parked(s: Saga, second: str) -> str:
    async with s.parallel() as p:
        p.run(SECOND[second])
        p.run(foreign)
    return "done"


SAGAS = (two_steps, undoes, parked, bell)


async def settled(handle: SagaHandle[Any], desk: Orchestrator, watch: World) -> SagaInfo:
    """How the saga ends once a person has settled by what is so whatever it is stuck on; it has told no lie."""

    async def returned() -> bool:
        return not watch.under_way

    while (info := await reaches(handle, desk, *ENDS, "stuck")).status not in ENDS:
        await until(returned, desk)  # a person finds out before they settle anything
        listed = [each.id for each in await desk.list(attention=True)]
        if (info := await handle.info()).status != "stuck":
            continue  # it was on its way
        assert info.reason
        assert listed == [handle.id]
        for key in info.stuck_on:
            happened = key in watch.kept()
            await desk.resolve(handle.id, key, happened=happened, result=key if happened else None)
    assert watch.beside == []
    assert watch.torn == []
    if info.status in ("compensated", "resolved"):
        assert set(watch.kept()) <= {"mail"}
        assert len(watch.undone) == len(set(watch.undone)), "each effect is undone once"
    return info


# -- B.1: killed and rolled back with a step in flight --------------------------------------------------------------


@pytest.mark.parametrize("teller", ["itself", "desk"])
@pytest.mark.parametrize("second", SECOND)
async def test_a_rollback_after_a_kill_waits_for_the_step_in_flight(place: Place, second: str, teller: str):
    """No compensation begins before the attempt has returned, and what it did then is undone, or the saga is stuck."""
    watch = World()
    gate = watch.gate(second)
    async with working(place, SAGAS, watch) as (worker, desk):
        handle = await worker.start(two_steps, second, id="o")
        await entered(gate, worker)
        told = worker if teller == "itself" else desk
        await told.kill("o")
        if teller == "desk":
            await reaches(handle, desk, "killed")
        await told.rollback("o")
        await rung(told)
        assert watch.timeline == ["begin hold", "end hold", f"begin {second}"]
        gate.open()
        info = await settled(handle, desk, watch)
        assert info.status in ("compensated", "resolved")
        assert "hold" in watch.undone


@pytest.mark.parametrize("second", ["blind", "threaded"])
async def test_another_worker_is_kept_off_while_the_step_is_in_flight(place: Place, second: str):
    """So it is where another worker would take the killed saga up: it waits until the step has returned."""
    watch = World()
    gate = watch.gate(second)
    async with working(place, SAGAS, watch) as (worker, desk):
        handle = await worker.start(two_steps, second, id="o")
        await entered(gate, worker)
        await worker.kill("o")
        async with place.orchestrator(*SAGAS, world=watch) as other:
            await other.rollback("o")
            await rung(desk)
            await rung(other)
            assert watch.timeline == ["begin hold", "end hold", f"begin {second}"]
            gate.open()
            info = await settled(handle, desk, watch)
            assert info.status in ("compensated", "resolved")


async def test_a_dead_worker_keeps_nobody_off(place: Place):
    """The worker whose attempt was in flight when the saga was killed dies: a rollback elsewhere does not wait."""
    watch = World()
    gate = watch.gate("blind")
    async with place.dying(*SAGAS, world=watch) as worker:
        await worker.start(two_steps, "blind", id="o")
        await entered(gate, worker)
        await worker.kill("o")
    watch.under_way.clear()
    gate.open()
    async with working(place, SAGAS, watch) as (other, desk):
        await desk.rollback("o")
        info = await settled(await other.get("o"), desk, watch)
        assert info.status in ("compensated", "resolved")
        assert "hold" in watch.undone


# -- B.2: killed and rolled back with an undo in flight -------------------------------------------------------------


@pytest.mark.parametrize("teller", ["itself", "desk"])
@pytest.mark.parametrize("again", ["rollback", "rollback rollback", "rollback kill rollback"])
async def test_an_undo_in_flight_is_not_begun_again_beside_itself(
    place: Place, teller: str, again: str, caplog: pytest.LogCaptureFixture
):
    """Killed while an undo ran, then rolled back: it runs once at a time, the rest follows, and no bug is reported."""
    watch = World()
    watch.plan("fails", "refused")
    gate = watch.gate("undo late")
    async with working(place, SAGAS, watch) as (worker, desk):
        handle = await worker.start(undoes, id="o")
        await entered(gate, worker)
        told = worker if teller == "itself" else desk
        await told.kill("o")
        if teller == "desk":
            await reaches(handle, desk, "killed")
        for verb in again.split():
            await getattr(told, verb)("o")
        await rung(told)
        assert gate.times == 1
        gate.open()
        info = await settled(handle, desk, watch)
        assert info.status == "compensated"
        assert watch.undone == ["late", "hold"]
        assert await desk.list(attention=True) == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_late_result_goes_to_the_run_it_belongs_to(place: Place):
    """An undo that was in flight when its saga was killed returns after the rollback has begun: one saga, one writer.

    Its journal goes on without a gap or a double, and another process reads the same end from it.
    """
    watch = World()
    watch.plan("fails", "refused")
    gate = watch.gate("undo late")
    async with working(place, SAGAS, watch) as (worker, desk):
        handle = await worker.start(undoes, id="o")
        await entered(gate, worker)
        await worker.kill("o")
        await worker.rollback("o")
        gate.open()
        assert (await settled(handle, desk, watch)).status == "compensated"
        seqs = [entry.seq for entry in await handle.history()]
        assert seqs == sorted(set(seqs))
    async with place.orchestrator(*SAGAS, world=watch) as later:
        info = await (await later.get("o")).info()
        assert info.status == "compensated"
        compensations = {state.key: state.compensation for state in info.steps}
        assert {key for key, undo in compensations.items() if undo is not None and undo.status == "succeeded"} == {
            "hold",
            "late",
        }


async def test_a_run_that_is_dropped_is_loaded_again_or_needs_attention(place: Place):
    """The store refuses a run's rows once, for good: the run does not stay *running* with nobody to drive it."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, desk):
        store: Any = worker.engine.store
        commit, refusals = store.journal.commit, [2]  # with whatever else is in the batch, and alone

        async def refusing(batch: Any) -> Any:
            if refusals[0] and any(entry.key == "late" for entry in batch.entries):
                refusals[0] -= 1
                raise StoreError("these rows are refused because a test asked for it", transient=False)
            return await commit(batch)

        store.journal.commit = refusing
        handle = await worker.start(undoes, id="o")

        async def ended_or_listed() -> bool:
            status = (await handle.info()).status
            return status in ("completed", "compensated") or bool(await desk.list(attention=True))

        await until(ended_or_listed, worker)


# -- B.3: parked with a sibling in flight ---------------------------------------------------------------------------


@pytest.mark.parametrize("teller", ["itself", "desk"])
@pytest.mark.parametrize("verb", ["rollback", "retry", "cancel", "kill rollback"])
@pytest.mark.parametrize("second", ["blind", "threaded"])
async def test_a_parked_saga_waits_for_the_sibling_in_flight(place: Place, second: str, verb: str, teller: str):
    """A branch awaits something foreign, so the saga is parked, and a verb revives it while the sibling's attempt runs.

    Nothing begins beside that attempt.
    """
    watch = World()
    gate = watch.gate(second)
    first = watch.gate("foreign/quick")
    FOREIGN["awaits"] = True
    async with working(place, SAGAS, watch) as (worker, desk):
        handle = await worker.start(parked, second, id="o")
        await entered(gate, worker)
        await entered(first, worker)
        first.open()
        await reaches(handle, worker, "stuck")
        FOREIGN["awaits"] = False
        told = worker if teller == "itself" else desk
        for each in verb.split():
            await getattr(told, each)("o")
            if each == "kill":
                await reaches(handle, desk, "killed")
        await rung(told)
        assert watch.count(second) == 1
        assert watch.count(f"undo {second}") == 0
        gate.open()
        info = await settled(handle, desk, watch)
        if verb == "retry":
            assert info.status == "completed"
            assert watch.kept() == sorted([second, "foreign/quick"])
        else:
            assert info.status in ("compensated", "resolved")
            assert watch.live == {}


# -- random verbs 3: a promised attempt rings as its block closes ---------------------------------------------------


@step(name="doubt", retry=Retry(attempts=1))
async def doubt(item: int, *, watch: World = resource()) -> int:
    await watch.act()
    raise TimeoutError("no answer")


@doubt.compensate(retry=Retry(attempts=5, first=1, jitter=False, factor=1))
async def undo_doubt(done: int | Unknown, item: int, *, watch: World = resource(), rings: "Rings" = resource()) -> None:
    await rings.at_the_end_of(watch, item)


class Rings:
    """Has the timer of the second undo ring in the very turn of the loop in which the first one has succeeded."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.calls = [0, 0]
        self.second_fails = asyncio.Event()

    async def at_the_end_of(self, watch: World, item: int) -> None:
        self.calls[item] += 1
        with watch.watched() as call:
            if self.calls[item] == 1:
                if item == 1:
                    await self.second_fails.wait()
                raise ConnectionRefusedError("not yet")
            watch.effect(call)
            if item == 0:
                due_ns = self.clock.now_ns() + NEXT_NS
                asyncio.get_running_loop().call_soon(self.clock._ring, due_ns)


@saga("two-doubts", version=1)
async def two_doubts(s: Saga) -> None:
    await s.map(doubt, [0, 1])


async def test_a_timer_that_rings_as_its_block_closes_begins_nothing_twice(place: Place):
    """The undo of each of two items has failed once; the first now succeeds and closes the block as the second's rings.

    That second undo runs once at a time, and succeeds once.
    """
    watch, clock = World(), ManualClock()
    rings = Rings(clock)
    running = place.orchestrator(two_doubts, world=watch, resources=[rings], clock=clock)
    async with running as worker:
        handle = await worker.start(two_doubts, id="o")
        await journalled(handle, worker, "failed", times=3)
        clock._ring(clock.now_ns() + NEXT_NS)
        rings.second_fails.set()
        await journalled(handle, worker, "failed", times=4)
        clock._ring(clock.now_ns() + NEXT_NS)
        info = await reaches(handle, worker, "compensated", "stuck", "resolved")
        assert info.status == "compensated"
        assert watch.beside == []
        assert rings.calls == [2, 2]
        assert watch.live == {}
        again = [(entry.kind, entry.attempt) for entry in await handle.history() if entry.key == "doubt#2~undo"]
        attempts = [attempt for kind, attempt in again if kind in ("started", "retried", "reopened")]
        assert attempts == sorted(set(attempts)), f"an attempt was announced twice: {again}"


# -- random verbs 6: a kill drops no attempt ------------------------------------------------------------------------

PROMISED: list[weakref.ref[asyncio.Future[None]]] = []


@step(name="adrift", retry=Retry(attempts=1), compensation=None, because="nothing comes of it")
async def adrift(*, watch: World = resource()) -> str:
    """Waits for what only itself knows of."""
    with watch.watched():
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        PROMISED.append(weakref.ref(promise))
        await promise
    return "adrift"


@saga("drifts", version=1)
async def drifts(s: Saga) -> None:
    await s.run(adrift)


@pytest.mark.parametrize("teller", ["itself", "desk"])
async def test_a_kill_leaves_the_attempt_in_flight_its_life(
    place: Place, teller: str, caplog: pytest.LogCaptureFixture
):
    """The garbage collector does not take it, and leaving waits for it as for any other."""

    async def joined(task: asyncio.Task[None]) -> None:
        await task

    watch = World()
    PROMISED.clear()
    worker = place.orchestrator(drifts, world=watch)
    await worker.__aenter__()
    async with place.orchestrator(drifts, world=watch, worker=False) as desk:
        handle = await worker.start(drifts, id="o")

        async def called() -> bool:
            return bool(PROMISED)

        await until(called, worker)
        await (worker if teller == "itself" else desk).kill("o")
        await reaches(handle, desk, "killed")
        gc.collect()
        assert watch.torn == []
        leaving = asyncio.create_task(worker.__aexit__(None, None, None))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not leaving.done(), "leaving waits for what is under way"
        promise = PROMISED[0]()
        assert promise is not None
        promise.set_result(None)
        del promise
        await within(joined(leaving), desk)
        assert watch.timeline == ["begin adrift", "end adrift"]
        assert (await desk.info("o")).status == "killed"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
