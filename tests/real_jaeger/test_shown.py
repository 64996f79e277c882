"""Jaeger itself shows every kind of saga whole, at the right times, and minds nothing about it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from durable_core.layer import SpanRecord, otlp_document
from durable_core.tracing.collector import Collector
from durable_core.tracing.otel import export_directly
from sagas import Orchestrator, tracing
from tests.crash.test_traced_processes import expected, killed_and_ended
from tests.kit import World, end_of, orchestrator
from tests.real_jaeger import kinds
from tests.real_jaeger.relay import Relay, relay
from tests.real_jaeger.server import Jaeger, Span, jaeger
from tests.real_jaeger.verbs import SKEWS_S, Told, in_lines, places, roots, warned

pytestmark = pytest.mark.timeout(300)


MS = 1_000_000
SPOILT = [
    SpanRecord("whole", 7, 1, None, MS, MS + 1_000, {}, (), (), failed=False),
    SpanRecord("moment", 7, 2, 1, 3 * MS, 3 * MS + 1_000, {}, (), (), failed=False),
    SpanRecord("nothing", 7, 3, 1, MS, MS, {}, (), (), failed=False),
    SpanRecord("orphan", 7, 4, 9, MS, 2 * MS, {}, (), (), failed=False),
]
"""What Jaeger does mind: a child as short as its parent and after it, one that lasts no time, one without a parent."""


@pytest.mark.parametrize("skew_s", SKEWS_S)
def test_what_jaeger_does_mind_is_seen_here(program: Path, skew_s: int):
    """Spans that are spoilt have the warnings that the tests below look for, by both versions of the API."""
    with jaeger(program, skew_s=skew_s) as fresh:
        document = otlp_document(SPOILT, service="spoilt", scope="tests")
        fresh.take(json.dumps(document).encode(), {"Content-Type": "application/json"}).raise_for_status()
        spans = {span.name: span for span in fresh.trace(f"{7:032x}")}
        assert [name for name, span in spans.items() if not span.warnings] == ["whole"]
        assert spans["moment"].start_us == (1_000 if skew_s else 3_000), "moved, where it may be"
        assert sorted(roots(spans.values())) == ["orphan", "whole"]
        told = "\n".join(fresh.warnings_of_v3(f"{7:032x}"))
        assert all(f"{name}: " in told for name in ("moment", "nothing", "orphan"))


def test_no_span_has_a_warning(shown: Jaeger, sent: dict[str, Told]):
    """Jaeger minds no span of any kind of saga: not its times, not its parent, not its id."""
    found = [warning for id, told in sent.items() for warning in warned(id, shown.trace(told.trace_id))]
    assert not found, in_lines(found)


def test_every_span_is_shown_where_the_journal_has_it(shown: Jaeger, sent: dict[str, Told]):
    """Each trace has exactly its journal's spans, below the parents and at the times that the journal says."""
    moved = {id for id, told in sent.items() if places(shown.trace(told.trace_id)) != told.places()}
    assert not moved, f"lost, added or moved spans in {sorted(moved)}"


def test_every_parent_is_in_the_trace(shown: Jaeger, sent: dict[str, Told]):
    """A trace has one root, and every other span's parent."""
    for id, told in sent.items():
        assert roots(shown.trace(told.trace_id)) == [f"saga {told.info.saga}"], id


@pytest.mark.parametrize("skew_s", SKEWS_S)
def test_the_newer_api_minds_nothing_either(program: Path, exporting: Relay, sent: dict[str, Told], skew_s: int):
    """The third version of the query API, whose rules are written anew, has no warning either."""
    with jaeger(program, skew_s=skew_s) as fresh:  # of its own: what it adjusts it adjusts in its memory, for all
        exporting.repeat(fresh)
        found = [f"{id}: {warning}" for id, told in sent.items() for warning in fresh.warnings_of_v3(told.trace_id)]
    assert not found, in_lines(found)


@pytest.mark.parametrize("skew_s", SKEWS_S)
def test_what_is_exported_has_no_warning(program: Path, sent: dict[str, Told], skew_s: int):
    """The document of ``sagas trace export`` is a whole trace without a warning, whatever the setting."""
    with jaeger(program, skew_s=skew_s) as fresh:
        for told in sent.values():
            fresh.take(json.dumps(told.exported).encode(), {"Content-Type": "application/json"}).raise_for_status()
        shown = {id: fresh.trace(told.trace_id) for id, told in sent.items()}
    found = [warning for id, spans in shown.items() for warning in warned(id, spans)]
    assert not found, in_lines(found)
    for id, told in sent.items():
        exported = told.exported["resourceSpans"][0]["scopeSpans"][0]["spans"]
        assert {span.id for span in shown[id]} == {span["spanId"] for span in exported}, id
        assert roots(shown[id]) == [f"saga {told.info.saga}"], id


