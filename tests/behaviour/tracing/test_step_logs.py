"""Log records lead from a step to its span, and are not repeated by a replay."""

import json
import logging
from collections.abc import Iterator

import pytest

from sagas import Retry, Saga, current, saga, step
from sagas.cli.worker import JsonLines
from sagas.tracing import StepLogs
from tests.kit import Place, World, end_of, entered, party
from tests.traces import spans

shop = logging.getLogger("shop")
car = party("car")


class Kept(logging.Handler):
    """Keeps records, as a handler sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.addFilter(StepLogs())
        self.setFormatter(logging.Formatter("%(message)s%(saga)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """All records of this test, of level INFO and above."""
    handler, root = Kept(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


@step(compensation=None, because="it only logs", retry=Retry(attempts=2, first=0))
async def on_the_loop() -> None:
    shop.info("on the loop")
    if current().attempt == 1:
        raise ValueError("once more")


@step(compensation=None, because="it only logs")
def on_a_thread() -> None:
    shop.info("on a thread, %d %%", 100)


@saga("logging", version=1)
async def logs(s: Saga) -> None:
    s.log.info("body begins")
    await s.run(on_the_loop)
    await s.run(on_a_thread)
    s.log.info("body ends")


async def test_a_record_of_a_step_names_its_span(place: Place, kept: Kept):
    """Saga, step, attempt, trace and span are on each record of a step, on the loop and on a thread; else empty."""
    async with place.orchestrator(logs, world=World()) as running:
        shop.info("outside")
        await end_of(await running.start(logs, id="one"), running)
        (record,) = await running.engine.store.runs.find(["one"])
        found = {span.name: span for span in spans(record, await running.engine.journal(record.num))}
    told = [
        (record.getMessage(), record.saga_id, record.saga_step, record.saga_attempt, record.span_id)
        for record in kept.records
        if record.name == "shop"
    ]
    assert told == [
        ("outside", "", "", "", ""),
        ("on the loop", "one", "on_the_loop", 1, f"{found['on_the_loop #1'].span_id:016x}"),
        ("on the loop", "one", "on_the_loop", 2, f"{found['on_the_loop #2'].span_id:016x}"),
        ("on a thread, 100 %", "one", "on_a_thread", 1, f"{found['on_a_thread'].span_id:016x}"),
    ]
    root = found["saga logging"]
    assert {record.trace_id for record in kept.records if record.saga_step} == {f"{root.trace_id:032x}"}
    lines = [kept.format(record) for record in kept.records if record.name == "shop"]
    assert lines[0] == "outside"
    assert lines[1].startswith("on the loop [saga_id=one, saga_step=on_the_loop, saga_attempt=1, trace_id=")
    objects = [json.loads(JsonLines().format(record)) for record in kept.records if record.name == "shop"]
    assert objects[0].keys() == {"at", "level", "logger", "message"}
    assert [(line["saga_id"], line["saga_attempt"], line["span_id"]) for line in objects[1:]] == [
        (saga_id, attempt, span_id) for _, saga_id, _, attempt, span_id in told[1:]
    ]


@saga("talking", version=1)
async def talking(s: Saga) -> None:
    s.log.info("body begins")
    await s.run(car, "ann")
    s.log.info("body ends")


async def test_a_replay_is_silent(place: Place, kept: Kept):
    """What a body has said before its process died is not said again; what follows is, with its saga."""
    world = World()
    gate = world.gate("car")
    async with place.dying(talking, world=world) as first:
        await first.start(talking, id="one")
        await entered(gate, first)
    gate.opened.set()
    async with place.orchestrator(talking, world=world) as second:
        await end_of(await second.get("one"), second)
    said = [(record.getMessage(), record.saga_id) for record in kept.records if record.name.endswith("talking")]
    assert said == [("body begins", "one"), ("body ends", "one")]
