"""Spans leave the process after the commit: all of them, whatever dies, and whatever takes them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from durable_core import Engine
from durable_core.layer import JournalEntry, RunTrace, SpanRecord
from durable_core.tracing import delivery, journal_tail
from durable_core.tracing import exporter as exporting
from durable_core.tracing.answers import Accepted
from durable_core.tracing.collector import Collector as OtlpCollector
from durable_core.tracing.otel import Converter, OtelSink, export_directly, export_failures
from sagas import DefinitionError, Orchestrator, Retry, Saga, current, resource, saga, step
from sagas.blocking import Orchestrator as BlockingOrchestrator
from tests.collecting import assert_sound, collecting, debts_paid, expected, id_of
from tests.kit import Place, World, begun, end_of, entered, party
from tests.otlp import collector as collector_of

car, hotel, flight = party("car"), party("hotel", retry=Retry(attempts=2, first=0)), party("flight")


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> list[str]:
    return [await s.run(car, who), await s.run(hotel, who), await s.run(flight, who)]


@saga("patient", version=1)
async def patient(s: Saga, who: str) -> str:
    await s.run(car, who)
    go = await s.callback("go", bool)
    await go.result()
    return await s.run(flight, who)


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long here."""
    monkeypatch.setattr(delivery, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(journal_tail, "POLL_S", 0.01)
    monkeypatch.setattr(exporting, "DEBTS_S", 0.05)


@pytest.mark.parametrize("processor", [BatchSpanProcessor, SimpleSpanProcessor])
async def test_a_provider_gets_every_span_with_our_ids_and_times(place: Place, processor: Any):
    """A provider's processors get exactly the spans of the journal, in order, with our ids and times."""
    memory, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor(memory))
    world = World().plan("hotel", "broken", "ok").plan("flight", "refused")
    async with place.orchestrator(trip, world=world, tracer_provider=provider) as running:
        await end_of(await running.start(trip, "ann", id="trip"), running)
        want = await expected(running, "trip")
    got = memory.get_finished_spans()
    assert [(id_of(span), span.name, span.start_time, span.end_time) for span in got] == [
        (span.span_id, span.name, span.start_ns, span.end_ns) for span in want
    ]
    assert [dict(span.attributes or {}) for span in got] == [dict(span.attributes) for span in want]
    assert all(type(at_ns) is int for span in got for at_ns in (span.start_time, span.end_time))
    assert not any("instance" in name or "process" in name for span in got for name in span.resource.attributes)
    provider.shutdown()


async def test_two_hundred_sagas_at_once_lose_no_span(place: Place):
    """However many sagas run at once, each span of each is exported once."""
    provider, collector = collecting()
    async with place.orchestrator(trip, world=World(), tracer_provider=provider) as running:
        handles = [await running.start(trip, "ann", id=f"trip-{place}") for place in range(200)]
        await asyncio.gather(*(end_of(handle, running) for handle in handles))
        want = [span.span_id for handle in handles for span in await expected(running, handle.id)]
    assert sorted(collector.ids()) == sorted(want)
    assert running.engine.exporter is not None
    assert running.engine.exporter.tally.sent == len(want)


@pytest.mark.parametrize("what", ["car", "hotel", "flight", "undo hotel", "undo car"])
async def test_a_crash_loses_no_span_and_doubles_none(place: Place, what: str):
    """Where its process dies in a step, another goes on in the same trace; together they export exactly its spans."""
    provider, collector = collecting()
    world = World().plan("flight", "refused")
    gate = world.gate(what)
    async with place.dying(trip, world=world, tracer_provider=provider) as first:
        await first.start(trip, "ann", id="trip")
        await entered(gate, first)
    gate.opened.set()
    async with place.orchestrator(trip, world=world, tracer_provider=provider) as second:
        end = await end_of(await second.get("trip"), second)
        want = await expected(second, "trip")
        await debts_paid(second)
    assert end.status == "compensated"
    assert_sound(collector.taken, want)


async def test_a_saga_that_goes_from_worker_to_worker_is_one_trace(place: Place):
    """Each worker exports what it wrote, and of the rest at most what its own spans are under."""
    first, second = collecting(), collecting()
    world = World()
    async with place.orchestrator(patient, world=world, tracer_provider=first[0]) as running:
        handle = await running.start(patient, "ann", id="trip")
        await begun(handle, running, "go")
    async with place.orchestrator(patient, world=world, tracer_provider=second[0]) as running:
        await running.complete_callback(saga_id="trip", name="go", value=True)
        await end_of(await running.get("trip"), running)
        want = await expected(running, "trip")
    assert [span.name for span in first[1].taken] == ["saga patient", "car", "wait go armed"]
    assert [span.name for span in second[1].taken] == [
        "saga patient",
        "wait go",
        "flight",
        "ended completed",
        "outcome completed",
    ]
    assert_sound([*first[1].taken, *second[1].taken], want)
    assert_sound(second[1].taken, [span for span in want if span.span_id in second[1].ids()])


