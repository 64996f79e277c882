"""The pivot: before it everything can be undone, after it nothing is; what fails there waits for a person."""

import asyncio
from typing import Any

import pytest

from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import (
    DefinitionError,
    Retry,
    Saga,
    SagaDef,
    SagaPastPivot,
    SagaStuck,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)
from tests.kit import BodyFailed, Broken, End, Rejected, World, alone, end_of, orchestrator, within

AT_ONCE = Retry(attempts=3, first=0, jitter=False)


@step
async def reserve(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@reserve.compensate
async def release(result: int, *, world: World = resource()) -> None:
    await world.act()


@pivot(rejects=(Rejected,))
async def pay(number: int, *, world: World = resource()) -> int:
    await world.act()
    if number < 0:
        raise Rejected(number, "not with me")
    return number


@lookup
async def look(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@retriable(retry=Retry.forever(first=0, jitter=False))
async def confirm(number: int, *, world: World = resource()) -> int:
    info = await world.act()
    if info.attempt < 4:
        raise Broken("the mail server is down")
    return number


def plays(body: Any, world: World | None = None) -> tuple[End, World]:
    world = world or World()
    return alone(saga("order", version=1)(body), resources=[world])[0], world


def test_a_pivot_that_is_rejected_is_undone_up_to():
    """It never happened: everything before it is undone."""

    async def body(s: Saga) -> None:
        await s.run(reserve, 1)
        await s.run(pay, -1)

    end, world = plays(body)
    assert (end.status, end.error[0], end.undone, world.undone) == ("compensated", Rejected, ("reserve",), ["reserve"])


def test_a_rejected_pivot_that_the_body_catches_is_not_passed():
    """The body may go on, run another step, and be undone as a whole."""

    async def body(s: Saga) -> None:
        try:
            await s.run(pay, -1)
        except Rejected:
            await s.run(reserve, 1)
        raise BodyFailed("no")

    assert plays(body)[0].undone == ("reserve",)


def test_a_retriable_is_retried_until_it_succeeds():
    """For ever by default, each attempt under the same key."""

    async def body(s: Saga) -> int:
        await s.run(reserve, 1)
        await s.run(pay, 1)
        await s.run(look, 1)
        return await s.run(confirm, 7)

    end, world = plays(body)
    assert (end.status, end.value) == ("completed", 7)
    assert world.called()["confirm"] == 4
    assert all(len(keys) == 1 for keys in world.keys().values())


@pytest.mark.parametrize("second", [reserve, pay], ids=["step", "pivot"])
def test_after_the_pivot_nothing_that_could_be_undone_may_begin(second: Any):
    """A step or a second pivot there is refused before its effect; the saga is stuck, and nothing is undone."""
    hidden = [second]  # a look at the body's source does not see which step it runs

    async def body(s: Saga) -> None:
        await s.run(pay, 1)
        await s.run(hidden[0], 2)

    end, world = plays(body)
    assert end.status == "stuck"
    assert all(word in end.error[0] for word in (second.name, "pivot", "retriable"))
    assert (len(world.calls), world.undone) == (1, [])


@pytest.mark.parametrize("second", [reserve, pay], ids=["step", "pivot"])
def test_what_may_not_follow_the_pivot_is_refused_at_registration_where_it_can_be_seen(second: Any):
    """A DefinitionError with file and line, the step and the pivot; nothing is started."""

    @saga("order", version=1)
    async def order(s: Saga) -> None:
        await s.run(pay, 1)
        await s.run(second, 2)

    with pytest.raises(DefinitionError) as refused:
        orchestrator("memory://", order)
    assert all(word in str(refused.value) for word in (f"{__file__}:", "order", second.name, "pivot"))


def test_a_retriable_takes_no_rejects():
    """A retriable is called until it succeeds, so it cannot be refused."""
    with pytest.raises(DefinitionError, match="retriable"):

        @retriable(rejects=(Rejected,))
        async def refused() -> None: ...


def retried(first: SagaDef[..., Any], second: SagaDef[..., Any], world: World) -> tuple[End, list[str]]:
    """Start a saga that gets stuck with ``first``, retry it with ``second`` loaded: its end, and its history."""

    async def main() -> tuple[End, list[str]]:
        data = MemoryData()
        async with orchestrator(MemoryStore(data), first, resources=[world]) as running:
            handle = await running.start(first, id="one")
            end = await end_of(handle, running)
            assert end.status == "stuck"
            assert "pivot" in end.error[0] or "cannot be called with" in end.error[0]
            assert (await handle.info()).cause is None
            assert world.undone == []
            with pytest.raises(SagaPastPivot):
                await running.cancel("one")
        async with orchestrator(MemoryStore(data), second, resources=[world]) as running:
            await running.retry("one")
            handle = await running.get("one")
            end = await end_of(handle, running)
            return end, [entry.kind for entry in await handle.history()]

    return asyncio.run(main())


def test_a_step_that_fails_after_the_pivot_is_attempted_again_by_retry():
    """Stuck, nothing undone; `retry` attempts that very step, under its key, and nothing before it again."""
    world = World()

    @retriable(retry=AT_ONCE)
    async def mail(number: int, *, world: World = resource()) -> int:
        info = await world.act()
        if info.attempt <= 3:
            raise Broken("down")
        return number

    @saga("order", version=1)
    async def order(s: Saga) -> int:
        await s.run(reserve, 1)
        await s.run(pay, 1)
        await s.run(look, 1)
        return await s.run(mail, 7)

    end, _ = retried(order, order, world)
    assert end == End("completed", 7)
    assert world.called() == {"reserve": 1, "pay": 1, "look": 1, "mail": 4}
    assert all(len(keys) == 1 for keys in world.keys().values())


def test_a_step_that_fails_again_after_retry_gets_stuck_again_and_can_be_retried_again():
    """Each retry is a fresh policy; the saga stays past its pivot whatever happens."""
    world = World()

    @retriable(retry=AT_ONCE)
    async def mail(*, world: World = resource()) -> int:
        info = await world.act()
        if info.attempt <= 7:
            raise Broken("down")
        return info.attempt

    @saga("order", version=1)
    async def order(s: Saga) -> int:
        await s.run(pay, 1)
        return await s.run(mail)

    async def main() -> None:
        async with orchestrator("memory://", order, resources=[world]) as running:
            handle = await running.start(order, id="one")
            for attempts in (3, 6):
                assert (await end_of(handle, running)).status == "stuck"
                assert world.called()["mail"] == attempts
                await running.retry("one")
            assert await within(handle.result(), running) == 8

    asyncio.run(main())


def test_a_wrapped_exception_still_names_its_step():
    """A body that raises its own exception from a step's: `retry` attempts that step."""
    world = World()

    @retriable(retry=1)
    async def mail(*, world: World = resource()) -> int:
        info = await world.act()
        if info.attempt == 1:
            raise Broken("down")
        return 7

    @saga("order", version=1)
    async def order(s: Saga) -> int:
        await s.run(pay, 1)
        try:
            return await s.run(mail)
        except Broken as error:
            raise BodyFailed("no mail") from error

    assert retried(order, order, world)[0] == End("completed", 7)
    assert world.called()["mail"] == 2


def test_the_bodys_own_exception_after_the_pivot_is_retried_with_the_code_loaded_now():
    """Nothing is done again; the mended body goes on from its journal."""
    world = World()

    @saga("order", version=1)
    async def broken(s: Saga) -> int:
        await s.run(pay, 1)
        raise BodyFailed("a bug")

    @saga("order", version=1)
    async def mended(s: Saga) -> int:
        return await s.run(pay, 1)

    assert retried(broken, mended, world)[0] == End("completed", 1)
    assert world.called() == {"pay": 1}
    world = World()
    end, kinds = retried(broken, broken, world)
    assert (end.status, world.called(), world.undone) == ("stuck", {"pay": 1}, [])
    assert "ended" not in kinds


@pytest.mark.parametrize("arguments", [(object(),), (1, 2)], ids=["cannot be stored", "too many"])
def test_bad_arguments_after_the_pivot_never_end_the_saga_as_compensated(arguments: tuple[Any, ...]):
    """A step that could not begin leaves the saga stuck; nothing is undone, and mended code completes it."""
    world = World()

    @saga("order", version=1)
    async def broken(s: Saga) -> int:
        await s.run(reserve, 1)
        await s.run(pay, 1)
        return await s.run(confirm, *arguments)

    @saga("order", version=1)
    async def mended(s: Saga) -> int:
        await s.run(reserve, 1)
        await s.run(pay, 1)
        return await s.run(confirm, 7)

    assert retried(broken, mended, world)[0] == End("completed", 7)
    assert world.undone == []


def test_a_result_that_cannot_be_stored_after_the_pivot_leaves_the_saga_stuck():
    """The body's own result, too: what happened happened."""
    world = World()

    async def body(s: Saga) -> Any:
        await s.run(pay, 1)
        return object()

    end, world = plays(body)
    assert (end.status, world.undone) == ("stuck", [])


def test_the_pivot_in_flight_decides_whether_a_cancel_comes_too_late():
    """A cancel while the pivot runs: where it happens the saga goes forward, where it is rejected all is undone."""
    for number, status in ((1, "completed"), (-1, "compensated")):
        world, called, go_on = World(), asyncio.Event(), asyncio.Event()

        async def hold(info: Any, called: asyncio.Event = called, go_on: asyncio.Event = go_on) -> None:
            if info.step == "pay":
                called.set()
                await go_on.wait()

        world.before = hold

        @saga("order", version=1)
        async def order(s: Saga, number: int) -> int:
            await s.run(reserve, 1)
            await s.run(pay, number)
            return await s.run(look, 7)

        async def main(
            order: Any = order, called: Any = called, go_on: Any = go_on, number: int = number, world: World = world
        ) -> End:
            async with orchestrator("memory://", order, resources=[world]) as running:
                handle = await running.start(order, number, id="one")
                await within(called.wait(), running)
                await running.cancel("one", reason="changed my mind")
                go_on.set()
                end = await end_of(handle, running)
                assert "signalled" in [entry.kind for entry in await handle.history()]
                return end

        end = asyncio.run(main())
        assert end.status == status
        assert world.undone == ([] if status == "completed" else ["reserve"])


def test_past_the_pivot_nothing_can_be_cancelled():
    """`cancel` raises SagaPastPivot, and the saga goes on."""

    async def main() -> None:
        world, called, go_on = World(), asyncio.Event(), asyncio.Event()

        async def hold(info: Any) -> None:
            if info.step == "look":
                called.set()
                await go_on.wait()

        world.before = hold

        @saga("order", version=1)
        async def order(s: Saga) -> int:
            await s.run(pay, 1)
            return await s.run(look, 7)

        async with orchestrator("memory://", order, resources=[world]) as running:
            handle = await running.start(order, id="one")
            await within(called.wait(), running)
            with pytest.raises(SagaPastPivot):
                await handle.cancel()
            go_on.set()
            assert await within(handle.result(), running) == 7

    asyncio.run(main())


def test_stuck_says_so_at_once_and_to_everybody():
    """Everybody who waits for a result is told when the saga gets stuck, and who asks later as well."""

    @saga("order", version=1)
    async def order(s: Saga) -> int:
        await s.run(pay, 1)
        raise BodyFailed("a bug")

    async def main() -> None:
        async with orchestrator("memory://", order, resources=[World()]) as running:
            handle = await running.start(order, id="one")
            told = await within(
                asyncio.wait_for(asyncio.gather(handle.result(), handle.result(), return_exceptions=True), 5), running
            )
            assert [type(one) for one in told] == [SagaStuck, SagaStuck]
            with pytest.raises(SagaStuck) as stuck:
                await within(handle.result(), running)
            assert stuck.value.run_id == "one"
            assert "a bug" in stuck.value.reason
            assert "sagas retry one" in stuck.value.reason

    asyncio.run(main())
