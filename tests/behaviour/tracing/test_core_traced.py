"""The core alone is traced and measured as sagas are, in its own words."""

import asyncio
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from durable_core import Context, Engine, durable
from durable_core.layer import spans_of
from durable_core.testing import broken_rules
from durable_core.tracing import exporter as exporting
from durable_core.tracing import journal_tail, measuring
from durable_core.tracing.metrics import METRICS


async def look() -> None:
    with trace.get_tracer("inside").start_as_current_span("look"):
        await asyncio.sleep(0)


@durable("nightly", version=2)
async def nightly(ctx: Context) -> None:
    await ctx.step(look)
    await ctx.sleep(0.001)


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_tail, "POLL_S", 0.01)
    monkeypatch.setattr(exporting, "DEBTS_S", 0.01)
    monkeypatch.setattr(measuring, "GAUGE_S", 0.0)


def traced(**options: Any) -> list[Any]:
    """What an engine exports of one run."""
    memory, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))

    async def main() -> None:
        async with Engine("memory://", [nightly], tracer_provider=provider, **options) as engine:
            await (await engine.start(nightly, id="one")).result()
            record = await engine.runs.find("one")
            want = spans_of(record, await engine.runs.journal(record.num))
        assert not broken_rules(want)
        got = memory.get_finished_spans()
        assert [span.context.span_id for span in got if span.context] == [span.span_id for span in want]

    asyncio.run(main())
    return list(memory.get_finished_spans())


def test_an_engine_exports_its_runs():
    """``Engine(tracer_provider=)`` gets a trace of each run: spans and attributes are called after runs."""
    found = traced()
    names = ["run nightly", "look", "wait sleep armed", "wait sleep", "ended completed", "outcome completed"]
    assert [span.name for span in found] == names
    assert {span.attributes["run.id"] for span in found} == {"one"}
    assert not [name for span in found for name in span.attributes if not name.startswith("run.")]


def test_an_engine_is_measured(monkeypatch: pytest.MonkeyPatch):
    """Every metric of the core is there, called after runs, with units by OpenTelemetry's conventions."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    traced()
    data = reader.get_metrics_data()
    assert data is not None
    ((found,),) = [[scope.metrics for scope in resource.scope_metrics] for resource in data.resource_metrics]
    assert {metric.name: metric.unit for metric in found} == {
        f"run.{metric.name}": metric.unit_of("run") for metric in METRICS
    }
    assert {metric.unit for metric in found} == {"{run}", "{attempt}", "{span}", "s"}
