"""Branches at the same time: they end together, the first failure stops what has not begun, and all is undone."""

import asyncio
from typing import Any

import attrs
import pytest

from sagas import Retry, Saga, SagaStuck, lookup, resource, saga
from tests.kit import (
    Broken,
    Place,
    Refused,
    World,
    begun,
    bell,
    end_of,
    entered,
    party,
    point_of_no_return,
    reaches,
    rung,
)

left, right, third = party("left"), party("right"), party("third")
later, item = party("later"), party("item")
pay = point_of_no_return("pay")


@attrs.frozen
class Order:
    """In which order calls begin and end: seen by a lookup, which has no other effect."""

    seen: list[str] = attrs.field(factory=list[str])


@saga("three-at-once", version=1)
async def three_at_once(s: Saga, who: str) -> list[str]:
    async with s.parallel() as p:
        tasks = [p.run(left, who), p.run(right, who), p.run(third, who)]
    return [task.result() for task in tasks]


async def test_what_is_given_before_the_next_await_begins(place: Place):
    """All branches are under way at the same time, and the block gives each one's result."""
    world = World()
    gates = [world.gate(what) for what in ("left", "right", "third")]
    async with place.orchestrator(three_at_once, world=world) as running:
        handle = await running.start(three_at_once, "ann")
        for gate in gates:
            await entered(gate, running)
        for gate in gates[::-1]:
            gate.opened.set()
        assert await handle.result() == ["ann"] * 3
    assert world.most == 3


@pytest.mark.parametrize("fails", ["left", "right", "third"])
async def test_siblings_in_flight_end_before_anything_is_undone(place: Place, fails: str):
    """After a failure the siblings in flight are waited for; only then they are undone, the last to end first."""
    world = World().plan(fails, "refused")
    others = [what for what in ("left", "right", "third") if what != fails]
    gates = {what: world.gate(what) for what in others}
    async with place.orchestrator(three_at_once, world=world) as running:
        handle = await running.start(three_at_once, "ann", id="p")
        await begun(handle, running, fails, "rejected")
        for what in others:
            await entered(gates[what], running)
        assert (await handle.info()).status == "running"
        assert not [call for call in world.calls if call.what.startswith("undo")]
        for what in others[::-1]:
            gates[what].opened.set()
            await begun(handle, running, what, "succeeded", "compensated")
        end = await end_of(handle, running)
    assert (end.status, end.error[:2]) == ("compensated", (Refused, (fails,)))
    assert end.undone == tuple(others), "the one that ended last is undone first"
    assert world.live == {}


@saga("branches", version=1)
async def branches(s: Saga) -> None:
    async def two(t: Saga, who: str) -> str:
        await t.run(left, who)
        return await t.run(later, who)

    async with s.parallel() as p:
        p.run(two, "ann")
        p.run(right, "bob")


async def test_nothing_new_begins_after_the_first_failure(place: Place):
    """A branch whose step ends after a sibling has failed does not begin its next step; its command leaves no entry."""
    world = World().plan("right", "broken")
    gate = world.gate("left")
    async with place.orchestrator(branches, world=world) as running:
        handle = await running.start(branches)
        await begun(handle, running, "right", "failed")
        gate.opened.set()
        end = await end_of(handle, running)
        assert not [entry for entry in await handle.history() if "later" in entry.key]
    assert end.error[0] is Broken
    assert world.log == ["left", "undo left"]


