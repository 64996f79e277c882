"""Section 2 of the contract: what a rollback undoes, in which order, and what a body may do about failures."""

# ruff: noqa: ASYNC110, C901, PLR0915, TRY301

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from sagas import (
    DefinitionError,
    Orchestrator,
    Retry,
    Saga,
    SagaCompensated,
    SagaPastPivot,
    SagaStatus,
    SagaStuck,
    lookup,
    pivot,
    retriable,
    saga,
)
from sagas.testing import ManualClock
from tests.kit import act, never, settled, steps, until


class Broken(Exception): ...


def undone(world: list[str]) -> list[str]:
    """What has been undone, in order."""
    return [line.removeprefix("undo ") for line in world if line.startswith("undo ")]


async def test_everything_is_undone_in_reverse_order_of_completion(url: str, world: list[str]):
    """An exception that leaves the body undoes every completed step, serially, in reverse order of completion."""
    names = ["a", "b", "c", "d"]
    acts = {name: act(world, name) for name in names}
    looks = act(world, "look", at=lookup)
    kept = act(world, "kept", compensation=None, because="an e-mail cannot be unsent")

    @saga("reverse", version=1)
    async def body(s: Saga) -> None:
        for name in names:
            await s.run(acts[name])
        await s.run(looks)
        await s.run(kept)
        await s.run(acts["a"], "again")
        raise Broken("own")

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
        info = await handle.info()
    assert undone(world) == ["a", "d", "c", "b", "a"]
    assert caught.value.compensated == ["a#2", "d", "c", "b", "a"]
    assert isinstance(caught.value.__cause__, Broken)
    assert caught.value.__cause__.args == ("own",)
    assert (info.status, info.cause) == ("compensated", "failed")
    assert [state.key for state in info.steps] == ["a", "b", "c", "d", "look", "kept", "a#2"]
    assert steps(info)["a#2"] == "compensated"
    assert steps(info)["look"] == steps(info)["kept"] == "succeeded"


async def test_parallel_steps_are_undone_by_their_completion(url: str, world: list[str]):
    """Reverse order of completion, not of start: also for what ran in parallel, and one at a time."""
    gates = {name: asyncio.Event() for name in "abc"}
    ended: list[str] = []

    def gated(name: str) -> Any:
        async def wait() -> str:
            await gates[name].wait()
            ended.append(name)
            return name

        async def slow_undo() -> None:
            world.append(f"begin {name}")
            await asyncio.sleep(0)
            world.append(f"end {name}")

        return act(world, name, wait, undo=(slow_undo,))

    acts = {name: gated(name) for name in "abc"}

    @saga("completion", version=1)
    async def body(s: Saga) -> None:
        async with s.parallel() as p:
            tasks = [p.run(acts[name]) for name in "abc"]
        assert [task.result() for task in tasks] == ["a", "b", "c"]
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await until(lambda: len(world) == 3)
        for name in "bca":
            gates[name].set()
            await until(lambda: name in ended)  # noqa: B023
            while steps(await handle.info()).get(name) != "succeeded" and not undone(world):
                await asyncio.sleep(0.001)
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    assert caught.value.compensated == ["a", "c", "b"]
    assert [line for line in world if "begin" in line or "end" in line] == [
        "begin a", "end a", "begin c", "end c", "begin b", "end b",
    ]  # fmt: skip


async def test_after_the_first_failure_no_step_begins(url: str, world: list[str]):
    """No new step begins in any branch; steps in flight end and are recorded, and are then undone with the rest."""
    gate = asyncio.Event()

    async def wait_true() -> str:
        await gate.wait()
        return "x"

    first, second, last = act(world, "first"), act(world, "second", wait_true), act(world, "last")
    bad = act(world, "bad", Broken("the first"))

    async def branch(s: Saga) -> None:
        await s.run(first)
        await s.run(second)
        await s.run(last)

    async def failing(s: Saga) -> None:
        await s.run(bad)

    @saga("halts", version=1)
    async def body(s: Saga) -> None:
        async with s.parallel() as p:
            p.run(branch)
            p.run(failing)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await until(lambda: {"bad", "first"} <= set(world))
        while "FAILED" not in str([entry.kind for entry in await handle.history()]).upper():
            await asyncio.sleep(0.002)
        gate.set()
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    assert caught.value.__cause__.args == ("the first",)
    assert "last" not in world
    done = [line for line in world if line in {"first", "second"}]
    assert sorted(undone(world)) == sorted(done)


