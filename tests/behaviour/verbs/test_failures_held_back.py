"""`on_failure="stuck"`: a failure waits for an operator before the body, or a rollback, sees it."""

from typing import Any

import pytest

from sagas import Saga, SagaCompensated, SagaGraph, SagaStuck, WrongState, lookup, pivot, saga
from tests.kit import ENDS, PROMPT, Place, World, entered, reaches, steps, watched

before, after = watched("before"), watched("after")
held = watched("held", on_failure="stuck", retry=PROMPT)
open_one = watched("open", on_failure="rollback")
plain = watched("plain")
blind = watched("blind", undo="blind", unknown=(ConnectionError,))
later = watched("later")
sell = watched("sell", at=pivot, on_failure="stuck")
look = watched("look", at=lookup)
KINDS: dict[str, Any] = {"held": held, "open": open_one, "plain": plain, "sell": sell, "look": look, "blind": blind}


@saga("lenient", version=1)
async def lenient(s: Saga, name: str) -> str:
    await s.run(before)
    try:
        said = await s.run(KINDS[name])
    except Exception as error:
        await s.run(after)
        raise LookupError(name) from error
    return said


@saga("strict", version=1, on_failure="stuck")
async def strict(s: Saga, name: str) -> str:
    await s.run(before)
    return await s.run(KINDS[name])


@saga("twice", version=1, on_failure="stuck")
async def twice(s: Saga) -> None:
    await s.run(blind)
    await s.run(later)


@saga("parent", version=1)
async def parent(s: Saga) -> list[str]:
    async with s.parallel() as p:
        first, second = p.run(strict, "plain"), p.run(after)
    return [first.result(), second.result()]


graph = SagaGraph("held-graph", version=1, on_failure="stuck")
graph.returns(graph.pivot(sell, after=[graph.step(plain)]))
SAGAS = (lenient, strict, twice, parent, graph)


@pytest.mark.parametrize(
    ("body", "name", "stuck"),
    [
        (lenient, "plain", False),
        (lenient, "held", True),
        (lenient, "sell", True),
        (strict, "plain", True),
        (strict, "look", True),
        (strict, "open", False),
    ],
)
async def test_a_failure_is_held_back_where_the_step_says_so_or_else_its_saga(
    place: Place, body: Any, name: str, *, stuck: bool
):
    """Of steps, pivots and lookups, a step's own value wins; the saga is stuck once all attempts are used up."""
    world = World().plan(name, "broken")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.start(body, name, id="o")
        with pytest.raises(SagaStuck if stuck else SagaCompensated) as ended:
            await handle.result()
        info = await handle.info()
        assert steps(info)[name] == "failed"
        assert world.count(name) == (3 if name == "held" else 1)
        assert ("after" in steps(info)) is (not stuck and body is lenient)
        if stuck:
            assert info.stuck_on == (name,)
            assert all(f"sagas {verb} o" in str(ended.value) for verb in ("retry", "resolve", "rollback"))
            assert world.undone == []


@pytest.mark.parametrize("again", [False, True], ids=["at once", "by another process"])
@pytest.mark.parametrize("verb", ["retry", "retry, retry", "happened", "never happened", "rollback", "cancel"])
async def test_an_operator_decides(place: Place, verb: str, *, again: bool):
    """`retry` under the same key and a fresh policy, `resolve` either way, `rollback` (cause `failed`), or `cancel`."""
    world = World().plan("held", *["broken"] * (6 if verb == "retry, retry" else 3), "ok")
    running = place.orchestrator(*SAGAS, world=world)
    await running.__aenter__()
    try:
        await running.start(lenient, "held", id="o")
        for one in verb.split(", "):
            handle = await running.get("o")
            await reaches(handle, running, "stuck")
            if again:
                await running.__aexit__(None, None, None)
                running = place.orchestrator(*SAGAS, world=world)
                await running.__aenter__()
            if one in ("happened", "never happened"):
                await running.resolve(
                    "o", "held", happened=one == "happened", result="found" if one == "happened" else None
                )
            else:
                await getattr(running, one)("o", actor="mia")
        handle = await running.get("o")
        info = await reaches(handle, running, *ENDS)
        calls = world.count("held")
        assert len({info.idempotency_key for info in world.calls if info.what == "held"}) == 1
        if verb in ("happened", "retry", "retry, retry"):
            assert (info.status, info.result) == ("completed", "found" if verb == "happened" else "held")
            assert calls == {"happened": 3, "retry": 4, "retry, retry": 7}[verb]
        elif verb == "never happened":
            assert (info.status, type(info.error), info.cause) == ("resolved", LookupError, "failed")
            assert world.undone == ["after", "before"]
        else:
            assert (info.status, info.cause) == ("compensated", {"rollback": "failed", "cancel": "cancelled"}[verb])
            assert world.undone == ["before"]
            assert "after" not in steps(info)
    finally:
        await running.__aexit__(None, None, None)


