"""A process dies at any commit or in any step: the next one ends its sagas, and every effect is there once."""

from collections.abc import Callable
from itertools import count
from typing import Any

import attrs
import pytest

from durable_core.stores.memory.data import MemoryData
from sagas import (
    DidNotHappen,
    Happened,
    Retry,
    Saga,
    StepInterrupted,
    Unknown,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)
from tests.crash.mortal import Auditor, Moment, Side, live
from tests.kit import Broken, End, Rejected, World, end_of

AT_ONCE = Retry(attempts=3, first=0, jitter=False)


# -- a saga of four steps ------------------------------------------------------------------------------------------


@step(retry=AT_ONCE)
async def reserve(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@reserve.compensate(retry=AT_ONCE)
async def release(result: int, number: int, *, world: World = resource()) -> None:
    assert result == number
    await world.act()


@step
async def charge(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@charge.compensate
async def refund(result: int, *, world: World = resource()) -> None:
    await world.act()


@step
def pack(number: int) -> int:
    return number


@pack.compensate
def unpack(result: int) -> None: ...


@step(rejects=(Rejected,))
async def ship(number: int, *, world: World = resource()) -> int:
    await world.act()
    if number < 0:
        raise Rejected(number, "no courier")
    return number


@ship.compensate
async def recall(result: int, *, world: World = resource()) -> None:
    await world.act()


@saga("order", version=1)
async def order(s: Saga, number: int) -> int:
    done = await s.run(reserve, number)
    done += await s.run(charge, number)
    done += await s.run(pack, number)
    return done + await s.run(ship, number)


def start_order(number: int) -> Callable[[Any], Any]:
    async def start(running: Any) -> End:
        handle = await running.start(order, number, id="one")
        return await end_of(handle, running)

    return start


def check(world: World, end: End, number: int) -> None:
    """The end is the one that the number asks for, and the world agrees with it."""
    if number > 0:
        assert end == End("completed", 4 * number)
        assert world.kept() == ["charge", "reserve", "ship"]
        assert world.undone == []
    else:
        assert (end.status, end.error[0], end.undone) == ("compensated", Rejected, ("pack", "charge", "reserve"))
        assert [step for step in world.kept() if step != "ship"] == []
        assert [step for step in world.undone if step != "ship"] == ["charge", "reserve"]
    assert all(len(keys) == 1 for keys in world.keys().values()), "one step, several idempotency keys"


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("number", [7, -7], ids=["forward", "rolled back"])
def test_a_process_that_dies_at_any_commit(number: int, side: Side):
    """Whichever commit is a process's last, written or not, the next one comes to the same end, no effect twice."""
    for commit in count(1):
        data = MemoryData()
        world = Auditor(data=data)
        first = live(data, world, start_order(number), order, death=Moment(side, commit=commit))
        if first is not None:
            assert commit > 5, "the saga has fewer commits than this test supposes"
            check(world, first, number)
            return
        check(world, live(data, world, start_order(number), order), number)


MOMENTS = [
    *(Moment(side, step=step) for side in ("before", "after") for step in ("reserve", "charge", "ship")),
    *(Moment(side, step=step, compensating=True) for side in ("before", "after") for step in ("charge", "reserve")),
]


@pytest.mark.parametrize(
    ("number", "moment"), [(-7, at) for at in MOMENTS] + [(7, at) for at in MOMENTS if not at.compensating]
)
def test_a_process_that_dies_in_a_step(number: int, moment: Moment):
    """Before or after its effect: the step, or compensation, is called again with the same key, the others are not."""
    data = MemoryData()
    world = Auditor(data=data)
    assert live(data, world, start_order(number), order, death=attrs.evolve(moment)) is None
    check(world, live(data, world, start_order(number), order), number)
    calls = world.called(compensating=moment.compensating)
    assert calls.pop(moment.step) == 2
    assert set(calls.values()) <= {1}


# -- steps that take their process down ------------------------------------------------------------------------------


@saga("bystander", version=1)
async def bystander(s: Saga, number: int) -> int:
    return await s.run(charge, number) + await s.run(ship, number)


def test_a_step_that_takes_its_process_down_too_often_leaves_its_saga_stuck_and_no_other():
    """After five deaths the saga is stuck on that step; others in the store end; `retry` counts anew."""
    data, world = MemoryData(), World()
    death = Moment("before", step="reserve", times=5)

    async def start(running: Any) -> Any:
        handles = [await running.start(order, 7, id="one"), await running.start(bystander, 3, id="two")]
        return [await end_of(handle, running) for handle in handles]

    for _ in range(5):
        assert live(data, world, start, order, bystander, death=death) is None
    stuck, other = live(data, world, start, order, bystander, death=death)
    assert (stuck.status, stuck.error[1]) == ("stuck", ("reserve",))
    assert all(word in stuck.error[0] for word in ("one", "reserve", "5", "retry"))
    assert other == End("completed", 6)
    assert world.called()["reserve"] == 5

    async def retry(running: Any) -> End:
        await running.retry("one")
        return await end_of(await running.get("one"), running)

    assert live(data, world, retry, order, bystander) == End("completed", 28)
    assert all(len(keys) == 1 for keys in world.keys().values())


def test_a_step_that_crashes_less_often_is_not_stuck():
    """Four deaths are survived, and count in `attempt` but not against the retries."""
    data, world = MemoryData(), World()
    death = Moment("after", step="reserve", times=4)
    for _ in range(4):
        assert live(data, world, start_order(7), order, death=death) is None
    assert live(data, world, start_order(7), order, death=death) == End("completed", 28)
    assert [info.attempt for info in world.calls if info.step == "reserve"] == [1, 2, 3, 4, 5]


# -- what a crash leaves in doubt ------------------------------------------------------------------------------------


@step(at_most_once=True)
async def wire(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@wire.compensate
async def unwire(result: int, *, world: World = resource()) -> None:
    await world.act()


@step(at_most_once=True)
async def probed(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@probed.compensate
async def undo_probed(result: int, *, world: World = resource()) -> None:
    await world.act()


@probed.probe
async def find(number: int, *, world: World = resource()) -> Happened[int] | DidNotHappen:
    return Happened(number) if "probed" in world.kept() else DidNotHappen()


@step(at_most_once=True)
async def voidable(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@voidable.compensate
async def void(result: int | Unknown, *, world: World = resource()) -> None:
    assert result == Unknown()
    await world.act()


@lookup(at_most_once=True)
async def glance(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


AT_MOST_ONCE: dict[str, Any] = {"wire": wire, "probed": probed, "voidable": voidable, "glance": glance}


@saga("careful", version=1)
async def careful(s: Saga, name: str) -> str:
    await s.run(reserve, 1)
    try:
        return f"{await s.run(AT_MOST_ONCE[name], 7)}"
    except StepInterrupted:
        return "interrupted"


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", AT_MOST_ONCE)
def test_an_at_most_once_step_is_not_called_again_after_a_crash(name: str, side: Side):
    """Its probe or compensation settles the doubt, and the body sees StepInterrupted; else the saga is stuck."""
    data, world = MemoryData(), World()

    async def start(running: Any) -> End:
        return await end_of(await running.start(careful, name, id="one"), running)

    assert live(data, world, start, careful, death=Moment(side, step=name)) is None
    end = live(data, world, start, careful)
    assert world.called()[name] == 1
    if name == "wire":
        assert (end.status, end.error[1]) == ("stuck", ("wire",))
        assert all(word in end.error[0] for word in ("@wire.probe", "Unknown", "resolve"))
        assert world.undone == []
    elif name == "probed":
        assert end == End("completed", "7" if side == "after" else "interrupted")
    else:
        assert end == End("completed", "interrupted")
    if name == "voidable":
        assert world.called(compensating=True) == {"voidable": 1}
        assert "voidable" not in world.kept()


@step(retry=AT_ONCE)
async def shaky(number: int, *, world: World = resource()) -> int:
    info = await world.act()
    if info.attempt > 1:
        raise Broken("it knows nothing of the first attempt")
    return number


@shaky.compensate
async def undo_shaky(result: int, *, world: World = resource()) -> None:
    await world.act()


@saga("doubtful", version=1)
async def doubtful(s: Saga) -> int:
    return await s.run(shaky, 7)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_crash_leaves_a_doubt_that_no_later_failure_clears(side: Side):
    """The cut attempt may have happened: when the later ones fail for good, the saga is stuck."""
    data, world = MemoryData(), World()

    async def start(running: Any) -> End:
        return await end_of(await running.start(doubtful, id="one"), running)

    assert live(data, world, start, doubtful, death=Moment(side, step="shaky")) is None
    end = live(data, world, start, doubtful)
    assert (end.status, end.error[1]) == ("stuck", ("shaky",))
    assert [info.attempt for info in world.calls] == [1, 2, 3, 4]


# -- after the pivot -------------------------------------------------------------------------------------------------


@pivot
async def pay(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@retriable(retry=Retry.forever(first=0, jitter=False))
async def mail(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@saga("paying", version=1)
async def paying(s: Saga) -> int:
    await s.run(reserve, 1)
    await s.run(pay, 1)
    return await s.run(mail, 7)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_pivot_is_passed_once_whatever_dies(side: Side):
    """A saga with a pivot goes forward from any crash, at any commit and in any step, and undoes nothing."""

    async def start(running: Any) -> End:
        return await end_of(await running.start(paying, id="one"), running)

    deaths = [
        *(Moment(side, step=step) for step in ("reserve", "pay", "mail")),
        *(Moment(side, commit=at) for at in range(1, 7)),
    ]
    for death in deaths:
        data = MemoryData()
        world = Auditor(data=data)
        end = live(data, world, start, paying, death=death) or live(data, world, start, paying)
        assert end == End("completed", 7)
        assert world.kept() == ["mail", "pay", "reserve"]
        assert world.undone == []
