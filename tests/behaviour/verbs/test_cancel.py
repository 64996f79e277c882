"""Cancel and deadline at each point where a saga may stand: what is in flight ends, then everything is undone."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sagas import Orchestrator, Retry, Saga, SagaCompensated, SagaDef, SagaHandle, SagaPastPivot, lookup, saga
from sagas.errors import WrongState
from sagas.testing import ManualClock
from tests.kit import (
    Broken,
    Place,
    Refused,
    World,
    begun,
    end_of,
    entered,
    party,
    point_of_no_return,
    reaches,
    until,
)

before, held, after = party("before"), party("held"), party("after")
patient = party("patient", retry=Retry(attempts=5, first=3600, jitter=False))
label_it, refusing = party("label"), party("refusing")
sell = point_of_no_return("sell")
sell_probed = point_of_no_return("sell", probed=True)
sell_patient = point_of_no_return("sell", retry=Retry(attempts=5, first=3600, jitter=False))


@lookup
async def count_on() -> int:
    return 1


@saga("in-a-step", version=1)
async def in_a_step(s: Saga) -> None:
    await s.run(before, "x")
    await s.run(held, "x")
    await s.run(after, "x")


@saga("in-a-retry-delay", version=1)
async def in_a_retry_delay(s: Saga) -> None:
    await s.run(before, "x")
    await s.run(patient, "x")
    await s.run(after, "x")


@saga("in-a-sleep", version=1)
async def in_a_sleep(s: Saga) -> None:
    await s.run(before, "x")
    await s.sleep(3600)
    await s.run(after, "x")


@saga("in-a-savepoint", version=1)
async def in_a_savepoint(s: Saga) -> None:
    await s.run(before, "x")
    async with s.savepoint("block"):
        await s.run(label_it, "x")
        await s.run(held, "x")
        await s.run(after, "x")


async def two_steps(s: Saga) -> None:
    await s.run(label_it, "x")
    await s.sleep(3600)
    await s.run(after, "x")


@saga("in-parallel", version=1)
async def in_parallel(s: Saga) -> None:
    await s.run(before, "x")
    async with s.parallel() as p:
        p.run(two_steps)
        p.run(held, "x")
    await s.run(after, "x")


@saga("child", version=1)
async def child(s: Saga) -> None:
    await s.run(label_it, "x")
    await s.run(held, "x")
    await s.run(after, "x")


@saga("in-a-child", version=1)
async def in_a_child(s: Saga) -> None:
    await s.run(before, "x")
    await s.run(child)
    await s.run(after, "x")


@saga("swallowing", version=1)
async def swallowing(s: Saga) -> str:
    await s.run(before, "x")
    try:
        await s.run(refusing, "x")
    except Exception:  # noqa: BLE001 - this body swallows what it can
        for _ in range(3):
            try:
                await s.run(held, "x")
                await s.run(after, "x")
            except Exception:  # noqa: BLE001
                continue
    finally:
        await s.run(after, "finally")
    return "nothing happened"


@saga("in-a-savepoints-rollback", version=1)
async def in_a_savepoints_rollback(s: Saga) -> None:
    await s.run(before, "x")
    try:
        async with s.savepoint("block"):
            await s.run(label_it, "x")
            await s.run(held, "x")
            await s.run(refusing, "x")
    except Refused:
        await s.run(after, "x")


HELD: list[tuple[SagaDef[..., object], str, dict[str, str]]] = [
    (in_a_step, "held", {}),
    (in_a_savepoint, "held", {}),
    (in_parallel, "held", {}),
    (in_a_child, "held", {}),
    (swallowing, "held", {"refusing": "refused"}),
    (in_a_savepoints_rollback, "undo held", {"refusing": "refused"}),
]
"""Sagas that a gate holds up: where, and who refuses."""


def trouble(plans: dict[str, str]) -> World:
    world = World()
    for what, does in plans.items():
        world.plan(what, does)
    return world


async def cancelled(handle: SagaHandle[object], running: Orchestrator, cause: str = "cancelled") -> SagaCompensated:
    with pytest.raises(SagaCompensated) as gone:
        await asyncio.wait_for(handle.result(), 5)
    assert gone.value.cause == cause, await running.info(handle.id)
    assert gone.value.status == "compensated"
    return gone.value


@pytest.mark.parametrize(("definition", "gated", "plans"), HELD, ids=[case[0].name for case in HELD])
@pytest.mark.parametrize("how", ["cancel", "cancel thrice", "deadline"])
async def test_what_is_in_flight_ends_and_then_all_is_undone(
    place: Place, definition: SagaDef[[], object], gated: str, plans: dict[str, str], how: str
):
    """The step (or undo) in flight is allowed to end, is recorded and undone with the rest; nothing new begins.

    A deadline that passes while something is in flight does as a cancel.
    """
    world, clock = trouble(plans), ManualClock()
    gate = world.gate(gated)
    cause, deadline = ("deadline", 60) if how == "deadline" else ("cancelled", None)
    async with place.orchestrator(definition, world=world, clock=clock) as running:
        handle = await running.start(definition, id="c", deadline=deadline)
        await entered(gate, running)
        if how == "deadline":
            await clock.advance(60)
            await deadline_journalled(handle, running)
        for _ in range({"cancel": 1, "cancel thrice": 3}.get(how, 0)):
            await running.cancel("c", reason="no more", actor="mia")
        assert (await handle.info()).status not in ("compensated", "stuck"), "it waits for what is in flight"
        gate.opened.set()
        gone = await cancelled(handle, running, cause)
        journal = await handle.history()
    assert world.live == {}
    assert "after" not in world.log
    assert gone.compensated[-1] == "before"
    assert len(set(gone.compensated)) == len(gone.compensated)
    assert journal[-1].kind == "ended"
    assert not [entry for entry in journal if "after" in entry.key], "a closed body's commands leave no entry"


async def deadline_journalled(handle: SagaHandle[object], running: Orchestrator) -> None:
    async def there() -> bool:
        return any(entry.kind == "signalled" and entry.key == "deadline" for entry in await handle.history())

    await until(there, running)


@pytest.mark.parametrize(("definition", "gated", "plans"), HELD, ids=[case[0].name for case in HELD])
async def test_a_cancel_outlives_the_process(
    place: Place, definition: SagaDef[[], object], gated: str, plans: dict[str, str]
):
    """A cancel that was accepted before the process died is kept: the next process undoes everything."""
    world = trouble(plans)
    gate = world.gate(gated)
    async with place.dying(definition, world=world) as running:
        await running.start(definition, id="c")
        await entered(gate, running)
        await running.cancel("c")
    world.gates.clear()
    async with place.orchestrator(definition, world=world) as running:
        await cancelled(await running.get("c"), running)
    assert world.live == {}
    assert "after" not in world.log


@pytest.mark.parametrize("definition", [in_a_sleep, in_a_retry_delay], ids=lambda definition: definition.name)
@pytest.mark.parametrize("how", ["cancel", "deadline", "cancel from another process"])
async def test_a_sleep_and_a_retry_delay_end_at_once(place: Place, definition: SagaDef[[], object], how: str):
    """A saga that sleeps for an hour, or waits for its next attempt, is undone at once."""
    world, clock = World().plan("patient", "broken"), ManualClock()
    deadline = 60 if how == "deadline" else None
    async with place.orchestrator(definition, world=world, clock=clock) as running:
        handle = await running.start(definition, id="c", deadline=deadline)
        await reaches(handle, running, "waiting")
        if how == "cancel":
            await handle.cancel()
        elif how == "cancel from another process":
            async with place.orchestrator(world=world, worker=False, clock=clock) as other:
                await other.cancel("c")
        else:
            await clock.advance(60)
        await cancelled(handle, running, "deadline" if deadline else "cancelled")
    assert world.log == ["before", "undo before"]


async def test_a_step_that_ends_unknown_while_cancelled_is_settled_first(place: Place):
    """A step in flight that gives no answer is settled by its probe before anything is undone, and undone itself."""
    doubtful = party("held", settled_by="probe")

    @saga("doubtful", version=1)
    async def body(s: Saga) -> None:
        await s.run(before, "x")
        await s.run(doubtful, "x")

    world = World().plan("held", "silent")
    gate = world.gate("held")
    async with place.orchestrator(body, world=world) as running:
        handle = await running.start(body, id="c")
        await entered(gate, running)
        await handle.cancel()
        gate.opened.set()
        gone = await cancelled(handle, running)
    assert list(gone.compensated) == ["held", "before"]
    assert world.live == {}


# -- the pivot --------------------------------------------------------------------------------------------------------


def order(pivot: object) -> SagaDef[[], str]:
    @saga("order", version=1)
    async def body(s: Saga) -> str:
        await s.run(before, "x")
        await s.run(pivot, "x")  # type: ignore[call-overload]
        await s.sleep(0.001)
        await s.run(count_on)
        return "sold"

    return body


Pause = Callable[[Orchestrator, SagaHandle[str]], Awaitable[None]]


@pytest.mark.parametrize("does", ["ok", "refused", "broken"])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_cancel_while_the_pivot_is_in_flight(place: Place, does: str, how: str):
    """Where the pivot then happens the saga goes forward, and the request was too late; else it is undone."""
    world = World().plan("sell", does)
    gate, clock = world.gate("sell"), ManualClock()
    definition = order(sell)
    async with place.orchestrator(definition, world=world, clock=clock) as running:
        handle = await running.start(definition, id="o", deadline=60 if how == "deadline" else None)
        await entered(gate, running)
        if how == "cancel":
            await handle.cancel()
        await begun(handle, running, "sell")
        if how == "deadline":
            await clock.advance(60)
            await deadline_journalled(handle, running)
        gate.opened.set()
        if does == "ok":
            await begun(handle, running, "sleep")
            await clock.advance(1)
            assert await handle.result() == "sold"
            assert world.kept() == ["before", "sell"]
            assert any("too-late" in entry.key for entry in await handle.history())
        else:
            await cancelled(handle, running, "cancelled" if how == "cancel" else "deadline")
            assert world.live == {}


@pytest.mark.parametrize("does", ["silent", "lost"])
@pytest.mark.parametrize("when", ["in flight", "while probed"])
async def test_a_cancel_while_nobody_knows_about_the_pivot(place: Place, does: str, when: str):
    """A pivot whose outcome is found out after the cancel decides: it happened, so forward; it did not, so back."""
    world = World().plan("sell", does)
    gate = world.gate("sell" if when == "in flight" else "probe")
    definition = order(sell_probed)
    async with place.orchestrator(definition, world=world) as running:
        handle = await running.start(definition, id="o")
        if when == "in flight":
            await entered(gate, running)
        else:
            await begun(handle, running, "sell", "unknown", "succeeded", "failed")
        try:
            await handle.cancel()
        except SagaPastPivot:
            pass
        except WrongState:
            assert when == "while probed"
        gate.opened.set()
        end = await end_of(handle, running)
    assert end.status == ("completed" if does == "silent" else "compensated")
    assert world.kept() == (["before", "sell"] if does == "silent" else [])


@pytest.mark.parametrize("happened", [True, False])
async def test_a_cancel_while_a_person_is_asked_about_the_pivot(place: Place, happened: bool):  # noqa: FBT001
    """A cancel of a saga that is stuck on its pivot waits for the person's word: forward where it happened."""
    world = World().plan("sell", "silent" if happened else "lost")
    definition = order(sell)
    async with place.orchestrator(definition, world=world) as running:
        handle = await running.start(definition, id="o")
        await reaches(handle, running, "stuck")
        await handle.cancel()
        await reaches(handle, running, "stuck")
        await running.resolve("o", "sell", happened=happened, result="x")
        end = await end_of(handle, running)
    assert end.status == ("completed" if happened else "resolved")
    assert world.kept() == (["before", "sell"] if happened else [])


