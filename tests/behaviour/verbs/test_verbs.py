"""Section 4 of the contract: operator verbs in sensible and senseless states, and what they leave behind."""

# ruff: noqa: FBT001

import asyncio
from typing import Any

import pytest

from sagas import (
    Orchestrator,
    Retry,
    Saga,
    SagaCompensated,
    SagaKilled,
    SagaNotFound,
    SagaPastPivot,
    SagaStuck,
    WrongState,
    lookup,
    pivot,
    retriable,
    saga,
)
from sagas.testing import ManualClock
from tests.kit import act, settled, steps, until


class Broken(Exception): ...


def two_dead(world: list[str]) -> Any:
    """A saga whose rollback leaves two dead compensations; each can be mended once."""
    a, b, c = (
        act(world, "a", undo=(Broken("a dead"), None)),
        act(world, "b"),
        act(world, "c", undo=(Broken("c dead"), None)),
    )

    @saga("two-dead", version=1)
    async def body(s: Saga) -> None:
        for one in (a, b, c):
            await s.run(one)
        raise Broken("why")

    return body


async def stuck(handle: Any) -> SagaStuck:
    """The error of a saga that gets stuck."""
    with pytest.raises(SagaStuck) as caught:
        await handle.result()
    return caught.value


async def test_two_dead_compensations_are_mended_one_by_one(url: str, world: list[str]):
    """`skip(id, step)` counts one as done, `retry(id, step)` tries another; then the saga is `resolved`."""
    body = two_dead(world)
    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body, id="d")
        error = await stuck(handle)
        assert "a" in str(error.steps)
        assert "c" in str(error.steps)
        assert world == ["a", "b", "c", "undo c", "undo b", "undo a"]
        await orchestrator.skip("d", "c", actor="ann", note="by hand")
        again = await stuck(handle)
        assert "c" not in [str(x).split("/")[-1] for x in again.steps]
        await orchestrator.skip("d", "c", actor="ann", note="by hand")
        await orchestrator.retry("d", "a", actor="bob", note="mended")
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
        info = await handle.info()
        said = [(entry.actor, entry.note) for entry in await handle.history()]
    assert (caught.value.status, info.status, info.cause) == ("resolved", "resolved", "failed")
    assert list(caught.value.skipped) == ["c"]
    assert caught.value.__cause__.args == ("why",)
    assert "c" not in caught.value.compensated
    assert set(caught.value.compensated) == {"a", "b"}
    assert steps(info) == {"a": "compensated", "b": "compensated", "c": "skipped"}
    assert ("ann", "by hand") in said
    assert ("bob", "mended") in said
    assert world == ["a", "b", "c", "undo c", "undo b", "undo a", "undo a"]


async def test_a_retry_without_a_step_retries_all_it_is_stuck_on(url: str, world: list[str]):
    """`retry(id, step=None)`: whatever it is stuck on; nothing was skipped, so it ends `compensated`."""
    body = two_dead(world)
    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await stuck(handle)
        await orchestrator.retry(handle.id)
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    assert (caught.value.status, list(caught.value.skipped)) == ("compensated", [])
    assert sorted(world[6:]) == ["undo a", "undo c"]