async def test_what_was_begun_untraced_and_is_undone_traced_has_no_loose_end(place: Place):
    """A traced worker takes up what an untraced one began: all that its spans are under or link to is sent before."""
    world = World().plan("hotel", "broken", "ok").plan("flight", "refused")
    gate = world.gate("flight")
    async with place.dying(trip, world=world) as first:
        assert first.engine.exporter is None
        await first.start(trip, "ann", id="trip")
        await entered(gate, first)
    gate.opened.set()
    provider, collector = collecting()
    async with place.orchestrator(trip, world=world, tracer_provider=provider) as second:
        assert (await end_of(await second.get("trip"), second)).status == "compensated"
        want = await expected(second, "trip")
    sent: set[int] = set()
    for span in collector.taken:
        parent = [] if span.parent is None else [span.parent.span_id]
        assert {*parent, *(link.context.span_id for link in span.links)} <= sent, f"{span.name} comes too early"
        assert span.context is not None
        sent.add(span.context.span_id)
    assert sent <= {span.span_id for span in want}
    names = [span.name for span in collector.taken]
    assert names.index("hotel #2") < names.index("undo hotel"), "what it undoes, though another worker did it"
    assert names.index("car") < names.index("undo car")


# -- the context of a step --------------------------------------------------------------------------------------------


class Seen(list[tuple[str, int, int, str | None]]):
    """What steps saw: who, trace, span, traceparent."""


def look(who: str, seen: Seen) -> None:
    """Note the current span, and begin one."""
    context = trace.get_current_span().get_span_context()
    seen.append((who, context.trace_id, context.span_id, current().traceparent))


@step(compensation=None, because="it only looks", retry=Retry(attempts=2, first=0))
async def on_the_loop(*, seen: Seen = resource()) -> None:
    look("loop", seen)
    if current().attempt == 1:
        raise ValueError("once more")


@step(compensation=None, because="it only looks")
def on_a_thread(*, seen: Seen = resource()) -> None:
    look("thread", seen)


@saga("looking", version=1)
async def looking(s: Saga) -> None:
    await s.run(on_the_loop)
    async with s.parallel() as p:
        p.run(on_a_thread)
        p.run(on_a_thread)


async def test_the_attempt_under_way_is_the_current_span(place: Place):
    """A step's code, on the loop or a thread, runs under its attempt's span, whose id is the one exported later."""
    provider, collector = collecting()
    seen = Seen()
    async with place.orchestrator(looking, world=World(), resources=[seen], tracer_provider=provider) as running:
        await end_of(await running.start(looking, id="one"), running)
    found = {id_of(span): span for span in collector.taken}
    assert [who for who, *_ in seen] == ["loop", "loop", "thread", "thread"]
    assert [found[span_id].name for _, _, span_id, _ in seen] == [
        "on_the_loop #1",
        "on_the_loop #2",
        "on_a_thread",
        "on_a_thread",
    ]
    for _, trace_id, span_id, traceparent in seen:
        assert traceparent == f"00-{trace_id:032x}-{span_id:016x}-01"
    assert not trace.get_current_span().get_span_context().is_valid


async def test_without_tracing_a_step_still_knows_its_place(place: Place):
    """``current().traceparent`` is the same with and without tracing, so that a later export joins what it led to."""
    seen = Seen()
    async with place.orchestrator(looking, world=World(), resources=[seen]) as running:
        assert running.engine.exporter is None
        await end_of(await running.start(looking, id="one"), running)
        want = {span.span_id for span in await expected(running, "one")}
    for _, trace_id, _, traceparent in seen:
        assert trace_id == 0
        assert traceparent is not None
        assert int(traceparent.split("-")[2], 16) in want


@pytest.mark.parametrize("mode", ["link", "join"])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_saga_links_to_its_caller_or_joins_it(place: Place, mode: Any, *, elsewhere: bool):
    """The caller's span is linked from the root, or is its parent in one trace, whichever process runs the saga."""
    provider, collector = collecting()
    with provider.get_tracer("test").start_as_current_span("request") as request:
        caller = request.get_span_context()
        async with place.orchestrator(trip, world=World(), tracer_provider=provider, worker=not elsewhere) as running:
            handle = await running.start(trip, "ann", id="one", trace=mode)
            if not elsewhere:
                await end_of(handle, running)
    if elsewhere:
        async with place.orchestrator(trip, world=World(), tracer_provider=provider) as running:
            await end_of(await running.get("one"), running)
    root, *others = collector.taken
    assert root.name == "saga trip"
    assert root.context is not None
    if mode == "join":
        assert root.context.trace_id == caller.trace_id
        assert root.parent is not None
        assert (root.parent.span_id, root.parent.is_remote) == (caller.span_id, True)
        assert not root.links
    else:
        assert root.context.trace_id != caller.trace_id
        assert root.parent is None
        assert [link.context.span_id for link in root.links] == [caller.span_id]
    assert {span.context.trace_id for span in others if span.context} == {root.context.trace_id}


# -- sampling ---------------------------------------------------------------------------------------------------------