async def test_a_rejection_is_never_held_back(place: Place):
    """The participant's own answer reaches the body, at once and after a retry."""
    world = World().plan("held", *["broken"] * 3, "refused")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.start(strict, "held", id="o")
        await reaches(handle, running, "stuck")
        await running.retry("o")
        assert (await reaches(handle, running, *ENDS)).status == "compensated"


async def test_what_was_undone_as_unknown_is_begun_anew(place: Place):
    """A doubt that its compensation has settled is held back too; a retry has a new key, and so has its own undo."""
    world = World().plan("blind", "silent", "ok").plan("later", "refused")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.start(twice, id="o")
        info = await reaches(handle, running, "stuck")
        assert (steps(info)["blind"], info.stuck_on) == ("compensated", ("blind",))
        await running.retry("o", "blind")
        info = await reaches(handle, running, *ENDS)
        assert (info.status, steps(info)["blind"]) == ("compensated", "compensated")
    made = [call for call in world.calls if call.name == "blind"]
    assert [call.role for call in made] == ["step", "undo", "step", "undo"]
    assert made[0].idempotency_key == made[1].forward_key
    assert made[2].idempotency_key == made[3].forward_key
    assert len({call.idempotency_key for call in made}) == 4
    assert world.kept() == []


@pytest.mark.parametrize("beside", ["ok", "broken"])
async def test_branches_wait_each_for_itself(place: Place, beside: str):
    """What runs beside it goes on, and if that fails nobody need decide; a child follows its own declaration."""
    world = World().plan("strict/plain", "broken", "ok").plan("after", beside)
    gate = world.gate("after")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.start(parent, id="o")
        assert (await reaches(handle, running, "stuck")).stuck_on == ("strict/plain",)
        gate.open()
        if beside == "ok":
            await running.retry("o")
        info = await reaches(handle, running, *ENDS)
        assert info.status == ("completed" if beside == "ok" else "compensated")
    assert world.undone == ([] if beside == "ok" else ["strict/before"])


async def test_a_graph_waits_likewise(place: Place):
    """A node's failure is held back by the graph's `on_failure`, and goes on where it was."""
    world = World().plan("plain", "broken", "ok").plan("sell", "broken", "ok")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.start(graph, id="o")
        for name in ("plain", "sell"):
            assert (await reaches(handle, running, "stuck")).stuck_on == (name,)
            await running.retry("o", name)
        assert await handle.result() == "sell"


async def test_a_cancel_that_waits_for_the_pivot_comes_before_the_operator(place: Place):
    """A cancel that came while the pivot was in flight decides once that has failed: nobody is asked."""
    world = World().plan("sell", "broken")
    gate = world.gate("sell")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.start(lenient, "sell", id="o")
        await entered(gate, running)
        await handle.cancel()
        gate.open()
        info = await reaches(handle, running, *ENDS)
        assert (info.status, info.cause) == ("compensated", "cancelled")


async def test_a_compensation_that_was_given_up_has_happened(place: Place):
    """`resolve` with `happened` ends it, also if another process takes that up; `happened=False` changes nothing."""
    world = World().plan("plain", "refused").plan("undo before", "broken")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.start(lenient, "plain", id="o")
        assert (await reaches(handle, running, "stuck")).stuck_on == ("before",)
        with pytest.raises(WrongState, match="must succeed too"):
            await running.resolve("o", "before", happened=False)
    async with place.orchestrator(*SAGAS, world=world, worker=False) as desk:
        await desk.resolve("o", "before", happened=True, actor="mia")
    async with place.orchestrator(*SAGAS, world=world) as running:
        handle = await running.get("o")
        info = await reaches(handle, running, *ENDS)
        assert (info.status, steps(info)["before"]) == ("resolved", "compensated")
        with pytest.raises(SagaCompensated) as ended:
            await handle.result()
    assert (ended.value.compensated, ended.value.skipped) == (["after", "before"], [])
    assert world.count("undo before") == 1