async def test_waits_and_retry_delays_of_siblings_end_at_once(place: Place):
    """A sibling that sleeps, waits for an answer or for its next attempt does not hold the failure up."""
    patient = party("patient", retry=Retry(attempts=9, first=3600, jitter=False))

    @saga("waiting-siblings", version=1)
    async def body(s: Saga) -> None:
        async def sleeper(t: Saga) -> None:
            await t.run(left, "x")
            await t.sleep(3600)
            await t.run(later, "x")

        async def listener(t: Saga) -> None:
            await (await t.callback("never", str)).result()
            await t.run(later, "x")

        async with s.parallel() as p:
            p.run(sleeper)
            p.run(listener)
            p.run(patient, "x")
            p.run(right, "x")

    world = World().plan("patient", "broken").plan("right", "refused")
    gate = world.gate("right")
    async with place.orchestrator(body, world=world) as running:
        handle = await running.start(body)
        await begun(handle, running, "sleeper/sleep")
        await begun(handle, running, "listener/never")
        await entered(gate, running)
        gate.opened.set()
        end = await end_of(handle, running)
    assert (end.status, end.error[0]) == ("compensated", Refused)
    assert world.log == ["left", "undo left"]
    assert world.count("patient") == 1


async def test_the_first_recorded_failure_is_raised(place: Place):
    """Of two failures the one that was recorded first leaves the block, on the first run as after a restart."""
    world = World().plan("left", "refused").plan("third", "broken")
    gate = world.gate("left")
    undo = world.gate("undo right")
    async with place.dying(three_at_once, world=world) as running:
        handle = await running.start(three_at_once, "ann", id="p")
        await begun(handle, running, "third", "failed")
        gate.opened.set()
        await entered(undo, running)
    world.gates.clear()
    async with place.orchestrator(three_at_once, world=world) as running:
        end = await end_of(await running.get("p"), running)
    assert end.error[:2] == (Broken, ("third",))
    assert world.live == {}


async def test_the_blocks_own_failure_stops_its_branches(place: Place):
    """An exception of the block's own body lets what is in flight end, then leaves the block."""

    @saga("own-failure", version=1)
    async def body(s: Saga) -> None:
        async with s.parallel() as p:
            p.run(left, "x")
            await s.run(right, "x")
            raise Broken("the body's own")

    world = World()
    gate = world.gate("left")
    async with place.orchestrator(body, world=world) as running:
        handle = await running.start(body)
        await begun(handle, running, "right", "succeeded")
        assert (await handle.info()).status == "running"
        gate.opened.set()
        end = await end_of(handle, running)
    assert end.error[:2] == (Broken, ("the body's own",))
    assert world.live == {}


async def test_the_body_may_catch_what_a_block_raises(place: Place):
    """A failure caught outside of the block leaves what has completed in place; a savepoint around it would undo it."""

    @saga("catching", version=1)
    async def body(s: Saga, guarded: bool) -> str:  # noqa: FBT001
        async def both() -> None:
            async with s.parallel() as p:
                p.run(left, "x")
                p.run(right, "x")

        try:
            if guarded:
                async with s.savepoint("block"):
                    await both()
            else:
                await both()
        except Refused:
            return await s.run(later, "instead")
        return ""

    for guarded in (False, True):
        world = World().plan("right", "refused")
        async with place.orchestrator(body, world=world) as running:
            end = await end_of(await running.start(body, guarded), running)
        assert (end.status, end.value) == ("completed", "instead")
        assert world.kept() == (["later"] if guarded else ["later", "left"])


@pytest.mark.parametrize("inner", ["savepoint", "child"])
async def test_a_siblings_failure_does_not_cut_a_rollback_short(place: Place, inner: str):
    """A savepoint or child that is being undone is undone whole, though a sibling fails meanwhile."""

    @saga("undone-child", version=1)
    async def child(s: Saga) -> None:
        await s.run(left, "x")
        await s.run(right, "x")
        await s.run(third, "x")

    @saga("two-troubles", version=1)
    async def body(s: Saga) -> str:
        async def block(t: Saga) -> None:
            async with t.savepoint("block"):
                await t.run(left, "x")
                await t.run(right, "x")
                await t.run(third, "x")

        try:
            async with s.parallel() as p:
                if inner == "child":
                    p.run(child)
                else:
                    p.run(block)
                p.run(item, "x")
        except Broken:
            return "went on"
        return ""

    world = World().plan("third", "refused").plan("item", "broken")
    undo, sibling = world.gate("undo right"), world.gate("item")
    async with place.orchestrator(body, world=world) as running:
        handle = await running.start(body)
        await entered(undo, running)
        sibling.opened.set()
        await begun(handle, running, "item", "failed")
        undo.opened.set()
        end = await end_of(handle, running)
    assert end.status in ("completed", "compensated")
    assert world.live == {}


