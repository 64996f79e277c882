"""A collector inside the process, and what must be in it."""

import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from durable_core.layer import SpanRecord
from durable_core.tracing.otel import export_directly
from sagas import Orchestrator
from tests.kit import until
from tests.traces import spans


class Collector(SpanExporter):
    """Keeps what it is given, unless it was told to refuse or to hang."""

    def __init__(self) -> None:
        self.taken: list[ReadableSpan] = []
        self.refusals = 0
        """How many batches it refuses from now on."""
        self.offered = 0
        self.hanging: threading.Event | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.offered += 1
        if self.hanging is not None:
            self.hanging.wait()
        if self.refusals:
            self.refusals -= 1
            return SpanExportResult.FAILURE
        self.taken += spans
        return SpanExportResult.SUCCESS

    def ids(self) -> list[int]:
        """What it has taken, in order."""
        return [id_of(span) for span in self.taken]


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def collecting(**options: Any) -> tuple[TracerProvider, Collector]:
    """A provider whose spans of sagas go to a collector, which says what it takes."""
    provider, collector = TracerProvider(shutdown_on_exit=False, **options), Collector()
    export_directly(provider, collector)
    return provider, collector


async def expected(running: Orchestrator, id: str) -> list[SpanRecord]:
    """The spans that the saga's journal makes."""
    (record,) = await running.engine.store.runs.find([id])
    return spans(record, await running.engine.journal(record.num))


def assert_sound(taken: Sequence[ReadableSpan], want: Sequence[SpanRecord]) -> None:
    """Exactly the wanted spans, the same whenever repeated, each after its parent, in one trace."""
    told: dict[int, str] = {}
    for span in taken:
        assert span.context is not None
        assert span.parent is None or span.parent.span_id in told, f"{span.name} comes before its parent"
        text = span.to_json()
        assert told.setdefault(span.context.span_id, text) == text, f"{span.name} differs when it is repeated"
        assert span.context.trace_id == want[0].trace_id
    assert set(told) == {span.span_id for span in want}


async def debts_paid(running: Orchestrator) -> None:
    """Wait until nobody but this process owes spans."""

    async def paid() -> bool:
        return set(await running.engine.store.spans.cursors(running.engine.name)) == {running.engine.name}

    await until(paid, running)
