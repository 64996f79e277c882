"""A child's own deadline is a deadline of its part: that is undone, and its parent sees SagaCompensated."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from sagas import Orchestrator, Retry, Saga, SagaCompensated, SagaHandle, SagaStatus, lookup, retriable, saga
from sagas.testing import ManualClock
from tests.kit import Place, World, end_of, entered, journalled, party, point_of_no_return, until

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

room, meal, taxi, gift = party("room"), party("meal"), party("taxi"), party("gift")
slow = party("slow", retry=Retry(attempts=5, first=HOUR, jitter=False))
doubtful = party("doubtful", settled_by="probe")
pay = point_of_no_return("pay")
payment = point_of_no_return("payment", retry=Retry(attempts=5, first=HOUR, jitter=False))


@retriable
async def send(about: str) -> str:
    return about


async def callback(s: Saga, _: str) -> None:
    await (await s.callback("approval", str)).result()


async def first(s: Saga, _: str) -> None:
    await s.first(await s.callback("one", str), await s.callback("other", str))


async def savepoint(s: Saga, how: str) -> None:
    async with s.savepoint("inner"):
        await s.run(meal, how)
        await s.sleep(HOUR)


async def parallel(s: Saga, how: str) -> None:
    async with s.parallel() as p:
        p.run(meal, how)
        p.run(nap)


async def swallow(s: Saga, _: str) -> None:
    """A body that will not be closed."""
    with suppress(BaseException):
        await s.sleep(HOUR)
    await s.run(gift, "too late")


async def at_last(s: Saga, _: str) -> None:
    try:
        await s.sleep(HOUR)
    finally:
        await s.run(gift, "too late")


async def fail(s: Saga, _: str) -> None:
    try:
        await s.sleep(HOUR)
    finally:
        raise ValueError("amid its closing")


WAITS: dict[str, Callable[[Saga, str], Awaitable[Any]]] = {
    "sleep": lambda s, _: s.sleep(HOUR),
    "callback": callback,
    "first": first,
    "retry": lambda s, how: s.run(slow, how),
    "savepoint": savepoint,
    "parallel": parallel,
    "child": lambda s, _: s.run(nap_saga),
    "swallow": swallow,
    "finally": at_last,
    "raise": fail,
}
"""What takes too long in a child, by its name."""


@saga("stay", version=2, deadline=MINUTE)
async def stay(s: Saga, how: str) -> str:
    """A child with a deadline, that takes too long in some way."""
    await s.run(room, how)
    if how in WAITS:
        await WAITS[how](s, how)
    return await s.run(taxi, how)


async def nap(s: Saga) -> None:
    await s.sleep(HOUR)
    await s.run(gift, "never")


@saga("nap", version=1)
async def nap_saga(s: Saga) -> None:
    await s.run(meal, "within")
    await nap(s)


@saga("travel", version=1)
async def travel(s: Saga, how: str) -> list[Any]:
    """A parent that goes on without its child."""
    await s.run(meal, "first")
    try:
        return [await s.run(stay, how)]
    except SagaCompensated as gone:
        return [gone.saga_id, gone.cause, gone.status, gone.compensated, type(gone.__cause__).__name__]


UNDONE = {"parallel": ["stay/meal", "stay/room"], "savepoint": ["stay/inner/meal", "stay/room"]}
UNDONE["child"] = ["stay/nap/meal", "stay/room"]


async def waits(handle: SagaHandle[Any], running: Orchestrator) -> None:
    """Wait until the saga waits for time alone."""

    async def there() -> bool:
        return (await handle.info()).status is SagaStatus.WAITING

    await until(there, running)


@pytest.mark.parametrize("how", WAITS)
async def test_a_part_that_takes_too_long_is_undone(place: Place, how: str):
    """Whatever it waits for ends at once, what it did is undone last first, its parent keeps its own and goes on."""
    clock = ManualClock()
    world = World().plan("slow", "broken")
    async with place.orchestrator(travel, world=world, clock=clock) as running:
        handle = await running.start(travel, how, id="t")
        await waits(handle, running)
        assert (await handle.info()).wake_at == clock.now() + MINUTE
        await clock.advance(MINUTE - timedelta(seconds=1))
        assert "undo room" not in world.log
        await clock.advance(1)
        undone = UNDONE.get(how, ["stay/room"])
        cause = "ValueError" if how == "raise" else "NoneType"
        assert await handle.result(20) == ["t/stay", "deadline", "compensated", undone, cause]
        child = await running.get("t/stay")
        info = await child.info()
        assert (info.status, info.cause, info.saga, info.version) == ("compensated", "deadline", "stay", 2)
        with pytest.raises(SagaCompensated, match="t/stay") as gone:
            await child.result(20)
        assert (gone.value.cause, gone.value.saga_id) == ("deadline", "t/stay")
        if how == "child":
            inner = await running.info("t/stay/nap")
            assert (inner.status, inner.cause) == ("compensated", "deadline")
        root = await handle.info()
        assert (root.status, root.cause) == ("completed", None)
    assert world.kept() == ["meal"]
    assert clock.now() == ManualClock().now() + MINUTE


async def test_a_part_that_is_quick_enough_is_left_alone(place: Place):
    """It completes, its deadline is forgotten, and its parent may then take as long as it likes."""

    @saga("patient", version=1)
    async def patient(s: Saga) -> str:
        result = await s.run(stay, "quick")
        await s.sleep(HOUR)
        return result

    clock = ManualClock()
    world = World()
    async with place.orchestrator(patient, world=world, clock=clock) as running:
        handle = await running.start(patient, id="t")
        await waits(handle, running)
        assert (await handle.info()).wake_at == clock.now() + HOUR
        await clock.advance(HOUR)
        assert await handle.result(20) == "quick"
        assert "fired" not in [entry.kind for entry in await handle.history() if entry.key != "sleep"]
    assert world.kept() == ["room", "taxi"]


async def test_what_nobody_catches_undoes_the_root_too(place: Place):
    """The child's SagaCompensated leaves the root's body: the root is undone, cause failed, caused by the child's."""

    @saga("strict", version=1)
    async def strict(s: Saga) -> None:
        await s.run(meal, "first")
        await s.run(stay, "sleep")

    clock = ManualClock()
    world = World()
    async with place.orchestrator(strict, world=world, clock=clock) as running:
        handle = await running.start(strict, id="t")
        await waits(handle, running)
        await clock.advance(MINUTE)
        with pytest.raises(SagaCompensated) as gone:
            await handle.result(20)
        assert (gone.value.cause, gone.value.compensated) == ("failed", ["stay/room", "meal"])
        assert isinstance(gone.value.__cause__, SagaCompensated)
        assert gone.value.__cause__.cause == "deadline"
        assert (await running.info("t/stay")).cause == "deadline"
    assert world.kept() == []