# -- nesting ----------------------------------------------------------------------------------------------------------


@lookup
async def see(what: str, *, order: Order = resource()) -> None:
    order.seen.append(what)


@saga("nested", version=1)
async def nested(s: Saga, numbers: list[str], fails: bool) -> list[str]:  # noqa: FBT001
    async def pair(t: Saga, about: str) -> list[str]:
        async with t.parallel() as p:
            one, two = p.run(left, about), p.run(right, about)
        return [one.result(), two.result()]

    async with s.savepoint("all"):
        async with s.parallel() as p:
            tasks = [p.run(pair, number) for number in numbers]
        found = [text for task in tasks for text in task.result()]
        found += await s.map(item, found, max_concurrency=2)
        if fails:
            await s.run(later, "x")
        return found


@pytest.mark.parametrize("fails", [False, True])
async def test_blocks_within_blocks(place: Place, fails: bool):  # noqa: FBT001
    """A map after a block of branches that are blocks, in a savepoint: all is done once, or all is undone."""
    world = World().plan("later", "refused")
    numbers = ["1", "2", "3"]
    async with place.orchestrator(nested, world=world) as running:
        end = await end_of(await running.start(nested, numbers, fails), running)
    if fails:
        assert (end.status, world.live) == ("compensated", {})
        assert len(end.undone) == 12
    else:
        assert end.value == ["1", "1", "2", "2", "3", "3"] * 2
        assert len(world.live) == 12


# -- map --------------------------------------------------------------------------------------------------------------


@saga("mapping", version=1)
async def mapping(s: Saga, numbers: list[str], width: int | None) -> list[str]:
    return await s.map(item, numbers, max_concurrency=width)


NUMBERS = [str(number) for number in range(12)]


@pytest.mark.parametrize(("items", "width"), [*[(NUMBERS, width) for width in (1, 3, 12, 50, None)], ([], 3)])
async def test_a_map_keeps_the_order_and_the_limit(place: Place, items: list[str], width: int | None):
    """Results come in the items' order; as many as max_concurrency are under way at once, and never more.

    No items, no steps, an empty list.
    """
    world = World()
    async with place.orchestrator(mapping, world=world) as running:
        assert await (await running.start(mapping, items, width)).result() == items
    assert world.most == min(width or 12, len(items))
    assert len(world.live) == len(items)


@pytest.mark.parametrize("width", [1, 2])
async def test_after_the_first_failure_no_new_item_begins(place: Place, width: int):
    """A map whose fourth item is refused begins none after those under way, and undoes each with its own element."""
    world = World().plan("item", "ok", "ok", "ok", "refused", "ok")
    async with place.orchestrator(mapping, world=world) as running:
        end = await end_of(await running.start(mapping, NUMBERS, width), running)
    assert (end.status, end.error[0]) == ("compensated", Refused)
    assert world.count("item") <= 3 + width
    assert world.live == {}
    assert sorted(world.taken_back) == sorted(world.taken_back, key=NUMBERS.index)
    assert len(world.taken_back) == world.count("item") - 1


async def test_a_map_outlives_a_crash(place: Place):
    """A process that dies amid a map is gone on with: items that are done are not done again."""
    world = World()
    async with place.dying(mapping, world=world) as running:
        handle = await running.start(mapping, NUMBERS, 3, id="m")
        await begun(handle, running, "item#4", "succeeded")
        done = {state.key for state in (await handle.info()).steps if state.status == "succeeded"}
    calls = {info.step for info in world.calls}
    world.calls.clear()
    async with place.orchestrator(mapping, world=world) as running:
        end = await end_of(await running.get("m"), running)
    assert end.value == NUMBERS
    assert len(world.live) == 12
    assert not done & {info.step for info in world.calls}
    assert calls


