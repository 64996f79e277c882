"""Changed code, errors after the pivot, pauses, and who is told: an operator's verbs around a restart."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from durable_core import NonDeterminismError
from durable_core.layer import JournalEntry
from sagas import (
    Orchestrator,
    Retry,
    Saga,
    SagaDef,
    SagaInfo,
    SagaPastPivot,
    SagaStuck,
    WrongState,
    resource,
    retriable,
    saga,
)
from sagas.testing import ManualClock
from tests.behaviour.verbs.orders import after, before, held, plain, sell, sleeping
from tests.kit import Place, World, begun, end_of, entered, reaches, until

# -- code that does not fit --------------------------------------------------------------------------------------------


def versions(*bodies: Callable[[Saga], Awaitable[str]]) -> list[SagaDef[[], str]]:
    """The same saga as it was deployed one time after the other."""
    return [saga("changing", version=1)(body) for body in bodies]


async def first_body(s: Saga) -> str:
    await s.run(before, "b")
    await s.run(held, "h")
    await s.sleep(0)
    return "first"


async def other_step(s: Saga) -> str:
    await s.run(before, "b")
    await s.run(after, "a")
    return "other"


async def other_arguments(s: Saga) -> str:
    await s.run(before, "B")
    await s.run(held, "h")
    return "other"


async def shorter(s: Saga) -> str:
    await s.run(before, "b")
    return "short"


@pytest.mark.parametrize("changed", [other_step, other_arguments, shorter], ids=lambda body: body.__name__)
@pytest.mark.parametrize("mended", ["retry", "rollback", "cancel then retry"])
async def test_code_that_does_not_fit_its_journal(place: Place, changed: Callable[[Saga], Awaitable[str]], mended: str):
    """A saga whose code was changed is stuck before any effect; the old code and retry, or a rollback, mend it."""
    first, second, third = versions(first_body, changed, first_body)

    world = World()
    gate = world.gate("held")
    async with place.dying(first, world=world) as running:
        await running.start(first, id="o")
        await entered(gate, running)
    world.gates.clear()
    calls = len(world.calls)
    async with place.orchestrator(second, world=world) as running:
        handle = await running.get("o")
        with pytest.raises(SagaStuck) as stuck:
            await handle.result()
        info = await handle.info()
        assert isinstance(info.error, NonDeterminismError) or "NonDeterminism" in repr(info.error)
        await running.retry("o", actor="mia")
        await reaches(handle, running, "stuck")
        assert len(world.calls) == calls, "no effect by code that does not fit"
        if mended == "cancel then retry":
            await running.cancel("o")
        assert stuck.value.reason
    async with place.orchestrator(third, world=world) as running:
        handle = await running.get("o")
        if mended == "rollback":
            await running.rollback("o")
            stuck_on = await end_of(handle, running)
            assert stuck_on.error[1] == ("held",), "it was in flight when the process died"
            await running.resolve("o", "held", happened=False)
            assert (await end_of(handle, running)).status == "resolved"
            assert world.live == {}
            return
        await running.retry("o")
        end = await end_of(handle, running)
    if mended == "retry":
        assert (end.status, end.value) == ("completed", "first")
        assert world.log == ["before", "held"]
    else:
        assert end.status == "compensated"
        assert world.live == {}


# -- after the pivot ---------------------------------------------------------------------------------------------------


async def test_the_bodys_own_error_after_the_pivot(place: Place):
    """A body that raises after its pivot is stuck and cannot be undone; retry runs it with the code loaded then."""

    @retriable
    async def ship(about: str, *, world: World = resource()) -> None:
        await world.act("ship", about)

    def deployed(*, broken: bool) -> SagaDef[[], str]:
        @saga("selling", version=1)
        async def body(s: Saga) -> str:
            await s.run(before, "b")
            await s.run(sell, "s")
            await s.run(ship, "x")
            if broken:
                raise KeyError("a slip")
            return "mended"

        return body

    world = World()
    async with place.orchestrator(deployed(broken=True), world=world) as running:
        handle = await running.start("selling", id="o")
        with pytest.raises(SagaStuck, match="a slip"):
            await handle.result()
        for verb in (running.cancel, running.rollback):
            with pytest.raises(SagaPastPivot, match="'o'"):
                await verb("o")
        await running.retry("o")
        await reaches(handle, running, "stuck")
    async with place.orchestrator(deployed(broken=False), world=world) as running:
        await running.retry("o")
        assert await (await running.get("o")).result() == "mended"
    assert world.log == ["before", "sell", "ship"]


# -- pause and resume --------------------------------------------------------------------------------------------------


STANDS: dict[str, tuple[dict[str, list[str]], str, str]] = {
    "running": ({}, "held", "succeeded"),
    "compensating": ({"after": ["refused"]}, "undo held", "compensated"),
    "stuck": ({"held": ["lost", "ok"]}, "", ""),
    "waiting": ({}, "", ""),
}
"""What the parties do, who is held up, and how the held step stands once it has been let go."""


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("stands", STANDS)
async def test_a_paused_saga_starts_nothing_until_it_is_resumed(place: Place, stands: str, restart: bool):  # noqa: FBT001
    """A pause keeps the saga's status and outlives a restart; nothing is called until resume, and then it goes on."""
    definition = sleeping if stands == "waiting" else plain
    plans, gated, then = STANDS[stands]
    clock = ManualClock()

    async def check(running: Orchestrator, world: World) -> None:
        handle = await running.get("o")
        calls = len(world.calls)
        await clock.advance(3601)  # the sleep of one of them falls due
        await end_of(await running.start(ring), running)
        info = await handle.info()
        assert len(world.calls) == calls
        assert info.paused
        assert info.status in (stands, "running" if stands == "waiting" else stands)
        await running.resume("o")
        with contextlib.suppress(WrongState):  # it may have ended already
            await running.resume("o")
        if stands == "stuck":
            await running.retry("o")
        end = await end_of(handle, running)
        assert end.status == ("compensated" if stands == "compensating" else "completed")
        assert not (await handle.info()).paused

    world = World(plans={what: list(does) for what, does in plans.items()})
    if gated:
        world.gate(gated)
    async with place.orchestrator(definition, ring, world=world, clock=clock) as running:
        handle = await running.start(definition, id="o")
        for gate in world.gates.values():
            await entered(gate, running)
        if stands == "waiting":
            await begun(handle, running, "sleep")
        else:
            await reaches(handle, running, stands)
        await running.pause("o", actor="mia")
        await running.pause("o")
        for gate in world.gates.values():
            gate.opened.set()
            await begun(handle, running, "held", then)
        if not restart:
            await check(running, world)
    if restart:
        async with place.orchestrator(definition, ring, world=world, clock=clock) as running:
            await check(running, world)