@pytest.mark.parametrize("does", ["ok", "silent", "refused"])
async def test_a_step_in_flight_ends_and_is_recorded_first(place: Place, does: str):
    """It is allowed to end, is settled where nobody knows, and is undone where it happened."""

    @saga("sure", version=1, deadline=MINUTE)
    async def sure(s: Saga) -> None:
        await s.run(room, "held")
        await s.run(doubtful, "held")
        await s.run(gift, "never")

    @saga("parent", version=1)
    async def parent(s: Saga) -> list[str]:
        try:
            await s.run(sure)
        except SagaCompensated as gone:
            return [gone.cause, *gone.compensated]
        return []

    clock = ManualClock()
    world = World().plan("doubtful", does)
    gate = world.gate("doubtful")
    async with place.orchestrator(parent, world=world, clock=clock) as running:
        handle = await running.start(parent, id="t")
        await entered(gate, running)
        await clock.advance(HOUR)
        await journalled(handle, running, "fired")
        assert (await handle.info()).status is SagaStatus.RUNNING
        assert world.log == ["room"]
        gate.opened.set()
        undone = ["sure/room"] if does == "refused" else ["sure/doubtful", "sure/room"]
        assert await handle.result(20) == ["deadline", *undone]
    assert world.kept() == []
    assert world.count("gift") == 0


@saga("paid", version=1, deadline=MINUTE)
async def paid(s: Saga, how: str) -> str:
    await s.run(room, how)
    await s.run(payment if how == "retry" else pay, how)
    await s.sleep(HOUR)
    return await s.run(send, how)


@saga("shop", version=1)
async def shop(s: Saga, how: str) -> list[Any]:
    await s.run(meal, how)
    try:
        return [await s.run(paid, how)]
    except SagaCompensated as gone:
        return [gone.cause, gone.compensated]


