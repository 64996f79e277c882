"""The page of spans is the code's own table, and the table is what sagas really emit."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_core import SpanRecord
from durable_core.stores.memory import MemoryData
from sagas import Retry, Saga, SagaCompensated, SagaDef, retriable, saga
from sagas.model.spans import ATTRIBUTES, EVENTS, SPANS
from sagas.model.spans_page import page
from tests.acceptance.parties import Place, World, begun, entered, party, point_of_no_return
from tests.sagas_for_tests import end_of
from tests.traces import check_trace

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "spans.md"

car, hotel, hall = party("car"), party("hotel", retry=Retry(attempts=2, first=0)), party("hall", settled_by="probe")
pay = point_of_no_return("pay")


@retriable
async def confirm(about: str) -> str:
    return about


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
    place = Place("memory://", data)
    async with place.orchestrator(world=World(), worker=False) as looking:
        (record,) = await looking.engine.store.find([id])
        return check_trace(record, await looking.engine.journal(record.num))


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
        return found

    return asyncio.run(main())


def _patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    known = {"<verb>": "(cancel|retry|skip|resolve|kill|pause|resume|rollback|deadline)", "<n>": r"\d+"}
    for doc in SPANS:
        pattern = re.sub(r"<\w+>", lambda found: known.get(found[0], r"[\w-]+"), doc.name)
        yield doc.name, re.compile(pattern)


def test_the_page_is_made_from_the_code():
    """docs/reference/spans.md is what ``python -m sagas.model.spans_page`` prints."""
    assert PAGE.read_text() == page()


def test_every_span_has_a_name_of_the_table(emitted: list[SpanRecord]):
    """Whatever is emitted has a name that the table lists, and whatever it lists is emitted."""
    patterns = dict(_patterns())
    seen = {span.name for span in emitted}
    assert [name for name in seen if not any(pattern.fullmatch(name) for pattern in patterns.values())] == []
    assert [doc for doc, pattern in patterns.items() if not any(pattern.fullmatch(name) for name in seen)] == []


def test_every_attribute_is_one_of_the_table(emitted: list[SpanRecord]):
    """Attributes and events are exactly those that the table lists."""
    assert {name for span in emitted for name in span.attributes} == {doc.name for doc in ATTRIBUTES}
    assert {event.name for span in emitted for event in span.events} <= {doc.name for doc in EVENTS}
