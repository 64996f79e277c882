"""Sagas that outlive their code: pinned versions side by side, `patched`, and code that no longer fits its journal."""

from typing import Any

import pytest

from sagas import DefinitionError, Saga, SagaDef, saga
from tests.kit import End, Place, World, begun, end_of, entered, party, reaches

first, second, third = party("first"), party("second"), party("third")


@saga("order", version=1)
async def order_1(s: Saga, about: str) -> str:
    await s.run(first, about)
    await s.run(second, about)
    return f"one {s.version}"


@saga("order", version=2)
async def order_2(s: Saga, about: str) -> str:
    await s.run(second, about)
    return f"two {s.version}"


@saga("order", version=3)
async def order_3(s: Saga, about: str) -> str:
    await s.run(third, about)
    return f"three {s.version}"


def another(version: int, name: str = "order") -> SagaDef[..., Any]:
    """Another saga under that name."""

    @saga(name, version=version)
    async def body(s: Saga, about: str) -> str:
        return "another"

    return body


async def left_in(step: str, place: Place, world: World, *sagas: SagaDef[..., Any], start: str = "order") -> None:
    """Start the newest of ``sagas`` as ``o`` in a process that dies in ``step``, before that has any effect."""
    gate = world.gate(step)
    async with place.dying(*sagas, world=world) as running:
        await running.start(start, "tea", id="o")
        await entered(gate, running)
    del world.gates[step]


# -- pinned, side by side --------------------------------------------------------------------------------------------


async def test_a_run_keeps_its_version_and_new_ones_take_the_newest(place: Place):
    """With v1 and v2 in one process a run of v1 goes on with v1's code; starts take v2, or what `version=` says."""
    world = World()
    await left_in("second", place, world, order_1)
    async with place.orchestrator(order_2, order_1, world=world) as running:
        assert await end_of(await running.get("o"), running) == End("completed", "one 1")
        for how, expected in (
            ({}, "two 2"),
            ({"version": 1}, "one 1"),
            ({"version": 2}, "two 2"),
        ):
            handle = await running.start("order", "tea", **how)
            assert await end_of(handle, running) == End("completed", expected)
            assert (await handle.info()).version == int(expected[-1])
        assert await end_of(await running.start(order_1, "tea"), running) == End("completed", "one 1")
        assert await end_of(await running.start(order_1, "tea", version=2), running) == End("completed", "two 2")
    assert [info.step for info in world.calls if info.saga_id == "o"] == ["first", "second", "second"]


async def test_a_run_goes_on_with_its_version_when_a_newer_one_is_registered(place: Place):
    """v2 is registered while a run of v1 is in flight: that one ends with v1, the next one begins with v2."""
    world = World()
    gate = world.gate("second")
    async with place.orchestrator(order_1, world=world) as running:
        old = await running.start("order", "tea")
        await entered(gate, running)
        running.register(order_2)
        new = await running.start("order", "tea")
        gate.opened.set()
        assert await end_of(old, running) == End("completed", "one 1")
        assert await end_of(new, running) == End("completed", "two 2")


async def test_a_version_that_is_not_there_starts_nothing(place: Place):
    """An unknown version, or name, is a DefinitionError that lists what there is; no row is written."""
    async with place.orchestrator(order_1, order_2, world=World()) as running:
        with pytest.raises(DefinitionError, match=r"'order v9'.*order v1, order v2"):
            await running.start("order", "tea", version=9)
        with pytest.raises(DefinitionError, match="'order v9'"):
            await running.start(order_1, "tea", version=9)
        with pytest.raises(DefinitionError, match="'nobody'"):
            await running.start("nobody", "tea")
        assert await running.count() == 0


async def test_a_start_by_name_takes_the_newest_announced(place: Place):
    """A process that has no saga registered starts the newest version that a worker has announced, or `version=`."""
    world = World()
    worker = place.orchestrator(order_1, order_2, world=world)
    async with worker, place.orchestrator(world=world, worker=False) as client:
        newest = await client.start("order", "tea")
        chosen = await client.start("order", "tea", version=1)
        with pytest.raises(DefinitionError, match=r"order v9.*have announced: order v1, order v2"):
            await client.start("order", "tea", version=9)
        assert await end_of(newest, client) == End("completed", "two 2")
        assert await end_of(chosen, client) == End("completed", "one 1")


async def test_two_sagas_under_one_name_and_version_are_refused(place: Place):
    """In one process, at its making or later, and also where one of them is only started."""
    with pytest.raises(DefinitionError, match="'order' version 1"):
        place.orchestrator(order_1, another(1), world=World())
    async with place.orchestrator(order_1, world=World()) as running:
        with pytest.raises(DefinitionError, match="'order' version 1"):
            running.register(another(1))
        with pytest.raises(DefinitionError, match="'order' version 1"):
            await running.start(another(1), "tea")
        assert await running.count() == 0


async def test_a_saga_registered_while_running_is_announced_and_its_runs_are_taken(place: Place):
    """`register` on a running orchestrator, or the start of a new saga, serves it: elsewhere it is known by name."""
    world = World()
    async with place.orchestrator(world=world, worker=False) as client:
        waiting = await client.start(order_1, "tea", id="early")
        async with place.orchestrator(world=world) as running:
            running.register(order_1)
            assert await end_of(waiting, client) == End("completed", "one 1")
            assert await end_of(await running.start(order_3, "tea"), running) == End("completed", "three 3")
        async with place.orchestrator(world=world, worker=False) as other:
            await other.start("order", "tea", id="newest")
            assert (await other.info("newest")).version == 3


# -- patched ---------------------------------------------------------------------------------------------------------


