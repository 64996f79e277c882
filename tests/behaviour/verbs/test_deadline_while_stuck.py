"""A deadline that comes while a saga waits for a person: told once, and nobody is kept busy by it."""

import asyncio
from datetime import timedelta

import pytest

from sagas import Saga, SagaCompensated, SagaStatus, pivot, resource, saga, step
from sagas.testing import ManualClock
from tests.kit import Place, World


@step
async def reserve(*, world: World = resource()) -> int:
    return 1


@reserve.compensate
async def release(_: int, *, world: World = resource()) -> None: ...


@step
async def charge(*, world: World = resource()) -> int:
    raise TimeoutError


@charge.compensate
async def refund(_: int, *, world: World = resource()) -> None: ...


@pivot
async def sell(*, world: World = resource()) -> str:
    raise TimeoutError


@saga("doubtful", version=1, deadline=timedelta(hours=1))
async def doubtful(s: Saga) -> int:
    await s.run(reserve)
    return await s.run(charge)


@saga("doubtful-pivot", version=1, deadline=timedelta(hours=1))
async def doubtful_pivot(s: Saga) -> str:
    await s.run(reserve)
    return await s.run(sell)


async def idle(clock: ManualClock, hours: float) -> None:
    """Let time pass; a worker that is kept busy never lets this return."""
    await asyncio.wait_for(clock.advance(timedelta(hours=hours)), 20)


@pytest.mark.parametrize("restart", [False, True])
async def test_a_saga_stuck_on_a_doubt_is_rolled_back_at_its_deadline(place: Place, restart: bool):  # noqa: FBT001
    """The doubt stays a person's; once they have spoken the rollback goes on, for the deadline's sake."""
    clock = ManualClock()

    async with place.orchestrator(doubtful, world=World(), clock=clock) as running:
        handle = await running.start(doubtful, id="one")
        await idle(clock, 0.5)
        assert (await handle.info()).status is SagaStatus.STUCK
        if not restart:
            await idle(clock, 48)
    async with place.orchestrator(doubtful, world=World(), clock=clock) as running:
        await idle(clock, 48)
        info = await running.info("one")
        assert (info.status, info.cause, info.stuck_on) == (SagaStatus.STUCK, "deadline", ("charge",))
        assert [entry.key for entry in await (await running.get("one")).history()].count("deadline") == 1
        await running.resolve("one", "charge", happened=False, actor="bob")
        with pytest.raises(SagaCompensated) as caught:
            await (await running.get("one")).result(timeout=20)
        assert (caught.value.cause, caught.value.compensated) == ("deadline", ["reserve"])


@pytest.mark.parametrize("happened", [False, True])
async def test_a_deadline_amid_a_doubt_about_the_pivot(place: Place, happened: bool):  # noqa: FBT001
    """Whether it came too late is the pivot's to say; until a person has said so, nobody is kept busy."""
    clock = ManualClock()

    async with place.orchestrator(doubtful_pivot, world=World(), clock=clock) as running:
        handle = await running.start(doubtful_pivot, id="one")
        await idle(clock, 48)
        info = await handle.info()
        assert (info.status, info.cause, info.stuck_on) == (SagaStatus.STUCK, None, ("sell",))
        assert [entry.key for entry in await handle.history()].count("deadline") == 1
        await running.resolve("one", "sell", happened=happened, result="sold", actor="bob")
        if happened:
            assert await handle.result(timeout=20) == "sold"
        else:
            with pytest.raises(SagaCompensated) as caught:
                await handle.result(timeout=20)
            assert (caught.value.cause, caught.value.compensated) == ("deadline", ["reserve"])