async def test_a_cancel_in_the_pivots_retry_delay(place: Place):
    """A pivot that surely did not happen and waits for its next attempt is not attempted again: all is undone."""
    world = World().plan("sell", "broken", "ok")
    definition = order(sell_patient)
    async with place.orchestrator(definition, world=world) as running:
        handle = await running.start(definition, id="o")
        await reaches(handle, running, "waiting")
        await handle.cancel()
        await cancelled(handle, running)
    assert world.live == {}
    assert world.count("sell") == 1


async def test_after_the_pivot_a_cancel_is_refused_and_the_deadline_void(place: Place):
    """Once the pivot has succeeded cancel raises SagaPastPivot, also after the end, and the deadline does nothing."""

    @saga("long", version=1)
    async def long(s: Saga) -> str:
        await s.run(before, "x")
        await s.run(sell, "x")
        await s.sleep(90)
        return "sold"

    world, clock = World(), ManualClock()
    async with place.orchestrator(long, world=world, clock=clock) as running:
        handle = await running.start(long, id="o", deadline=60)
        await begun(handle, running, "sleep")
        for _ in range(2):
            with pytest.raises(SagaPastPivot):
                await handle.cancel()
        await clock.advance(60)
        assert (await handle.info()).status == "waiting"
        await clock.advance(30)
        assert await handle.result() == "sold"
        with pytest.raises(SagaPastPivot):
            await handle.cancel()
    assert world.kept() == ["before", "sell"]


