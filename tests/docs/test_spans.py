"""The page of spans is the code's own table, and the table is what sagas really emit."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from durable_core.layer import SpanRecord
from durable_core.model.said import MOST_ATTRIBUTES
from durable_core.stores.memory.data import MemoryData
from sagas import Retry, Saga, SagaCompensated, SagaDef, retriable, saga, step
from tests.kit import Place, World, begun, end_of, entered, party, point_of_no_return
from tests.traces import check_trace, whole
from tools.spans_page import ATTRIBUTES, EVENTS, SPANS, page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "spans.md"

car, hotel, hall = party("car"), party("hotel", retry=Retry(attempts=2, first=0)), party("hall", settled_by="probe")
pay = point_of_no_return("pay")


@retriable
async def confirm(about: str) -> str:
    return about


TWICE = Retry(attempts=2, first=0)
bike = party("bike", undo_retry=TWICE)


@step(compensation=None, because="it only talks")
async def talk() -> None:
    trace.get_current_span().set_attributes({f"{place}": "x" for place in range(MOST_ATTRIBUTES + 1)})


@saga("ride", version=1)
async def ride(s: Saga, who: str) -> None:
    s.tag("customer", "42")
    await s.run(talk)
    await s.run(inner, who)
    await s.run(bike, who)
    await s.run(car, who)


@saga("inner", version=1)
async def inner(s: Saga, who: str) -> str:
    return await s.run(hotel, who)


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> None:
    await s.run(hall, who)
    async with s.savepoint("block"):
        await s.run(car, who)
    try:
        async with s.savepoint("block"):
            await s.run(car, who)
            await s.run(inner, "not to be had")
    except SagaCompensated:
        s.log.info("without it, then")
    await s.run(inner, who)
    await s.sleep(0.001)
    approval = await s.callback("approval", bool)
    await approval.result()
    await s.run(pay, who)
    await s.run(confirm, who)


async def _trace(data: MemoryData, id: str) -> list[SpanRecord]:
    """What is sent of it; and where it has not ended, what a document says besides."""
    place = Place("memory://", data)
    async with place.orchestrator(world=World(), worker=False) as looking:
        (record,) = await looking.engine.store.runs.find([id])
        journal = await looking.engine.journal(record.num)
        told = whole(record, journal, now_ns=looking.engine.clock.now_ns())
        return [*check_trace(record, journal), *(span for span in told if span.name.endswith("(running)"))]


async def _cut(world: World) -> list[SpanRecord]:
    """A saga whose process dies in a step, seen before another one takes it up, and after."""
    data = MemoryData()
    place = Place("memory://", data)
    gate = world.gate("car")
    async with place.dying(ride, world=world) as first:
        await first.start(ride, "ann", id="one")
        await entered(gate, first)
    found = await _trace(data, "one")
    gate.opened.set()
    provider = TracerProvider(shutdown_on_exit=False)
    async with place.orchestrator(ride, world=world, tracer_provider=provider) as second:
        await end_of(await second.get("one"), second)
        await second.retry("one", actor="ann")
        await end_of(await second.get("one"), second)
        await end_of(await second.start(ride, "ann", id="two"), second)
    return [*found, *await _trace(data, "one"), *await _trace(data, "two")]


async def _play(definition: SagaDef[[str], None], world: World, verbs: str) -> list[SpanRecord]:
    """The saga to its end, with these verbs."""
    data = MemoryData()
    gate = world.gate({"too late": "pay", "killed": "car"}.get(verbs, "nobody"))
    async with Place("memory://", data).orchestrator(definition, world=world) as running:
        handle = await running.start(definition, "ann", id="one")
        match verbs:
            case "answered":
                await begun(handle, running, "approval")
                await running.complete_callback(saga_id="one", name="approval", value=True)
                await end_of(handle, running)
            case "too late":
                await begun(handle, running, "approval")
                await running.complete_callback(saga_id="one", name="approval", value=True)
                await entered(gate, running)
                await running.cancel("one", actor="ann")
                gate.opened.set()
                await end_of(handle, running)
            case "mended":
                await end_of(handle, running)
                await running.resolve("one", "block/car", happened=False, actor="bob")
                await end_of(handle, running)
            case "killed":
                await entered(gate, running)
                await running.kill("one")
                gate.opened.set()
                await running.rollback("one")
                await asyncio.sleep(0)
                await end_of(handle, running)
    return await _trace(data, "one")


@pytest.fixture(scope="module")
def emitted() -> list[SpanRecord]:
    """Spans of sagas that do all there is to do."""

    async def main() -> list[SpanRecord]:
        found: list[SpanRecord] = []
        refusing = World().plan("hotel", "refused", "broken", "ok").plan("hall", "silent")
        found += await _play(trip, refusing, "answered")
        found += await _play(trip, World().plan("hall", "ok"), "too late")
        found += await _play(trip, World().plan("car", "lost"), "mended")
        found += await _play(trip, World(), "killed")
        found += await _cut(World().plan("car", "refused").plan("undo bike", "broken", "broken", "ok"))
        return found

    return asyncio.run(main())


def _patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    known = {"<verb>": "(cancel|retry|skip|resolve|kill|pause|resume|rollback|deadline)", "<n>": r"\d+"}
    for doc in SPANS:
        name = doc.name.replace("(", r"\(").replace(")", r"\)")
        name = re.sub("^<step> ", r"(?:(?:undo|probe) )?<step> ", name)  # told as steps are
        pattern = re.sub(r"<\w+>", lambda found: known.get(found[0], r"[\w-]+"), name)
        yield doc.name, re.compile(pattern)


def test_the_page_is_made_from_the_code():
    """docs/reference/spans.md is what ``python -m tools.spans_page`` writes."""
    assert PAGE.read_text() == page()


def test_every_span_has_a_name_of_the_table(emitted: list[SpanRecord]):
    """Whatever is emitted has a name that the table lists, and whatever it lists is emitted."""
    patterns = dict(_patterns())
    seen = {span.name for span in emitted}
    assert [name for name in seen if not any(pattern.fullmatch(name) for pattern in patterns.values())] == []
    assert [doc for doc, pattern in patterns.items() if not any(pattern.fullmatch(name) for name in seen)] == []


def test_every_attribute_is_one_of_the_table(emitted: list[SpanRecord]):
    """Attributes and events are exactly those that the table lists, and what a step's own code has set."""
    own = {str(place) for place in range(MOST_ATTRIBUTES)}
    seen = {re.sub(r"^(saga\.tag\.).*", r"\1<key>", name) for span in emitted for name in span.attributes}
    assert seen == {doc.name for doc in ATTRIBUTES} | own
    assert {event.name for span in emitted for event in span.events} <= {doc.name for doc in EVENTS}
