"""``sagas trace export``: what has ended is one span, what is under way is drawn up to now, and it repeats itself."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sagas import Retry, Saga, lookup, resource, saga, step, tracing
from sagas.testing import ManualClock
from tests.kit import Place, World, end_of, entered, journalled, party, reaches, until

START = datetime(2030, 1, 1, tzinfo=UTC)
TWICE = Retry(attempts=2, first=5, jitter=False)
MS, NS = 1_000, 1_000_000_000

car, hotel, flight = party("car"), party("hotel", retry=TWICE), party("flight", undo_retry=TWICE)


@step(compensation=None, because="it only takes its time")
async def drive(*, clock: ManualClock = resource()) -> None:
    there = asyncio.Event()
    clock.call_at(clock.now_ns() + 10 * NS, there.set)
    await there.wait()


@lookup
async def look() -> None:
    pass


@saga("journey", version=1)
async def journey(s: Saga) -> None:
    await s.run(flight, "out")
    await s.run(drive)


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> None:
    async with s.savepoint("block"):
        await s.run(car, who)
    await s.run(journey)
    await s.sleep(60)
    await s.run(hotel, who)
    await s.run(look)


def spans_in(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The spans of a document by name; a name comes once."""
    spans = document["data"][0]["spans"]
    found = {span["operationName"]: span for span in spans}
    assert len(found) == len(spans), [span["operationName"] for span in spans]
    return found