async def test_a_retry_gives_a_fresh_policy(url: str, world: list[str]):
    """`retry` gives a fresh policy: as many attempts as the first time."""
    a = act(world, "a", undo=False)

    @a.compensate(retry=Retry(3, first=1))
    async def undo(_: str) -> None:
        world.append("undo")
        raise Broken

    @saga("fresh", version=1)
    async def body(s: Saga) -> None:
        await s.run(a)
        raise Broken

    async with Orchestrator(url, sagas=[body], clock=ManualClock(auto=True)) as orchestrator:
        handle = await orchestrator.start(body)
        for times in (3, 6, 9):
            await stuck(handle)
            assert world.count("undo") == times
            await orchestrator.retry(handle.id)
        await stuck(handle)


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("ending", ["rolls back", "completes"])
async def test_resolve_settles_an_unknown(url: str, world: list[str], happened: bool, ending: str):
    """`resolve`: the step has succeeded with that result, or never happened; a rollback after it is `resolved`."""
    a, b, c = act(world, "a"), act(world, "b", TimeoutError("b lost"), undo=False), act(world, "c")

    @b.compensate
    async def undo_b(result: str) -> None:
        world.append(f"undo b {result}")

    @saga("lost", version=1)
    async def body(s: Saga) -> str:
        await s.run(a)
        try:
            got = await s.run(b)
        except TimeoutError:
            got = "lost"
        await s.run(c)
        if ending == "rolls back":
            raise Broken
        return got

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        error = await stuck(handle)
        assert "b" in str(error.steps)
        assert world == ["a", "b"]
        with pytest.raises(WrongState):
            await orchestrator.resolve(handle.id, "a", happened=True, result="r")
        with pytest.raises(WrongState):
            await orchestrator.skip(handle.id, "b")
        await orchestrator.resolve(
            handle.id, "b", happened=happened, result="R" if happened else None, actor="ann", note="asked"
        )
        if ending == "completes":
            assert await handle.result() == ("R" if happened else "lost")
        else:
            with pytest.raises(SagaCompensated) as caught:
                await handle.result()
            assert caught.value.status == (await handle.info()).status == "resolved"
    undos = ["undo c", *(["undo b R"] if happened else []), "undo a"] if ending == "rolls back" else []
    assert world == ["a", "b", "c", *undos]


async def test_rollback_of_a_saga_with_an_unknown_settles_first(url: str, world: list[str]):
    """A given-up unknown is settled before anything is undone: a `rollback` does not undo around a doubt."""
    a, b = act(world, "a"), act(world, "b", TimeoutError("b lost"))

    @saga("lost", version=1)
    async def body(s: Saga) -> None:
        await s.run(a)
        await s.run(b)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await stuck(handle)
        try:
            await orchestrator.rollback(handle.id)
        except WrongState:
            assert world == ["a", "b"]
        else:
            await asyncio.sleep(0.02)
            assert world == ["a", "b"]
        await orchestrator.resolve(handle.id, "b", happened=True, result="B")
        with pytest.raises((SagaCompensated, TimeoutError)):
            await handle.result(timeout=1)
    assert world in (["a", "b", "undo b", "undo a"], ["a", "b"])


def waiting(world: list[str]) -> Any:
    """A saga that has done something and waits."""
    a, b = act(world, "a"), act(world, "b")

    @saga("waits", version=1)
    async def body(s: Saga) -> str:
        await s.run(a)
        await (await s.callback("go", str)).result()
        return await s.run(b)

    return body


async def test_a_killed_saga_keeps_its_effects_until_it_is_rolled_back(url: str, world: list[str]):
    """`kill`: no compensation, result() raises `SagaKilled`; `rollback` compensates a killed saga."""
    body = waiting(world)
    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body, id="k")
        await settled(handle, "waiting")
        await orchestrator.kill("k", actor="ann", note="off")
        await orchestrator.kill("k")
        with pytest.raises(SagaKilled, match="k"):
            await handle.result()
        assert (await handle.info()).status == "killed"
        assert world == ["a"]
        for verb in (orchestrator.retry, orchestrator.pause, orchestrator.resume, orchestrator.cancel):
            with pytest.raises(WrongState):
                await verb("k")
        await orchestrator.rollback("k", actor="bob", note="clean")
        with pytest.raises(SagaCompensated):
            await handle.result()
        assert world == ["a", "undo a"]
        await orchestrator.rollback("k")
        assert world == ["a", "undo a"]


async def test_kill_fences_what_is_in_flight(url: str, world: list[str]):
    """`kill` fences the run: late results are kept as evidence only, and nothing goes on."""
    gate, inside = asyncio.Event(), asyncio.Event()

    async def held() -> str:
        inside.set()
        await gate.wait()
        world.append("late")
        return "late"

    a, b, c = act(world, "a"), act(world, "b", held), act(world, "c")

    @saga("fenced", version=1)
    async def body(s: Saga) -> None:
        await s.run(a)
        await s.run(b)
        await s.run(c)

    async with Orchestrator(url, sagas=[body], grace=0.2) as orchestrator:
        handle = await orchestrator.start(body)
        await inside.wait()
        await orchestrator.kill(handle.id)
        gate.set()
        with pytest.raises(SagaKilled):
            await handle.result()
        assert (await handle.info()).status == "killed"
    assert "c" not in world
    assert not any("undo" in line for line in world)