async def test_a_map_of_children(place: Place):
    """A child saga for each item, at most two at a time; one that fails undoes itself and all the others."""

    @saga("one-of-many", version=1)
    async def one(s: Saga, number: str) -> str:
        await s.run(left, number)
        return await s.run(right, number)

    @saga("many", version=1)
    async def many(s: Saga, numbers: list[str]) -> list[str]:
        return await s.map(one, numbers, max_concurrency=2)  # type: ignore[arg-type]

    world = World()
    async with place.orchestrator(many, world=world) as running:
        assert await (await running.start(many, NUMBERS)).result() == NUMBERS
        assert world.most == 2
        assert len(world.live) == 24
        world.live.clear()
        world.plan("right", *["ok"] * 5, "refused", "ok")
        assert (await end_of(await running.start(many, NUMBERS), running)).status == "compensated"
    assert world.live == {}


# -- the pivot, and rules ---------------------------------------------------------------------------------------------


def hidden(declared: Any) -> Any:
    return declared


@pytest.mark.parametrize("where", ["parallel", "map", "savepoint", "child", "branch"])
async def test_a_pivot_in_a_block_is_refused_before_its_effect(place: Place, where: str):
    """A pivot within a block, which registration cannot see, makes the saga stuck before the pivot; rollback undoes."""

    @saga("pivotal", version=1)
    async def pivotal(s: Saga) -> None:
        await s.run(hidden(pay), "x")

    @saga("pivot-in-a-block", version=1)
    async def body(s: Saga) -> None:
        async def branch(t: Saga) -> None:
            await t.run(hidden(pay), "x")

        await s.run(left, "x")
        if where == "savepoint":
            async with s.savepoint("block"):
                await s.run(hidden(pay), "x")
        elif where == "map":
            await s.map(hidden(pay), ["x"])
        else:
            async with s.parallel() as p:
                p.run({"parallel": hidden(pay), "child": hidden(pivotal), "branch": branch}[where], *_args(where))

    def _args(where: str) -> list[str]:
        return ["x"] if where == "parallel" else []

    world = World()
    async with place.orchestrator(body, world=world) as running:
        handle = await running.start(body, id="b")
        with pytest.raises(SagaStuck, match="the pivot runs alone"):
            await handle.result()
        assert world.count("pay") == 0
        await running.rollback("b")
        assert (await end_of(handle, running)).status == "compensated"
    assert world.live == {}


async def test_a_branch_given_after_its_block_is_refused(place: Place):
    """p.run after the block was left makes the saga stuck instead of running a step that nobody waits for."""

    @saga("late-branch", version=1)
    async def body(s: Saga) -> None:
        async with s.parallel() as p:
            p.run(left, "x")
        p.run(right, "x")

    world = World()
    async with place.orchestrator(body, world=world) as running:
        assert (await end_of(await running.start(body), running)).status == "stuck"
    assert world.count("right") == 0


# -- compensation in parallel -----------------------------------------------------------------------------------------


@saga("undone-in-parallel", version=1, parallel_compensation=True)
async def undone_in_parallel(s: Saga) -> None:
    async def two(t: Saga) -> None:
        await t.run(left, "1")
        await t.run(right, "2")

    await s.run(item, "0")
    async with s.parallel() as p:
        p.run(two)
        p.run(third, "3")
    await s.run(later, "x")


