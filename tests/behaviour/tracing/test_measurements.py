"""Measurements are counted off the journal, after the commit: sagas, attempts and times, by name and never by id."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from durable_core.tracing import exporter as exporting
from durable_core.tracing import journal_tail, measuring
from durable_core.tracing.collector import Collector
from durable_core.tracing.otel import export_directly
from sagas import Retry, Saga, saga
from sagas.model.spans import OUTBOX
from tests.kit import Place, World, begun, end_of, entered, party, until
from tests.otlp import collector
from tools.spans_page import MEASURED

car, hotel = party("car"), party("hotel", retry=Retry(attempts=3, first=0.001))
flight = party("flight")


@saga("trip", version=2)
async def trip(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.sleep(0.001)
    await s.run(hotel, who)


@saga("patient", version=1)
async def patient(s: Saga, who: str) -> None:
    await s.run(car, who)
    await (await s.callback("go", bool)).result()


@saga("undone", version=1)
async def undone(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(flight, who)


class Readings:
    """What has been measured so far."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def points(self) -> Iterator[tuple[str, dict[str, Any], Any]]:
        """Each point: metric, attributes, point."""
        found = self.reader.get_metrics_data()
        for resource in found.resource_metrics if found else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        yield metric.name, dict(point.attributes or {}), point

    def counted(self, name: str, *by: str) -> Counter[tuple[Any, ...]]:
        """A counter, or how often a histogram was recorded, by these attributes."""
        found: Counter[tuple[Any, ...]] = Counter()
        for metric, attributes, point in self.points():
            if metric == name:
                found[tuple(attributes[key] for key in by)] += getattr(point, "count", getattr(point, "value", 0))
        return found


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    """The program's provider of meters; OpenTelemetry lets a real one be set but once in a process."""
    found = Readings()
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: found.provider)
    monkeypatch.setattr(journal_tail, "POLL_S", 0.01)
    monkeypatch.setattr(exporting, "DEBTS_S", 0.01)
    monkeypatch.setattr(measuring, "GAUGE_S", 0.0)
    return found


async def test_sagas_and_attempts_are_counted_by_how_they_went(place: Place, readings: Readings):
    """Starts, ends, attempts and compensations are counted by name and outcome, with their times; none by an id."""
    world = World().plan("hotel", "ok", "broken", "ok", "refused")
    async with place.orchestrator(trip, world=world) as running:
        for number in range(3):
            await end_of(await running.start(trip, "ann", id=f"trip-{number}"), running)
    assert readings.counted("saga.started", "saga.name", "saga.version") == {("trip", 2): 3}
    assert readings.counted("saga.ended", "saga.status") == {("completed",): 2, ("compensated",): 1}
    by = ("saga.step.name", "saga.step.kind", "saga.step.outcome")
    attempts = {
        ("car", "step", "succeeded"): 3,
        ("hotel", "step", "succeeded"): 2,
        ("hotel", "step", "failed"): 1,
        ("hotel", "step", "rejected"): 1,
        ("car", "compensation", "succeeded"): 1,
    }
    assert readings.counted("saga.step.attempts", *by) == attempts
    assert readings.counted("saga.step.duration", *by) == attempts
    assert readings.counted("saga.duration", "saga.status") == {("completed",): 2, ("compensated",): 1}
    assert readings.counted("saga.start.lag", "saga.name") == {("trip",): 3}
    assert readings.counted("saga.timer.lag", "saga.name") == {("trip",): 4}, "three sleeps, one retry"
    assert readings.counted("saga.compensations", "saga.step.name", "saga.step.outcome") == {("car", "succeeded"): 1}
    assert readings.counted("saga.commit.duration")[()] >= 3
    measured = [metric for metric in MEASURED if metric not in OUTBOX]  # there is none here
    known = {f"saga.{metric.name}": {f"saga.{name}" for name in metric.attributes} for metric in measured}
    assert {name for name, *_ in readings.points()} == set(known), "all of them, and no others"
    for name, attributes, _ in readings.points():
        assert attributes.keys() == known[name], "as the page says"
        assert not [value for value in attributes.values() if "trip-" in str(value)]


async def test_a_compensation_that_an_operator_has_tried_again_is_counted_as_one(place: Place, readings: Readings):
    """A given-up compensation that succeeds after `retry` is counted as a compensation, and not as a step."""
    world = World().plan("flight", "refused").plan("undo car", "broken")
    async with place.orchestrator(undone, world=world) as running:
        handle = await running.start(undone, "ann", id="trip")
        await end_of(handle, running)
        world.plan("undo car", "ok")
        await running.retry("trip")
        await end_of(handle, running)
    kinds = readings.counted("saga.step.attempts", "saga.step.name", "saga.step.kind", "saga.step.outcome")
    assert kinds["car", "step", "succeeded"] == 1
    assert kinds["car", "compensation", "succeeded"] == 1
    assert kinds["car", "compensation", "failed"] == world.count("undo car") - 1
    assert readings.counted("saga.compensations", "saga.step.outcome") == {("failed",): 1, ("succeeded",): 1}


