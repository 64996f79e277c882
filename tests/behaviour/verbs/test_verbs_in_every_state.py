"""Every operator's verb on a real saga in every status: as the table says, and without effect where it is refused."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count, product
from typing import Any

import pytest

from durable_core.stores.memory.data import MemoryData
from sagas import Orchestrator, Saga, SagaNotFound, SagaPastPivot, SagaStatus, WrongState, saga
from sagas.model.verbs import VERBS, Accept, Refuse, Repeat, judge
from tests.kit import Place, World, begun, end_of, entered, party, play, point_of_no_return, reaches

before, held, after = party("before"), party("held"), party("after")
sell = point_of_no_return("sell")


@saga("states", version=1)
async def states(s: Saga, stands: str) -> str:
    await s.run(before, "b")
    if stands == "waiting":
        await s.sleep(3600)
    await s.run(held, "h")
    if stands == "past its pivot":
        await s.run(sell, "s")
        await s.sleep(3600)
    return "done"


@saga("broken", version=1)
async def broken(s: Saga) -> None:
    await s.run(before, "b")
    await asyncio.sleep(0)


STANDS = [
    "pending",
    "running",
    "waiting",
    "compensating",
    "stuck on an unknown outcome",
    "stuck on a compensation",
    "stuck on its code",
    "completed",
    "compensated",
    "resolved",
    "killed",
    "past its pivot",
    "killed past its pivot",
]


@asynccontextmanager
async def standing(place: Place, stands: str, world: World) -> AsyncGenerator[Orchestrator]:
    """An orchestrator on a store whose saga ``o`` stands so."""
    plans: dict[str, list[str]] = {
        "stuck on an unknown outcome": ["held", "lost", "ok"],
        "stuck on a compensation": ["undo before", "broken", "ok"],
        "resolved": ["undo before", "broken", "ok"],
    }
    what, *does = plans.get(stands, ["nobody", "ok"])
    world.plan(what, *does)
    if stands in ("stuck on a compensation", "resolved", "compensating", "compensated"):
        world.plan("held", "refused")
    definition: Any = broken if stands == "stuck on its code" else states
    args = [] if definition is broken else ["waiting" if stands == "killed" else stands.removeprefix("killed ")]
    gated = {"running": "held", "compensating": "undo before"}.get(stands)
    gate = world.gate(gated) if gated else None
    served = () if stands == "pending" else (definition,)
    if stands == "pending":
        async with place.orchestrator(definition, world=world, worker=False) as starting:
            await starting.start(definition, *args, id="o")
    async with place.orchestrator(*served, world=world) as running:
        try:
            if stands != "pending":
                await running.start(definition, *args, id="o")
            await bring(running, stands, world)
            yield running
        finally:
            if gate is not None:
                gate.opened.set()


async def bring(running: Orchestrator, stands: str, world: World) -> None:
    handle = await running.get("o")
    status = stands.partition(" ")[0]
    match stands:
        case "running" | "compensating":
            await entered(world.gates["held" if stands == "running" else "undo before"], running)
            await reaches(handle, running, stands)
        case "resolved":
            await reaches(handle, running, "stuck")
            await running.skip("o", "before")
            await end_of(handle, running)
        case "killed" | "past its pivot" | "killed past its pivot":
            await begun(handle, running, "sleep")
            await reaches(handle, running, "waiting", "running")
            if status == "killed":
                await running.kill("o")
        case _:
            await reaches(handle, running, status)


async def give(running: Orchestrator, verb: str, saga_id: str, step: str) -> None:
    """The verb, with what it needs."""
    match verb:
        case "skip":
            await running.skip(saga_id, step, actor="mia", note="by hand")
        case "resolve":
            await running.resolve(saga_id, step, happened=False, actor="mia", note="by hand")
        case _:
            await getattr(running, verb)(saga_id, actor="mia", note="by hand")


@pytest.mark.parametrize(("verb", "stands"), list(product(VERBS, STANDS)))
async def test_every_verb_in_every_state(place: Place, verb: str, stands: str):
    """A verb does what the table says of the saga's status: it is journalled once, changes nothing, or is refused."""
    step = {"skip": "before", "resolve": "held"}.get(verb, "")

    world = World()
    async with standing(place, stands, world) as running:
        info = await running.info("o")
        record = await running.engine.find("o")
        answer = judge(verb, info, record.phase, step or None)
        length = len(await running.engine.journal(record.num))
        log = list(world.log)
        match answer:
            case Accept():
                await give(running, verb, "o", step)
                await accepted(running, verb, length)
            case Repeat():
                await give(running, verb, "o", step)
                assert len(await running.engine.journal(record.num)) == length, "nothing is journalled"
            case Refuse(past_pivot=past):
                with pytest.raises(SagaPastPivot if past else WrongState) as refused:
                    await give(running, verb, "o", step)
                assert "'o'" in str(refused.value)
                assert len(await running.engine.journal(record.num)) == length
                assert world.log == log
                assert (await running.info("o")).status == info.status