async def test_waits_of_other_branches_end_at_once(url: str, world: list[str]):
    """After the first recorded failure waits end at once: nobody waits a day for a saga that has failed."""
    bad, other = act(world, "bad", Broken()), act(world, "other")

    async def sleeper(s: Saga) -> None:
        await s.sleep(timedelta(days=1))
        await s.run(other)

    async def listener(s: Saga) -> None:
        answer = await s.callback("never", str)
        await answer.result()

    @saga("waits", version=1)
    async def body(s: Saga) -> None:
        async with s.parallel() as p:
            p.run(sleeper)
            p.run(listener)
            p.run(bad)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    assert world == ["bad"]


async def test_a_map_begins_no_new_item_after_a_failure(url: str, world: list[str]):
    """No new item in a `map` after the first recorded failure; and its results are in input order otherwise."""
    pick = act(world, "pick", "0", "1", Broken(), "3")

    @saga("maps", version=1)
    async def body(s: Saga) -> Any:
        return await s.map(pick, ["i0", "i1", "i2", "i3", "i4"], max_concurrency=1)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated) as caught:
            await (await orchestrator.start(body)).result()
    assert world == ["pick i0", "pick i1", "pick i2", "undo pick", "undo pick"]
    assert len(caught.value.compensated) == 2


async def test_a_map_keeps_the_order_and_its_bound(url: str):
    """`s.map(step, items, max_concurrency=)`: results in input order, never more at once than that."""
    running, most = 0, 0

    @lookup
    async def square(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (7 - n % 7))
        running -= 1
        return n * n

    @saga("squares", version=1)
    async def body(s: Saga) -> tuple[list[int], list[int]]:
        return await s.map(square, range(30), max_concurrency=4), await s.map(square, [], max_concurrency=4)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        assert await (await orchestrator.start(body)).result() == ([n * n for n in range(30)], [])
    assert most == 4


async def test_parallel_compensation_undoes_branches_together(url: str, world: list[str]):
    """`@saga(parallel_compensation=True)`: branches that ran in parallel are undone in parallel."""
    both = asyncio.Barrier(2)

    async def meet() -> None:
        await both.wait()

    a, b, before = act(world, "a", undo=(meet,)), act(world, "b", undo=(meet,)), act(world, "before")

    @saga("together", version=1, parallel_compensation=True)
    async def body(s: Saga) -> None:
        await s.run(before)
        async with s.parallel() as p:
            p.run(a)
            p.run(b)
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated) as caught:
            await (await orchestrator.start(body)).result(timeout=5)
    assert set(undone(world)[:2]) == {"a", "b"}
    assert undone(world)[2] == "before"
    assert set(caught.value.compensated) == {"a", "b", "before"}


@pytest.mark.parametrize("policy", ["continue", "halt"])
async def test_a_given_up_compensation_leaves_or_stops_the_others(url: str, world: list[str], policy: Any):
    """One that is given up leaves the others running and the saga ends stuck; `halt` stops at it instead."""
    a, b, c = act(world, "a"), act(world, "b", undo=(Broken("dead"), None)), act(world, "c")

    @saga("undoing", version=1, on_compensation_failure=policy)
    async def body(s: Saga) -> None:
        for one in (a, b, c):
            await s.run(one)
        raise Broken("why")

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaStuck) as stuck:
            await handle.result()
        assert undone(world) == (["c", "b", "a"] if policy == "continue" else ["c", "b"])
        info = await handle.info()
        assert stuck.value.reason
        assert "b" in str(stuck.value.steps)
        assert info.status == "stuck"
        assert next(x for x in info.steps if x.key == "b").status == "compensation_failed"
        await orchestrator.retry(handle.id)
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    assert undone(world) == (["c", "b", "a", "b"] if policy == "continue" else ["c", "b", "b", "a"])
    assert caught.value.status == "compensated"
    assert caught.value.__cause__.args == ("why",)
    assert set(caught.value.compensated) == {"a", "b", "c"}


async def test_a_savepoint_undoes_its_block_first(url: str, world: list[str]):
    """An exception that leaves the block first undoes the block; a body may catch it and go on."""
    a, b, c, d = (act(world, name) for name in "abcd")

    @saga("saved", version=1)
    async def body(s: Saga) -> str:
        await s.run(a)
        try:
            async with s.savepoint("courier"):
                await s.run(b)
                await s.run(c)
                raise Broken
        except Broken:
            world.append("caught")
        await s.run(d)
        return "went on"

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        assert await handle.result() == "went on"
        found = steps(await handle.info())
    assert world == ["a", "b", "c", "undo c", "undo b", "caught", "d"]
    assert sorted(found.values()) == ["compensated", "compensated", "succeeded", "succeeded"]