async def test_past_the_pivot_within_it_is_void(place: Place):
    """Once the pivot has succeeded the child takes as long as it takes: nothing is ever undone."""
    clock = ManualClock()
    world = World()
    async with place.orchestrator(shop, world=world, clock=clock) as running:
        handle = await running.start(shop, "cash", id="t")
        await waits(handle, running)
        assert (await handle.info()).wake_at == clock.now() + HOUR
        await clock.advance(HOUR)
        assert await handle.result(20) == ["cash"]
        assert [entry.key for entry in await handle.history() if entry.kind == "fired"] == ["paid/sleep"]
    assert world.kept() == ["meal", "pay", "room"]


@pytest.mark.parametrize("does", ["ok", "refused"])
async def test_while_the_pivot_is_in_flight_that_decides(place: Place, does: str):
    """A pivot that happened makes the deadline too late, and that is journalled; one that did not lets it count."""
    clock = ManualClock()
    world = World().plan("pay", does)
    gate = world.gate("pay")
    async with place.orchestrator(shop, world=world, clock=clock) as running:
        handle = await running.start(shop, "cash", id="t")
        await entered(gate, running)
        await clock.advance(MINUTE)
        await journalled(handle, running, "fired")
        gate.opened.set()
        if does == "ok":
            await waits(handle, running)
            await clock.advance(HOUR)
            assert await handle.result(20) == ["cash"]
            assert "too-late:deadline" in [entry.key for entry in await handle.history()]
        else:
            assert await handle.result(20) == ["deadline", ["paid/room"]]
    assert world.kept() == (["meal", "pay", "room"] if does == "ok" else ["meal"])


async def test_a_pivot_that_waits_for_another_attempt_is_given_up(place: Place):
    """Its retry delay ends at once, and as it did not happen, the part is undone."""
    clock = ManualClock()
    world = World().plan("payment", "refused")
    world.plans["payment"] = ["broken"]
    async with place.orchestrator(shop, world=world, clock=clock) as running:
        handle = await running.start(shop, "retry", id="t")
        await journalled(handle, running, "failed")
        await clock.advance(MINUTE)
        end = await end_of(handle, running)
        assert end.value == ["deadline", ["paid/room"]]
    assert world.count("payment") == 1
    assert world.kept() == ["meal"]


async def test_during_its_rollback_it_is_void(place: Place):
    """A child that is being undone already is not undone for another reason."""

    @saga("failing", version=1, deadline=MINUTE)
    async def failing(s: Saga) -> None:
        await s.run(room, "held")
        raise ValueError("of its own accord")

    @saga("parent", version=1)
    async def parent(s: Saga) -> list[str]:
        try:
            await s.run(failing)
        except SagaCompensated as gone:
            return [gone.cause, *gone.compensated]
        return []

    clock = ManualClock()
    world = World()
    gate = world.gate("undo room")
    async with place.orchestrator(parent, world=world, clock=clock) as running:
        handle = await running.start(parent, id="t")
        await entered(gate, running)
        assert (await running.info("t/failing")).status == "compensating"
        await clock.advance(HOUR)
        gate.opened.set()
        assert await handle.result(20) == ["failed", "failing/room"]
        assert "fired" not in [entry.kind for entry in await handle.history()]


@pytest.mark.parametrize("how", ["sleep", "callback", "retry", "child"])
@pytest.mark.parametrize("end", ["leaves", "dies"])
async def test_it_passed_while_no_worker_lived(place: Place, how: str, end: str):
    """The next worker takes it up before any further step of that part begins, also where the wait is over too."""
    clock = ManualClock()
    world = World().plan("slow", "broken", "ok")
    before = place.dying if end == "dies" else place.orchestrator
    async with before(travel, world=world, clock=clock) as running:
        handle = await running.start(travel, how, id="t")
        await waits(handle, running)
    calls = len(world.calls)
    later = ManualClock(clock.now() + 2 * HOUR)
    async with place.orchestrator(travel, world=world, clock=later) as running:
        end_now = await end_of(await running.get("t"), running)
    assert end_now.value[:2] == ["t/stay", "deadline"]
    assert {call.what for call in world.calls[calls:]} == (
        {"undo meal", "undo room"} if how == "child" else {"undo room"}
    )
    assert world.kept() == ["meal"]


