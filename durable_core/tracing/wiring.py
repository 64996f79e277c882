"""What an engine is given so that its runs are traced; nothing of OpenTelemetry is loaded unless spans are wanted."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from durable_core.ports import MeasureSink, TraceContext
from durable_core.tracing.enabled import spans_wanted
from durable_core.tracing.metrics import Measure
from durable_core.tracing.vocabulary import CORE, Vocabulary

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from durable_core.tracing.answers import Posting, SpanSink
    from durable_core.tracing.delivery import Tally
    from durable_core.tracing.span import SpanRecord


@attrs.frozen(eq=False)
class Tracing:
    """Where spans go, in which words, and what the code of steps sees of it."""

    sink: "SpanSink | None"
    """None where only measurements are wanted."""
    context: TraceContext | None
    vocabulary: Vocabulary = CORE
    failures: bool = False
    """Whether a run that was not sampled is exported in full once it fails."""
    meters: MeasureSink | None = None
    """Where measurements go."""

    def commit_timer(self) -> Callable[[float], None] | None:
        """What is called with the seconds that each commit has taken; None if nothing is measured."""
        meters = self.meters
        return None if meters is None else lambda took_s: meters.record(Measure("commit.duration", took_s, {}))


def tracing_with(tracer_provider: object = None, *, vocabulary: Vocabulary = CORE) -> Tracing | None:
    """Tracing by this provider of OpenTelemetry's SDK; by default the global one, where the program has set one.

    Measurements go to the global provider of meters, where there is one. None where there is none of them: then nothing
    is traced or measured, and nothing is loaded.

    Raises:
        TypeError: what was given is no provider.
    """
    if not spans_wanted(tracer_provider):
        return None  # a program that has set a global provider has loaded the library
    from durable_core.tracing import otel  # noqa: PLC0415 - 100 ms that only those pay who want spans

    provider = otel.provider_of(tracer_provider)
    meters = _meters(vocabulary)
    if provider is None:
        return None if meters is None else Tracing(None, None, vocabulary, meters=meters)
    failures = otel.exports_failures(provider)
    sink = otel.OtelSink(provider, vocabulary.scope, vocabulary.prefix)
    return Tracing(sink, otel.OtelContext(provider), vocabulary, failures, meters)


def _meters(vocabulary: Vocabulary) -> MeasureSink | None:
    """The instruments, where the program has set a provider of meters of the SDK."""
    if "opentelemetry.sdk.metrics" not in sys.modules:
        return None
    from durable_core.tracing import meters  # noqa: PLC0415 - as above

    return meters.meters_in_use(vocabulary)


def export_directly(provider: "TracerProvider", exporter: "SpanExporter | Posting") -> None:
    """Where ``provider`` is in use, have the spans of runs go to ``exporter``, past the provider's processors.

    An exporter says what was taken: what was not stays in the journal and is offered again. A processor's queue drops.
    """
    from durable_core.tracing import otel  # noqa: PLC0415 - as above

    otel.export_directly(provider, exporter)


def export_failures(provider: "TracerProvider") -> None:
    """Where ``provider`` is in use, export a run in full that was not sampled, once it fails or is stuck."""
    from durable_core.tracing import otel  # noqa: PLC0415 - as above

    otel.export_failures(provider)


def collector_at(url: str | None = None) -> "Posting":
    """Where OTLP over HTTP is sent, for ``export_directly``; default as the environment says.

    Raises:
        ImportError: the extra ``otlp`` is not installed.
        ValueError: the environment's timeout is no number.
    """
    from durable_core.tracing.collector import Collector  # noqa: PLC0415 - as above

    return Collector(url)


async def bring_spans(
    spans: "Sequence[SpanRecord]", provider: "TracerProvider", vocabulary: Vocabulary = CORE
) -> "Tally":
    """Send spans as a worker with this provider does, outside of any worker; returns once each is settled.

    Waits for a collector that is down for as long as it is: bound it with ``asyncio.timeout``.
    """
    from durable_core.tracing import delivery, export_thread, otel  # noqa: PLC0415 - only for those who want spans

    tally, by = delivery.Tally(), export_thread.ExportThread("spans")
    try:
        sink = otel.OtelSink(provider, vocabulary.scope, vocabulary.prefix)
        await delivery.Delivery(sink, by, tally).bring(spans)
    finally:
        by.stop()
    return tally