async def test_what_a_savepoint_undid_is_not_undone_again(url: str, world: list[str]):
    """Nested savepoints, and a failure after them: each step is undone once."""
    a, b, c, d = (act(world, name) for name in "abcd")

    @saga("nested", version=1)
    async def body(s: Saga) -> None:
        try:
            async with s.savepoint("outer"):
                await s.run(a)
                try:
                    async with s.savepoint("inner"):
                        await s.run(b)
                        raise Broken("inner")
                except Broken:
                    await s.run(c)
                raise Broken("outer")
        except Broken:
            pass
        async with s.savepoint("outer"):
            await s.run(d)
        raise Broken("end")

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    assert world == ["a", "b", "undo b", "c", "undo c", "undo a", "d", "undo d"]


async def test_a_savepoint_with_a_dead_compensation_waits_to_be_mended(url: str, world: list[str]):
    """Inside a savepoint a given-up compensation makes the saga stuck there.

    The body goes on only when it is mended.
    """
    a, b = act(world, "a"), act(world, "b", undo=(Broken("dead"), None))

    @saga("saved", version=1)
    async def body(s: Saga) -> str:
        await s.run(a)
        try:
            async with s.savepoint("courier"):
                await s.run(b)
                raise Broken
        except Broken:
            world.append("went on")
        return "end"

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaStuck):
            await handle.result()
        assert world == ["a", "b", "undo b"]
        await orchestrator.retry(handle.id)
        assert await handle.result() == "end"
    assert world == ["a", "b", "undo b", "undo b", "went on"]


async def test_a_body_may_catch_and_go_on(url: str, world: list[str]):
    """A body may catch a step's exception and go on; only what leaves the body undoes."""
    first, bad, instead = act(world, "first"), act(world, "bad", Broken()), act(world, "instead")

    @saga("instead", version=1)
    async def body(s: Saga) -> str:
        await s.run(first)
        try:
            return await s.run(bad)
        except Broken:
            return await s.run(instead)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        assert await (await orchestrator.start(body)).result() == "instead done"
    assert world == ["first", "bad", "instead"]


def family(world: list[str], *, child_fails: bool, pivot_in_child: bool = False) -> tuple[Any, Any]:
    """A parent with a child."""
    one, two, last = act(world, "one"), act(world, "two"), act(world, "last")
    point, after = act(world, "point", at=pivot), act(world, "after", at=retriable)

    @saga("child", version=1)
    async def child(s: Saga, name: str) -> str:
        await s.run(one, name)
        await s.run(two, name)
        if pivot_in_child:
            await s.run(point)
        if child_fails:
            raise Broken(name)
        return f"child {name}"

    @saga("parent", version=1)
    async def parent(s: Saga) -> str:
        await s.run(last, "before")
        try:
            got = await s.run(child, "x")
        except SagaCompensated as error:
            world.append(f"caught {error.cause} {type(error.__cause__).__name__} {error.compensated}")
            await s.run(last, "after")
            return "survived"
        if pivot_in_child:
            await s.run(after)
            return got
        raise Broken("parent")

    return parent, child


async def test_a_child_that_undid_itself_tells_its_parent(url: str, world: list[str]):
    """A child that compensated itself raises `SagaCompensated` in its parent, which may go on."""
    parent, child = family(world, child_fails=True)
    async with Orchestrator(url, sagas=[parent, child]) as orchestrator:
        handle = await orchestrator.start(parent, id="p")
        assert await handle.result() == "survived"
        theirs = await (await orchestrator.get("p/child")).info()
    assert theirs.status == "compensated"
    assert world == [
        "last before",
        "one x",
        "two x",
        "undo two",
        "undo one",
        "caught failed Broken ['child/two', 'child/one']",
        "last after",
    ]  # fmt: skip