async def test_branches_are_undone_in_parallel_and_each_in_reverse(place: Place):
    """With parallel_compensation branches are undone at the same time, each in reverse order, the rest after."""
    world = World().plan("later", "refused")
    hold_third, hold_right = world.gate("undo third"), world.gate("undo right")
    ran = world.gate("third")
    async with place.orchestrator(undone_in_parallel, world=world) as running:
        handle = await running.start(undone_in_parallel)
        await begun(handle, running, "two/right", "succeeded")
        ran.opened.set()
        await entered(hold_third, running)
        await entered(hold_right, running)
        assert world.count("undo left") == 0, "left is undone after right, which came after it"
        hold_right.opened.set()
        await begun(handle, running, "two/right", "compensated")
        assert world.count("undo item") == 0, "what came before the block is undone after it"
        hold_third.opened.set()
        end = await end_of(handle, running)
    assert end.status == "compensated"
    assert end.undone[-1] == "item"
    assert end.undone.index("two/right") < end.undone.index("two/left")
    assert world.live == {}


async def test_dead_compensations_in_parallel_are_all_named(place: Place):
    """With parallel_compensation two that are given up at once are both named; retry of all mends both."""
    world = World().plan("later", "refused").plan("undo left", "broken", "ok").plan("undo third", "broken", "ok")
    async with place.orchestrator(undone_in_parallel, world=world) as running:
        handle = await running.start(undone_in_parallel, id="u")
        with pytest.raises(SagaStuck) as stuck:
            await handle.result()
        assert set(stuck.value.steps) == {"two/left", "third"}
        await running.retry("u")
        assert (await end_of(handle, running)).status == "compensated"
    assert world.live == {}


async def test_halt_holds_in_parallel_too(place: Place):
    """With halt nothing that came before the dead compensation's block is undone until it is mended."""

    @saga("halting", version=1, parallel_compensation=True, on_compensation_failure="halt")
    async def halting(s: Saga) -> None:
        await s.run(item, "0")
        async with s.parallel() as p:
            p.run(left, "1")
            p.run(right, "2")
        await s.run(later, "x")

    world = World().plan("later", "refused").plan("undo right", "broken", "ok")
    async with place.orchestrator(halting, world=world) as running:
        handle = await running.start(halting, id="h")
        assert (await end_of(handle, running)).status == "stuck"
        assert world.count("undo item") == 0
        assert {"item", "right"} <= set(world.kept())
        await running.skip("h", "right")
        assert (await end_of(handle, running)).status == "resolved"
    assert world.kept() == ["right"]


# -- leaving ----------------------------------------------------------------------------------------------------------


async def test_leaving_while_branches_are_in_flight(place: Place):
    """A clean shutdown lets branches in flight end and be recorded; the next process sees them and calls none again."""
    world = World().plan("third", "refused")
    gates = [world.gate(what) for what in ("left", "right")]
    async with place.orchestrator(three_at_once, world=world) as running:
        handle = await running.start(three_at_once, "ann", id="p")
        for gate in gates:
            await entered(gate, running)
        asyncio.get_running_loop().call_later(0.02, lambda: [gate.opened.set() for gate in gates])
    assert world.kept() == ["left", "right"]
    async with place.orchestrator(three_at_once, world=world) as running:
        handle = await running.get("p")
        end = await end_of(handle, running)
    assert (end.status, end.error[0]) == ("compensated", Refused)
    assert world.live == {}
    assert world.count("left") == world.count("right") == world.count("third") == 1


async def test_a_paused_saga_lets_its_branches_end(place: Place):
    """A pause lets what is in flight end and be recorded, starts nothing, and outlives a restart; resume goes on."""
    world = World()
    gate = world.gate("left")
    async with place.orchestrator(branches, world=world) as running:
        handle = await running.start(branches, id="p")
        await entered(gate, running)
        await running.pause("p")
        gate.opened.set()
        await begun(handle, running, "two/left", "succeeded")
        assert world.count("later") == 0
    async with place.orchestrator(branches, bell, world=world) as running:
        handle = await running.get("p")
        assert (await handle.info()).paused
        await rung(running)  # nothing is to happen in it
        assert world.count("later") == 0
        await running.resume("p")
        await reaches(handle, running, "completed")
    assert world.kept() == ["later", "left", "right"]
    assert world.count("left") == 1
