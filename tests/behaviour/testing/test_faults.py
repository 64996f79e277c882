"""`Faults` has attempts fail, lose their answers and wait; a name that does not exist is refused."""

from datetime import timedelta
from typing import Any

import pytest

from sagas import (
    DefinitionError,
    DidNotHappen,
    Happened,
    Orchestrator,
    Retry,
    Saga,
    SagaCompensated,
    StepTimeout,
    Unknown,
    lookup,
    resource,
    saga,
    step,
)
from sagas.testing import Faults, ManualClock
from tests.kit import Refused, World, told

PROMPT = Retry(attempts=3, first=1, jitter=False)


class Lost(Exception):
    """A step's own word for an answer that did not come."""


@step(rejects=(Refused,), retry=PROMPT, timeout=10)
async def charge(*, world: World = resource()) -> str:
    await world.act()
    return "charged"


@charge.compensate
async def refund(_: str, *, world: World = resource()) -> None:
    await world.act()


@charge.probe
async def find(*, world: World = resource()) -> Happened[str] | DidNotHappen:
    await world.act()
    return DidNotHappen() if world.known() is None else Happened("found")


@step(unknown=(Lost,))
def pack(*, world: World = resource()) -> str:
    world.act_on_thread()
    return "packed"


@pack.compensate
def unpack(_: str | Unknown, *, world: World = resource()) -> None:
    world.act_on_thread()


@saga("order", version=1)
async def order(s: Saga) -> str:
    return f"{await s.run(charge)}, {await s.run(pack)}"


async def play(world: World, faults: Faults, *sagas: Any) -> tuple[Any, ManualClock]:
    """How an order ends, and its clock."""
    clock = ManualClock(auto=True)
    began = clock.now()
    async with Orchestrator(
        "memory://", sagas=sagas or [order], resources=[world], faults=faults, clock=clock
    ) as orchestrator:
        handle = await orchestrator.start((sagas or [order])[0], id="one")
        try:
            end: Any = await handle.result(timeout=30)
        except SagaCompensated as compensated:
            end = compensated
    faults.assert_used()
    return end, clock.now() - began


async def test_it_fails_before_its_own_code():
    """The exception is seen as if the step had raised it, by its type: retried, or the participant's answer."""
    world, faults = World(), Faults()
    faults.fail("charge", ConnectionRefusedError("nobody there"), times=2)
    end, took = await play(world, faults)
    assert (end, world.called()["charge"]) == ("charged, packed", 1)
    assert took == timedelta(seconds=3)

    world, faults = World(), Faults()
    faults.fail("charge", Refused("no"))
    end, _ = await play(world, faults)
    assert told(end.__cause__) == told(Refused("no"))
    assert world.log == []


async def test_an_exception_class_is_enough():
    """It is made with a text that says where it comes from, whatever its constructor asks for."""
    world, faults = World(), Faults()

    class Picky(Exception):
        def __init__(self, code: int, *, why: str) -> None:
            super().__init__(code, why)

    faults.fail("undo charge", Picky, times=2)
    faults.fail("pack", Refused)
    end, _ = await play(world, faults)
    assert str(end.__cause__) == "pack fails because a test asked for it"
    assert end.compensated == ["pack", "charge"]  # of pack only an undo could tell that it did not happen
    assert world.log == ["charge", "undo charge"]


@pytest.mark.parametrize("effect", [True, False])
async def test_an_answer_is_lost(effect: bool):  # noqa: FBT001
    """With its effect or without: the attempt's outcome is unknown, and the step is settled as declared."""
    world, faults = World(), Faults()
    faults.unknown("charge", effect=effect, times=3)
    end, _ = await play(world, faults)
    assert world.count("probe charge") == 1
    if effect:
        assert (end, world.called()["charge"]) == ("found, packed", 4)  # of which one is the probe
    else:
        assert isinstance(end.__cause__, TimeoutError)
        assert world.log == []


async def test_a_lost_answer_is_one_of_the_steps_own_exceptions():
    """Where a step does not count TimeoutError as unknown, it raises what it does; also as a plain function."""
    world, faults = World(), Faults()
    faults.unknown("pack")
    end, _ = await play(world, faults)
    assert isinstance(end.__cause__, Lost)
    assert world.log == ["charge", "pack", "undo pack", "undo charge"]


async def test_a_delay_counts_by_the_clock_within_the_timeout():
    """A delay beyond the timeout is a timeout, without a wait; a shorter one is time that passes."""
    world, faults = World(), Faults()
    faults.delay("charge", 11, times=3)
    end, took = await play(world, faults)
    assert isinstance(end.__cause__, StepTimeout)
    assert (world.called()["charge"], took) == (1, timedelta(seconds=33))  # its probe; 10 + 1 + 10 + 2 + 10

    world, faults = World(), Faults()
    faults.delay("charge", timedelta(seconds=9))
    faults.delay("pack", 0.5)
    end, took = await play(world, faults)
    assert (end, took) == ("charged, packed", timedelta(seconds=9.5))


