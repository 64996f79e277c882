"""What was told first counts first: a cancel, pause, kill or deadline that precedes an intent is taken up before it.

Issue 11 part A, what random sagas with random verbs showed of it, and the stuck saga of the fleet.
"""

import asyncio
from typing import Any

import pytest

from sagas import Orchestrator, Retry, Saga, SagaHandle, pivot, retriable, saga
from sagas.testing import ManualClock
from tests.kit import (
    Place,
    World,
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

hold, late = watched("hold"), watched("late")
mail = watched("mail", undo="none")
blind = watched("blind", undo="blind")
once = watched("once", undo="blind", at_most_once=True)
threaded = watched_on_thread("threaded")
charge = watched("charge", at=pivot)
ship = watched("ship", at=retriable)
patient = watched("patient", retry=Retry(attempts=5, first=60, jitter=False))
hasty = watched("hasty", retry=Retry(attempts=5, first=3, jitter=False))
FIRST: dict[str, Any] = {"hold": hold, "mail": mail, "charge": charge, "threaded": threaded}
WAITS = ("sleep", "short sleep", "retry", "short retry", "callback")
STOPS = ("cancel", "kill", "pause")
"""Verbs after which no step begins."""


@saga("order", version=1)
async def order(s: Saga, first: str) -> str:
    await s.run(FIRST[first])
    if first != "charge":
        await s.run(charge)
    return "done"


@saga("nested", version=1)
async def nested(s: Saga, shape: str) -> str:
    """Its first step is within a block."""
    if shape == "child":
        await s.run(order, "mail")
    elif shape == "parallel":
        async with s.parallel() as p:
            p.run(mail)
            p.run(hold)
    elif shape == "savepoint":
        async with s.savepoint("here"):
            await s.run(mail)
    return "done"


@saga("waits", version=1)
async def waits(s: Saga, what: str) -> str:
    """Waits for something, and then goes past its pivot. A short wait is spent in memory, a long one is not."""
    await s.run(hold)
    if what in ("sleep", "short sleep"):
        await s.sleep(60 if what == "sleep" else 3)
    elif what == "callback":
        await (await s.callback("approval", str)).result()
    else:
        await s.run(patient if what == "retry" else hasty)
    await s.run(charge)
    return "done"


@saga("one-step", version=1)
async def one_step(s: Saga) -> str:
    await s.run(hold)
    return "done"


@saga("undoes", version=1)
async def undoes(s: Saga) -> None:
    await s.run(hold)
    await s.run(late)
    await s.run(act_that_fails)


act_that_fails = watched("fails")
SAGAS = (order, nested, waits, one_step, undoes, bell)


async def stopped(verb: str, handle: SagaHandle[Any], worker: Orchestrator, watch: World, *, before: int = 0) -> None:
    """The saga has stopped as ``verb`` says, nothing began after call ``before``, and its verb is in its history."""
    if verb == "pause":
        await rung(worker)

        async def paused() -> bool:
            return (await handle.info()).paused

        await until(paused, worker)
        assert [call.what for call in watch.calls[before:]] == [], "it began although the saga was paused"
        await worker.resume(handle.id)
        assert await within(handle.result(), worker) == "done"
        assert {call.attempt for call in watch.calls} == {1}, "a pause is no attempt"
    else:
        info = await reaches(handle, worker, "completed", "compensated", "resolved", "killed", "stuck")
        assert info.status == {"cancel": "compensated", "kill": "killed"}[verb]
        assert [call.what for call in watch.calls[before:] if call.role != "undo"] == []
    if verb == "cancel":
        assert info.cause == "cancelled"
        assert {call.step for call in watch.live.values() if call.saga_id == handle.id} <= {"mail"}
    told = [(entry.key, entry.actor) for entry in await handle.history() if entry.actor]
    assert (verb, "mia") in told
    assert watch.beside == []


async def tell(orchestrator: Orchestrator, verb: str, saga_id: str = "o") -> None:
    """Give a verb, as somebody with a name."""
    await getattr(orchestrator, verb)(saga_id, actor="mia", note="by hand")


# -- A.1: before a worker, and before its turn ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", STOPS)
@pytest.mark.parametrize("first", [*FIRST, "child", "parallel", "savepoint"])
async def test_a_verb_before_any_worker(place: Place, verb: str, first: str):
    """A cancel, kill or pause that returned before any worker lived: no step of the saga begins, whatever its kind.

    So it is where the first step is a child's, a branch's or within a savepoint.
    """
    watch = World()
    async with place.orchestrator(*SAGAS, world=watch, worker=False) as desk:
        await desk.start(order if first in FIRST else nested, first, id="o")
        await tell(desk, verb)
    async with working(place, SAGAS, watch) as (worker, _):
        await stopped(verb, await worker.get("o"), worker, watch)


@pytest.mark.parametrize("teller", ["itself", "desk"])
@pytest.mark.parametrize("verb", STOPS)
@pytest.mark.parametrize("first", ["mail", "charge"])
async def test_a_verb_while_the_saga_waits_for_its_turn(place: Place, verb: str, first: str, teller: str):
    """A verb that returned while another saga held the only place: no step of the saga begins, whoever told it."""
    watch = World()
    async with working(place, SAGAS, watch, concurrency=1) as (worker, desk):
        gate = watch.gate("hold")
        await worker.start(one_step, id="holder")
        await entered(gate, worker)
        handle = await worker.start(order, first, id="o")
        before = len(watch.calls)
        await tell(worker if teller == "itself" else desk, verb)
        gate.open()
        await within((await worker.get("holder")).result(), worker)
        await stopped(verb, handle, worker, watch, before=before)


@pytest.mark.parametrize("order_of", ["answer, cancel", "cancel, answer"])
async def test_an_answer_and_a_cancel_before_any_worker(place: Place, order_of: str, impatient: None):
    """Both wait for a worker, in either order: the pivot that would follow the answer does not begin."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, _):
        handle = await worker.start(waits, "callback", id="o")
        await reaches(handle, worker, "waiting")
    async with place.orchestrator(*SAGAS, world=watch, worker=False) as desk:
        for told in order_of.split(", "):
            if told == "cancel":
                await tell(desk, "cancel")
            else:
                await desk.complete_callback(value="yes", saga_id="o", name="approval")
    async with working(place, SAGAS, watch) as (worker, _):
        await stopped("cancel", await worker.get("o"), worker, watch, before=1)
        assert watch.undone == ["hold"]


@pytest.mark.parametrize("verb", STOPS)
async def test_a_verb_between_two_workers(place: Place, verb: str):
    """A worker left after a step had ended; a verb came; the next worker does not begin the next step."""
    watch = World()
    gate = watch.gate("hold")
    leaving = place.orchestrator(*SAGAS, world=watch)
    await leaving.__aenter__()
    handle = await leaving.start(order, "hold", id="o")
    await entered(gate, leaving)
    await left_while(leaving, gate)
    assert watch.timeline == ["begin hold", "end hold"]
    async with place.orchestrator(*SAGAS, world=watch, worker=False) as desk:
        await tell(desk, verb)
    async with working(place, SAGAS, watch) as (worker, _):
        await stopped(verb, await worker.get(handle.id), worker, watch, before=1)


async def left_while(leaving: Orchestrator, gate: Any, *, turns: int | None = None) -> None:
    """Leave while an attempt is under way; it ends some turns after leaving has begun, or once that is sure."""
    going = asyncio.create_task(leaving.__aexit__(None, None, None))
    if turns is None:
        worker: Any = leaving.engine._process.worker
        while not worker.leaving:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
    for _ in range(turns or 0):
        await asyncio.sleep(0)
    gate.open()
    await going


# -- A.2: deadlines that passed while nobody could act --------------------------------------------------------------


async def timed_out(handle: SagaHandle[Any], worker: Orchestrator, watch: World, begun: list[str]) -> None:
    """The saga was rolled back by its deadline, and only ``begun`` has begun, with all undone."""
    info = await reaches(handle, worker, "completed", "compensated", "killed", "stuck")
    assert (info.status, info.cause) == ("compensated", "deadline")
    assert [call.what for call in watch.calls if call.role == "step"] == begun
    assert watch.live == {}
    assert watch.beside == []


@pytest.mark.parametrize("teller", ["itself", "desk"])
async def test_a_deadline_that_passes_while_the_saga_is_paused(place: Place, teller: str):
    """On resume the pivot does not begin: the saga is rolled back."""
    watch, clock = World(), ManualClock()
    gate = watch.gate("hold")
    async with working(place, SAGAS, watch, clock=clock) as (worker, desk):
        handle = await worker.start(order, "hold", id="o", deadline=60)
        await entered(gate, worker)
        await tell(worker, "pause")
        gate.open()
        await journalled(handle, worker, "succeeded")
        await clock.advance(61)
        await rung(worker)
        assert watch.timeline == ["begin hold", "end hold"], "a paused saga undoes nothing either"
        await tell(worker if teller == "itself" else desk, "resume")
        await timed_out(handle, worker, watch, ["hold"])


async def test_a_deadline_that_passes_while_the_saga_is_paused_in_a_wait(place: Place):
    """Its sleep and its deadline fall due while it is paused, the sleep first: on resume the pivot does not begin."""
    watch, clock = World(), ManualClock()
    async with working(place, SAGAS, watch, clock=clock) as (worker, _):
        handle = await worker.start(waits, "sleep", id="o", deadline=90)
        await reaches(handle, worker, "waiting")
        await tell(worker, "pause")
        await clock.advance(91)
        await tell(worker, "resume")
        await timed_out(handle, worker, watch, ["hold"])


@pytest.mark.parametrize("first", ["mail", "charge", "hold"])
async def test_a_deadline_that_passes_before_any_worker(place: Place, first: str):
    """No step begins: the saga ends compensated by its deadline."""
    watch, clock = World(), ManualClock()
    async with place.orchestrator(*SAGAS, world=watch, worker=False, clock=clock) as desk:
        await desk.start(order, first, id="o", deadline=60)
    await clock.advance(61)
    async with working(place, SAGAS, watch, clock=clock) as (worker, _):
        await timed_out(await worker.get("o"), worker, watch, [])


async def test_a_deadline_that_passes_while_the_saga_waits_for_its_turn(place: Place):
    """No step of the saga that is queued begins."""
    watch, clock = World(), ManualClock()
    async with working(place, SAGAS, watch, concurrency=1, clock=clock) as (worker, _):
        gate = watch.gate("hold")
        await worker.start(one_step, id="holder")
        await entered(gate, worker)
        handle = await worker.start(order, "mail", id="o", deadline=60)
        await clock.advance(61)
        gate.open()
        await within((await worker.get("holder")).result(), worker)
        info = await reaches(handle, worker, "completed", "compensated", "stuck")
        assert (info.status, info.cause) == ("compensated", "deadline")
        assert watch.timeline == ["begin hold", "end hold"]


async def test_a_deadline_that_passes_between_two_workers(place: Place):
    """A worker left while a step was in flight, which ended; the deadline passed; the next step does not begin."""
    watch, clock = World(), ManualClock()
    gate = watch.gate("hold")
    leaving = place.orchestrator(*SAGAS, world=watch, clock=clock)
    await leaving.__aenter__()
    await leaving.start(order, "hold", id="o", deadline=60)
    await entered(gate, leaving)
    await left_while(leaving, gate)
    await clock.advance(61)
    async with working(place, SAGAS, watch, clock=clock) as (worker, _):
        await timed_out(await worker.get("o"), worker, watch, ["hold"])


# -- A.3: a kill, and at once a rollback, from another process ------------------------------------------------------


@pytest.mark.parametrize("stands", ["running", "waiting", "compensating"])
async def test_a_kill_and_a_rollback_from_another_process(place: Place, stands: str):
    """Both are accepted, in that order, whatever the saga did just then; it ends rolled back, with nothing held."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, desk):
        if stands == "compensating":
            watch.plan("fails", "refused")
        gate = watch.gate({"running": "blind", "waiting": "nobody", "compensating": "undo late"}[stands])
        handle = await begin(worker, stands)
        if stands == "waiting":
            await reaches(handle, worker, "waiting")
        else:
            await entered(gate, worker)
        async with looking_away(worker):
            await tell(desk, "kill")
            await tell(desk, "rollback")
        gate.open()
        info = await reaches(handle, worker, "completed", "compensated", "resolved", "stuck")
        assert info.status == "compensated"
        told = [entry.key for entry in await handle.history() if entry.actor]
        assert told in (["kill", "rollback"], ["kill", "retry"])
        assert watch.live == {}
        assert watch.beside == []


@saga("blind-order", version=1)
async def blind_order(s: Saga) -> None:
    await s.run(hold)
    await s.run(blind)
    await s.run(charge)


async def begin(worker: Orchestrator, stands: str) -> SagaHandle[Any]:
    """Start the saga that can be brought to stand so."""
    if stands == "running":
        return await worker.start(blind_order, id="o")
    if stands == "waiting":
        return await worker.start(waits, "sleep", id="o")
    return await worker.start(undoes, id="o")


# -- random verbs 1: a verb from another process is not overtaken ---------------------------------------------------


@pytest.mark.parametrize("verb", STOPS)
@pytest.mark.parametrize("first", ["hold", "threaded", "mail"])
async def test_no_step_begins_over_a_verb_from_another_process(place: Place, verb: str, first: str):
    """It returned while a step was in flight; that ends at once, and the pivot does not begin."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, desk):
        gate = watch.gate(first)
        handle = await worker.start(order, first, id="o")
        await entered(gate, worker)
        async with looking_away(worker):
            await tell(desk, verb)
            gate.open()
            await journalled(handle, desk, "succeeded") if verb != "kill" else await ended(watch, first)
        await stopped(verb, handle, worker, watch, before=1)


async def ended(watch: World, what: str) -> None:
    """Wait until a call has returned."""
    while f"end {what}" not in watch.timeline:  # noqa: ASYNC110 - it may return on a thread
        await asyncio.sleep(0)


@pytest.mark.parametrize("verb", STOPS)
async def test_no_end_comes_over_a_verb_from_another_process(place: Place, verb: str):
    """It returned while the last step was in flight; that ends at once, and the saga does not complete."""
    watch = World()
    async with working(place, SAGAS, watch) as (worker, desk):
        gate = watch.gate("hold")
        handle = await worker.start(one_step, id="o")
        await entered(gate, worker)
        async with looking_away(worker):
            await tell(desk, verb)
            gate.open()
            await ended(watch, "hold")
        await stopped(verb, handle, worker, watch, before=1)


@pytest.mark.parametrize("verb", STOPS)
@pytest.mark.parametrize("what", WAITS)
async def test_no_wait_ends_over_a_verb_from_another_process(place: Place, verb: str, what: str):
    """It returned while the saga waited; the wait ends at once, and neither the attempt nor the pivot begins."""
    watch, clock = World(), ManualClock()
    watch.plan("patient", "broken", "ok")
    watch.plan("hasty", "broken", "ok")
    async with working(place, SAGAS, watch, clock=clock) as (worker, desk):
        handle = await worker.start(waits, what, id="o")
        await waiting(handle, worker, what)
        before = len(watch.calls)
        async with looking_away(worker):
            await tell(desk, verb)
            if what != "callback":
                clock._ring(clock.now_ns() + (4 if "short" in what else 61) * 1_000_000_000)
                answered = None
            else:
                answered = asyncio.create_task(worker.complete_callback(value="yes", saga_id="o", name="approval"))
            for _ in range(20):
                await asyncio.sleep(0)
        if answered is not None:
            await asyncio.gather(answered, return_exceptions=True)
        if verb == "pause":
            await rung(worker)
            assert watch.calls[before:] == []
            await worker.resume("o")
            assert await within(handle.result(), worker) == "done"
        else:
            await stopped(verb, handle, worker, watch, before=before)


async def waiting(handle: SagaHandle[Any], worker: Orchestrator, what: str) -> None:
    """Wait until the saga waits; where it does so in memory its row does not say."""
    await journalled(handle, worker, "failed" if "retry" in what else "armed")
    await rung(worker, times=1)


@pytest.mark.parametrize("verb", ["kill", "pause"])
async def test_no_compensation_begins_over_a_verb_from_another_process(place: Place, verb: str):
    """It returned while a compensation was in flight; that ends at once, and the next one does not begin."""
    watch = World()
    watch.plan("fails", "refused")
    async with working(place, SAGAS, watch) as (worker, desk):
        gate = watch.gate("undo late")
        handle = await worker.start(undoes, id="o")
        await entered(gate, worker)
        async with looking_away(worker):
            await tell(desk, verb)
            gate.open()
            await ended(watch, "undo late")
        await (reaches(handle, worker, "killed") if verb == "kill" else rung(worker))
        assert watch.count("undo hold") == 0
        assert (await handle.info()).status == ("killed" if verb == "kill" else "compensating")
        await worker.rollback("o") if verb == "kill" else await worker.resume("o")
        assert (await reaches(handle, worker, "compensated", "stuck", "resolved")).status == "compensated"
        assert watch.live == {}


# -- random verbs 2: a verb right behind a pause --------------------------------------------------------------------


@pytest.mark.parametrize("what", WAITS)
@pytest.mark.parametrize(
    "verbs",
    ["pause resume", "pause kill", "pause cancel", "pause resume cancel", "pause resume pause", "pause resume kill"],
)
async def test_each_verb_behind_a_pause_is_taken_up(place: Place, what: str, verbs: str):
    """Verbs from another process that come within one look at the store, while the saga waits: each is journalled."""
    watch, clock = World(), ManualClock()
    watch.plan("patient", "broken", "ok")
    watch.plan("hasty", "broken", "ok")
    async with working(place, SAGAS, watch, clock=clock) as (worker, desk):
        handle = await worker.start(waits, what, id="o")
        await waiting(handle, worker, what)
        async with looking_away(worker):
            for verb in verbs.split():
                await tell(desk, verb)
        await rung(desk)
        info = await handle.info()
        assert [entry.key for entry in await handle.history() if entry.actor] == verbs.split()
        assert await desk.engine.store.signals.waiting([(await desk.engine.find("o")).num]) == []
        last = verbs.rpartition(" ")[2]
        if last == "kill":
            assert info.status == "killed"
            return
        if last == "cancel" and "resume" in verbs:
            assert (await reaches(handle, worker, "compensated", "stuck")).status == "compensated"
            return
        assert info.paused is (last != "resume")
        if last != "resume":
            assert watch.count("charge") == 0
            await tell(desk, "resume")
        if last == "cancel":
            assert (await reaches(handle, worker, "compensated", "stuck", "completed")).status == "compensated"
            return
        if what == "callback":
            await worker.complete_callback(value="yes", saga_id="o", name="approval")
        else:
            await rung(desk)
            await clock.advance(61)
        assert await within(handle.result(), worker) == "done"


# -- random verbs 5: a step that was never called is in no doubt ----------------------------------------------------


@saga("then-once", version=1)
async def then_once(s: Saga, second: str) -> str:
    await s.run(hold)
    await s.run({"once": once, "blind": blind, "late": late}[second])
    return "done"


@pytest.mark.parametrize("turns", range(8))
async def test_leaving_puts_no_uncalled_step_in_doubt(place: Place, turns: int):
    """A step ended some turns after leaving had begun; the next, at_most_once, was never called: it is, later, once."""
    watch = World()
    gate = watch.gate("hold")
    leaving = place.orchestrator(then_once, world=watch)
    await leaving.__aenter__()
    await leaving.start(then_once, "once", id="o")
    await entered(gate, leaving)
    await left_while(leaving, gate, turns=turns)
    async with place.orchestrator(then_once, world=watch) as worker:
        handle = await worker.get("o")
        info = await reaches(handle, worker, "completed", "compensated", "stuck", "resolved")
        assert (info.status, info.reason) == ("completed", None)
    calls = [call for call in watch.calls if call.step == "once"]
    assert [(call.what, call.attempt) for call in calls] == [("once", 1)]


@pytest.mark.parametrize("turns", range(8))
async def test_leaving_and_a_cancel_undo_no_uncalled_step(place: Place, turns: int):
    """So it is where a cancel came next: the compensation of the step that was never called does not run."""
    watch = World()
    gate = watch.gate("hold")
    leaving = place.orchestrator(then_once, world=watch)
    await leaving.__aenter__()
    await leaving.start(then_once, "blind", id="o")
    await entered(gate, leaving)
    await left_while(leaving, gate, turns=turns)
    if watch.count("blind"):
        return  # the step ended so early that the worker did not know yet that it was leaving
    async with place.orchestrator(then_once, world=watch, worker=False) as desk:
        await tell(desk, "cancel")
    async with place.orchestrator(then_once, world=watch) as worker:
        info = await reaches(await worker.get("o"), worker, "completed", "compensated", "stuck", "resolved")
        assert (info.status, info.reason) == ("compensated", None)
    assert watch.timeline == ["begin hold", "end hold", "begin undo hold", "end undo hold"]


@pytest.mark.parametrize("second", ["once", "blind", "late"])
async def test_a_kill_between_two_steps_puts_none_in_doubt(place: Place, second: str):
    """Killed when the next step's intent was written and it was not yet called, then rolled back: it is in no doubt.

    Only the first step is undone, and nobody is asked about the second.
    """

    async def killed(worker: Orchestrator, num: int) -> None:
        """Kill the run as the worker hears it, while its commit is under way."""
        driven: Any = worker.engine._process.worker
        driven.runs[num].tell("kill", b"{}")
        await worker.engine.flushed()

    watch = World()
    gate = watch.gate("hold")
    async with place.orchestrator(then_once, world=watch) as worker:
        handle = await worker.start(then_once, second, id="o")
        await entered(gate, worker)
        store: Any = worker.engine.store
        num = (await worker.engine.find("o")).num
        commit, free = store.journal.commit, asyncio.Event()

        async def held_up(batch: Any) -> Any:
            told = await commit(batch)
            if any(entry.key == second for entry in batch.entries):
                await free.wait()  # the intent is on disk, and nobody has been told so
            return told

        store.journal.commit = held_up
        gate.open()
        await journalled(handle, worker, "started", times=2)
        killing = asyncio.create_task(killed(worker, num))
        for _ in range(5):
            await asyncio.sleep(0)
        free.set()
        await killing
        called = watch.count(second)
        await worker.rollback("o")
        info = await reaches(handle, worker, "compensated", "resolved", "stuck", "completed")
        assert not called or second != "late" or info.status == "stuck"
        if not called:
            assert (info.status, info.reason) == ("compensated", None)
            assert watch.timeline == ["begin hold", "end hold", "begin undo hold", "end undo hold"]
        assert watch.live == {}


# -- random verbs 7: a pause is no attempt --------------------------------------------------------------------------


async def test_a_pause_before_the_worker_is_no_attempt(place: Place):
    """Paused before any worker came, resumed later: the first call is attempt 1, and the step shows one attempt."""
    watch = World()
    async with place.orchestrator(*SAGAS, world=watch, worker=False) as desk:
        handle = await desk.start(order, "hold", id="o")
        await tell(desk, "pause")
    async with working(place, SAGAS, watch) as (worker, _):
        await rung(worker)
        await tell(worker, "resume")
        handle = await worker.get("o")
        assert await within(handle.result(), worker) == "done"
        assert [call.attempt for call in watch.calls] == [1, 1]
        assert [state.attempts for state in (await handle.info()).steps] == [1, 1]


# -- the fleet's second: a stuck saga with a promised attempt -------------------------------------------------------


@saga("doubt-beside-a-delay", version=1)
async def doubt_beside_a_delay(s: Saga) -> str:
    async with s.parallel() as p:
        p.run(hold)
        p.run(patient)
    return "done"


@pytest.mark.parametrize("answer", ["happened", "did not happen"])
@pytest.mark.parametrize("when", ["before it is due", "once it is due"])
async def test_a_stuck_saga_whose_sibling_falls_due(place: Place, answer: str, when: str):
    """A branch is stuck on an unknown outcome, and its sibling's next attempt falls due: it is made, or the run rests.

    The journal does not grow of itself, and the verb that the message names is accepted.
    """
    happened = answer == "happened"

    watch, clock = World(), ManualClock()
    watch.plan("hold", "lost")
    watch.plan("patient", "broken", "ok")
    async with (
        place.orchestrator(doubt_beside_a_delay, bell, world=watch, clock=clock) as worker,
        place.orchestrator(doubt_beside_a_delay, bell, world=watch, clock=clock, worker=False) as desk,
    ):
        handle = await worker.start(doubt_beside_a_delay, id="o")
        await reaches(handle, worker, "stuck")
        if when == "once it is due":
            await clock.advance(61)
            await rung(desk)
            lengths = []
            claims = claims_of(worker, "o")
            for _ in range(4):
                await rung(desk, times=2)
                lengths.append(len(await handle.history()))
                assert (await handle.info()).status == "stuck"
                assert [info.id for info in await desk.list(attention=True)] == ["o"]
            assert len(set(lengths)) == 1, "its journal grows although nothing happens"
            assert len(claims) <= 2, "it is claimed again and again"
        await desk.resolve("o", "hold", happened=happened, result="hold" if happened else None)
        if when != "once it is due":
            await clock.advance(61)
        wanted = "completed" if happened else "resolved"
        assert (await reaches(handle, worker, "completed", "resolved", "compensated")).status == wanted
        assert watch.kept() == (["patient"] if happened else [])


def claims_of(worker: Orchestrator, saga_id: str) -> list[str]:
    """Filled with the id whenever the worker claims that saga, from now on."""
    store: Any = worker.engine.store
    claim, found = store.claims.claim, list[str]()

    async def noted(*args: Any, **options: Any) -> Any:
        records = await claim(*args, **options)
        found.extend(record.id for record in records if record.id == saga_id)
        return records

    store.claims.claim = noted
    return found


# -- a step that was given up before it was called is not called ----------------------------------------------------


@pytest.mark.parametrize("second", ["blind", "late", "once"])
async def test_a_deadline_between_the_launch_and_the_call(place: Place, second: str):
    """The deadline falls due when the step's task has been made and has not run yet: it is never called, or undone."""
    watch, clock = World(), ManualClock()
    async with place.orchestrator(then_once, world=watch, clock=clock) as worker:
        gate = watch.gate("hold")
        handle = await worker.start(then_once, second, id="o", deadline=60)
        await entered(gate, worker)
        driven: Any = worker.engine._process.worker
        attempt = driven.attempt

        def launched(run: Any, *args: Any) -> None:
            attempt(run, *args)
            clock._ring(clock.now_ns() + 61_000_000_000)

        driven.attempt = launched
        gate.open()
        info = await reaches(handle, worker, "completed", "compensated", "resolved", "stuck")
        assert (info.status, info.cause) == ("compensated", "deadline")
        assert watch.live == {}
        assert watch.count(second) == watch.undone.count(second)