async def test_a_finished_child_is_undone_with_its_root(url: str, world: list[str]):
    """A child is undoable until the root ends; its id is `<parent id>/<step key>`, its end provisional until then."""
    parent, child = family(world, child_fails=False)
    async with Orchestrator(url, sagas=[parent, child]) as orchestrator:
        handle = await orchestrator.start(parent, id="p")
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
        theirs, info = await (await orchestrator.get("p/child")).info(), await handle.info()
    assert world == ["last before", "one x", "two x", "undo two", "undo one", "undo last"]
    assert theirs.status == "compensated"
    assert [(x.key, x.kind) for x in info.steps] == [("last", "step"), ("child", "child")]
    assert caught.value.compensated[-1] == "last"


async def test_a_pivot_in_a_child_is_the_trees(url: str, world: list[str]):
    """A pivot in a child is the pivot of the whole tree: the root cannot be cancelled or undone any more."""
    parent, child = family(world, child_fails=False, pivot_in_child=True)
    async with Orchestrator(url, sagas=[parent, child]) as orchestrator:
        handle = await orchestrator.start(parent, id="p")
        assert await handle.result() == "child x"
    assert world == ["last before", "one x", "two x", "point", "after"]


async def test_a_failure_after_a_childs_pivot_is_stuck_in_the_root(url: str, world: list[str]):
    """After the pivot nothing is ever undone; a root with a stuck descendant is itself stuck."""
    parent, child = family(world, child_fails=True, pivot_in_child=True)
    async with Orchestrator(url, sagas=[parent, child]) as orchestrator:
        handle = await orchestrator.start(parent, id="p")
        with pytest.raises(SagaStuck):
            await handle.result()
        assert (await (await orchestrator.get("p/child")).info()).status == "stuck"
        with pytest.raises(SagaPastPivot):
            await handle.cancel()
        with pytest.raises(SagaPastPivot):
            await orchestrator.rollback("p")
    assert world == ["last before", "one x", "two x", "point"]


@pytest.mark.parametrize("where", ["parallel", "map", "savepoint", "after", "second", "branch", "after-child"])
async def test_misplaced_steps_are_definition_errors(url: str, world: list[str], where: str):
    """The pivot runs alone: not in a parallel block, a `map` or a savepoint.

    After it only lookups, waits, retriables.
    """
    point, other, plain = act(world, "point", at=pivot), act(world, "other", at=pivot), act(world, "plain")

    @saga("inner", version=1)
    async def inner(s: Saga) -> None:
        await s.run(plain)

    async def branch(s: Saga) -> None:
        await s.run(point)

    @saga("misplaced", version=1)
    async def body(s: Saga) -> None:
        match where:
            case "parallel":
                async with s.parallel() as p:
                    p.run(point)
            case "branch":
                async with s.parallel() as p:
                    p.run(branch)
            case "map":
                await s.map(point, ["x"])
            case "savepoint":
                async with s.savepoint("x"):
                    await s.run(point)
            case "after":
                await s.run(point)
                await s.run(plain)
            case "second":
                await s.run(point)
                await s.run(other)
            case _:
                await s.run(point)
                await s.run(inner)

    with pytest.raises((DefinitionError, SagaStuck)) as caught:
        async with Orchestrator(url, sagas=[body, inner]) as orchestrator:
            await (await orchestrator.start(body)).result()
    assert "pivot" in str(caught.value)
    assert "plain" not in world
    assert "other" not in world
    if where not in {"after", "second", "after-child"}:
        assert world == []


async def test_after_the_pivot_an_exception_is_stuck_and_retry_runs_the_body(url: str, world: list[str]):
    """After the pivot an exception of the body's own makes the saga stuck.

    `retry` runs the body with the code loaded now.
    """
    first, point, after = act(world, "first"), act(world, "point", at=pivot), act(world, "after", at=retriable)
    broken = [True]

    @saga("past", version=1)
    async def body(s: Saga) -> str:
        await s.run(first)
        await s.run(point)
        if broken:
            raise Broken("bug")
        return await s.run(after)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaStuck, match="bug"):
            await handle.result()
        with pytest.raises(SagaStuck):
            await handle.result()
        broken.clear()
        await orchestrator.retry(handle.id)
        assert await handle.result() == "after done"
    assert world == ["first", "point", "after"]


async def test_after_the_pivot_retry_runs_the_step_again(url: str, world: list[str]):
    """`retry` then runs again the step whose exception it was."""
    point, look, after = (
        act(world, "point", at=pivot),
        act(world, "look", Broken("l"), "seen", at=lookup),
        act(world, "after", at=retriable),
    )

    @saga("past", version=1)
    async def body(s: Saga) -> str:
        await s.run(point)
        seen = await s.run(look)
        await s.run(after)
        return seen

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaStuck):
            await handle.result()
        await orchestrator.retry(handle.id)
        assert await handle.result() == "seen"
    assert world == ["point", "look", "look", "after"]