# -- once compensation has begun ---------------------------------------------------------------------------------------


@saga("failing", version=1)
async def failing(s: Saga) -> None:
    await s.run(before, "x")
    await s.run(held, "x")
    await s.run(refusing, "x")


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_once_compensation_has_begun_nothing_is_left_to_cancel(place: Place, how: str):
    """A cancel or deadline that comes amid a rollback changes nothing: its cause stays the failure."""
    world = World().plan("refusing", "refused")
    gate, clock = world.gate("undo held"), ManualClock()
    async with place.orchestrator(failing, world=world, clock=clock) as running:
        handle = await running.start(failing, id="f", deadline=60 if how == "deadline" else None)
        await entered(gate, running)
        await reaches(handle, running, "compensating")
        if how == "cancel":
            await handle.cancel()
        else:
            await clock.advance(60)
        gate.opened.set()
        gone = await cancelled(handle, running, "failed")
        assert isinstance(gone.__cause__, Refused)
        await handle.cancel()
    assert world.log == ["before", "held", "undo held", "undo before"]


async def test_an_error_from_the_body_does_not_hide_the_cancel(place: Place):
    """A body that raises its own exception while it is closed is rolled back all the same, with the cancel as cause."""

    @saga("angry", version=1)
    async def angry(s: Saga) -> None:
        await s.run(before, "x")
        try:
            await s.sleep(3600)
        finally:
            raise Broken("on the way out")

    world = World()
    async with place.orchestrator(angry, world=world) as running:
        handle = await running.start(angry, id="a")
        await reaches(handle, running, "waiting")
        await handle.cancel()
        await cancelled(handle, running)
    assert world.live == {}