@saga("ring", version=1)
async def ring(s: Saga) -> None:
    """Ends once the worker has had its turns."""
    await s.sleep(0)


async def test_a_second_pause_holds_as_the_first(place: Place):
    """A saga that was paused in its sleep and resumed is paused again amid its next step, and stands still after it."""
    world, clock = World(), ManualClock()
    gate = world.gate("after")
    async with place.orchestrator(sleeping_then_two, ring, world=world, clock=clock) as running:
        handle = await running.start(sleeping_then_two, id="o")
        await begun(handle, running, "sleep")
        await running.pause("o")
        await running.resume("o")
        await clock.advance(60)
        await entered(gate, running)
        assert not (await handle.info()).paused
        await running.pause("o")
        gate.opened.set()
        await begun(handle, running, "after", "succeeded")
        await end_of(await running.start(ring), running)
        assert world.count("held") == 0
        await running.resume("o")
        assert (await end_of(handle, running)).status == "completed"


@saga("sleeping-then-two", version=1)
async def sleeping_then_two(s: Saga) -> None:
    await s.sleep(60)
    await s.run(after, "a")
    await s.run(held, "h")


@pytest.mark.parametrize("verb", ["cancel", "pause", "kill"])
async def test_a_verb_that_meets_the_end(place: Place, verb: str):
    """A saga that ends between the look at it and the verb refuses the verb, soon; the saga stays completed."""
    world = World()
    gate = world.gate("held")
    async with place.orchestrator(plain, world=world) as running:
        handle = await running.start(plain, id="o")
        await entered(gate, running)
        read = running.engine.journal

        async def journal(num: int) -> list[JournalEntry]:
            found = await read(num)
            gate.opened.set()
            await handle.result()
            return found

        running.engine.journal = journal  # type: ignore[method-assign]
        with pytest.raises(WrongState):
            await asyncio.wait_for(getattr(running, verb)("o"), 3)
        assert (await handle.info()).status == "completed"
    assert world.log == ["before", "held", "after"]


async def test_a_resume_right_after_a_pause_is_not_lost(place: Place):
    """Asked where no worker has taken the pause up yet, a resume counts, and so does the last of several."""
    world = World()
    async with place.orchestrator(plain, world=world, worker=False) as front:
        handle = await front.start(plain, id="a")
        for verb in (front.pause, front.resume, front.pause, front.pause, front.resume, front.resume):
            await verb("a")
        async with place.orchestrator(plain, world=world) as running:
            assert (await end_of(handle, running)).status == "completed"
            assert not (await handle.info()).paused