async def test_a_crash_before_the_next_intent(place: Place):
    """A process died in a step of the part: whatever became of that, no other one begins after the deadline."""

    @saga("two", version=1, deadline=MINUTE)
    async def two(s: Saga) -> None:
        await s.run(room, "held")
        await s.run(gift, "never")

    @saga("parent", version=1)
    async def parent(s: Saga) -> str:
        try:
            await s.run(two)
        except SagaCompensated as gone:
            return gone.cause
        return ""

    clock = ManualClock()
    world = World()
    gate = world.gate("room")
    async with place.dying(parent, world=world, clock=clock) as running:
        await running.start(parent, id="t")
        await entered(gate, running)
    world.gates.clear()
    later = ManualClock(clock.now() + HOUR)
    async with place.orchestrator(parent, world=world, clock=later) as running:
        assert (await end_of(await running.get("t"), running)).value == "deadline"
    assert world.count("gift") == 0
    assert world.kept() == []


@pytest.mark.parametrize("how", ["sleep", "retry", "quick"])
async def test_it_runs_on_while_the_saga_is_paused(place: Place, how: str):
    """On `resume` it comes before the next step of the part, also before one that was announced and held back."""
    clock = ManualClock()
    world = World().plan("slow", "broken", "ok")
    gate = world.gate("room")
    async with place.orchestrator(travel, world=world, clock=clock) as running:
        handle = await running.start(travel, how, id="t")
        await entered(gate, running)
        await running.pause("t")
        gate.opened.set()
        await journalled(handle, running, "succeeded", times=2)
        await clock.advance(2 * HOUR)
        await running.resume("t")
        assert (await handle.result(20))[:2] == ["t/stay", "deadline"]
    assert world.count("taxi") == world.count("slow") == 0
    assert world.kept() == ["meal"]


@saga("outer", version=1, deadline=2 * MINUTE)
async def outer(s: Saga, which: str) -> list[Any]:
    await s.run(taxi, which)
    try:
        await s.run(stay, "sleep" if which == "inner" else "child")
    except SagaCompensated as gone:
        await s.sleep(HOUR if which == "both" else 0)
        return [gone.saga_id, gone.cause]
    return []


@saga("root", version=1)
async def root(s: Saga, which: str) -> list[Any]:
    try:
        return await s.run(outer, which)
    except SagaCompensated as gone:
        return [gone.saga_id, gone.cause, gone.compensated]


async def test_nested_children(place: Place):
    """The inner one's deadline undoes the inner part alone; the outer one's then undoes all that is left of its own."""
    clock = ManualClock(auto=True)
    world = World()
    async with place.orchestrator(root, world=world, clock=clock) as running:
        inner = await running.start(root, "inner", id="i")
        assert await inner.result(20) == ["i/outer/stay", "deadline"]
        both = await running.start(root, "both", id="b")
        assert await both.result(20) == ["b/outer", "deadline", ["outer/taxi"]]
        infos = [await running.info(id) for id in ("i/outer", "i/outer/stay", "b/outer", "b/outer/stay")]
    told = [(info.status, info.cause) for info in infos]
    assert told == [("completed", None), *[("compensated", "deadline")] * 3]
    assert world.kept() == ["taxi"]


async def test_the_outer_deadline_comes_first(place: Place):
    """It closes the inner part too, which has a deadline to come; all of it is undone by the outer one."""

    @saga("long", version=1, deadline=HOUR)
    async def long(s: Saga) -> None:
        await s.run(room, "inner")
        await s.sleep(2 * HOUR)

    @saga("short", version=1, deadline=MINUTE)
    async def short(s: Saga) -> None:
        await s.run(meal, "outer")
        await s.run(long)

    @saga("parent", version=1)
    async def parent(s: Saga) -> list[Any]:
        try:
            await s.run(short)
        except SagaCompensated as gone:
            await s.sleep(3 * HOUR)
            return [gone.saga_id, gone.cause, gone.compensated]
        return []

    world = World()
    async with place.orchestrator(parent, world=world, clock=ManualClock(auto=True)) as running:
        handle = await running.start(parent, id="t")
        assert await handle.result(20) == ["t/short", "deadline", ["short/long/room", "short/meal"]]
        inner = await running.info("t/short/long")
        assert (inner.status, inner.cause) == ("compensated", "deadline")
        fired = [entry.key for entry in await handle.history() if entry.kind == "fired"]
        assert fired == ["short~deadline", "sleep"]


