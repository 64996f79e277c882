"""One saga of every kind, played with the real clock on one store: what Jaeger is shown, and asked about."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from sagas import Orchestrator, Retry, Saga, SagaCompensated, SagaDef, SagaHandle, retriable, saga, step
from sagas.testing import ManualClock
from tests.kit import Place, Refused, World, begun, end_of, entered, party, point_of_no_return, reaches

car, hotel, flight = party("car"), party("hotel"), party("flight")
bus, tram = party("bus"), party("tram")
inn = party("inn", retry=Retry(attempts=3, first=0.01))
hall, hut = party("hall", settled_by="probe"), party("hut", settled_by="undo")
pay = point_of_no_return("pay")
DAYS = timedelta(days=2)


@retriable(retry=Retry.forever(first=0.01))
async def confirm(who: str) -> str:
    return who


@step(compensation=None, because="it only asks")
async def offer(who: str) -> str:
    span = trace.get_current_span()
    span.set_attributes({"customer": "42", "places": ["Zürich", "Rome"], "seats": [2, 3], "share": 0.5, "member": True})
    span.add_event("asked", {"bank": "north"})
    return who


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> str:
    await s.run(car, who)
    await s.run(hotel, who)
    return await s.run(flight, who)


@saga("stay", version=2)
async def stay(s: Saga, who: str) -> str:
    await s.run(car, who)
    await s.run(inn, who)
    return await s.run(flight, who)


@saga("feast", version=1)
async def feast(s: Saga, who: str) -> None:
    await s.run(hall, who)
    await s.run(flight, who)


@saga("hike", version=1)
async def hike(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(hut, who)


@saga("outing", version=1)
async def outing(s: Saga, who: str) -> None:
    await s.run(trip, who)
    await s.run(bus, who)


@saga("tolerant", version=1)
async def tolerant(s: Saga, who: str) -> None:
    try:
        await s.run(trip, who)
    except SagaCompensated:
        await s.run(tram, who)
    await s.run(bus, who)


@saga("careful", version=1)
async def careful(s: Saga, who: str) -> None:
    await s.run(bus, who)
    try:
        async with s.savepoint("abroad"):
            await s.run(car, who)
            await s.run(flight, who)
    except Refused:
        await s.run(tram, who)


@saga("rush", version=1)
async def rush(s: Saga, who: str) -> None:
    async def by_road(s: Saga) -> None:
        await s.run(car, who)
        await s.run(hotel, who)

    async with s.parallel() as p:
        p.run(by_road)
        p.run(bus, who)
    await s.run(flight, who)


@saga("tour", version=1)
async def tour(s: Saga, who: str) -> None:
    await s.map(tram, [f"{who}-{number}" for number in range(30)], max_concurrency=5)


@saga("asking", version=1)
async def asking(s: Saga, who: str) -> None:
    await s.run(car, who)
    answer = await s.callback("approval", bool, timeout=DAYS)
    await answer.result()
    await s.run(flight, who)


@saga("hasty", version=1)
async def hasty(s: Saga, who: str) -> None:
    await s.run(car, who)
    answer = await s.callback("approval", bool, timeout=0.02)
    await answer.result()


@saga("resting", version=1)
async def resting(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.sleep(DAYS)
    await s.run(flight, who)


@saga("napping", version=1)
async def napping(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.sleep(0.02)
    await s.run(flight, who)


@saga("buying", version=1)
async def buying(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(pay, who)
    await s.run(confirm, who)


@saga("asked", version=1)
async def asked(s: Saga, who: str) -> None:
    await s.run(offer, who)
    await s.run(flight, who)


SAGAS: tuple[SagaDef[..., Any], ...] = (
    trip,
    stay,
    feast,
    hike,
    outing,
    tolerant,
    careful,
    rush,
    tour,
    asking,
    hasty,
    resting,
    napping,
    buying,
    asked,
)


Scene = Callable[[Orchestrator, World, SagaHandle[Any]], Coroutine[Any, Any, None]]


async def ends(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    """It goes to its end, or is stuck, of itself."""
    await end_of(handle, running)


async def is_cancelled(running: Orchestrator, world: World, handle: SagaHandle[Any]) -> None:
    await entered(world.gates["hotel"], running)
    await running.cancel(handle.id, reason="changed their mind", actor="ann")
    world.gates["hotel"].opened.set()
    await end_of(handle, running)


async def is_cancelled_waiting(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    await begun(handle, running, "approval")
    await running.cancel(handle.id, actor="ann")
    await end_of(handle, running)


async def is_cancelled_too_late(running: Orchestrator, world: World, handle: SagaHandle[Any]) -> None:
    await entered(world.gates["pay"], running)
    await running.cancel(handle.id, actor="ann")
    world.gates["pay"].opened.set()
    await end_of(handle, running)


async def is_answered(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    await begun(handle, running, "approval")
    await running.complete_callback(saga_id=handle.id, name="approval", value=True)
    await end_of(handle, running)


async def waits_for_ever(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    await reaches(handle, running, "waiting")


async def is_retried(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    assert (await end_of(handle, running)).status == "stuck"
    await running.retry(handle.id, actor="mia", note="their line works again")
    await end_of(handle, running)


async def is_skipped(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    assert (await end_of(handle, running)).status == "stuck"
    await running.skip(handle.id, "hotel", actor="mia", note="paid by hand")
    await end_of(handle, running)


async def is_settled(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    assert (await end_of(handle, running)).status == "stuck"
    await running.resolve(handle.id, "hotel", happened=False, actor="mia", note="rang them up")
    await end_of(handle, running)


async def is_settled_as_done(running: Orchestrator, _world: World, handle: SagaHandle[Any]) -> None:
    assert (await end_of(handle, running)).status == "stuck"
    await running.resolve(handle.id, "hotel", happened=True, result="ann", actor="mia", note="rang them up")
    await end_of(handle, running)


async def is_killed(running: Orchestrator, world: World, handle: SagaHandle[Any]) -> None:
    (gate,) = world.gates.values()
    await entered(gate, running)
    await running.kill(handle.id, actor="mia")
    gate.opened.set()
    await reaches(handle, running, "killed")


async def is_killed_and_undone(running: Orchestrator, world: World, handle: SagaHandle[Any]) -> None:
    await is_killed(running, world, handle)
    await running.rollback(handle.id, actor="mia")
    await end_of(handle, running)


async def is_paused(running: Orchestrator, world: World, handle: SagaHandle[Any]) -> None:
    await entered(world.gates["hotel"], running)
    await running.pause(handle.id, actor="mia")
    world.gates["hotel"].opened.set()
    await begun(handle, running, "hotel", "succeeded")
    await running.resume(handle.id, actor="mia")
    await end_of(handle, running)


Plans = dict[str, tuple[str, ...]]
REFUSED: Plans = {"flight": ("refused",)}
NO_UNDO: Plans = {**REFUSED, "undo hotel": ("broken", "ok")}

KINDS: dict[str, tuple[SagaDef[[str], Any], Plans, Scene, str]] = {
    "completed": (trip, {}, ends, "completed"),
    "compensated": (trip, REFUSED, ends, "compensated"),
    "failed-first": (trip, {"car": ("broken",)}, ends, "compensated"),
    "retried-step": (stay, {"inn": ("broken", "broken", "ok")}, ends, "completed"),
    "given-up": (stay, {"inn": ("broken",)}, ends, "compensated"),
    "retried-and-undone": (stay, {"inn": ("broken", "ok"), **REFUSED}, ends, "compensated"),
    "probed-happened": (feast, {"hall": ("silent",)}, ends, "completed"),
    "probed-did-not": (feast, {"hall": ("lost",)}, ends, "compensated"),
    "fenced": (hike, {"hut": ("lost",)}, ends, "compensated"),
    "cancelled": (trip, {}, is_cancelled, "compensated"),
    "cancelled-waiting": (asking, {}, is_cancelled_waiting, "compensated"),
    "cancelled-too-late": (buying, {}, is_cancelled_too_late, "completed"),
    "deadline": (resting, {}, ends, "compensated"),
    "stuck": (trip, NO_UNDO, ends, "stuck"),
    "stuck-unknown": (trip, {"hotel": ("lost",)}, ends, "stuck"),
    "stuck-then-retried": (trip, NO_UNDO, is_retried, "compensated"),
    "skipped": (trip, {**REFUSED, "undo hotel": ("broken",)}, is_skipped, "resolved"),
    "resolved": (trip, {"hotel": ("lost",)}, is_settled, "resolved"),
    "resolved-as-done": (trip, {"hotel": ("lost",)}, is_settled_as_done, "completed"),
    "killed": (trip, {}, is_killed, "killed"),
    "killed-then-undone": (feast, {}, is_killed_and_undone, "compensated"),
    "paused": (trip, {}, is_paused, "completed"),
    "pivot": (buying, {}, ends, "completed"),
    "child": (outing, {}, ends, "completed"),
    "child-undone": (outing, {"bus": ("refused",)}, ends, "compensated"),
    "child-compensated": (tolerant, REFUSED, ends, "completed"),
    "child-failed": (outing, REFUSED, ends, "compensated"),
    "child-stuck": (outing, NO_UNDO, ends, "stuck"),
    "savepoint": (careful, {}, ends, "completed"),
    "savepoint-undone": (careful, REFUSED, ends, "completed"),
    "savepoint-twice-undone": (careful, {**REFUSED, "tram": ("refused",)}, ends, "compensated"),
    "parallel": (rush, {}, ends, "completed"),
    "parallel-failed": (rush, {"bus": ("refused",)}, ends, "compensated"),
    "parallel-undone": (rush, REFUSED, ends, "compensated"),
    "map": (tour, {}, ends, "completed"),
    "map-failed": (tour, {"tram": ("ok", "ok", "ok", "refused", "ok")}, ends, "compensated"),
    "callback": (asking, {}, is_answered, "completed"),
    "callback-waiting": (asking, {}, waits_for_ever, "waiting"),
    "callback-timed-out": (hasty, {}, ends, "compensated"),
    "sleeping": (resting, {}, waits_for_ever, "waiting"),
    "asked": (asked, {}, ends, "completed"),
    "slept": (napping, {}, ends, "completed"),
}
"""By id: the saga, what its parties do, what happens to it, and how it stands at the end."""

GATED: dict[Scene, str] = {
    is_cancelled: "hotel",
    is_killed: "hotel",
    is_killed_and_undone: "hall",
    is_paused: "hotel",
    is_cancelled_too_late: "pay",
}
"""Which party a scene holds up."""


CUT = "cut"
"""The id of one whose process dies within a step; another goes on with it."""
OLD: dict[str, Plans] = {"old-completed": {}, "old-compensated": REFUSED}
"""Those that began two days ago, and have ended a moment ago; by id what their parties do."""


async def play_all(folder: Path, provider: TracerProvider) -> dict[str, str]:
    """Play every kind, each in a process of its own, for those of one process have the same parties; their stores."""
    place, past = (Place(f"sqlite:///{folder / name}.db", None) for name in ("now", "past"))
    for id in KINDS:
        await _play(id, place, provider)
    await _cut(place, provider)
    for id in OLD:
        await _long_ago(id, past, provider)
    return {**dict.fromkeys([*KINDS, CUT], place.url), **dict.fromkeys(OLD, past.url)}


def _world(plans: Plans) -> World:
    world = World()
    for what, does in plans.items():
        world.plan(what, *does)
    return world


async def _play(id: str, place: Place, provider: TracerProvider) -> None:
    definition, plans, scene, status = KINDS[id]
    world = _world(plans)
    if scene in GATED:
        world.gate(GATED[scene])
    async with place.orchestrator(*SAGAS, world=world, tracer_provider=provider) as running:
        handle = await running.start(definition, "ann", id=id, deadline=0.05 if id == "deadline" else None)
        await scene(running, world, handle)
        info = await handle.info()
        assert info.status == status, f"{id} is {info.status}, {info.reason}"


async def _cut(place: Place, provider: TracerProvider) -> None:
    world = World()
    async with place.dying(*SAGAS, world=world, tracer_provider=provider) as first:
        gate = world.gate("hotel")
        await first.start(trip, "ann", id=CUT)
        await entered(gate, first)
    gate.opened.set()
    async with place.orchestrator(*SAGAS, world=world, tracer_provider=provider) as second:
        assert (await end_of(await second.get(CUT), second)).status == "completed"


async def _long_ago(id: str, place: Place, provider: TracerProvider) -> None:
    clock = ManualClock(datetime.now(UTC) - DAYS - timedelta(minutes=1), auto=True)
    async with place.orchestrator(*SAGAS, world=_world(OLD[id]), tracer_provider=provider, clock=clock) as running:
        await end_of(await running.start(resting, "ann", id=id), running)