async def test_a_pivot_that_failed_is_no_point_of_no_return(url: str, world: list[str]):
    """A rollback before the pivot has succeeded undoes all: a pivot that was rejected or failed has not happened."""
    first, point = act(world, "first"), act(world, "point", Broken(), at=pivot)

    @saga("before", version=1)
    async def body(s: Saga) -> None:
        await s.run(first)
        await s.run(point)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    assert world == ["first", "point", "undo first"]


@pytest.mark.parametrize(
    "point", ["step", "sleep", "callback", "retry", "first", "map", "parallel", "child", "savepoint"]
)
@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_cancel_and_deadline_at_every_kind_of_await(url: str, world: list[str], point: str, how: str):
    """A wait, callback or retry delay ends at once; a step in flight ends and is recorded.

    Then everything is undone.
    """
    gate = asyncio.Event()
    reached = asyncio.Event()

    async def held() -> str:
        reached.set()
        await gate.wait()
        return "held"

    first, holding, later = (
        act(world, "first"),
        act(world, "holding", held, timeout=timedelta(days=9)),
        act(world, "later"),
    )
    flaky = act(world, "flaky", Broken(), retry=Retry(5, first=7200, longest=7200, jitter=False))

    @saga("inner", version=1)
    async def inner(s: Saga) -> None:
        await s.run(holding)

    @saga("stopped", version=1)
    async def body(s: Saga) -> None:
        await s.run(first)
        try:
            match point:
                case "step":
                    await s.run(holding)
                case "sleep":
                    reached.set()
                    await s.sleep(timedelta(days=9))
                case "callback":
                    reached.set()
                    await (await s.callback("x", str)).result()
                case "first":
                    one, two = await s.callback("x", str), await s.callback("y", str)
                    reached.set()
                    await s.first(one, two)
                case "retry":
                    reached.set()
                    await s.run(flaky)
                case "map":
                    await s.map(holding, ["", ""], max_concurrency=1)
                case "parallel":
                    async with s.parallel() as p:
                        p.run(holding)
                case "child":
                    await s.run(inner)
                case _:
                    async with s.savepoint("sp"):
                        await s.run(holding)
        except Exception:  # noqa: BLE001
            world.append("seen by except Exception")
            await s.run(later)
        finally:
            await s.run(later)
        world.append("went on")

    clock = ManualClock()
    async with Orchestrator(url, sagas=[body, inner], clock=clock) as orchestrator:
        handle = await orchestrator.start(body, id="r", deadline=timedelta(hours=1) if how == "deadline" else None)
        await reached.wait()
        await settled(handle, "running", "waiting")
        if how == "cancel":
            await handle.cancel("changed my mind")
            await handle.cancel("again")
        else:
            before = clock.now()
            advancing = asyncio.ensure_future(clock.advance(timedelta(hours=1)))
            await until(lambda: clock.now() > before)
        assert not any("undo" in line for line in world) or not gate.is_set()
        gate.set()
        if how == "deadline":
            await advancing
        with pytest.raises(SagaCompensated) as caught:
            await handle.result(timeout=5)
        info = await handle.info()
        said = " ".join(f"{entry.kind} {entry.note} {entry.actor}" for entry in await handle.history())
    assert caught.value.cause == info.cause == ("cancelled" if how == "cancel" else "deadline")
    assert "later" not in world
    assert "went on" not in world
    assert "seen by except Exception" not in world
    waits = point in {"sleep", "callback", "first"}
    middle = {"retry": ["flaky"]}.get(point, [] if waits else ["holding"])
    after = [] if waits or point == "retry" else ["undo holding"]
    assert world == ["first", *middle, *after, "undo first"]
    if how == "cancel":
        assert "changed my mind" in said


