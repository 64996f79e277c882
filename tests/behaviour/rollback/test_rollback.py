"""What a rollback undoes, in which order, and what a body may do about failures."""

# ruff: noqa: ASYNC110, C901, PLR0915, TRY301

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from sagas import (
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
from tests.kit import Broken, Place, Refused, World, act, begun, end_of, entered, party, reaches, settled, steps, until


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
        assert stuck.value.steps == ("b",)
        assert all(word in stuck.value.reason for word in ("'b'", "retry", "skip", "dead"))
        assert (info.status, info.cause) == ("stuck", "failed")
        assert next(x for x in info.steps if x.key == "b").status == "compensation_failed"
        await orchestrator.retry(handle.id)
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
        assert (await handle.info()).reason is None
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


# -- a loop -----------------------------------------------------------------------------------------------------------

pick = party("pick")
ITEMS = [f"item {number}" for number in range(1, 11)]


@saga("pick-all", version=1)
async def pick_all(s: Saga, items: list[str]) -> list[str]:
    return [await s.run(pick, item) for item in items]


@pytest.mark.parametrize("seventh", ["ok", "refused"])
async def test_a_loop_takes_back_each_item(place: Place, seventh: str):
    """A loop whose seventh of ten items is refused takes back the six before it, each with its own element.

    Where none is refused all ten are picked, each under a key of its own.
    """
    parties = World().plan("pick", *["ok"] * 6, seventh, "ok")
    async with place.orchestrator(pick_all, world=parties) as running:
        handle = await running.start(pick_all, ITEMS, id="p")
        end = await end_of(handle, running)
        states = [state.status for state in (await handle.info()).steps]
    if seventh == "ok":
        assert end.value == [effect.about for effect in parties.live.values()] == ITEMS
        return
    assert (end.status, parties.live) == ("compensated", {})
    assert end.undone == ("pick#6", "pick#5", "pick#4", "pick#3", "pick#2", "pick")
    assert parties.taken_back == ITEMS[5::-1]
    assert parties.count("pick") == 7
    assert states == [*["compensated"] * 6, "rejected"]


# -- a fallback -------------------------------------------------------------------------------------------------------

pack, label_it, fast, slow = party("pack"), party("label"), party("fast"), party("slow")


@saga("deliver", version=1)
async def deliver(s: Saga, what: str) -> str:
    await s.run(pack, what)
    try:
        async with s.savepoint("courier"):
            await s.run(label_it, what)
            return await s.run(fast, what)
    except (Refused, Broken):
        return f"slow {await s.run(slow, what)}"


@pytest.mark.parametrize(
    ("fails", "value", "log"),
    [
        ({}, "tea", ["pack", "label", "fast"]),
        ({"fast": "refused"}, "slow tea", ["pack", "label", "undo label", "slow"]),
        ({"fast": "broken"}, "slow tea", ["pack", "label", "undo label", "slow"]),
        ({"fast": "refused", "slow": "refused"}, None, ["pack", "label", "undo label", "undo pack"]),
    ],
)
async def test_the_fallback_is_taken_after_its_savepoint_is_undone(
    place: Place, fails: dict[str, str], value: str | None, log: list[str]
):
    """Where the first courier fails its label is undone, then the other is booked; without trouble it stands.

    Where the fallback fails as well everything is undone, and what the savepoint undid is not undone again.
    """
    parties = World()
    for what, does in fails.items():
        parties.plan(what, does)
    async with place.orchestrator(deliver, world=parties) as running:
        end = await end_of(await running.start(deliver, "tea"), running)
    assert (end.status, end.value) == ("completed" if value else "compensated", value)
    assert parties.log == log


@pytest.mark.parametrize("verb", ["retry", "skip"])
async def test_a_savepoint_whose_undo_is_given_up_is_stuck_there(place: Place, verb: str):
    """The body goes on only when the savepoint's undo is mended; then it takes the fallback."""
    parties = World().plan("fast", "refused").plan("undo label", "broken", "ok")
    async with place.orchestrator(deliver, world=parties) as running:
        handle = await running.start(deliver, "tea", id="d")
        stuck = await end_of(handle, running)
        assert (stuck.status, stuck.error[1]) == ("stuck", ("courier/label",))
        assert "slow" not in parties.kept()
        await getattr(running, verb)("d", "courier/label", note="mended")
        end = await end_of(handle, running)
    assert (end.status, end.value) == ("completed", "slow tea")
    assert parties.kept() == (["pack", "slow"] if verb == "retry" else ["label", "pack", "slow"])


async def test_a_fallback_outlives_a_crash_in_the_savepoints_undo(place: Place):
    """A process that dies while the savepoint is undone is gone on with: undone once, then the fallback."""
    parties = World().plan("fast", "refused")
    gate = parties.gate("undo label")
    async with place.dying(deliver, world=parties) as running:
        await running.start(deliver, "tea", id="d")
        await entered(gate, running)
    parties.gates.clear()
    async with place.orchestrator(deliver, world=parties) as running:
        end = await end_of(await running.get("d"), running)
    assert (end.status, end.value) == ("completed", "slow tea")
    assert parties.log == ["pack", "label", "undo label", "slow"]
    assert parties.count("fast") == 1


# -- compensations that fail -------------------------------------------------------------------------------------------

three = [party("first"), party("second"), party("third"), party("never")]


@saga("three", version=1)
async def doomed(s: Saga, what: str) -> None:
    for declared in three:
        await s.run(declared, what)


@pytest.mark.parametrize("verbs", [("retry", "retry"), ("skip", "skip"), ("retry", "skip"), ("retry all",)])
async def test_two_dead_compensations_are_both_named_and_mended(place: Place, verbs: tuple[str, ...]):
    """Two compensations given up leave the third running; both are named, and each is retried or skipped by itself."""
    parties = World().plan("never", "refused").plan("undo first", "broken", "ok").plan("undo third", "broken", "ok")
    async with place.orchestrator(doomed, world=parties) as running:
        handle = await running.start(doomed, "x", id="t")
        with pytest.raises(SagaStuck) as stuck:
            await handle.result()
        assert set(stuck.value.steps) == {"first", "third"}
        assert all(repr(name) in stuck.value.reason for name in ("first", "third"))
        assert parties.kept() == ["first", "third"]
        assert [info.id for info in await running.list(attention=True)] == ["t"]
        if verbs == ("retry all",):
            await running.retry("t")
        else:
            await getattr(running, verbs[0])("t", "third")
            await reaches(handle, running, "stuck")
            await begun(handle, running, "third", "compensated", "skipped")
            with pytest.raises(SagaStuck) as still:
                await handle.result()
            assert still.value.steps == ("first",)
            await getattr(running, verbs[1])("t", "first")
        end = await end_of(handle, running)
        info = await handle.info()
        assert await running.list(attention=True) == []
    skipped = {step for step, verb in zip(("third", "first"), verbs, strict=False) if verb == "skip"}
    assert set(parties.kept()) == skipped
    assert end.status == ("resolved" if skipped else "compensated")
    assert {state.key for state in info.steps if state.status == "skipped"} == skipped
    assert parties.count("undo second") == 1


async def test_a_dead_compensation_outlives_a_restart(place: Place):
    """A saga stuck on a compensation is stuck after a restart too, runs nothing, and is mended by the new process."""
    parties = World().plan("never", "refused").plan("undo second", "broken", "ok")
    async with place.orchestrator(doomed, world=parties) as running:
        await end_of(await running.start(doomed, "x", id="t"), running)
    calls = len(parties.calls)
    async with place.orchestrator(doomed, world=parties) as running:
        handle = await running.get("t")
        assert (await end_of(handle, running)).status == "stuck"
        assert len(parties.calls) == calls
        await running.retry("t")
        assert (await end_of(handle, running)).status == "compensated"
    assert parties.live == {}
