"""Savepoints, branches, maps, children, cancel and operators' verbs, cut at every commit: always the same end."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import count
from typing import Any

import attrs
import pytest

from durable_core.stores.memory.data import MemoryData
from sagas import (
    Orchestrator,
    Retry,
    Saga,
    SagaHandle,
    SagaStatus,
    WrongState,
    resource,
    saga,
    step,
)
from tests.crash.mortal import Auditor, Moment, Side, live
from tests.kit import BodyFailed, End, Rejected, World, end_of, reaches

AT_ONCE = Retry(attempts=2, first=0, jitter=False)


@attrs.define
class Fragile(Auditor):
    """A world in which some effects fail."""

    broken: bool = True
    """Whether ``fix`` cannot be undone."""
    deaf: bool = True
    """Whether ``ask`` has its effect and gives no answer."""

    async def lose(self) -> None:
        """An effect of which nobody hears."""
        await self.act()
        if self.deaf:
            raise TimeoutError


def act(name: str, *, refuses: bool = False) -> Any:
    """A step of that name that has an effect, or is refused."""

    async def done(what: str = "", *, world: World = resource()) -> str:
        if refuses:
            raise Rejected(1, name)
        await world.act()
        return what

    async def undone(_: str, *, world: World = resource()) -> None:
        await world.act()

    declared = step(name=name, rejects=(Rejected,))(done)
    declared.compensate(undone)
    return declared


begin, fast, slow, left, right, further, pick, car, hotel, last = map(
    act, ("begin", "fast", "slow", "left", "right", "further", "pick", "car", "hotel", "last")
)
refused = act("refused", refuses=True)


# -- structures --------------------------------------------------------------------------------------------------------


@saga("trip", version=1)
async def trip(s: Saga, way: str) -> str:
    await s.run(car, "a car")
    if way == "child":
        await s.run(refused)
    return await s.run(hotel, "a room")


async def branch(s: Saga, way: str) -> str:
    await s.run(right, "one")
    if way == "branch":
        await s.run(refused)
    return await s.run(further, "two")


@saga("whole", version=1)
async def whole(s: Saga, way: str) -> list[str]:
    found = [await s.run(begin, "begun")]
    try:
        async with s.savepoint("courier"):
            found.append(await s.run(fast, "fast"))
            async with s.parallel() as p:
                one = p.run(left, "left")
                two = p.run(branch, way)
            found += [one.result(), two.result()]
    except Rejected:
        found.append(await s.run(slow, "slow"))
    found.append(await s.run(trip, way))
    found += await s.map(pick, ["1", "2", "3"], max_concurrency=2)
    return [*found, await s.run(last, "last")]


async def to_its_end(running: Orchestrator, handle: SagaHandle[Any]) -> End:
    """Nobody does anything."""
    return await end_of(handle, running)


FORWARD = ["begin", "fast", "left", "right", "further", "car", "hotel", "pick", "pick#2", "pick#3", "last"]
FALLBACK = ["begin", "slow", "car", "hotel", "pick", "pick#2", "pick#3", "last"]
ENDS = {
    "forward": ("completed", FORWARD),
    "branch": ("completed", FALLBACK),
    "child": ("compensated", []),
}


def names(world: World) -> list[str]:
    """What is there, by step and occurrence, whatever block it was done in."""
    return sorted(key.rpartition("/")[2] for key in world.kept())


def each_death(
    start: Callable[[Any], Coroutine[Any, Any, Any]], check: Callable[[Fragile, Any], None], *, side: Side, fewest: int
) -> None:
    """Play with the death of the process at its first commit, at its second, ..., until it outlives the whole."""
    for commit in count(1):
        data = MemoryData()
        world = Fragile(data=data)
        end = live(data, world, start, *SAGAS, death=Moment(side, commit=commit))
        if end is not None:
            assert commit > fewest, "there are fewer commits than this test supposes"
            check(world, end)
            return
        check(world, live(data, world, start, *SAGAS))
        assert all(len(keys) == 1 for keys in world.keys().values()), "one step, several idempotency keys"


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("way", ENDS)
def test_structures(way: str, side: Side):
    """A failed branch, map and child come to the end that they have without a death, and to the same effects."""
    status, effects = ENDS[way]

    async def start(running: Orchestrator) -> End:
        return await end_of(await running.start(whole, way, id="one"), running)

    def check(world: Fragile, end: End) -> None:
        assert end.status == status
        assert names(world) == sorted(effects)

    each_death(start, check, side=side, fewest=8)


# -- cancel ------------------------------------------------------------------------------------------------------------


async def asleep(s: Saga) -> None:
    await s.run(right, "asleep")
    await s.sleep(3600)
    await s.run(further, "never")


@saga("sleeper", version=1)
async def sleeper(s: Saga, where: str) -> None:
    await s.run(begin, "begun")
    if where == "body":
        await s.sleep(3600)
    elif where == "savepoint":
        async with s.savepoint("quiet"):
            await asleep(s)
    elif where == "parallel":
        async with s.parallel() as p:
            p.run(asleep)
            p.run(left, "left")
    elif where == "child":
        await s.run(dreamer)
    await s.run(last, "never")


@saga("dreamer", version=1)
async def dreamer(s: Saga) -> None:
    await asleep(s)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("where", ["body", "savepoint", "parallel", "child"])
def test_a_cancel(where: str, side: Side):
    """A cancel of what waits undoes all that was done, once, whenever the process dies around it."""

    async def start(running: Orchestrator) -> End:
        handle = await running.start(sleeper, where, id="one")
        await reaches(handle, running, SagaStatus.WAITING, SagaStatus.COMPENSATING, SagaStatus.COMPENSATED)
        await handle.cancel("enough")
        end = await end_of(handle, running)
        assert (await handle.info()).cause == "cancelled"
        return end

    def check(world: Fragile, end: End) -> None:
        assert end.status == "compensated"
        assert world.live == {}
        assert "further" not in world.called()
        assert "last" not in world.called()

    each_death(start, check, side=side, fewest=4)


# -- operators' verbs --------------------------------------------------------------------------------------------------


@step
async def fix(what: str, *, world: Fragile = resource()) -> str:
    await world.act()
    return what


@fix.compensate(retry=AT_ONCE)
async def unfix(_: str, *, world: Fragile = resource()) -> None:
    if world.broken:
        raise BodyFailed
    await world.act()


@step
async def ask(what: str, *, world: Fragile = resource()) -> str:
    await world.lose()
    return what


@ask.compensate
async def take_back(_: str, *, world: Fragile = resource()) -> None:
    await world.act()


@saga("undoable-by-hand", version=1)
async def by_hand(s: Saga) -> None:
    await s.run(begin, "begun")
    await s.run(fix, "fixed")
    await s.run(left, "left")
    await s.run(refused)


@saga("doubtful", version=1)
async def doubtful(s: Saga) -> str:
    await s.run(begin, "begun")
    return await s.run(ask, "nobody knows")


SAGAS = (whole, sleeper, by_hand, doubtful)


async def stuck(running: Orchestrator, handle: SagaHandle[Any]) -> bool:
    """Whether it gets stuck; an earlier process may have ended it already."""
    return (await end_of(handle, running)).status == "stuck"


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("verb", ["retry", "skip"])
def test_a_compensation_that_is_mended(verb: str, side: Side):
    """A dead compensation is retried, or counted as done; the others are undone once, whenever the process dies."""

    async def start(running: Orchestrator) -> End:
        handle = await running.start(by_hand, id="one")
        if await stuck(running, handle):
            if verb == "skip":
                await running.skip("one", "fix", actor="bob")
            else:
                world = running._binder._resources[0]
                assert isinstance(world, Fragile)
                world.broken = False
                await running.retry("one", actor="bob")
        return await end_of(handle, running)

    def check(world: Fragile, end: End) -> None:
        assert end.status == ("resolved" if verb == "skip" else "compensated")
        assert names(world) == (["fix"] if verb == "skip" else [])
        assert [key for key in world.undone if key != "fix"] == ["left", "begin"]

    each_death(start, check, side=side, fewest=7)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("happened", [True, False])
def test_a_doubt_that_is_resolved(happened: bool, side: Side):  # noqa: FBT001
    """A person's word about an unknown outcome counts once, whenever the process dies."""

    async def start(running: Orchestrator) -> End:
        handle = await running.start(doubtful, id="one")
        if await stuck(running, handle):
            await running.resolve("one", "ask", happened=happened, result="known", actor="bob")
        return await end_of(handle, running)

    def check(world: Fragile, end: End) -> None:
        if happened:
            assert end == End("completed", "known")
            assert names(world) == ["ask", "begin"]
        else:
            assert end.status in ("compensated", "resolved")
            assert names(world) == ["ask"], "the person said that it never happened, so nobody undoes it"

    each_death(start, check, side=side, fewest=4)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_rollback_of_what_was_killed(side: Side):
    """Killed, and rolled back afterwards: undone once, whenever the process dies."""

    async def start(running: Orchestrator) -> End:
        handle = await running.start(sleeper, "savepoint", id="one")
        info = await reaches(
            handle,
            running,
            SagaStatus.WAITING,
            SagaStatus.KILLED,
            SagaStatus.COMPENSATING,
            SagaStatus.COMPENSATED,
        )
        if info.status is SagaStatus.WAITING:
            await running.kill("one", actor="bob")
        await running.rollback("one", actor="bob")
        return await end_of(handle, running)

    def check(world: Fragile, end: End) -> None:
        assert end.status == "compensated"
        assert world.live == {}
        assert world.undone == ["quiet/right", "begin"]

    each_death(start, check, side=side, fewest=5)


@pytest.mark.parametrize("side", ["before", "after"])
def test_pause_and_resume(side: Side):
    """A pause holds from process to process until a resume, and the saga then comes to its end."""

    async def start(running: Orchestrator) -> End:
        handle = await running.start(whole, "forward", id="one")
        with suppress(WrongState):  # it has ended, in this process or in an earlier one
            await running.pause("one", actor="bob")
            await running.resume("one", actor="bob")
        return await end_of(handle, running)

    def check(world: Fragile, end: End) -> None:
        assert end.status == "completed"
        assert names(world) == sorted(FORWARD)

    each_death(start, check, side=side, fewest=8)