async def test_pause_resume_and_retry_of_a_saga_stuck_on_its_code(place: Place):
    """Pausing and resuming a saga that is stuck on its code leaves it as it was: after retry it goes on."""
    first, second, third = versions(first_body, other_step, first_body)

    world = World()
    gate = world.gate("held")
    async with place.dying(first, world=world) as running:
        await running.start(first, id="o")
        await entered(gate, running)
    world.gates.clear()
    async with place.orchestrator(second, world=world) as running:
        handle = await running.get("o")
        await reaches(handle, running, "stuck")
        await running.pause("o")
        assert (await handle.info()).paused
        await running.resume("o")
        assert not (await handle.info()).paused
    async with place.orchestrator(third, world=world) as running:
        await running.retry("o")
        assert (await end_of(await running.get("o"), running)).status == "completed"


async def test_a_cancelled_saga_that_is_paused_is_undone_after_resume(place: Place):
    """A cancel while paused is durable and waits; resume undoes everything."""
    world = World()
    async with place.orchestrator(sleeping, world=world) as running:
        handle = await running.start(sleeping, id="o")
        await reaches(handle, running, "waiting")
        await running.pause("o")
        await running.cancel("o")
        assert world.kept() == ["before"]
        await running.resume("o")
        assert (await end_of(handle, running)).status == "compensated"
    assert world.live == {}


# -- attention ---------------------------------------------------------------------------------------------------------


async def test_somebody_is_told_of_what_is_stuck(place: Place):
    """on_attention hears of a stuck saga, and list(attention=True) shows it until it is mended, and no other."""
    world = World().plan("held", "lost", "ok")
    told: list[SagaInfo] = []

    async def listen(info: SagaInfo) -> None:
        told.append(info)

    async with place.orchestrator(plain, sleeping, world=world, on_attention=listen) as running:
        calm = await running.start(sleeping, id="calm")
        handle = await running.start(plain, id="o")
        await reaches(handle, running, "stuck")
        await reaches(calm, running, "waiting")

        async def heard() -> bool:
            return bool(told)

        await until(heard, running)
        assert {info.id for info in told} == {"o"}
        assert told[0].status == "stuck"
        assert [info.id for info in await running.list(attention=True)] == ["o"]
        await running.retry("o")
        await end_of(handle, running)
        assert await running.list(attention=True) == []
    assert len(told) == 1, "nobody is woken twice"


async def test_a_step_that_fails_again_and_again_is_told_of(place: Place):
    """A retriable that has failed ten times is shown to somebody; once it succeeds it is not shown any more."""

    @retriable(retry=Retry.forever(first=0, jitter=False))
    async def ship(about: str, *, world: World = resource()) -> None:
        await world.act("ship", about)

    @saga("shipping", version=1)
    async def shipping(s: Saga) -> None:
        await s.run(ship, "x")
        await s.sleep(3600)

    world = World().plan("ship", "broken")
    told: list[str] = []

    async def listen(info: SagaInfo) -> None:
        told.append(info.id)

    async with place.orchestrator(shipping, world=world, on_attention=listen) as running:
        handle = await running.start(shipping, id="o")

        async def heard() -> bool:
            return bool(told)

        await until(heard, running)
        assert [info.id for info in await running.list(attention=True)] == ["o"]
        assert await running.count(attention=True) == 1
        world.plan("ship", "ok")
        await reaches(handle, running, "waiting")
        assert told == ["o"]
        assert await running.list(attention=True) == []


# -- another process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other_works", [True, False])
async def test_a_verb_given_to_another_process(place: Place, other_works: bool):  # noqa: FBT001
    """A verb given to a process that does not drive the saga returns once it is durable, and acts."""
    world = World().plan("held", "lost", "ok")
    async with place.orchestrator(plain, sleeping, world=world) as running:
        handle = await running.start(plain, id="o")
        await reaches(handle, running, "stuck")
        asleep = await running.start(sleeping, id="asleep")
        await reaches(asleep, running, "waiting")
        async with place.orchestrator(plain, sleeping, world=world, worker=other_works, store_timeout=3) as other:
            await asyncio.wait_for(other.retry("o"), 2)
            await asyncio.wait_for(other.cancel("asleep"), 2)
            assert (await end_of(handle, running)).status == "completed"
            assert (await end_of(asleep, running)).status == "compensated"
    assert world.kept() == ["after", "before", "held"]
