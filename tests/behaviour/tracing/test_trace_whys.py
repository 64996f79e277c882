"""A trace says why: what a saga is stuck on, when a step is tried again, what was cut, and whose undo it is."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from durable_core.layer import SpanRecord
from sagas import Orchestrator, Retry, Saga, SagaCompensated, lookup, resource, saga
from sagas.testing import ManualClock
from tests.kit import Place, World, end_of, entered, party, point_of_no_return
from tests.traces import check_trace

TWICE = Retry(attempts=2, first=5, jitter=False)
BROKEN = "tests.kit.Broken"

car, hotel = party("car", undo_retry=TWICE), party("hotel", retry=TWICE)
probed, unsettled = party("probed", settled_by="probe"), party("unsettled")


@saga("inner", version=1)
async def inner(s: Saga, who: str) -> None:
    await s.run(car, who)


@saga("journey", version=1)
async def journey(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(inner, who)


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(journey, who)
    await s.run(probed, who)
    await s.run(unsettled, who)
    await s.run(hotel, who)


async def sent(running: Orchestrator, id: str = "one") -> list[SpanRecord]:
    """What is sent of it so far."""
    record = await running.engine.find(id)
    return check_trace(record, await running.engine.journal(record.num))


def only(spans: Sequence[SpanRecord], name: str) -> SpanRecord:
    """The one span of this name."""
    (found,) = [span for span in spans if span.name == name]
    return found


def above(spans: Sequence[SpanRecord], span: SpanRecord) -> list[str]:
    """The names of what it is under, from its parent to the root."""
    known = {each.span_id: each for each in spans}
    found: list[str] = []
    while span.parent_id in known:
        span = known[span.parent_id]
        found.append(span.name)
    return found


async def stuck_on(place: Place, world: World) -> list[SpanRecord]:
    """The trace of a saga that gets stuck."""
    clock = ManualClock(auto=True)
    async with place.orchestrator(trip, world=world, clock=clock) as running:
        assert (await end_of(await running.start(trip, "ann", id="one"), running)).status == "stuck"
        return await sent(running)


@pytest.mark.parametrize(
    ("plan", "attempt", "type_name", "on"),
    [
        ({"hotel": ["broken"], "undo car": ["ok", "ok", "broken"]}, "undo car #2", BROKEN, "car"),
        ({"unsettled": ["lost"]}, "unsettled", "TimeoutError", "unsettled"),
    ],
    ids=["an undo that was given up", "an unknown outcome"],
)
async def test_stuck_says_why(place: Place, plan: dict[str, list[str]], attempt: str, type_name: str, on: str):
    """``stuck`` has the exception of the step that it is about, its type, and a link to the attempt that raised it."""
    spans = await stuck_on(place, World(plans={what: [*does] for what, does in plan.items()}))
    stuck = only(spans, "stuck")
    (event,) = stuck.events
    assert event.attributes["exception.type"] == stuck.attributes["error.type"] == type_name
    assert event.attributes["exception.message"]
    assert stuck.attributes["saga.stuck_on"] == (on,)
    (link,) = stuck.links
    (failed,) = [span for span in spans if span.span_id == link.span_id]
    assert failed.name == attempt
    assert failed.events[0].attributes == event.attributes
    assert stuck.failed


async def test_a_body_that_fails_has_no_attempt_to_link_to(place: Place):
    """Where no step is to blame, stuck links to none; it still says that it is stuck."""

    @saga("wrong", version=1)
    async def wrong(s: Saga) -> None:
        await s.run("no step")  # type: ignore[call-overload]

    async with place.orchestrator(wrong, world=World()) as running:
        assert (await end_of(await running.start(wrong, id="one"), running)).status == "stuck"
        stuck = only(await sent(running), "stuck")
    assert not stuck.links
    assert stuck.failed


@lookup
async def look(*, world: World = resource()) -> None:
    await world.act("look")


@saga("asked", version=1)
async def asked(s: Saga) -> None:
    await s.run(look)


@saga("forward", version=1)
async def forward(s: Saga, where: str) -> None:
    await s.run(point_of_no_return("pay"), "it")
    await s.run(look if where == "root" else asked)


@pytest.mark.parametrize("where", ["root", "child"])
async def test_stuck_past_the_pivot_says_why_too(place: Place, where: str):
    """Past the pivot, in the root and in a child, stuck names the step, and has its exception and its attempt."""
    async with place.orchestrator(forward, world=World().plan("look", "broken")) as running:
        assert (await end_of(await running.start(forward, where, id="one"), running)).status == "stuck"
        spans = await sent(running)
    stuck, look_ = only(spans, "stuck"), only(spans, "look")
    assert stuck.attributes["saga.stuck_on"] == (look_.attributes["saga.step.key"],)
    assert stuck.attributes["error.type"] == BROKEN
    assert [link.span_id for link in stuck.links] == [look_.span_id]


async def test_a_step_that_takes_its_process_down_is_linked_to(place: Place):
    """Where a compensation was cut too often, stuck names the step as the verbs do, and links to the last attempt."""
    world = World().plan("hotel", "broken")
    gate = world.gate("undo car")
    clock = ManualClock(auto=True)
    for _ in range(2):
        async with place.dying(trip, world=world, clock=clock, max_crashes=2) as running:
            await running.start(trip, "ann", id="one")
            await entered(gate, running)
            gate.entered.clear()
    async with place.orchestrator(trip, world=world, clock=clock, max_crashes=2) as running:
        assert (await end_of(await running.get("one"), running)).status == "stuck"
        spans = await sent(running)
    stuck = only(spans, "stuck")
    assert stuck.attributes["saga.stuck_on"] == ("journey/inner/car",)
    assert [link.span_id for link in stuck.links] == [only(spans, "undo car #1 cut").span_id]


async def test_an_undo_that_was_given_up_is_no_done(place: Place):
    """Given up, it is ``undo car gave up``, red; once it has been tried again ``undo car done``, which is not."""
    world = World().plan("hotel", "broken").plan("undo car", "ok", "ok", "broken", "broken", "ok")
    clock = ManualClock(auto=True)
    async with place.orchestrator(trip, world=world, clock=clock) as running:
        handle = await running.start(trip, "ann", id="one")
        assert (await end_of(handle, running)).status == "stuck"
        before = await sent(running)
        await running.retry("one", actor="bob")
        assert (await end_of(handle, running)).status == "compensated"
        after = await sent(running)
    gave_up = only(before, "undo car gave up")
    assert gave_up.failed
    assert gave_up.attributes["error.type"] == BROKEN
    assert "undo car done" not in {span.name for span in before}
    assert not only(after, "undo car done").failed
    assert only(after, "undo car gave up") == gave_up


async def test_the_undo_of_a_childs_steps_is_told_by_child(place: Place):
    """Three undos of one name: each stands under ``compensate <child>`` of its own child, nested as they are."""
    clock = ManualClock(auto=True)
    async with place.orchestrator(trip, world=World().plan("hotel", "broken"), clock=clock) as running:
        await end_of(await running.start(trip, "ann", id="one"), running)
        spans = await sent(running)
    undone = {span.attributes["saga.compensates"]: above(spans, span) for span in spans if span.name == "undo car"}
    assert undone == {
        "journey/inner/car": ["compensate inner", "compensate journey", "compensate", "saga trip"],
        "journey/car": ["compensate journey", "compensate", "saga trip"],
        "car": ["compensate", "saga trip"],
    }


async def test_a_child_that_undoes_itself_is_undone_under_itself(place: Place):
    """A child's own rollback stands under the child; what its root undoes later stands under the root's."""

    @saga("family", version=1)
    async def family(s: Saga, who: str) -> None:
        await s.run(journey, who)
        try:
            await s.run(hotels, who)
        except SagaCompensated:
            await s.run(hotel, who)

    @saga("hotels", version=1)
    async def hotels(s: Saga, who: str) -> None:
        await s.run(car, who)
        await s.run(hotel, who)

    clock = ManualClock(auto=True)
    async with place.orchestrator(family, world=World().plan("hotel", "broken"), clock=clock) as running:
        await end_of(await running.start(family, "ann", id="one"), running)
        spans = await sent(running)
    undone = {span.attributes["saga.compensates"]: above(spans, span) for span in spans if span.name == "undo car"}
    assert undone == {
        "hotels/car": ["compensate hotels", "saga hotels", "saga family"],
        "journey/inner/car": ["compensate inner", "compensate journey", "compensate", "saga family"],
        "journey/car": ["compensate journey", "compensate", "saga family"],
    }
    child = only(spans, "outcome hotels compensated")
    assert child.failed
    assert (child.attributes["saga.name"], child.attributes["saga.version"]) == ("hotels", 1)
    assert child.attributes["saga.step.outcome"] == "compensated"
    assert "saga.status" not in child.attributes


async def test_an_attempt_that_was_cut_says_so_in_its_name(place: Place):
    """The attempt whose process died is ``hotel #1 cut``; the one that followed is not."""
    world = World()
    gate = world.gate("hotel")
    clock = ManualClock(auto=True)
    async with place.dying(trip, world=world, clock=clock) as first:
        await first.start(trip, "ann", id="one")
        await entered(gate, first)
    gate.opened.set()
    async with place.orchestrator(trip, world=world, clock=clock) as second:
        await end_of(await second.get("one"), second)
        spans = await sent(second)
    assert [span.name for span in spans if span.name.startswith("hotel")] == [
        "hotel",
        "hotel #1 cut",
        "hotel #2",
        "hotel done",
    ]
    assert only(spans, "hotel #1 cut").attributes["saga.step.outcome"] == "cut"