async def test_a_child_in_a_parallel_block(place: Place):
    """Its deadline is the failure of its branch: what runs beside it ends, and both are undone."""

    @saga("both", version=1)
    async def both(s: Saga) -> list[Any]:
        try:
            async with s.savepoint("all"), s.parallel() as p:
                p.run(stay, "sleep")
                p.run(nap_saga)
        except SagaCompensated as gone:
            return [gone.saga_id, gone.cause]
        return []

    clock = ManualClock()
    world = World()
    async with place.orchestrator(both, world=world, clock=clock) as running:
        handle = await running.start(both, id="t")
        await waits(handle, running)
        await clock.advance(MINUTE)
        assert await handle.result(20) == ["t/all/stay", "deadline"]
        infos = [await running.info(f"t/all/{key}") for key in ("stay", "nap")]
        assert [(info.status, info.cause) for info in infos] == [
            ("compensated", "deadline"),
            ("compensated", "failed"),
        ]
    assert world.kept() == []


@pytest.mark.parametrize("first", ["cancel", "deadline"])
async def test_a_cancel_of_the_root_at_the_same_time(place: Place, first: str):
    """Whichever is told first, with a step in flight: that ends, all is undone once, and the root's cause is its own.

    The deadline of a part that a cancel is closing already is void.
    """

    @saga("sure", version=1, deadline=MINUTE)
    async def sure(s: Saga) -> None:
        await s.run(room, "held")
        await s.run(gift, "never")

    @saga("parent", version=1)
    async def parent(s: Saga) -> None:
        await s.run(meal, "first")
        try:
            await s.run(sure)
        except SagaCompensated:
            await s.run(taxi, "never")

    clock = ManualClock()
    world = World()
    gate = world.gate("room")
    async with place.orchestrator(parent, world=world, clock=clock) as running:
        handle = await running.start(parent, id="t")
        await entered(gate, running)
        if first == "cancel":
            await handle.cancel()
            await clock.advance(MINUTE)
        else:
            await clock.advance(MINUTE)
            await journalled(handle, running, "fired")
            await handle.cancel()
        gate.opened.set()
        with pytest.raises(SagaCompensated) as gone:
            await handle.result(20)
        assert (gone.value.cause, gone.value.compensated) == ("cancelled", ["sure/room", "meal"])
        marks = [entry.key for entry in await handle.history() if entry.kind == "marked"]
        assert ("child-deadline:sure" in marks) == (first == "deadline")
    assert world.kept() == []
    assert world.count("taxi") == world.count("gift") == 0


async def test_a_deadline_is_what_it_was_when_the_child_began(place: Place):
    """A child that is under way keeps its deadline when its code is loaded with another one, or with none."""

    def bodies(deadline: timedelta | None) -> Any:
        @saga("kid", version=1, deadline=deadline)
        async def kid(s: Saga) -> None:
            await s.run(room, "held")
            await s.sleep(HOUR)

        @saga("parent", version=1)
        async def parent(s: Saga) -> str:
            try:
                await s.run(kid)
            except SagaCompensated as gone:
                return gone.cause
            return "slept"

        return parent

    clock = ManualClock()
    world = World()
    for id, before, after in (("a", MINUTE, None), ("b", MINUTE, 2 * HOUR), ("c", None, MINUTE)):
        async with place.orchestrator(bodies(before), world=world, clock=clock) as running:
            await waits(await running.start("parent", id=id), running)
        async with place.orchestrator(bodies(after), world=world, clock=clock) as running:
            await clock.advance(HOUR)
            told = await (await running.get(id)).result(20)
            assert told == ("slept" if before is None else "deadline")


@lookup
async def glance() -> str:
    return "seen"


async def test_a_child_that_begins_after_the_pivot_has_none(place: Place):
    """Nothing of it could be undone: it takes as long as it takes."""

    @saga("after", version=1, deadline=MINUTE)
    async def after(s: Saga) -> str:
        await s.sleep(HOUR)
        return await s.run(glance)

    @saga("parent", version=1)
    async def parent(s: Saga) -> str:
        await s.run(pay, "cash")
        return await s.run(after)

    world = World()
    async with place.orchestrator(parent, world=world, clock=ManualClock(auto=True)) as running:
        handle = await running.start(parent, id="t")
        assert await handle.result(20) == "seen"
        assert [entry.key for entry in await handle.history() if entry.kind == "fired"] == ["after/sleep"]