def test_the_document_in_jaegers_own_form_is_what_jaeger_says(program: Path, sent: dict[str, Told]):
    """The document of ``sagas trace export`` tells each span as Jaeger itself tells it, field by field.

    But for the duration, which Jaeger rounds by itself: a child may then end a microsecond after its parent.
    """
    with jaeger(program) as fresh:
        for told in sent.values():
            fresh.take(json.dumps(told.exported).encode(), {"Content-Type": "application/json"}).raise_for_status()
        for id, told in sent.items():
            (ours,) = told.as_jaeger["data"]
            theirs = {span["spanID"]: span for span in fresh.raw(told.trace_id)["spans"]}
            assert theirs.keys() == {span["spanID"] for span in ours["spans"]}, id
            for span in ours["spans"]:
                other = theirs[span["spanID"]]
                assert span["duration"] - other["duration"] in (0, 1), id
                assert by_key(span) == by_key(other), id


def by_key(span: dict[str, Any]) -> dict[str, Any]:
    """A span in Jaeger's form, without the order that its lists happen to have."""
    logs = [{**log, "fields": {field["key"]: field for field in log["fields"]}} for log in span["logs"]]
    left_out = {"duration": None, "processID": None}
    return {**span, "tags": {tag["key"]: tag for tag in span["tags"]}, "logs": logs, **left_out}


def in_order(spans: list[Span]) -> list[Span]:
    """Jaeger tells them in no order."""
    return sorted(spans, key=lambda span: span.id)


def test_sending_it_all_again_changes_nothing(both: dict[int, Jaeger], exporting: Relay, sent: dict[str, Told]):
    """Every request is repeated: Jaeger shows what it has shown before."""
    ids = {(skew_s, id): told.trace_id for skew_s in both for id, told in sent.items()}
    before = {key: in_order(both[key[0]].trace(trace_id)) for key, trace_id in ids.items()}
    assert all(before.values())
    exporting.repeat()
    other = [key for key, trace_id in ids.items() if in_order(both[key[0]].trace(trace_id)) != before[key]]
    assert not other, f"sent again, these look otherwise: {other}"


def test_a_saga_in_its_callers_trace_is_whole_there(both: dict[int, Jaeger], exporting: Relay):
    """With ``trace="join"`` the caller's span is the root, its saga is under it, and Jaeger minds neither."""
    provider = TracerProvider(resource=Resource({"service.name": "caller"}), shutdown_on_exit=False)
    export_directly(provider, Collector(f"{exporting.url}/v1/traces"))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{exporting.url}/v1/traces")))

    async def main() -> int:
        world = World().plan("flight", "refused")
        async with orchestrator("memory://", kinds.trip, resources=[world], tracer_provider=provider) as running:
            with provider.get_tracer("caller").start_as_current_span("POST /trips") as span:
                handle = await running.start(kinds.trip, "ann", id="joined", trace="join")
            await end_of(handle, running)
            return span.get_span_context().trace_id

    trace_id = f"{asyncio.run(main()):032x}"
    for one in both.values():
        spans = one.trace(trace_id)
        assert not warned("joined", spans), in_lines(warned("joined", spans))
        assert roots(spans) == ["POST /trips"]
        assert "outcome compensated" in {span.name for span in spans}


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_a_whole_trace(both: dict[int, Jaeger], tmp_path: Path):
    """After kill -9 amid a step Jaeger has exactly the journal's spans, and the attempt that was cut; it minds none."""
    store = f"sqlite:///{tmp_path / 'sagas.db'}"
    first, *_ = both.values()

    def arrived(want: list[SpanRecord]) -> bool:
        there = {span.id for span in first.trace(f"{want[0].trace_id:032x}")}
        return {f"{span.span_id:016x}" for span in want} <= there

    async def again() -> tuple[int, int]:
        async with Orchestrator(store, worker=False) as looking:
            return await tracing.send(looking, "one", endpoint=exporting.url)

    with relay(*both.values()) as exporting:
        asyncio.run(killed_and_ended(store, tmp_path, exporting.url, arrived))
        want = asyncio.run(expected(store))
        trace_id = f"{want[0].trace_id:032x}"
        before = [in_order(one.trace(trace_id)) for one in both.values()]
        assert asyncio.run(again()) == (len(want), 0)
    after = [in_order(one.trace(trace_id)) for one in both.values()]
    for spans in after:
        assert not warned("killed", spans), in_lines(warned("killed", spans))
        ours = {span.id for span in spans if span.scope == "sagas"}
        assert ours == {f"{span.span_id:016x}" for span in want}
        assert roots(spans) == ["saga traced"]
        assert [span.tags["saga.step.outcome"] for span in spans if span.name.startswith("second #1")] == ["cut"]
    assert after == before, "sent again by `sagas trace send`, it looks otherwise"