async def test_a_failed_attempt_says_when_the_next_one_is_due(place: Place):
    """The delay that was drawn, in ms, on each attempt that another one follows, and on no other."""
    clock = ManualClock(auto=True)
    async with place.orchestrator(trip, world=World().plan("hotel", "broken"), clock=clock) as running:
        await end_of(await running.start(trip, "ann", id="one"), running)
        spans = await sent(running)
    told = {span.name: span.attributes.get("saga.step.retry_in_ms") for span in spans}
    assert told["hotel #1"] == timedelta(seconds=5) // timedelta(milliseconds=1)
    assert [name for name, delay in told.items() if delay is not None] == ["hotel #1"]
    assert only(spans, "hotel done").attributes["error.type"] == BROKEN


@pytest.mark.parametrize(("verb", "red"), [("cancel", False), ("deadline", True), ("kill", True), ("fails", True)])
async def test_a_cancel_is_not_red(place: Place, verb: str, *, red: bool):
    """The end of a saga that its customer cancelled is not red; that of one which failed, was late or killed is."""

    @saga("waiting", version=1)
    async def waiting(s: Saga, who: str) -> None:
        await s.run(car, who)
        await s.sleep(timedelta(days=1))
        await s.run(hotel, who)

    clock = ManualClock()
    world = World().plan("hotel", "broken")
    deadline = timedelta(hours=1) if verb == "deadline" else None
    async with place.orchestrator(waiting, world=world, clock=clock) as running:
        await running.start(waiting, "ann", id="one", deadline=deadline)
        await clock.advance(1)
        if verb in ("cancel", "kill"):
            await getattr(running, verb)("one", actor="ann")
        await clock.advance(timedelta(days=2))
        spans = await sent(running)
    ends = [span for span in spans if span.name.startswith(("ended ", "outcome "))]
    assert len(ends) == 2
    assert {span.failed for span in ends} == {red}
    if verb == "cancel":
        assert not [span.name for span in spans if span.failed]
