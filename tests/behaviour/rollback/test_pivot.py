"""The pivot: before it everything can be undone, after it nothing is, and what fails there waits for a person."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from sagas import Retry, Saga, SagaCompensated, SagaPastPivot, SagaStuck, lookup, pivot, resource, retriable, saga
from sagas.testing import ManualClock
from tests.kit import Place, World, act, end_of, entered, orchestrator, party, point_of_no_return, reaches

reserve, charge = party("reserve"), party("charge")
sell = {probed: point_of_no_return("sell", probed=probed) for probed in (False, True)}


class Broken(Exception): ...


@retriable(retry=Retry.forever(first=0, jitter=False))
async def ship(about: str, *, world: World = resource()) -> str:
    await world.act("ship", about)
    return about


@retriable(retry=Retry(attempts=2, first=0, jitter=False))
async def mail(about: str, *, world: World = resource()) -> str:
    await world.act("mail", about)
    return about


@saga("order", version=1)
async def order(s: Saga, what: str, *, probed: bool = False) -> list[str]:
    done = [await s.run(reserve, what), await s.run(charge, what)]
    done.append(await s.run(sell[probed], what))
    return [*done, await s.run(ship, what), await s.run(mail, what)]


ALL = ["reserve", "charge", "sell", "ship", "mail"]

# -- an order, forward and back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "does"), [(what, does) for what in ALL[:3] for does in ("refused", "broken")])
async def test_what_fails_up_to_the_pivot_leaves_nothing(place: Place, what: str, does: str):
    """A failure before the pivot, or of the pivot itself, undoes everything: a pivot that failed has not happened."""
    world = World().plan(what, does)
    async with place.orchestrator(order, world=world) as running:
        end = await end_of(await running.start(order, "tea"), running)
    assert end.status == "compensated"
    assert world.live == {}
    assert not {"ship", "mail"} & {call.what for call in world.calls}


@pytest.mark.parametrize(("does", "calls"), [("ok", 1), ("broken", 6), ("lost", 6), ("silent", 6)])
async def test_after_the_pivot_the_order_goes_forward(place: Place, does: str, calls: int):
    """A retriable is tried until it succeeds; each effect is there once, in order, and nothing is undone."""
    world = World().plan("ship", *[does] * 5, "ok")
    async with place.orchestrator(order, world=world) as running:
        end = await end_of(await running.start(order, "tea"), running)
    assert (end.status, end.value) == ("completed", ["tea"] * 5)
    assert world.log == ALL
    assert world.count("ship") == calls


async def test_a_retriable_that_is_given_up_is_stuck_and_retried(place: Place):
    """A retriable with an end of patience makes the order stuck; retry attempts it again, and cancel is too late."""
    world = World().plan("mail", "broken", "broken", "ok")
    async with place.orchestrator(order, world=world) as running:
        handle = await running.start(order, "tea", id="o")
        with pytest.raises(SagaStuck) as stuck:
            await handle.result()
        assert stuck.value.steps == ("mail",)
        for verb in (running.cancel, running.rollback):
            with pytest.raises(SagaPastPivot):
                await verb("o")
        await running.retry("o", "mail")
        assert (await end_of(handle, running)).status == "completed"
    assert world.log == ALL
    assert world.count("ship") == 1
    assert len({info.idempotency_key for info in world.calls if info.what == "mail"}) == 1


@pytest.mark.parametrize("by", ["probe", "person"])
@pytest.mark.parametrize("does", ["lost", "silent"])
async def test_a_pivot_without_an_answer_is_settled(place: Place, does: str, by: str):
    """The probe tells, and without a probe a person: forward where the pivot happened, back where it did not."""
    world = World().plan("sell", does)
    async with place.orchestrator(order, world=world) as running:
        handle = await running.start(order, "tea", probed=by == "probe", id="o")
        if by == "person":
            await reaches(handle, running, "stuck")
            await running.resolve("o", "sell", happened=does == "silent", result="tea")
        end = await end_of(handle, running)
    back = "compensated" if by == "probe" else "resolved"
    assert end.status == ("completed" if does == "silent" else back)
    assert world.kept() == (sorted(ALL) if does == "silent" else [])


@pytest.mark.parametrize("what", ALL)
async def test_an_order_outlives_a_crash_in_each_step(place: Place, what: str):
    """A process that dies in any step, also in the pivot and after it, is gone on with to the same end."""
    world = World()
    gate = world.gate(what)
    async with place.dying(order, world=world) as running:
        await running.start(order, "tea", id="o")
        await entered(gate, running)
    world.gates.clear()
    async with place.orchestrator(order, world=world) as running:
        end = await end_of(await running.get("o"), running)
    assert (end.status, end.value) == ("completed", ["tea"] * 5)
    assert world.log == ALL


# -- what a body may do about it --------------------------------------------------------------------------------------


async def test_a_rejected_pivot_that_the_body_catches_is_not_passed(url: str, world: list[str]):
    """The body may go on, run another step, and be undone as a whole."""
    point, instead = act(world, "point", Broken(), at=pivot, rejects=(Broken,)), act(world, "instead")

    @saga("before", version=1)
    async def body(s: Saga) -> None:
        try:
            await s.run(point)
        except Broken:
            await s.run(instead)
        raise Broken

    async with orchestrator(url, body) as running:
        assert (await end_of(await running.start(body), running)).undone == ("instead",)


@pytest.mark.parametrize("second", ["plain", "other"])
async def test_after_the_pivot_nothing_that_could_be_undone_may_begin(url: str, world: list[str], second: str):
    """A step or a second pivot that registration cannot see is refused before its effect: stuck, nothing undone."""
    point, first = act(world, "point", at=pivot), act(world, "first")
    hidden = {"plain": act(world, "plain"), "other": act(world, "other", at=pivot)}

    @saga("past", version=1)
    async def body(s: Saga) -> None:
        await s.run(first)
        await s.run(point)
        await s.run(hidden[second])

    async with orchestrator(url, body) as running:
        end = await end_of(await running.start(body), running)
    assert end.status == "stuck"
    assert all(word in end.error[0] for word in (second, "pivot", "retriable"))
    assert world == ["first", "point"]


TROUBLE = ["own exception", "argument that cannot be stored", "too many arguments", "result that cannot be stored"]


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_after_the_pivot_an_exception_is_stuck_and_retry_runs_the_body(url: str, world: list[str], trouble: str):
    """After the pivot an exception of the body's own makes the saga stuck, and everybody who asks is told so.

    `retry` runs the body with the code loaded now: nothing is done again, nothing undone.
    """
    first, point, after = act(world, "first"), act(world, "point", at=pivot), act(world, "after", at=retriable)
    broken = [True]

    @saga("past", version=1)
    async def body(s: Saga) -> Any:
        await s.run(first)
        await s.run(point)
        match trouble if broken else "mended":
            case "own exception":
                raise Broken("bug")
            case "argument that cannot be stored":
                await s.run(after, object())
            case "too many arguments":
                await s.run(after, 1, 2)
            case "result that cannot be stored":
                return object()
        return await s.run(after)

    async with orchestrator(url, body) as running:
        handle = await running.start(body, id="one")
        for retries in (True, False):
            for told in await asyncio.gather(handle.result(), handle.result(), return_exceptions=True):
                assert isinstance(told, SagaStuck)
                assert told.run_id == "one"
                assert "sagas retry one" in told.reason or "retry the saga" in told.reason
                assert ("bug" in told.reason) == (trouble == "own exception")
            with pytest.raises(SagaPastPivot):
                await running.cancel("one")
            assert (await handle.info()).cause is None
            if retries:
                await running.retry("one")  # with the same code: stuck again
        broken.clear()
        await running.retry("one")
        assert await handle.result() == "after done"
    assert world == ["first", "point", "after"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", [lookup, retriable])
async def test_after_the_pivot_retry_runs_the_step_again(url: str, world: list[str], kind: Any, *, wrapped: bool):
    """`retry` then runs again the step whose exception it was, also where the body has wrapped it.

    Each retry is a fresh policy, and the saga stays past its pivot whatever happens.
    """
    point, after = act(world, "point", at=pivot), act(world, "after", at=retriable)
    look = act(world, "look", *[Broken("l")] * 7, "seen", at=kind, retry=Retry(attempts=3, first=0, jitter=False))

    @saga("past", version=1)
    async def body(s: Saga) -> str:
        await s.run(point)
        try:
            seen = await s.run(look)
        except Broken as error:
            if wrapped:
                raise ValueError("no look") from error
            raise
        await s.run(after)
        return seen

    async with orchestrator(url, body) as running:
        handle = await running.start(body)
        for calls in (3, 6):
            with pytest.raises(SagaStuck):
                await handle.result()
            assert world.count("look") == calls
            await running.retry(handle.id)
        assert await handle.result() == "seen"
    assert world == ["point", *["look"] * 8, "after"]


# -- cancel and deadline ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["happened", "failed", "rejected"])
async def test_a_cancel_during_the_pivot(url: str, world: list[str], outcome: str):
    """If a pivot was in flight and did happen, the saga goes forward; if it did not, everything is undone."""
    gate, inside = asyncio.Event(), asyncio.Event()

    async def held() -> str:
        inside.set()
        await gate.wait()
        if outcome != "happened":
            raise {"failed": ValueError, "rejected": Broken}[outcome]
        return "paid"

    first, after = act(world, "first"), act(world, "after", at=retriable)
    point = act(world, "point", held, at=pivot, rejects=(Broken,))

    @saga("racing", version=1)
    async def body(s: Saga) -> str:
        await s.run(first)
        paid = await s.run(point)
        await s.run(after)
        return paid

    async with orchestrator(url, body) as running:
        handle = await running.start(body)
        await inside.wait()
        await handle.cancel("late")
        gate.set()
        if outcome == "happened":
            assert await handle.result() == "paid"
            assert world == ["first", "point", "after"]
        else:
            with pytest.raises(SagaCompensated) as caught:
                await handle.result()
            assert caught.value.cause == "cancelled"
            assert world == ["first", "point", "undo first"]
        assert any((entry.kind, entry.note) == ("signalled", "late") for entry in await handle.history())


async def test_past_the_pivot_cancel_is_refused_and_the_deadline_void(url: str, world: list[str]):
    """Once the pivot has succeeded, `cancel` raises `SagaPastPivot` and the deadline is void."""
    point, after = act(world, "point", at=pivot), act(world, "after", at=retriable)

    @saga("past", version=1, deadline=timedelta(hours=2))
    async def body(s: Saga) -> str:
        await s.run(point)
        await s.sleep(timedelta(hours=5))
        return await s.run(after)

    clock = ManualClock()
    async with orchestrator(url, body, clock=clock) as running:
        handle = await running.start(body)
        await clock.advance(timedelta(hours=1))
        with pytest.raises(SagaPastPivot, match=handle.id):
            await handle.cancel()
        await clock.advance(timedelta(hours=2))
        assert (await handle.info()).status == "waiting"
        with pytest.raises(SagaPastPivot):
            await running.cancel(handle.id)
        await clock.advance(timedelta(hours=2))
        assert await handle.result() == "after done"
    assert world == ["point", "after"]