@pytest.mark.parametrize("outcome", ["happened", "failed"])
async def test_a_cancel_during_the_pivot(url: str, world: list[str], outcome: str):
    """If a pivot was in flight and did happen, the saga goes forward; if it did not, everything is undone."""
    gate, inside = asyncio.Event(), asyncio.Event()

    async def held() -> str:
        inside.set()
        await gate.wait()
        if outcome == "failed":
            raise Broken
        return "paid"

    first, point, after = act(world, "first"), act(world, "point", held, at=pivot), act(world, "after", at=retriable)

    @saga("racing", version=1)
    async def body(s: Saga) -> str:
        await s.run(first)
        paid = await s.run(point)
        await s.run(after)
        return paid

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await inside.wait()
        await handle.cancel("late")
        gate.set()
        if outcome == "happened":
            assert await handle.result() == "paid"
            assert world == ["first", "point", "after"]
            assert any("late" in f"{e.kind} {e.note}" for e in await handle.history())
        else:
            with pytest.raises(SagaCompensated) as caught:
                await handle.result()
            assert caught.value.cause == "cancelled"
            assert world == ["first", "point", "undo first"]


async def test_past_the_pivot_cancel_is_refused_and_the_deadline_void(url: str, world: list[str]):
    """Once the pivot has succeeded, `cancel` raises `SagaPastPivot` and the deadline is void."""
    point, after = act(world, "point", at=pivot), act(world, "after", at=retriable)

    @saga("past", version=1, deadline=timedelta(hours=2))
    async def body(s: Saga) -> str:
        await s.run(point)
        await s.sleep(timedelta(hours=5))
        return await s.run(after)

    clock = ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body)
        await clock.advance(timedelta(hours=1))
        with pytest.raises(SagaPastPivot, match=handle.id):
            await handle.cancel()
        await clock.advance(timedelta(hours=2))
        assert (await handle.info()).status == "waiting"
        with pytest.raises(SagaPastPivot):
            await orchestrator.cancel(handle.id)
        await clock.advance(timedelta(hours=2))
        assert await handle.result() == "after done"
    assert world == ["point", "after"]


async def test_the_deadline_is_void_once_compensation_has_begun(url: str, world: list[str]):
    """The deadline is void once compensation has begun: the cause stays, and every compensation is done."""
    gate, inside = asyncio.Event(), asyncio.Event()

    async def held() -> None:
        inside.set()
        await gate.wait()

    first, second = act(world, "first"), act(world, "second", undo=(held,))

    @saga("void", version=1, deadline=60)
    async def body(s: Saga) -> None:
        await s.run(first)
        await s.run(second)
        raise Broken

    clock = ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body)
        await inside.wait()
        assert (await handle.info()).status == "compensating"
        before = clock.now()
        advancing = asyncio.ensure_future(clock.advance(120))
        await until(lambda: clock.now() > before)
        gate.set()
        await advancing
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    assert caught.value.cause == "failed"
    assert undone(world) == ["second", "first"]


async def test_a_cancelled_unknown_is_settled_before_the_undoing(url: str, world: list[str]):
    """On cancel a step in flight is allowed to end, is recorded and settled, and then everything is undone."""
    gate, inside = asyncio.Event(), asyncio.Event()

    async def held() -> None:
        inside.set()
        await gate.wait()
        raise TimeoutError

    first, doubtful = act(world, "first"), act(world, "doubtful", held)

    @doubtful.probe
    async def find(note: str = "") -> str | None:
        world.append("probe")
        return "found"

    @saga("doubts", version=1)
    async def body(s: Saga) -> None:
        await s.run(first)
        await s.run(doubtful)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await inside.wait()
        await handle.cancel()
        gate.set()
        with pytest.raises(SagaCompensated):
            await handle.result()
    assert world == ["first", "doubtful", "probe", "undo doubtful", "undo first"]


async def test_a_cancel_that_found_nothing_done(url: str, world: list[str]):
    """A saga that is cancelled in its first wait has nothing to undo, and has still ended compensated, cancelled."""

    @saga("nothing", version=1)
    async def body(s: Saga) -> None:
        await s.sleep(1000)

    async with Orchestrator(url, sagas=[body], clock=ManualClock()) as orchestrator:
        handle = await orchestrator.start(body)
        await settled(handle, "waiting")
        await handle.cancel()
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    assert (caught.value.status, caught.value.cause, caught.value.compensated) == (
        SagaStatus.COMPENSATED,
        "cancelled",
        [],
    )


async def test_what_it_is_stuck_on_never_ends(url: str, world: list[str]):
    """`never` is there for the step that hangs: leaving the block waits for `grace=` and no longer."""
    hangs = act(world, "hangs", never)

    @saga("hangs", version=1)
    async def body(s: Saga) -> None:
        await s.run(hangs)

    async with Orchestrator(url, sagas=[body], grace=0.05) as orchestrator:
        await orchestrator.start(body)
        await until(lambda: world)
    assert world == ["hangs"]