def tags(span: dict[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def seconds(span: dict[str, Any]) -> tuple[float, float]:
    """When it begins and how long it lasts, in whole milliseconds, as seconds from the start of the test."""
    began = span["startTime"] // MS / 1_000 - START.timestamp()
    return round(began, 3), span["duration"] // MS / 1_000


async def written(place: Place, id: str, *, clock: ManualClock | None = None) -> dict[str, Any]:
    """The document, made by a process that does nothing else."""
    async with place.orchestrator(world=World(), worker=False, clock=clock) as looking:
        return await tracing.document(looking, id)


async def test_what_has_ended_is_one_span_with_its_true_times(place: Place):
    """Root, child, block, retried step, wait and rollback are a span each, from their beginning to their end."""
    clock = ManualClock(start=START, auto=True)
    world = World().plan("hotel", "broken", "broken")
    async with place.orchestrator(trip, world=world, resources=[clock], clock=clock) as running:
        end = await end_of(await running.start(trip, "ann", id="one"), running)
        assert end.status == "compensated"
    found = spans_in(await written(place, "one"))
    assert list(found) == [
        "saga trip",
        "block",
        "car",
        "saga journey",
        "flight",
        "drive",
        "wait sleep",
        "hotel",
        "hotel #1",
        "hotel #2",
        "compensate",
        "compensate journey",
        "undo flight",
        "undo car",
    ]
    assert seconds(found["saga trip"]) == (0, 75)
    assert seconds(found["block"]) == (0, 0)
    assert seconds(found["saga journey"]) == (0, 10)
    assert seconds(found["drive"]) == (0, 10)
    assert seconds(found["wait sleep"]) == (10, 60)
    assert seconds(found["hotel"]) == (70, 5)
    assert seconds(found["compensate"]) == (75, 0)
    assert (
        tags(found["saga trip"]).items()
        >= {
            "error": True,
            "saga.status": "compensated",
            "saga.cause": "failed",
            "error.type": "tests.kit.Broken",
            "saga.name": "trip",
        }.items()
    )
    assert tags(found["hotel"])["saga.step.outcome"] == "failed"
    assert tags(found["hotel #1"])["saga.step.retry_in_ms"] == 5_000
    assert "saga.step.retry_in_ms" not in tags(found["hotel #2"])
    journey_tags = tags(found["saga journey"])
    assert (journey_tags["saga.step.outcome"], journey_tags["saga.name"]) == ("completed", "journey")
    assert "saga.status" not in journey_tags
    assert [log["fields"][0]["value"] for log in found["saga trip"]["logs"]] == ["exception"]


async def test_a_block_lasts_until_the_last_thing_in_it(place: Place):
    """Of a savepoint the journal tells no end: it is that of what is in it, however deep."""

    @saga("nested", version=1)
    async def nested(s: Saga) -> None:
        async with s.savepoint("outer"):
            async with s.savepoint("inner"):
                await s.run(drive)
            await s.sleep(1)
        await s.run(look)

    clock = ManualClock(start=START, auto=True)
    async with place.orchestrator(nested, world=World(), resources=[clock], clock=clock) as running:
        await end_of(await running.start(nested, id="one"), running)
    found = spans_in(await written(place, "one"))
    assert seconds(found["outer"]) == (0, 11)
    assert seconds(found["inner"]) == (0, 10)
    assert seconds(found["saga nested"]) == (0, 11)


async def test_what_has_not_ended_is_a_moment_and_what_is_under_way_lasts_up_to_now(place: Place):
    """Amid a step: what ended before is whole, what holds it is short, and the attempt is drawn up to now."""
    clock = ManualClock(start=START)
    async with place.orchestrator(trip, world=World(), resources=[clock], clock=clock) as running:
        handle = await running.start(trip, "ann", id="one")
        await journalled(handle, running, "started", times=3)
        await clock.advance(timedelta(seconds=4))
        found = spans_in(await written(place, "one", clock=clock))
        await clock.advance(timedelta(seconds=1))
        later = spans_in(await written(place, "one", clock=clock))
        await clock.advance(timedelta(days=1))
        await end_of(handle, running)
    after = spans_in(await written(place, "one"))
    assert list(found) == ["saga trip", "block", "car", "saga journey", "flight", "drive (running)"]
    assert [found[name]["duration"] for name in ("saga trip", "block", "saga journey")] == [1, 2, 2]
    assert seconds(found["drive (running)"]) == (0, 4)
    assert seconds(later["drive (running)"]) == (0, 5)
    assert tags(found["drive (running)"])["saga.step.outcome"] == "running"
    assert "error" not in tags(found["drive (running)"])
    assert found["drive (running)"]["spanID"] == after["drive"]["spanID"], "what it called is under it"


async def test_a_second_attempt_under_way_is_told_in_its_group(place: Place):
    """A retried step that is under way shows what failed before, and the attempt that runs."""
    world = World().plan("hotel", "broken", "ok")
    clock = ManualClock(start=START)
    async with place.orchestrator(trip, world=world, resources=[clock], clock=clock) as running:
        handle = await running.start(trip, "ann", id="one")
        await clock.advance(72)
        assert world.count("hotel") == 1
        gate = world.gate("hotel")
        await clock.advance(4)
        await entered(gate, running)
        found = spans_in(await written(place, "one", clock=clock))
        gate.opened.set()
        await end_of(handle, running)
    assert list(found)[-3:] == ["hotel", "hotel #1", "hotel #2 (running)"]
    assert found["hotel #2 (running)"]["references"][0]["spanID"] == found["hotel"]["spanID"]
    assert found["hotel"]["duration"] == 2


async def test_a_saga_that_is_stuck_and_goes_on_is_whole_once_it_has_ended(place: Place):
    """A given-up undo is red where the saga is stuck on it; once it is mended the whole is not, and tells both."""
    world = World().plan("hotel", "broken").plan("undo flight", "broken", "broken", "ok")
    clock = ManualClock(start=START, auto=True)
    async with place.orchestrator(trip, world=world, resources=[clock], clock=clock) as running:
        handle = await running.start(trip, "ann", id="one")
        assert (await end_of(handle, running)).status == "stuck"
        stuck = spans_in(await written(place, "one"))
        await running.retry("one", actor="bob")
        assert (await end_of(handle, running)).status == "compensated"
    after = spans_in(await written(place, "one"))
    assert "error" in tags(stuck["undo flight"])
    assert stuck["saga trip"]["duration"] == 1
    assert "undo flight gave up" not in stuck
    assert "error" not in tags(after["undo flight"])
    assert "error" in tags(after["undo flight gave up"])
    assert seconds(after["saga trip"])[1] >= 80


async def test_evidence_that_comes_late_is_within_the_whole(place: Place):
    """An attempt that returns after a kill is told, and the root lasts as long; when it was killed is told too."""
    world = World()
    gate = world.gate("car")
    async with place.orchestrator(trip, world=world, resources=[ManualClock()]) as running:
        handle = await running.start(trip, "ann", id="one")
        await entered(gate, running)
        await running.kill("one")
        await reaches(handle, running, "killed")
        gate.opened.set()

        async def told() -> bool:
            return "car ended late" in spans_in(await tracing.document(running, "one"))

        await until(told, running)
        found = spans_in(await tracing.document(running, "one"))
    root, late = found["saga trip"], found["car ended late"]
    assert root["startTime"] + root["duration"] >= late["startTime"] + late["duration"]
    assert tags(root)["saga.status"] == "killed"
    assert tags(found["car #1 cut"])["saga.step.outcome"] == "cut"


def test_a_document_of_what_has_ended_is_the_same_to_the_byte(tmp_path: Path):
    """Made again, elsewhere and after its worker has gone, it is the same file; machine and process are in it."""
    place = Place(f"sqlite:///{tmp_path / 'sagas.db'}", None)

    async def ran() -> str:
        clock, world = ManualClock(start=START, auto=True), World().plan("hotel", "broken")
        async with place.orchestrator(trip, world=world, resources=[clock], clock=clock) as running:
            assert (await end_of(await running.start(trip, "ann", id="one"), running)).status == "compensated"
            return json.dumps(await tracing.document(running, "one"))

    async def again(form: Any) -> str:
        async with place.orchestrator(world=World(), worker=False) as looking:
            return json.dumps(await tracing.document(looking, "one", form=form))

    first = asyncio.run(ran())
    assert asyncio.run(again("jaeger")) == asyncio.run(again("jaeger")) == first
    assert asyncio.run(again("otlp")) == asyncio.run(again("otlp"))
    workers = [tags(span) for span in json.loads(first)["data"][0]["spans"] if "saga.worker.id" in tags(span)]
    assert workers
    for told in workers:
        assert told["saga.worker.id"].endswith(f"@{told['saga.worker.host']}:{told['saga.worker.pid']}")