async def test_a_paused_saga_begins_no_step(url: str, world: list[str]):
    """A paused saga keeps its status (`SagaInfo.paused`) and starts no step; `resume` lets it go on.

    Both repeat harmlessly.
    """
    body = waiting(world)
    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await settled(handle, "waiting")
        await orchestrator.pause(handle.id)
        await orchestrator.pause(handle.id)
        info = await handle.info()
        assert (info.status, info.paused) == ("waiting", True)
        await orchestrator.complete_callback(saga_id=handle.id, name="go", value="go")
        await asyncio.sleep(0.03)
        assert world == ["a"]
        await orchestrator.resume(handle.id)
        assert await handle.result() == "b done"
        assert (await handle.info()).paused is False
        with pytest.raises(WrongState):
            await orchestrator.pause(handle.id)


async def test_the_deadline_of_a_paused_saga_runs_on(url: str, world: list[str]):
    """A paused saga's deadline runs on; what it undoes waits until it is resumed, or is undone at once, never lost."""
    body, clock = waiting(world), ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body, deadline=100)
        await settled(handle, "waiting")
        await orchestrator.pause(handle.id)
        await clock.advance(101)
        await orchestrator.resume(handle.id)
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    assert caught.value.cause == "deadline"
    assert world == ["a", "undo a"]


VERBS = ["cancel", "retry", "skip", "resolve", "kill", "pause", "resume", "rollback"]


async def call(orchestrator: Any, verb: str, saga_id: str) -> Any:
    """A verb with the arguments it needs."""
    if verb == "skip":
        return await orchestrator.skip(saga_id, "a", actor="x", note="n")
    if verb == "resolve":
        return await orchestrator.resolve(saga_id, "a", happened=True, result="r", actor="x", note="n")
    return await getattr(orchestrator, verb)(saga_id, actor="x", note="n")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_for_nobody_says_so(url: str, verb: str):
    """`SagaNotFound` for an id that no saga has, naming it."""
    async with Orchestrator(url) as orchestrator:
        with pytest.raises(SagaNotFound, match="nobody"):
            await call(orchestrator, verb, "nobody")


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve", "kill", "pause", "resume"])
@pytest.mark.parametrize("end", ["completed", "compensated"])
async def test_verbs_at_the_end_are_wrong(url: str, world: list[str], verb: str, end: str):
    """A verb in a state where it makes no sense raises `WrongState`, changes nothing, and names saga and state."""
    a = act(world, "a")

    @saga("ends", version=1)
    async def body(s: Saga) -> None:
        await s.run(a)
        if end == "compensated":
            raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body, id="e")
        before = await settled(handle)
        was = list(world)
        with pytest.raises((WrongState, SagaPastPivot), match="e") as caught:
            await call(orchestrator, verb, "e")
        assert end in str(caught.value)
        after = await handle.info()
        assert (after.status, steps(after)) == (before.status, steps(before))
        assert world == was


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve", "rollback"])
async def test_mending_verbs_on_a_healthy_saga_are_wrong(url: str, world: list[str], verb: str):
    """retry, skip, resolve and rollback are for a stuck saga: on a waiting one they raise `WrongState`."""
    body = waiting(world)
    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await settled(handle, "waiting")
        with pytest.raises(WrongState, match="waiting"):
            await call(orchestrator, verb, handle.id)
        assert world == ["a"]
        await orchestrator.complete_callback(saga_id=handle.id, name="go", value="go")
        assert await handle.result() == "b done"


async def test_verbs_on_steps_that_are_not_there(url: str, world: list[str]):
    """A verb for a step that the saga does not have, or that is not dead, is refused and names it."""
    body = two_dead(world)
    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await stuck(handle)
        for call_it in (orchestrator.skip, orchestrator.retry):
            for step in ("nonsense", "b"):
                with pytest.raises(WrongState, match=step):
                    await call_it(handle.id, step)
        with pytest.raises(WrongState):
            await orchestrator.resolve(handle.id, "a", happened=True, result="r")
        with pytest.raises(WrongState):
            await orchestrator.resolve(handle.id, "nonsense", happened=True)
        assert len(world) == 6
        assert (await handle.info()).status == "stuck"