async def test_a_saga_that_is_not_sampled_is_not_exported_by_anybody(place: Place):
    """Sampling is decided at the start and stored: no later worker exports, and steps' own spans are not sampled."""
    off, nothing = collecting(sampler=ALWAYS_OFF)
    on, collector = collecting()
    seen, world = Seen(), World()
    async with place.orchestrator(
        looking, trip, world=world, resources=[seen], tracer_provider=off, worker=False
    ) as running:
        await running.start(looking, id="one")
    async with place.orchestrator(looking, trip, world=world, resources=[seen], tracer_provider=on) as running:
        await end_of(await running.get("one"), running)
        await end_of(await running.start(trip, "ann", id="two"), running)
        want = await expected(running, "two")
    assert not nothing.taken
    assert_sound(collector.taken, want)
    assert {traceparent[-2:] for *_, traceparent in seen if traceparent} == {"00"}


@pytest.mark.parametrize(("does", "exported"), [("ok", False), ("refused", True), ("lost", True)])
async def test_a_saga_that_fails_can_be_exported_in_full(place: Place, does: str, *, exported: bool):
    """What was not sampled and is undone, or stuck, is exported whole on request; what ends well is not."""
    provider, collector = collecting(sampler=ALWAYS_OFF)
    export_failures(provider)
    async with place.orchestrator(trip, world=World().plan("flight", does), tracer_provider=provider) as running:
        await end_of(await running.start(trip, "ann", id="one"), running)
        want = await expected(running, "one")
    if exported:
        assert_sound(collector.taken, want)
    else:
        assert not collector.taken


def test_a_caller_without_an_event_loop_is_linked_too(tmp_path: Path):
    """A saga that is started by a blocking program links to the span that is current in the caller's thread."""
    provider, collector = collecting()
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    with (
        BlockingOrchestrator(url, sagas=[trip], resources=[World()], tracer_provider=provider) as running,
        provider.get_tracer("test").start_as_current_span("request") as request,
    ):
        running.start(trip, "ann").result()
    (link,) = collector.taken[0].links
    assert link.context.span_id == request.get_span_context().span_id


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_time_that_is_no_whole_number_is_refused():
    """One float would make an exporter drop its whole batch: such a span is refused before it gets there."""
    good = SpanRecord("x", 1, 2, None, 3, 4, {})
    convert = Converter(TracerProvider(shutdown_on_exit=False).resource, "test")
    assert convert(good).start_time == 3
    for bad in (good._replace(start_ns=3.0), good._replace(end_ns=4.5)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="whole nanoseconds"):
            convert(bad)


def test_a_span_that_cannot_be_written_keeps_no_other_from_it(caplog: pytest.LogCaptureFixture):
    """One span that cannot be written is told in the log and left out; the rest of its batch is sent, once."""
    good = SpanRecord("good", 1, 2, None, 3, 4, {})
    with collector_of() as found:
        provider = TracerProvider(shutdown_on_exit=False)
        export_directly(provider, OtlpCollector(f"{found.url}/v1/traces"))
        bad = [good._replace(name="float", start_ns=3.5), good._replace(name="early", start_ns=-1)]  # type: ignore[arg-type]
        assert (
            OtelSink(provider, "sagas", "saga").send([good, *bad, good._replace(name="also", span_id=5)]) == Accepted()
        )
        assert [span.name for span in found.spans] == ["good", "also"]
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["float", "early"]


async def test_a_journal_that_cannot_be_told_keeps_no_other_from_it(place: Place, monkeypatch: pytest.MonkeyPatch):
    """A run whose spans cannot be made is left out and counted; other sagas' spans arrive, whole."""
    tell = RunTrace.feed

    def feed(trace: RunTrace, entry: JournalEntry) -> list[SpanRecord]:
        if entry.key == "hotel" and trace.root().attributes["saga.id"] == "bad":
            raise ValueError("what is this?")
        return tell(trace, entry)

    monkeypatch.setattr(RunTrace, "feed", feed)
    monkeypatch.setattr("tests.traces.check_trace", lambda *_, **__: [])
    provider, collector = collecting()
    async with place.orchestrator(trip, world=World(), tracer_provider=provider) as running:
        for name in ("bad", "good"):
            await end_of(await running.start(trip, "ann", id=name), running)
    assert running.engine.exporter is not None
    assert running.engine.exporter.tally.broken == 1
    names = [(span.attributes or {})["saga.id"] for span in collector.taken]
    assert names.count("bad") == 2
    assert names.count("good") == 6


def test_what_is_no_provider_is_refused():
    """A tracer_provider must be one; that of the API alone, which drops everything, switches tracing off."""
    with pytest.raises(DefinitionError, match="tracer_provider='jaeger'"):
        Orchestrator("memory://", tracer_provider="jaeger")
    with pytest.raises(DefinitionError, match="tracer_provider=7"):
        Engine("memory://", tracer_provider=7)
    assert Orchestrator("memory://", tracer_provider=trace.NoOpTracerProvider()).engine.tracing is None
    assert Engine("memory://", tracer_provider=trace.NoOpTracerProvider()).runs.tracing is None