async def test_faults_of_one_step_come_in_their_order():
    """Each befalls an attempt of its own."""
    world, faults = World(), Faults()
    faults.crash_after("charge")
    faults.fail("charge", ConnectionError("cut"))
    faults.delay("charge", 2)
    end, _ = await play(world, faults)
    assert end == "charged, packed"
    assert [call.attempt for call in world.calls if call.what == "charge"] == [1, 3]


async def test_one_of_several_occurrences():
    """A key names one of them; a name is the next one."""
    world, faults = World(), Faults()

    @saga("twice", version=1)
    async def twice(s: Saga) -> str:
        return f"{await s.run(charge)}, {await s.run(charge)}"

    faults.fail("charge#2", ConnectionError("cut"))
    await play(world, faults, twice)
    assert [(call.step, call.attempt) for call in world.calls] == [("charge", 1), ("charge#2", 2)]


async def test_every_attempt():
    """`times=None` has no end, and needs to come up once."""
    world, faults = World(), Faults()
    faults.fail("charge", ConnectionRefusedError("nobody there"), times=None)
    end, _ = await play(world, faults)
    assert isinstance(end.__cause__, ConnectionRefusedError)


# -- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chrage", "undo chrage", "probe pack", "undo find", "", "order"])
async def test_a_name_that_no_saga_has_is_refused_on_entry(name: str):
    """The message lists the names that there are, and nothing is opened; so is one that is declared later."""
    faults = Faults()
    faults.crash_before(name)
    orchestrator = Orchestrator("memory://", sagas=[order], resources=[World()], faults=faults)
    with pytest.raises(
        DefinitionError, match="'charge', 'pack', 'probe charge', 'undo charge', 'undo pack'"
    ) as refused:
        await orchestrator.__aenter__()
    assert repr(name) in str(refused.value)

    faults = Faults()
    async with Orchestrator("memory://", sagas=[order], resources=[World()], faults=faults):
        with pytest.raises(DefinitionError, match="no registered saga has such a step"):
            faults.delay(name, 1)
        faults.crash_after("hotel/charge#3")
        faults.crash_after("undo charge")
        faults.crash_after("probe charge")


async def test_a_body_that_does_not_show_its_steps():
    """Where they are known only once it runs, any name is accepted, and `assert_used` finds the wrong one."""
    known = {"charge": charge}

    @saga("hidden", version=1)
    async def hidden(s: Saga, name: str) -> None:
        await s.run(known[name])

    faults = Faults()
    faults.fail("charge", Refused)
    faults.fail("chrage", Refused)
    async with Orchestrator("memory://", sagas=[hidden], resources=[World()], faults=faults) as orchestrator:
        handle = await orchestrator.start(hidden, "charge")
        with pytest.raises(SagaCompensated):
            await handle.result(timeout=30)
    with pytest.raises(AssertionError, match=r"these faults did not come up: fail\('chrage'\), for 1"):
        faults.assert_used()


async def test_faults_that_did_not_come_up():
    """All of them are listed, also one that came up less often than it was declared."""
    faults = Faults()
    faults.fail("charge", Refused, times=2)
    faults.delay("pack", 3)
    with pytest.raises(AssertionError) as unused:
        await play(World(), faults)
    assert str(unused.value) == ("these faults did not come up: fail('charge'), for 2; 1 came; delay('pack'), for 1")


@pytest.mark.parametrize(
    "declare",
    [
        lambda faults: faults.fail("charge", "no"),
        lambda faults: faults.fail("charge", KeyboardInterrupt),
        lambda faults: faults.fail("charge", Refused, times=0),
        lambda faults: faults.crash_before("charge", times=True),
        lambda faults: faults.unknown("charge", times=1.5),
        lambda faults: faults.delay("charge", -1),
        lambda faults: faults.delay("charge", "soon"),
    ],
)
def test_wrong_arguments(declare: Any):
    """They are refused where they are given."""
    faults = Faults()
    with pytest.raises(DefinitionError):
        declare(faults)
    faults.assert_used()


async def test_without_faults_nothing_is_asked():
    """A lookup and all others run as ever under faults that name none of them."""

    @lookup
    async def look() -> int:
        return 7

    @saga("looking", version=1)
    async def looking(s: Saga) -> int:
        return await s.run(look)

    assert (await play(World(), Faults(), looking))[0] == 7