async def accepted(running: Orchestrator, verb: str, length: int) -> None:
    """The verb is in the journal with actor and note, or waits there for whoever serves the saga."""
    record = await running.engine.find("o")
    entries = (await (await running.get("o")).history())[length:]
    told = [entry for entry in entries if entry.kind in ("signalled", "held", "noted")]
    if not told:
        assert await running.engine.store.signals.waiting([record.num]), f"{verb} is durable"
        return
    assert told[0].key in (verb, "retry" if verb == "rollback" else verb)
    assert (told[0].actor, told[0].note) == ("mia", "by hand")


ENDS: dict[tuple[str, str], str] = {
    ("cancel", "running"): "compensated",
    ("cancel", "waiting"): "compensated",
    ("cancel", "stuck on an unknown outcome"): "stuck",
    ("retry", "stuck on an unknown outcome"): "completed",
    ("retry", "stuck on a compensation"): "compensated",
    ("retry", "stuck on its code"): "stuck",
    ("skip", "stuck on a compensation"): "resolved",
    ("resolve", "stuck on an unknown outcome"): "resolved",
    ("rollback", "stuck on a compensation"): "compensated",
    ("rollback", "stuck on its code"): "compensated",
    ("rollback", "killed"): "compensated",
    ("kill", "running"): "killed",
    ("kill", "waiting"): "killed",
    ("kill", "compensating"): "killed",
    ("kill", "stuck on a compensation"): "killed",
    ("kill", "past its pivot"): "killed",
}


@pytest.mark.parametrize(("verb", "stands"), list(ENDS))
async def test_a_verb_twice_is_as_once(place: Place, verb: str, stands: str):
    """A verb given twice leads to the same end as once, with each effect once; the second is harmless or refused."""
    step = {"skip": "before", "resolve": "held"}.get(verb, "")

    world = World()
    async with standing(place, stands, world) as running:
        await give(running, verb, "o", step)
        with contextlib.suppress(WrongState, SagaPastPivot):  # it may have ended meanwhile
            await give(running, verb, "o", step)
        for gate in world.gates.values():
            gate.opened.set()
        handle = await running.get("o")
        wanted = ENDS[verb, stands]
        info = await reaches(handle, running, wanted)
        assert info.status == wanted
    undone = [line for line in world.log if line.startswith("undo")]
    assert len(undone) == len(set(undone))
    if wanted == "compensated":
        assert world.live == {}
    elif wanted == "killed" and stands != "compensating":  # what was in flight may still happen
        assert "before" in world.kept()


@pytest.mark.parametrize("verb", VERBS)
async def test_an_unknown_saga(place: Place, verb: str):
    """A verb on an id that no saga has raises SagaNotFound, naming the id; so does a child that there is not."""
    async with place.orchestrator(states, world=World()) as running:
        with pytest.raises(SagaNotFound, match="nobody"):
            await give(running, verb, "nobody", "held")


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve"])
@pytest.mark.parametrize("stands", ["stuck on an unknown outcome", "stuck on a compensation"])
async def test_a_wrong_step_is_refused_with_those_there_are(place: Place, verb: str, stands: str):
    """A step key that the saga has not is refused, naming the keys it has; one that is not stuck is refused as well."""
    world = World()
    async with standing(place, stands, world) as running:
        for step in ("hled", "before#2", "held~undo"):
            with pytest.raises(WrongState, match="before"):
                await (running.retry("o", step) if verb == "retry" else give(running, verb, "o", step))
        if stands == "stuck on an unknown outcome":
            with pytest.raises(WrongState):
                await (running.retry("o", "before") if verb == "retry" else give(running, verb, "o", "before"))
        assert (await running.info("o")).status == SagaStatus.STUCK


def test_every_state_is_listed_and_counted_as_what_it_is(place: Place):
    """List and count by status find the saga under its own status and no other."""

    async def main() -> None:
        for stands in STANDS:
            world = World()
            async with standing(fresh(place), stands, world) as running:
                status = (await running.info("o")).status
                found = {str(each): await running.count(status=each) for each in SagaStatus}
                assert found == {str(each): int(each is status) for each in SagaStatus}, stands
                assert [info.id for info in await running.list(status=status)] == ["o"]

    def fresh(place: Place) -> Place:
        if place.data is not None:
            return Place("memory://", MemoryData())
        return Place(f"{place.url}-{next(numbers)}", None)

    numbers = count()
    play(main)