async def test_rollback_of_a_stuck_saga(url: str, world: list[str]):
    """`rollback(id)` compensates a stuck saga: here one whose code lost a step at registration's back."""
    a = act(world, "a")
    hidden = {"x": act(world, "nocomp", undo=False)}

    @saga("parks", version=1)
    async def body(s: Saga) -> None:
        await s.run(a)
        await s.run(hidden["x"])

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        await stuck(handle)
        await orchestrator.rollback(handle.id, actor="ann", note="give up")
        with pytest.raises(SagaCompensated):
            await handle.result()
    assert world == ["a", "undo a"]


async def test_verbs_after_the_pivot(url: str, world: list[str]):
    """`rollback` and `cancel` raise `SagaPastPivot` after the pivot; `kill` and `retry` are still there."""
    a, point, look = act(world, "a"), act(world, "p", at=pivot), act(world, "look", Broken(), at=lookup)

    @saga("past", version=1)
    async def body(s: Saga) -> None:
        await s.run(a)
        await s.run(point)
        await s.run(look)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body, id="pp")
        await stuck(handle)
        for verb in ("rollback", "cancel"):
            with pytest.raises(SagaPastPivot, match="pp"):
                await call(orchestrator, verb, "pp")
        await orchestrator.retry("pp")
        await stuck(handle)
        assert world == ["a", "p", "look", "look"]
        await orchestrator.kill("pp")
        with pytest.raises(SagaKilled):
            await handle.result()
        with pytest.raises(SagaPastPivot):
            await orchestrator.rollback("pp")
    assert world == ["a", "p", "look", "look"]


async def test_attention_is_called_and_listed(url: str, world: list[str]):
    """`on_attention` is called when a saga gets stuck or a retriable has failed 10 times.

    `list(attention=True)` shows them.
    """
    called: list[tuple[str, str]] = []
    confirm = act(world, "confirm", Broken("mail"), at=retriable)
    fine = act(world, "fine")
    dead = two_dead(world)

    async def on_attention(info: Any) -> None:
        called.append((info.id, str(info.status)))

    @saga("mails", version=1)
    async def mails(s: Saga) -> None:
        await s.run(confirm)

    @saga("fine", version=1)
    async def good(s: Saga) -> None:
        await s.run(fine)

    clock = ManualClock()
    async with Orchestrator(url, sagas=[mails, dead, good], clock=clock, on_attention=on_attention) as orchestrator:
        await orchestrator.start(mails, id="mails")
        await orchestrator.start(dead, id="dead")
        await (await orchestrator.start(good, id="good")).result()
        await settled(await orchestrator.get("dead"))
        assert {x.id for x in await orchestrator.list(attention=True)} == {"dead"}
        for _ in range(60):
            await clock.advance(300)
            if world.count("confirm") > 11:
                break
        await until(lambda: {"mails", "dead"} <= {name for name, _ in called})
        assert {x.id for x in await orchestrator.list(attention=True)} == {"dead", "mails"}
        assert await orchestrator.count(attention=True) == 2
        await orchestrator.kill("mails")
        await orchestrator.kill("dead")
        assert await orchestrator.list(attention=True) == []
    assert ("dead", "stuck") in called


async def test_verbs_from_an_observer_reach_the_worker(file: str, world: list[str]):
    """`worker=False` only starts and observes: its verbs are durable, and the worker beside it acts on them."""
    body = two_dead(world)
    async with Orchestrator(file, sagas=[body]) as worker, Orchestrator(file, worker=False) as observer:
        await stuck(await worker.start(body, id="d"))
        await observer.retry("d", actor="ann")
        with pytest.raises(SagaCompensated):
            await (await observer.get("d")).result()
    assert world.count("undo a") == 2


async def test_verbs_with_no_worker_wait_for_one(file: str, world: list[str]):
    """A verb is durable when it returns: a worker that comes later acts on it, once."""
    body = two_dead(world)
    async with Orchestrator(file, sagas=[body]) as worker:
        await stuck(await worker.start(body, id="d"))
    async with Orchestrator(file, worker=False) as observer:
        await observer.retry("d")
    async with Orchestrator(file, sagas=[body]) as worker:
        with pytest.raises(SagaCompensated) as caught:
            await (await worker.get("d")).result()
    assert caught.value.status == "compensated"
    assert len(world) == 8