def looping(*, patched: bool) -> SagaDef[..., Any]:
    """Three rounds of `first` and `second`; the change puts `third` before each round."""

    @saga("loop", version=1)
    async def body(s: Saga, about: str) -> list[bool]:
        seen: list[bool] = []
        for _ in range(3):
            if patched:
                seen.append(s.patched("third before"))
                if seen[-1]:
                    await s.run(third, about)
            await s.run(first, about)
            await s.run(second, about)
        return seen

    return body


async def test_a_change_behind_patched_is_for_those_that_come_to_it_later(place: Place):
    """A run that has passed the place keeps the old way, in every round and across restarts; a new run has the new."""
    world = World()
    await left_in("second", place, world, looping(patched=False), start="loop")
    for step in ("first", "second"):  # two more processes die, in later rounds
        world.plans.clear()
        gate = world.gate(step)
        async with place.dying(looping(patched=True), world=world) as running:
            if step == "first":  # let the first round end
                await begun(await running.get("o"), running, "second", "succeeded")
            await entered(gate, running)
        del world.gates[step]
    async with place.orchestrator(looping(patched=True), world=world) as running:
        assert await end_of(await running.get("o"), running) == End("completed", [False] * 3)
        assert world.log == ["first", "second"] * 3
        world.log.clear()
        assert await end_of(await running.start("loop", "tea"), running) == End("completed", [True] * 3)
        assert world.log == ["third", "first", "second"] * 3


async def test_patched_is_true_where_a_run_comes_to_it_first_after_the_change(place: Place):
    """A run that has not come to the place yet takes the new way, and keeps to it across restarts."""

    def trip(*, patched: bool) -> SagaDef[..., Any]:
        @saga("trip", version=1)
        async def body(s: Saga, about: str) -> str:
            await s.run(first, about)
            if patched and s.patched("third"):
                await s.run(third, about)
            await s.run(second, about)
            return "done"

        return body

    world = World()
    await left_in("first", place, world, trip(patched=False), start="trip")
    await left_in_again("second", place, world, trip(patched=True))
    async with place.orchestrator(trip(patched=True), world=world) as running:
        assert await end_of(await running.get("o"), running) == End("completed", "done")
    assert world.log == ["first", "third", "second"]


async def left_in_again(step: str, place: Place, world: World, *sagas: SagaDef[..., Any]) -> None:
    """Another process goes on with ``o`` and dies in ``step``."""
    gate = world.gate(step)
    async with place.dying(*sagas, world=world) as running:
        await entered(gate, running)
    del world.gates[step]


# -- code that does not fit ------------------------------------------------------------------------------------------


def fitting(change: str = "") -> SagaDef[..., Any]:
    """A saga of two steps, a sleep and a third step, changed in one way."""

    @saga("order", version=1)
    async def body(s: Saga, about: str) -> str:
        if change == "extra":
            await s.run(third, about)
        if change != "missing":
            await s.run(second if change == "other step" else first, "cocoa" if change == "other arguments" else about)
        if change == "end":
            return "early"
        if change == "other wait":
            await s.callback("approval", str, timeout=0.01)
        elif change != "no wait":
            await s.sleep(0.01)
        await s.run(second, about)
        return "done"

    return body


MISMATCHES = [
    ("other step", 1, "started step 'first'", "started step 'second'"),
    ("other arguments", 1, "started step 'first' with arguments ", "they differ in args[0]"),
    ("missing", 1, "started step 'first'", "armed sleep 'sleep'"),
    ("extra", 1, "started step 'first'", "started step 'third'"),
    ("end", 3, "armed sleep 'sleep'", "the end"),
    ("other wait", 3, "armed sleep 'sleep'", "armed callback 'approval'"),
    ("no wait", 3, "armed sleep 'sleep'", "started step 'second'"),
]


@pytest.mark.parametrize(("change", "seq", "holds", "asks"), MISMATCHES, ids=[change for change, *_ in MISMATCHES])
async def test_code_that_does_not_fit_is_parked_before_any_effect(
    place: Place, change: str, seq: int, holds: str, asks: str
):
    """Each kind of mismatch: stuck, with entry and command side by side; the old code ends it and repeats nothing."""
    world = World()
    await left_in("second", place, world, fitting())
    calls = len(world.calls)
    async with place.orchestrator(fitting(change), world=world) as running:
        info = await reaches(await running.get("o"), running, "stuck")
        reason = info.reason or ""
        assert f"entry #{seq}: the journal holds {holds}" in reason
        assert asks in reason.partition("the code asks for ")[2]
        assert "tea" not in reason  # what a payload holds may be secret
        assert "cocoa" not in reason
        assert [each.id for each in await running.list(attention=True)] == ["o"]
        assert len(world.calls) == calls
    async with place.orchestrator(fitting(), world=world) as running:
        await running.retry("o")
        assert await end_of(await running.get("o"), running) == End("completed", "done")
    assert world.log == ["first", "second"]
    assert world.count("first") == 1


async def test_two_programs_with_one_name_and_version_on_one_store_are_warned(
    place: Place, caplog: pytest.LogCaptureFixture
):
    """The second worker says so when it enters, with the name of the first, also while no saga of that version is open.

    The same body in two workers is no reason.
    """
    async with place.orchestrator(order_1, world=World()) as one:
        async with place.orchestrator(order_1, world=World()):
            assert caplog.messages == []
        async with place.orchestrator(another(1), world=World()):
            pass
        (line,) = caplog.messages
    assert line.startswith(f"saga 'order' v1 has another body here than in a living worker ({one.engine.name})")
    assert "another name or a store" in line