async def test_two_workers_count_each_its_own(place: Place, readings: Readings):
    """Where a worker dies and another goes on, each attempt and end is counted once, by whoever wrote it."""
    world = World().plan("hotel", "refused")
    gate = world.gate("hotel")
    async with place.dying(trip, world=world) as first:
        await first.start(trip, "ann", id="trip")
        await entered(gate, first)

        async def counted() -> bool:
            return bool(readings.counted("saga.step.attempts", "saga.name"))

        await until(counted, first)
    gate.opened.set()
    async with place.orchestrator(trip, world=world) as second:
        await end_of(await second.get("trip"), second)
    assert readings.counted("saga.started", "saga.name") == {("trip",): 1}
    assert readings.counted("saga.ended", "saga.status") == {("compensated",): 1}
    assert readings.counted("saga.step.attempts", "saga.step.name", "saga.step.kind") == {
        ("car", "step"): 1,
        ("hotel", "step"): 1,
        ("car", "compensation"): 1,
    }


async def test_what_is_open_is_told_by_how_it_stands(place: Place, readings: Readings):
    """The gauge tells how many sagas of the whole store run, wait, compensate or are stuck, each in one of these."""
    world = World().plan("hotel", "lost").plan("flight", "refused")
    gate = world.gate("undo car")
    async with place.orchestrator(trip, patient, undone, world=world) as running:
        await end_of(await running.start(trip, "ann", id="stuck"), running)
        await begun(await running.start(patient, "ann", id="waiting"), running, "go")

        await running.start(undone, "ann", id="undoing")
        await entered(gate, running)
        want = {"stuck": 1, "waiting": 1, "compensating": 1, "running": 0, "pending": 0}

        async def told() -> bool:
            await asyncio.sleep(0.01)
            counts = readings.counted("saga.active", "saga.status")
            return counts == {(status,): count for status, count in want.items()}

        await until(told, running)
        gate.opened.set()


async def test_measuring_alone_owes_no_spans_and_pays_no_debts(place: Place, readings: Readings):
    """A worker that is only measured exports no span, and leaves those that others owe to whoever exports."""
    async with place.orchestrator(trip, world=World()) as running:
        assert running.engine.tracing is not None
        assert running.engine.tracing.sink is None
        store = running.engine.store
        await store.spans.start("somebody dead")
        await end_of(await running.start(trip, "ann"), running)
        await asyncio.sleep(0.05)  # it has looked for debts several times by then
        assert set(await store.spans.cursors(running.engine.name)) == {"somebody dead"}
    assert readings.counted("saga.ended", "saga.status") == {("completed",): 1}


async def test_the_oldest_that_waits_for_a_worker_is_told(place: Place, readings: Readings):
    """Runs that no worker here may take age the gauge: one that was never begun, and one that has fallen due since."""
    world = World()
    async with place.orchestrator(trip, world=world) as running:
        await end_of(await running.start(trip, "ann"), running)

        async def none_waits() -> bool:
            await asyncio.sleep(0.01)
            return readings.counted("saga.oldest_runnable.age") == {(): 0}

        await until(none_waits, running)
    async with place.orchestrator(patient, world=world, worker=False) as elsewhere:
        await elsewhere.start(patient, "ann", id="unserved")
    async with place.orchestrator(trip, world=world) as running:

        async def one_waits() -> bool:
            await asyncio.sleep(0.01)
            return readings.counted("saga.oldest_runnable.age")[()] > 0.05

        await until(one_waits, running)


async def test_spans_are_counted_by_what_became_of_them(place: Place, readings: Readings):
    """What a collector has taken and what it refuses for good is counted, also what is settled as the worker leaves."""
    with collector() as found:
        found.minds = lambda span: span.name == "car"
        provider = TracerProvider(shutdown_on_exit=False)
        export_directly(provider, Collector(f"{found.url}/v1/traces"))
        async with place.orchestrator(trip, world=World(), tracer_provider=provider) as running:
            await end_of(await running.start(trip, "ann"), running)
        assert readings.counted("saga.spans.dropped") == {(): 1}
        assert readings.counted("saga.spans.sent") == {(): len(found.spans)}


async def test_a_collector_of_spans_that_is_down_holds_up_no_measurement(place: Place, readings: Readings):
    """While no span can be sent, sagas are counted nevertheless, and one that is stuck is told of."""
    with collector() as found:
        found.hold.clear()
        provider = TracerProvider(shutdown_on_exit=False)
        export_directly(provider, Collector(f"{found.url}/v1/traces"))
        world = World().plan("flight", "lost")
        async with place.orchestrator(trip, undone, world=world, tracer_provider=provider) as running:
            await end_of(await running.start(trip, "ann", id="first"), running)

            async def sending() -> bool:
                await asyncio.sleep(0.01)
                return found.requests > 0

            await until(sending, running)
            await end_of(await running.start(undone, "ann", id="stuck"), running)

            async def told() -> bool:
                await asyncio.sleep(0.01)
                stuck = readings.counted("saga.active", "saga.status")[("stuck",)]
                ended = readings.counted("saga.ended", "saga.status")
                return stuck == 1 and ended == {("completed",): 1}

            await until(told, running)
            assert not found.spans
            found.hold.set()


def test_each_metric_has_a_unit_and_bounds_that_fit():
    """By OpenTelemetry's conventions: seconds for times, braces around what is counted, bounds for seconds."""
    for metric in MEASURED:
        unit = metric.unit_of("saga")
        assert unit == "s" or (unit[0], unit[-1]) == ("{", "}"), metric
        assert (metric.bounds_s is not None) == (metric.kind == "histogram"), metric
        assert metric.bounds_s is None or list(metric.bounds_s) == sorted(set(metric.bounds_s))
